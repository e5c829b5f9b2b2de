"""Sound events by class: an instrument plays in a rhythm, and is recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import oaconvolve

from encore.synthetic_corpora import FloatArray, Rng, dsp
from encore.synthetic_corpora.instruments import INSTRUMENTS, Note

SHORTEST, LONGEST = 0.3, 5.0  # seconds
_SCALE = np.array([0, 2, 4, 7, 9, 12])


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When an instrument plays, and at which pitches.

    Attributes:
        hertz: Of the lowest pitch, multiplied by 0.7 to 1.4 for each recording.
        per_second: Onsets, multiplied by 1/2 to 2.
        most: Largest number of onsets.
        single: Chance of one onset only.
        regularity: Shape of the Gamma distribution of the gaps: 1 makes a Poisson process.
        pitches: How many, independent of each other; 0 for a tune on a pentatonic scale.
    """

    hertz: float
    per_second: float
    most: int = 8
    single: float = 0.2
    regularity: float = 300.0
    pitches: int = 1

    def draw(self, rng: Rng) -> list[Note]:
        """Draw notes of a recording of `LONGEST` seconds, the first of them at 20 ms."""
        count = 1 if rng.random() < self.single else int(rng.integers(2, self.most + 1))
        gaps = rng.gamma(self.regularity, 1 / self.regularity, count) / dsp.vary(rng, self.per_second)
        starts = 0.02 + np.cumsum(gaps) - gaps[0]
        hertz = np.array([self.hertz * dsp.log_uniform(rng, 0.7, 1.4) for _ in range(max(1, self.pitches))])
        if not self.pitches:
            hertz = hertz * 2 ** (_SCALE / 12)
        velocities = np.clip(rng.normal(0.75, 0.15, count), 0.2, 1.0)
        rows = zip(starts, np.clip(gaps, 0.08, 1.5), rng.choice(hertz, count), velocities, strict=True)
        return [Note(*map(float, row)) for row in rows if row[0] < 0.85 * LONGEST]


EVENTS: dict[str, Rhythm] = {
    "Acoustic_guitar": Rhythm(160, 3, most=14, regularity=10, pitches=0),
    "Applause": Rhythm(1200, 80, most=600, single=0, regularity=1, pitches=6),
    "Bass_drum": Rhythm(50, 2.5),
    "Cowbell": Rhythm(600, 3, most=14),
    "Flute": Rhythm(550, 2, most=10, regularity=10, pitches=0),
    "Glockenspiel": Rhythm(1300, 4, most=16, regularity=30, pitches=0),
    "Gong": Rhythm(110, 1, most=3, single=0.8),
    "Hi-hat": Rhythm(300, 5, most=16),
    "Keys_jangling": Rhythm(2300, 18, most=80, single=0, regularity=1, pitches=5),
    "Knock": Rhythm(110, 4, most=7, single=0.05, regularity=60),
    "Snare_drum": Rhythm(210, 5),
    "Telephone": Rhythm(1000, 22, most=80, single=0, pitches=2),
    "Trumpet": Rhythm(250, 3, most=12, regularity=10, pitches=0),
}
"""Classes of FSDKaggle2018 that can be synthesised, each played by the instrument of its name."""


def draw_event(label: str, sample_rate: int, rng: Rng) -> FloatArray:
    """Draw one recording of a class of `EVENTS`, half the time in a room, with some noise.

    Returns:
        ``(time,)``, 0.3 to 5 s, peak -18 to -0.5 dB of full scale.
    """
    notes, frames = EVENTS[label].draw(rng), round(LONGEST * sample_rate)
    sound = INSTRUMENTS[label].play(notes, frames, sample_rate, rng)
    if rng.random() < 0.5:
        response = dsp.room_response(sample_rate, rng, dsp.log_uniform(rng, 0.1, 0.8), rng.uniform(3, 15))
        sound = oaconvolve(sound, response)[:frames]
    # zeros behind the end, because equalize treats a signal as periodic
    sound = np.pad(sound, (0, sample_rate))
    sound = dsp.equalize(sound, sample_rate, rng.uniform(-1, 1), 3 * rng.standard_normal(9))[:frames]
    # fade out behind the last sample above -55 dB of the peak
    end = np.flatnonzero(np.abs(sound) > 10 ** (-55 / 20) * np.abs(sound).max())[-1]
    sound = sound[: max(round(SHORTEST * sample_rate), int(end) + round(0.05 * sample_rate))]
    sound *= np.minimum(1, np.arange(sound.size)[::-1] / (0.02 * sample_rate))
    noise = dsp.shaped(sound.size, sample_rate, rng, rng.uniform(-5, -1))
    sound = sound / np.abs(sound).max() + 10 ** (rng.uniform(-75, -45) / 20) * noise
    return np.asarray(sound * 10 ** (rng.uniform(-18, -0.5) / 20) / np.abs(sound).max())
