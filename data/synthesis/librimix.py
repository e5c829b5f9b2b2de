"""A synthetic corpus in the layout of LibriMix (Cosentino et al., 2020): speakers at once, and noise.

Written is the ``min`` mode, in which a mixture ends with its shortest utterance, of ``train-100``, ``dev``
and ``test``, with all mixtures and sources and the tables of LibriMix. As there, each source's level is drawn
from -33 to -25 dB and the noise's from -38 to -30 dB, here as RMS over the mixture in dB of full scale
instead of loudness in LUFS. Sources and noise are rounded to 16 bits first, so that the mixtures are their
exact sums. Who speaks, and who is held out: `encore.data.synthesis.librimix_voices`.

Source: J. Cosentino et al., "LibriMix: An Open-Source Dataset for Generalizable Speech Separation", 2020.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from encore.data.synthesis import FloatArray, flite
from encore.data.synthesis.corpus_files import (
    check_choices,
    check_tools,
    deal_noise,
    generator,
    pcm,
    prepare_folder,
    run_jobs,
    write_listing,
    write_pcm,
)
from encore.data.synthesis.librimix_voices import (
    SPEAKERS,
    AnyVoice,
    crowd_variants,
    draw_speakers,
    espeak_voices,
    flite_voices,
)
from encore.data.synthesis.noise import draw_noise
from encore.data.synthesis.speech import draw_utterance, vary_prosody

MIXTURES = ("mix_clean", "mix_both", "mix_single")
MANIFEST = "manifest.jsonl"
SAMPLE_RATES = (8_000, 16_000)
SOURCE_LEVEL_DB = (-33.0, -25.0)
NOISE_LEVEL_DB = (-38.0, -30.0)
LARGEST_PEAK = 0.9
_LONGER_SECONDS = 2.0  # what an utterance may last beyond the shortest allowed
# branches of the seed sequence, after that of the voices
_NOISE_ORDER, _FILES = 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LibriMix:
    """What makes a corpus; the same values give the same bytes.

    Attributes:
        out: Folder to write ``Libri<speakers>Mix`` into.
        train: Mixtures in ``train-100``; the first ones of a larger corpus are those of a smaller one.
        valid: Mixtures in ``dev``.
        test: Mixtures in ``test``.
        seconds: Shortest utterance, and so mixture; the longest utterance lasts 2 s more.
        sample_rate: 8000 or 16000 Hz.
        speakers: In a mixture, 2 or 3 (flite: 2).
        seed: Of everything.
        synthesiser: Of the speakers, ``"espeak"`` or ``"flite"``.
    """

    out: Path
    train: int = 400
    valid: int = 40
    test: int = 60
    seconds: float = 3.0
    sample_rate: int = 8_000
    speakers: int = 2
    seed: int = 0
    synthesiser: str = "espeak"

    def __post_init__(self) -> None:
        check_choices(
            sample_rate=self.sample_rate, rates=SAMPLE_RATES, seed=self.seed, synthesiser=self.synthesiser
        )
        for name in ("train", "valid", "test"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.seconds <= 0:
            raise ValueError(f"seconds must be positive, not {self.seconds}")
        if self.speakers not in (2, 3):
            raise ValueError(f"speakers must be 2 or 3, not {self.speakers}")
        if self.synthesiser == "flite" and self.speakers != 2:
            raise ValueError(
                f"speakers must be 2 with synthesiser flite, not {self.speakers}: it has two voices a split, "
                "only espeak more"
            )

    @property
    def sizes(self) -> dict[str, int]:
        """Mixtures of each subset, in the order they are written."""
        return {"train-100": self.train, "dev": self.valid, "test": self.test}

    @property
    def base(self) -> str:
        """Where the subsets lie, below ``out``."""
        return f"Libri{self.speakers}Mix/wav{self.sample_rate // 1000}k/min"


def write_corpus(corpus: LibriMix, *, workers: int = 2, overwrite: bool = False) -> None:
    """Write the corpus, its tables, a README, and a manifest of one JSON object a mixture.

    Args:
        corpus: What to write.
        workers: Processes; the bytes written do not depend on it.
        overwrite: Whether to delete a corpus of this layout that lies in the folder.

    Raises:
        ValueError: If the folder is not empty and ``overwrite`` is not given, or ``workers`` is below 1.
        SynthesisError: If espeak-ng (which speaks the babble of any corpus) or flite is missing or fails.
    """
    check_tools(corpus.synthesiser, workers)
    inside = [f"{subset}/{kind}" for subset in corpus.sizes for kind in (*MIXTURES, *_parts(corpus))]
    folders = [f"{corpus.base}/{folder}" for folder in (*inside, "metadata")]
    prepare_folder(corpus.out, folders, overwrite=overwrite, listing=MANIFEST)
    jobs = [(corpus, subset, index) for subset, size in corpus.sizes.items() for index in range(size)]
    entries = list(run_jobs(_write_mixture, jobs, workers=workers, name="librimix"))
    _write_tables(corpus, entries)
    (corpus.out / "README.md").write_text(_readme(corpus), encoding="utf-8")
    write_listing(corpus.out / MANIFEST, entries)


def make_parts(corpus: LibriMix, subset: str, index: int) -> tuple[dict[str, FloatArray], dict[str, object]]:
    """Make what one mixture is the sum of.

    Args:
        corpus: The corpus.
        subset: ``"train-100"``, ``"dev"`` or ``"test"``.
        index: Number of the mixture within its subset.

    Returns:
        ``s1``, ``s2`` .. and ``noise``, ``(time,)`` each, full scale 1, and the manifest's entry.
    """
    split = list(SPEAKERS).index(subset)
    rng = generator(corpus.seed, _FILES, split, index)
    voices = _voices(corpus)
    chosen = draw_speakers(SPEAKERS[subset], voices, corpus.speakers, rng)
    moods, texts, utterances = zip(*(_speak(corpus, voices[speaker], rng) for speaker in chosen), strict=True)
    frames = min(utterance.size for utterance in utterances)
    kind = deal_noise(corpus.seed, index, _NOISE_ORDER, split)
    noise_seed = int(rng.integers(2**63))
    crowd = crowd_variants(corpus.seed, chosen)
    noise = draw_noise(kind, frames, corpus.sample_rate, np.random.default_rng(noise_seed), crowd)
    levels = [float(level) for level in rng.uniform(*SOURCE_LEVEL_DB, corpus.speakers)]
    levels.append(float(rng.uniform(*NOISE_LEVEL_DB)))
    signals = [
        _at_level(signal[:frames], level) for signal, level in zip((*utterances, noise), levels, strict=True)
    ]
    parts = dict(zip(_parts(corpus), signals, strict=True))
    peak = max(float(np.abs(signal).max()) for signal in (*signals, *_mixtures(parts).values()))
    gain = min(1.0, LARGEST_PEAK / peak)
    entry: dict[str, object] = {
        "mixture_ID": "_".join(f"{name}-{index}-{place:04d}" for place, name in enumerate(chosen, start=1)),
        "subset": subset,
        "speakers": list(chosen),
        "voices": [asdict(mood) for mood in moods],
        "texts": list(texts),
        "noise": kind,
        "noise_seed": noise_seed,
        "levels_db": [level + 20 * float(np.log10(gain)) for level in levels],
        "frames": frames,
        "sample_rate": corpus.sample_rate,
        "seed": corpus.seed,
        "synthesiser": corpus.synthesiser,
    }
    return {name: gain * signal for name, signal in parts.items()}, entry


def _voices(corpus: LibriMix) -> Mapping[str, AnyVoice]:
    return flite_voices(corpus.seed) if corpus.synthesiser == "flite" else espeak_voices(corpus.seed)


def _speak(corpus: LibriMix, voice: AnyVoice, rng: np.random.Generator) -> tuple[AnyVoice, str, FloatArray]:
    """Draw what a speaker says and in which mood: the voice as varied, the text and ``(time,)``."""
    limits = {"shortest_seconds": corpus.seconds, "longest_seconds": corpus.seconds + _LONGER_SECONDS}
    if isinstance(voice, flite.FliteVoice):
        mood = flite.vary_prosody(voice, rng)
        text, speech = flite.draw_utterance(mood, rng, **limits)
        return mood, text, resample_poly(speech, corpus.sample_rate, flite.SAMPLE_RATE)
    varied = vary_prosody(voice, rng)
    return varied, *draw_utterance(varied, corpus.sample_rate, rng, **limits)


def _at_level(signal: FloatArray, level_db: float) -> FloatArray:
    return signal * 10 ** (level_db / 20) / max(float(np.sqrt((signal**2).mean())), 1e-9)


def _parts(corpus: LibriMix) -> tuple[str, ...]:
    return (*(f"s{number}" for number in range(1, corpus.speakers + 1)), "noise")


def _mixtures(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sum floats or 16-bit samples, which the peak of the parts keeps in range, to the mixtures."""
    clean = sum(part for name, part in parts.items() if name != "noise")
    return {
        "mix_clean": np.asarray(clean),
        "mix_both": np.asarray(clean + parts["noise"]),
        "mix_single": parts["s1"] + parts["noise"],
    }


def _write_mixture(job: tuple[LibriMix, str, int]) -> dict[str, object]:
    corpus, subset, index = job
    parts, entry = make_parts(corpus, subset, index)
    rounded = {name: pcm(part) for name, part in parts.items()}
    for kind, samples in {**rounded, **_mixtures(rounded)}.items():
        write_pcm(corpus.out / _path(corpus, entry, kind), samples, corpus.sample_rate)
    return entry


def _path(corpus: LibriMix, entry: Mapping[str, object], kind: str) -> str:
    return f"{corpus.base}/{entry['subset']}/{kind}/{entry['mixture_ID']}.wav"


def _write_tables(corpus: LibriMix, entries: Sequence[Mapping[str, object]]) -> None:
    """Write LibriMix's tables, with paths relative to ``out``, where LibriMix has absolute ones."""
    for subset in corpus.sizes:
        for mixture in MIXTURES:
            kinds = {
                f"source_{part[1:]}_path" if part != "noise" else "noise_path": part
                for part in _parts(corpus)
                if _holds(mixture, part)
            }
            path = corpus.out / corpus.base / "metadata" / f"mixture_{subset}_{mixture}.csv"
            with path.open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(["mixture_ID", "mixture_path", *kinds, "length"])
                for entry in entries:
                    if entry["subset"] == subset:
                        paths = [_path(corpus, entry, kind) for kind in (mixture, *kinds.values())]
                        table.writerow([entry["mixture_ID"], *paths, entry["frames"]])


def _holds(mixture: str, part: str) -> bool:
    return mixture != "mix_clean" if part == "noise" else mixture != "mix_single" or part == "s1"


def _readme(corpus: LibriMix) -> str:
    sources, noise = (f"{low:g} to {high:g} dB" for low, high in (SOURCE_LEVEL_DB, NOISE_LEVEL_DB))
    options = " ".join(
        f"--{name.replace('_', '-')} {getattr(corpus, name)}"
        for name in ("train", "valid", "test", "seconds", "sample_rate", "speakers", "synthesiser", "seed")
    )
    return f"""# Synthetic Libri{corpus.speakers}Mix

No recordings: speech by {corpus.synthesiser} and noise made from a seed, in the layout of LibriMix
(J. Cosentino et al., "LibriMix: An Open-Source Dataset for Generalizable Speech Separation", 2020).
Written by

    python -m encore.data.synthesis librimix OUT {options}

Levels are RMS over the mixture, {sources} of full scale for each speaker and {noise} for the noise
(LibriMix: the same figures as loudness in LUFS). `{MANIFEST}` has the voices, texts, noises and
levels of every mixture. The test speakers' timbres are heard in no other subset.
"""
