"""A synthetic corpus in the layout of VCTK 0.92: many speakers, one at a time, in a quiet studio.

    OUT/wav48_silence_trimmed/<speaker>/<speaker>_<number>_mic1.flac
    OUT/txt/<speaker>/<speaker>_<number>.txt
    OUT/speaker-info.txt     ID, AGE (0: there is none), GENDER, ACCENTS (espeak-ng's language)
    OUT/utterances.jsonl     what every file is, a line each

Speakers bear the real corpus's names, in its order. Each has a voice of its own: accent, register, tempo and
length of the vocal tract, and a variant of espeak-ng that at most a few training speakers share. Those of the
last ``test_speakers``, whom `data.source_corpora.vctk` tests with, are heard from nobody else. There is
one microphone, ``mic1``, whose noise lies 50 to 65 dB below the speech.

Source: J. Yamagishi, C. Veaux, K. MacDonald, "CSTR VCTK Corpus: English multi-speaker corpus for CSTR voice
cloning toolkit (version 0.92)", 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from encore.data.synthesis import FloatArray, flite
from encore.data.synthesis.corpus_files import (
    check_choices,
    check_rate_of_flite,
    check_tools,
    generator,
    pcm,
    prepare_folder,
    run_jobs,
    write_listing,
    write_pcm,
)
from encore.data.synthesis.librimix_voices import AnyVoice
from encore.data.synthesis.noise_broadband import shaped
from encore.data.synthesis.speech import (
    ENGLISH,
    FEMALE_VARIANTS,
    MALE_VARIANTS,
    draw_utterance,
    draw_voice,
    vary_prosody,
)

_RUNS = (
    *((225, 234), (236, 241), (243, 288), (292, 295), (297, 308), (310, 318), (323, 323), (326, 326)),
    *((329, 330), (333, 336), (339, 341), (343, 343), (345, 345), (347, 347), (351, 351), (360, 364)),
    *((374, 374), (376, 376)),
)
SPEAKERS = (*(f"p{number}" for first, last in _RUNS for number in range(first, last + 1)), "s5")
"""The 110 speakers of VCTK 0.92."""

LISTING = "utterances.jsonl"
SAMPLE_RATES = (16_000, 48_000)
FLITE_VOICES = {"train": ("kal16", "awb"), "test": ("slt", "rms")}
SPEECH_LEVEL_DB = (-30.0, -20.0)
NOISE_DB = (-65.0, -50.0)
LARGEST_PEAK = 0.99
_MOST_TEST_SPEAKERS = 20  # leaves the others a third of the women's variants
_AUDIO, _TEXT = "wav48_silence_trimmed", "txt"
_VOICES, _FILES = 0, 1  # branches of the seed sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Vctk:
    """What makes a corpus; the same values give the same bytes.

    Attributes:
        out: Folder to write into.
        speakers: Number of speakers, 1 to 110.
        utterances: Of every speaker, 1 to 999; the first ones of a larger corpus are those of a smaller one.
        test_speakers: How many at the end of the list have variants of espeak-ng to themselves, 0 to 20.
        sample_rate: 16000 or 48000 Hz (espeak-ng's speech ends at about 11 kHz).
        seed: Of everything.
        synthesiser: ``"espeak"`` or ``"flite"`` (16000 Hz only; it has four voices, which speakers share at
            tempos and pitches of their own, two for the test speakers and two for all others).
    """

    out: Path
    speakers: int = 20
    utterances: int = 40
    test_speakers: int = 10
    sample_rate: int = 16_000
    seed: int = 0
    synthesiser: str = "espeak"

    def __post_init__(self) -> None:
        check_choices(
            sample_rate=self.sample_rate, rates=SAMPLE_RATES, seed=self.seed, synthesiser=self.synthesiser
        )
        for name, most in (("speakers", len(SPEAKERS)), ("utterances", 999)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be 1 to {most}, not {getattr(self, name)}")
        most = min(_MOST_TEST_SPEAKERS, self.speakers - 1)
        if not 0 <= self.test_speakers <= most:
            raise ValueError(
                f"test_speakers must be 0 to {most} of {self.speakers} speakers, not {self.test_speakers}"
            )
        check_rate_of_flite(self.synthesiser, self.sample_rate)

    @property
    def names(self) -> tuple[str, ...]:
        """The speakers, the test speakers last."""
        return SPEAKERS[: self.speakers]


def speaker_voices(corpus: Vctk) -> Mapping[str, AnyVoice]:
    """Draw the voices of all speakers of a corpus.

    Args:
        corpus: Its seed, synthesiser and numbers of speakers matter.

    Returns:
        Speaker to voice, no two alike.
    """
    return _voices(corpus.seed, corpus.synthesiser, corpus.speakers, corpus.test_speakers)


def write_corpus(corpus: Vctk, *, workers: int = 2, overwrite: bool = False) -> None:
    """Write the corpus, its texts and list of speakers, a README, and a line of the listing a file.

    Args:
        corpus: What to write.
        workers: Processes; the bytes written do not depend on it.
        overwrite: Whether to delete a corpus of this layout that lies in the folder.

    Raises:
        ValueError: If the folder is not empty and ``overwrite`` is not given, or ``workers`` is below 1.
        SynthesisError: If espeak-ng or flite is missing or fails.
    """
    check_tools(corpus.synthesiser, workers)
    prepare_folder(corpus.out, (_AUDIO, _TEXT), overwrite=overwrite, listing=LISTING)
    for speaker in corpus.names:
        for folder in (_AUDIO, _TEXT):
            (corpus.out / folder / speaker).mkdir()
    jobs = [
        (corpus, speaker, number) for speaker in corpus.names for number in range(1, corpus.utterances + 1)
    ]
    entries = list(run_jobs(_write_utterance, jobs, workers=workers, name="vctk"))
    (corpus.out / "speaker-info.txt").write_text(_speaker_info(corpus), encoding="utf-8")
    (corpus.out / "README.md").write_text(_readme(corpus), encoding="utf-8")
    write_listing(corpus.out / LISTING, entries)


def make_utterance(corpus: Vctk, speaker: str, number: int) -> tuple[FloatArray, dict[str, object]]:
    """Make one recording.

    Args:
        corpus: The corpus.
        speaker: One of its names.
        number: Of the utterance, from 1 on.

    Returns:
        ``(time,)``, full scale 1, and its line of the listing.
    """
    rng = generator(corpus.seed, _FILES, SPEAKERS.index(speaker), number)
    voice = speaker_voices(corpus)[speaker]
    mood: AnyVoice
    if isinstance(voice, flite.FliteVoice):
        mood = flite.vary_prosody(voice, rng)
        text, speech = flite.draw_utterance(mood, rng)
    else:
        mood = vary_prosody(voice, rng)
        text, speech = draw_utterance(mood, corpus.sample_rate, rng)
    level_db, noise_db = (float(rng.uniform(*bounds)) for bounds in (SPEECH_LEVEL_DB, NOISE_DB))
    # a pause of zeros would be the one place where a model of waveforms can be infinitely sure
    noise = shaped(speech.size, corpus.sample_rate, rng, -4.0, 3.0)
    speech = speech / np.sqrt((speech**2).mean()) + 10 ** (noise_db / 20) * noise
    gain = min(10 ** (level_db / 20), LARGEST_PEAK / float(np.abs(speech).max()))
    entry: dict[str, object] = {
        "file": f"{_AUDIO}/{speaker}/{speaker}_{number:03d}_mic1.flac",
        "speaker": speaker,
        "voice": asdict(mood),
        "text": text,
        "level_db": 20 * float(np.log10(gain)),
        "noise_db": noise_db,
        "frames": speech.size,
        "sample_rate": corpus.sample_rate,
        "seed": corpus.seed,
        "synthesiser": corpus.synthesiser,
    }
    return gain * speech, entry


@lru_cache(maxsize=8)
def _voices(seed: int, synthesiser: str, count: int, test_count: int) -> Mapping[str, AnyVoice]:
    rng = generator(seed, _VOICES)
    speakers = SPEAKERS[:count]
    trained, tested = speakers[: count - test_count], speakers[count - test_count :]
    if synthesiser == "flite":
        return {
            speaker: flite.draw_voice(rng, (FLITE_VOICES[part][place % 2],))
            for part, names in (("train", trained), ("test", tested))
            for place, speaker in enumerate(names)
        }
    # women and men in turn, a woman first
    pools = [[str(name) for name in rng.permutation(names)] for names in (FEMALE_VARIANTS, MALE_VARIANTS)]
    voices: dict[str, AnyVoice] = {}
    for speaker in tested:
        pool = pools[SPEAKERS.index(speaker) % 2]
        # the numbered variants are espeak-ng's plainest
        variant = next((name for name in pool if re.fullmatch(r"[mf]\d", name)), pool[0])
        pool.remove(variant)
        voices[speaker] = draw_voice(rng, (variant,), ENGLISH)
    for index, speaker in enumerate(trained):
        pool = pools[index % 2]
        voices[speaker] = draw_voice(rng, (pool[index // 2 % len(pool)],))
    return {speaker: voices[speaker] for speaker in speakers}


def _write_utterance(job: tuple[Vctk, str, int]) -> dict[str, object]:
    corpus, speaker, number = job
    speech, entry = make_utterance(corpus, speaker, number)
    write_pcm(corpus.out / str(entry["file"]), pcm(speech), corpus.sample_rate)
    text = corpus.out / _TEXT / speaker / f"{speaker}_{number:03d}.txt"
    text.write_text(f"{entry['text']}\n", encoding="utf-8")
    return entry


def _speaker_info(corpus: Vctk) -> str:
    """The table of speakers, in columns of spaces, as VCTK has it."""
    lines = ["ID  AGE  GENDER  ACCENTS"]
    for speaker, voice in speaker_voices(corpus).items():
        if isinstance(voice, flite.FliteVoice):
            woman, accent = voice.name == "slt", "en"
        else:
            woman, accent = voice.variant in FEMALE_VARIANTS, voice.base
        lines.append(f"{speaker}  0  {'F' if woman else 'M'}    {accent}")
    return "\n".join(lines) + "\n"


def _readme(corpus: Vctk) -> str:
    level, noise = (f"{low:g} to {high:g} dB" for low, high in (SPEECH_LEVEL_DB, NOISE_DB))
    options = " ".join(
        f"--{name.replace('_', '-')} {getattr(corpus, name)}"
        for name in ("speakers", "utterances", "test_speakers", "sample_rate", "synthesiser", "seed")
    )
    tested = corpus.names[corpus.speakers - corpus.test_speakers :]
    return f"""# Synthetic VCTK

No recordings: speech by {corpus.synthesiser}, made from a seed, in the layout of VCTK 0.92 (J. Yamagishi,
C. Veaux, K. MacDonald, "CSTR VCTK Corpus", 2019). Written by

    python -m encore.data.synthesis vctk OUT {options}

Speech has an RMS of {level} of full scale, and noise of {noise} relative to it. Speakers whose
timbre no other speaker has: {", ".join(tested) or "none"}. `{LISTING}` has the voice and text of every
file.
"""
