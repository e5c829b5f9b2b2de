"""Kinds of noise: each a swelling background, and a sound in front of it."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial

import numpy as np

from encore.synthetic_corpora import FloatArray, Rng, dsp
from encore.synthetic_corpora.events import Rhythm
from encore.synthetic_corpora.instruments import INSTRUMENTS, Note
from encore.synthetic_corpora.speech import VARIANTS, draw_voice
from encore.synthetic_corpora.text import draw_sentence


def babble(frames: int, sample_rate: int, rng: Rng, hidden: Container[str] = ()) -> FloatArray:
    """Mix four to ten voices of espeak-ng without pauses, none of a ``hidden`` variant."""
    crowd, variants = np.zeros(frames), [variant for variant in VARIANTS if variant not in hidden]
    for _ in range(int(rng.integers(4, 11))):
        speech = draw_voice(rng, variants).say(f"{draw_sentence(rng)} {draw_sentence(rng)}", sample_rate)
        talk = np.resize(np.roll(speech, int(rng.integers(speech.size))), frames)
        crowd += dsp.unit(talk) * 10 ** (rng.uniform(-8, 0) / 20)
    return crowd


def drone(frames: int, sample_rate: int, rng: Rng, hertz: tuple[float, float]) -> FloatArray:
    """Hold one note, its harmonics around 450 Hz strongest, as a small casing radiates them."""
    note = Note(0, frames / sample_rate, dsp.log_uniform(rng, *hertz))
    return INSTRUMENTS["strings"].play([note], frames, sample_rate, rng)


def strikes(frames: int, sample_rate: int, rng: Rng) -> FloatArray:
    """Knock at three bodies at random times."""
    rhythm = Rhythm(700, 4, most=40, single=0, regularity=1, pitches=3)
    return INSTRUMENTS["Knock"].play(rhythm.draw(rng, frames / sample_rate), frames, sample_rate, rng)


Front = Callable[[int, int, Rng], FloatArray]
"""``front(frames, sample_rate, rng) -> (frames,)``, at any level."""

# the background's range of slopes in dB per octave, its level where the front has 1, and dB of its swelling
NOISES: dict[str, tuple[tuple[float, float], float, float, Front | None]] = {
    "babble": ((-4, -4), 0.01, 0, babble),
    "coloured": ((-7, 2.5), 1, 2, None),
    "hum": ((-4, 0), 0.15, 2, partial(drone, hertz=(50, 120))),
    "impulsive": ((-4, -4), 0.05, 1, strikes),
    "machine": ((-6, -1), 0.8, 2, partial(drone, hertz=(90, 300))),
    "wind": ((-7, -3), 1, 8, None),
}


def draw_noise(kind: str, frames: int, sample_rate: int, rng: Rng, hidden: Container[str] = ()) -> FloatArray:
    """Draw one realization of a kind of `NOISES`, its level wandering by a few dB.

    Babble has no voice of a ``hidden`` espeak-ng variant. The result has zero mean and unit variance.
    """
    if kind not in NOISES:
        raise ValueError(f"kind must be one of {', '.join(NOISES)}, not {kind!r}")
    slope_db, level, depth_db, front = NOISES[kind]
    drawn = dsp.vary(rng, level) * dsp.shaped(frames, sample_rate, rng, rng.uniform(*slope_db))
    drawn *= dsp.swell(frames, sample_rate, rng, depth_db, rng.uniform(0.5, 2))
    if front is not None:
        front = partial(babble, hidden=hidden) if front is babble else front
        drawn += dsp.unit(front(frames, sample_rate, rng))
    drawn *= dsp.swell(frames, sample_rate, rng, rng.uniform(0, 4), rng.uniform(0.4, 1.5))
    return dsp.unit(drawn - drawn.mean())
