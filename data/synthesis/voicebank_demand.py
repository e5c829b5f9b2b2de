"""A synthetic corpus in the layout of VoiceBank-DEMAND (Valentini-Botinhao et al., 2016).

Speakers bear the real corpus's names. Each is one synthetic voice whose rate and pitch vary by 10 % between
utterances; the variants of the two test speakers are heard nowhere in the training set, babble included. All
kinds of noise are met in both sets, in other realisations. SNRs are plain energy ratios over the file, drawn
from -5 to 15 dB for training (the real corpus: 0, 5, 10, 15 dB) and 0 to 10 dB for testing (2.5 to 17.5 dB).

The voices are espeak-ng's, or with ``synthesiser="flite"`` the four of another program: the test speakers
have one each to themselves, the training speakers share the other two, each at its own tempo and pitch.
Babble stays espeak-ng's.

In a room the reference is the direct path alone, which here is the dry speech, so that noisy - clean holds
the reverberation too; the stated SNR is that of the reverberant speech.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from encore.data.synthesis import FloatArray, flite
from encore.data.synthesis.corpus_files import (
    check_choices,
    check_rate_of_flite,
    check_tools,
    deal_noise,
    generator,
    pcm,
    prepare_folder,
    run_jobs,
    write_listing,
    write_pcm,
)
from encore.data.synthesis.noise import draw_noise
from encore.data.synthesis.room import draw_room, impulse_response
from encore.data.synthesis.speech import (
    ENGLISH,
    FEMALE_VARIANTS,
    MALE_VARIANTS,
    VARIANTS,
    Voice,
    draw_utterance,
    draw_voice,
    vary_prosody,
)

# the two usual validation speakers come first, so that the smallest corpus has them
TRAIN_SPEAKERS = tuple(
    f"p{number}"
    for number in (
        *(226, 287, 227, 228, 230, 231, 233, 236, 239, 243, 244, 250, 254, 256),
        *(258, 259, 267, 268, 269, 270, 273, 274, 276, 277, 278, 279, 282, 286),
    )
)
TEST_SPEAKERS = ("p232", "p257")
SPEAKERS = {"train": TRAIN_SPEAKERS, "test": TEST_SPEAKERS}
SNR_RANGE_DB = {"train": (-5.0, 15.0), "test": (0.0, 10.0)}
FOLDERS = {
    "train": ("clean_trainset_28spk_wav", "noisy_trainset_28spk_wav"),
    "test": ("clean_testset_wav", "noisy_testset_wav"),
}
MANIFEST = "manifest.jsonl"
SAMPLE_RATES = (16_000, 48_000)
FLITE_VOICES = {"train": ("awb", "kal16"), "test": ("rms", "slt")}
SPEECH_LEVEL_DB = (-30.0, -20.0)
LARGEST_PEAK = 0.99
# branches of the seed sequence
_VOICES, _NOISE_ORDER, _FILES = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class VoicebankDemand:
    """What makes a corpus; the same values give the same bytes.

    Attributes:
        out: Folder to write into.
        train: Number of training files; the first files of a larger corpus are those of a smaller one.
        test: Number of test files.
        sample_rate: 16000 or 48000 Hz (espeak-ng's speech ends at about 11 kHz).
        seed: Of everything.
        room: Share of files in a room, 0 to 1.
        synthesiser: Of the target speech, ``"espeak"`` or ``"flite"`` (16000 Hz only).
    """

    out: Path
    train: int = 400
    test: int = 60
    sample_rate: int = 16_000
    seed: int = 0
    room: float = 0.0
    synthesiser: str = "espeak"

    def __post_init__(self) -> None:
        check_choices(
            sample_rate=self.sample_rate, rates=SAMPLE_RATES, seed=self.seed, synthesiser=self.synthesiser
        )
        for name in ("train", "test"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if not 0 <= self.room <= 1:
            raise ValueError(f"room must be a share from 0 to 1, not {self.room}")
        check_rate_of_flite(self.synthesiser, self.sample_rate)


def speaker_voices(seed: int) -> dict[str, Voice]:
    """Draw the voices of all speakers, each with a variant of its own.

    The test speakers, a man and a woman as in the real corpus, have an English accent and one of espeak-ng's
    numbered variants, the plainest ones; the training speakers share out the rest.

    Args:
        seed: Of the corpus.

    Returns:
        Speaker name to voice, the same for a corpus of any size.
    """
    rng = generator(seed, _VOICES)
    males, females = (
        [str(name) for name in rng.permutation(names)] for names in (MALE_VARIANTS, FEMALE_VARIANTS)
    )
    voices = {}
    for speaker, pool in zip(TEST_SPEAKERS, (males, females), strict=True):
        variant = next(name for name in pool if re.fullmatch(r"[mf]\d", name))
        pool.remove(variant)
        voices[speaker] = draw_voice(rng, (variant,), ENGLISH)
    for index, speaker in enumerate(TRAIN_SPEAKERS):
        voices[speaker] = draw_voice(rng, ((males, females)[index % 2].pop(),))
    return voices


def flite_voices(seed: int) -> dict[str, flite.FliteVoice]:
    """Draw flite's voices of all speakers, each with its own tempo and, where it has a choice, pitch.

    The test speakers are a man and a woman, as in the real corpus; the training speakers have the two other
    voices in turn.

    Args:
        seed: Of the corpus.

    Returns:
        Speaker name to voice, the same for a corpus of any size.
    """
    rng = generator(seed, _VOICES)
    return {
        speaker: flite.draw_voice(rng, (FLITE_VOICES[split][index % 2],))
        for split, speakers in SPEAKERS.items()
        for index, speaker in enumerate(speakers)
    }


def write_corpus(corpus: VoicebankDemand, *, workers: int = 2, overwrite: bool = False) -> None:
    """Write the corpus and its manifest, one JSON object a file; those naming no synthesiser are espeak-ng's.

    Args:
        corpus: What to write.
        workers: Processes; the bytes written do not depend on it.
        overwrite: Whether to delete a corpus of this layout that lies in the folder.

    Raises:
        ValueError: If the folder is not empty and ``overwrite`` is not given, or ``workers`` is below 1.
        SynthesisError: If espeak-ng (which speaks the babble of any corpus) or flite is missing or fails.
    """
    check_tools(corpus.synthesiser, workers)
    folders = [folder for pair in FOLDERS.values() for folder in pair]
    prepare_folder(corpus.out, folders, overwrite=overwrite, listing=MANIFEST)
    jobs = [(corpus, split, index) for split, size in _sizes(corpus).items() for index in range(size)]
    entries = run_jobs(_write_pair, jobs, workers=workers, name="voicebank_demand")
    write_listing(corpus.out / MANIFEST, entries)


def make_pair(
    corpus: VoicebankDemand, split: str, index: int
) -> tuple[FloatArray, FloatArray, dict[str, object]]:
    """Make one file of the corpus.

    Args:
        corpus: The corpus.
        split: ``"train"`` or ``"test"``.
        index: Number of the file within its split.

    Returns:
        Clean and noisy speech, ``(time,)`` each, full scale 1, and the manifest's entry.
    """
    rng = generator(corpus.seed, _FILES, _split_number(split), index)
    speakers = SPEAKERS[split]
    speaker = speakers[index % len(speakers)]
    voice, text, speech = _speak(corpus, speaker, rng)
    level_db = float(rng.uniform(*SPEECH_LEVEL_DB))
    speech *= 10 ** (level_db / 20) / np.sqrt((speech**2).mean())
    snr_db = float(rng.uniform(*SNR_RANGE_DB[split]))
    noise_seed = int(rng.integers(2**63))
    kind = deal_noise(corpus.seed, index, _NOISE_ORDER, _split_number(split))
    voices = speaker_voices(corpus.seed)
    hidden = {voices[name].variant for name in (speaker, *TEST_SPEAKERS)}
    crowd = tuple(variant for variant in VARIANTS if variant not in hidden)
    noise = draw_noise(kind, speech.size, corpus.sample_rate, np.random.default_rng(noise_seed), crowd)
    room = draw_room(rng) if rng.random() < corpus.room else None
    heard = speech
    if room is not None:
        heard = fftconvolve(speech, impulse_response(room, corpus.sample_rate))[: speech.size]
    noisy = heard + noise * 10 ** (-snr_db / 20) * np.sqrt((heard**2).mean())
    gain = min(1.0, LARGEST_PEAK / max(float(np.abs(speech).max()), float(np.abs(noisy).max())))
    entry = {
        "file": f"{speaker}_{index // len(speakers) + 1:03d}.wav",
        "split": split,
        "speaker": speaker,
        "voice": voice,
        "text": text,
        "noise": kind,
        "noise_seed": noise_seed,
        "snr_db": snr_db,
        "level_db": level_db + 20 * float(np.log10(gain)),
        "room": None if room is None else asdict(room),
        "frames": speech.size,
        "sample_rate": corpus.sample_rate,
        "seed": corpus.seed,
    }
    if corpus.synthesiser != "espeak":  # which a corpus from before there was a choice does not say either
        entry["synthesiser"] = corpus.synthesiser
    return gain * speech, gain * noisy, entry


def _speak(
    corpus: VoicebankDemand, speaker: str, rng: np.random.Generator
) -> tuple[dict[str, object], str, FloatArray]:
    """Draw what a speaker says and in which mood: the manifest's voice, the text and ``(time,)``, peak 1."""
    if corpus.synthesiser == "flite":
        flite_voice = flite.vary_prosody(flite_voices(corpus.seed)[speaker], rng)
        return asdict(flite_voice), *flite.draw_utterance(flite_voice, rng)
    voice = vary_prosody(speaker_voices(corpus.seed)[speaker], rng)
    return asdict(voice), *draw_utterance(voice, corpus.sample_rate, rng)


def _write_pair(job: tuple[VoicebankDemand, str, int]) -> dict[str, object]:
    corpus, split, index = job
    clean, noisy, entry = make_pair(corpus, split, index)
    for folder, signal in zip(FOLDERS[split], (clean, noisy), strict=True):
        path = corpus.out / folder / str(entry["file"])
        write_pcm(path, pcm(signal), corpus.sample_rate)
    return entry


def _sizes(corpus: VoicebankDemand) -> dict[str, int]:
    return {"train": corpus.train, "test": corpus.test}


def _split_number(split: str) -> int:
    return list(SPEAKERS).index(split)
