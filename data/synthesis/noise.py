"""The kinds of noise, by name, and babble, which is made of speech."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis import noise_broadband as broadband
from encore.data.synthesis import noise_tonal as tonal
from encore.data.synthesis.noise_broadband import swell, unit
from encore.data.synthesis.speech import VARIANTS, draw_voice, say
from encore.data.synthesis.text import draw_sentence


def babble(
    frames: int, sample_rate: int, rng: np.random.Generator, variants: tuple[str, ...] = VARIANTS
) -> FloatArray:
    """Four to ten voices that talk at once, each at its own level and without pause.

    Args:
        frames: Length.
        sample_rate: Hz.
        rng: Source of voices, texts and levels.
        variants: espeak-ng variants to draw the voices from (leave out the target's).

    Returns:
        ``(frames,)``.
    """
    crowd = np.zeros(frames)
    for _ in range(int(rng.integers(4, 11))):
        voice = draw_voice(rng, variants)
        speech = say(f"{draw_sentence(rng)} {draw_sentence(rng)}", voice, sample_rate)
        talk = np.resize(np.roll(speech, int(rng.integers(speech.size))), frames)
        crowd += unit(talk) * 10 ** (rng.uniform(-8, 0) / 20)
    return crowd


Noise = Callable[[int, int, np.random.Generator], FloatArray]
"""``noise(frames, sample_rate, rng) -> (frames,)``, any level."""

NOISES: dict[str, Noise] = {
    "alarm": tonal.alarm,
    "babble": babble,
    "band": broadband.band,
    "coloured": broadband.coloured,
    "hum": tonal.hum,
    "impulsive": broadband.impulsive,
    "machine": tonal.machine,
    "modulated": broadband.modulated,
    "music": tonal.music,
    "rain": broadband.rain,
    "wind": broadband.wind,
}


def draw_noise(
    kind: str,
    frames: int,
    sample_rate: int,
    rng: np.random.Generator,
    variants: tuple[str, ...] = VARIANTS,
) -> FloatArray:
    """Draw one realisation of a kind of noise, its level wandering by a few dB.

    Args:
        kind: One of ``NOISES``.
        frames: Length.
        sample_rate: Hz.
        rng: Source of everything.
        variants: espeak-ng variants for babble.

    Returns:
        ``(frames,)``, zero mean, unit root mean square.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in NOISES:
        raise ValueError(f"kind must be one of {', '.join(NOISES)}, not {kind!r}")
    if kind == "babble":
        drawn = babble(frames, sample_rate, rng, variants)
    else:
        drawn = NOISES[kind](frames, sample_rate, rng)
    drawn = drawn * swell(frames, sample_rate, rng, float(rng.uniform(0, 4)), float(rng.uniform(0.4, 1.5)))
    return unit(drawn - float(drawn.mean()))
