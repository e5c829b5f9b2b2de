"""The speakers of the synthetic LibriMix: who has which voice, and who is held out.

The speakers of a mixture never share a timbre (espeak-ng's variant, flite's voice). The timbres of the test
speakers are heard nowhere else, babble included. With espeak-ng those of ``dev`` are heard in ``dev`` only;
with flite, which has four, ``dev`` has the training speakers' two at other tempos and pitches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from encore.data.synthesis import flite
from encore.data.synthesis.corpus_files import generator
from encore.data.synthesis.speech import ENGLISH, FEMALE_VARIANTS, MALE_VARIANTS, VARIANTS, Voice, draw_voice

# half of them men, half women; the held-out ones come first, so that they get espeak-ng's plainest variants
SPEAKERS = {
    "test": tuple(str(number) for number in range(3001, 3007)),
    "dev": tuple(str(number) for number in range(2001, 2005)),
    "train-100": tuple(str(number) for number in range(1001, 1041)),
}
FLITE_VOICES = {"test": ("rms", "slt"), "dev": ("awb", "kal16"), "train-100": ("awb", "kal16")}
_VOICES = 0  # branch of the seed sequence

AnyVoice = Voice | flite.FliteVoice
"""A voice of either synthesiser."""


def espeak_voices(seed: int) -> dict[str, Voice]:
    """Draw espeak-ng's voices of all speakers.

    Each test and dev speaker has an English accent and one of the numbered variants to itself; the training
    speakers share out the rest, women two to a variant, each with its own accent, pitch and vocal tract.

    Args:
        seed: Of the corpus.

    Returns:
        Speaker to voice, the same for a corpus of any size.
    """
    rng = generator(seed, _VOICES)
    pools = [[str(name) for name in rng.permutation(names)] for names in (MALE_VARIANTS, FEMALE_VARIANTS)]
    voices: dict[str, Voice] = {}
    for speaker in SPEAKERS["test"] + SPEAKERS["dev"]:
        pool = pools[len(voices) % 2]
        variant = next(name for name in pool if re.fullmatch(r"[mf]\d", name))
        pool.remove(variant)
        voices[speaker] = draw_voice(rng, (variant,), ENGLISH)
    for index, speaker in enumerate(SPEAKERS["train-100"]):
        pool = pools[index % 2]
        voices[speaker] = draw_voice(rng, (pool[index // 2 % len(pool)],))
    return voices


def flite_voices(seed: int) -> dict[str, flite.FliteVoice]:
    """Draw flite's voices of all speakers, each with its own tempo and, where it has a choice, pitch.

    Args:
        seed: Of the corpus.

    Returns:
        Speaker to voice, the same for a corpus of any size.
    """
    rng = generator(seed, _VOICES)
    return {
        speaker: flite.draw_voice(rng, (FLITE_VOICES[subset][index % 2],))
        for subset, speakers in SPEAKERS.items()
        for index, speaker in enumerate(speakers)
    }


def timbre(voice: AnyVoice) -> str:
    """Return what two speakers of a mixture must not share: espeak-ng's variant or flite's voice."""
    return voice.name if isinstance(voice, flite.FliteVoice) else voice.variant


def draw_speakers(
    speakers: Sequence[str], voices: Mapping[str, AnyVoice], count: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """Draw speakers of different timbres.

    Args:
        speakers: Whom to draw from.
        voices: Their voices.
        count: How many.
        rng: Source of the draws.

    Returns:
        ``count`` speakers in random order.
    """
    drawn: dict[str, str] = {}
    for speaker in rng.permutation(speakers):
        drawn.setdefault(timbre(voices[speaker]), str(speaker))
    return tuple(drawn.values())[:count]


def crowd_variants(seed: int, chosen: Sequence[str]) -> tuple[str, ...]:
    """Return espeak-ng's variants for babble, without those of held-out and of ``chosen`` speakers."""
    voices = espeak_voices(seed)
    hidden = {voices[speaker].variant for speaker in (*SPEAKERS["test"], *SPEAKERS["dev"], *chosen)}
    return tuple(variant for variant in VARIANTS if variant not in hidden)
