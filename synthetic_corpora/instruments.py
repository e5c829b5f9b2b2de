"""Instruments of sound events and songs, struck or sustained, in one table.

Each call of ``play`` draws one specimen, whose timbre all its notes have: the numbers of the table are
multiplied by 1/2 to 2. The result is ``(frames,)``, at any level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from encore.synthetic_corpora import FloatArray, Rng, dsp


@dataclass(frozen=True, slots=True)
class Note:
    """One note: its start and length in seconds, fundamental in Hz, and velocity from 0 to 1."""

    start: float
    seconds: float
    hertz: float
    velocity: float = 1.0


@dataclass(frozen=True, slots=True)
class Struck:
    """A body or string that rings when struck or plucked, and rattles.

    Attributes:
        ratios: Frequencies of the modes over that of the note.
        ring: Seconds in which the mode of ratio 1 falls to 1/e; one of ratio r takes ``r ** -0.5`` as long.
        drawn: Number of further modes, of ratios from 1.2 to 7.
        rattle: Level of the noise of a strike, where the modes have 1; and seconds in which it falls to 1/e.
        band: Of that noise, Hz.
    """

    ratios: tuple[float, ...]
    ring: float = 0.1
    drawn: int = 0
    rattle: tuple[float, float] = (0.0, 0.005)
    band: tuple[float, float] = (1000.0, 9000.0)

    def play(self, notes: Sequence[Note], frames: int, sample_rate: int, rng: Rng) -> FloatArray:
        """Play notes; they ring on beyond their length."""
        ratios = np.append(self.ratios, np.exp(rng.uniform(np.log(1.2), np.log(7), self.drawn)))
        decays = dsp.vary(rng, self.ring) * ratios**-0.5
        gains = ratios ** -rng.uniform(0.2, 0.9) * rng.uniform(0.3, 1, ratios.size)
        level, rattle_ring = (dsp.vary(rng, value) for value in self.rattle)
        modes, force = np.zeros(frames), np.zeros(frames)
        for hertz in sorted({note.hertz for note in notes}):
            own = [note for note in notes if note.hertz == hertz]
            starts, velocities = [note.start for note in own], [note.velocity for note in own]
            strikes = dsp.struck(starts, velocities, frames, sample_rate)
            modes += dsp.ringing(strikes, sample_rate, hertz * ratios, decays, gains)
            force += strikes
        envelope = lfilter([1.0], [1.0, -np.exp(-1 / (rattle_ring * sample_rate))], force)
        noise = dsp.filtered(rng.standard_normal(frames) * envelope, sample_rate, *self.band)
        return dsp.unit(modes) + level * dsp.unit(noise)


@dataclass(frozen=True, slots=True)
class Sustained:
    """A tone with breath: blown, bowed or sung.

    Attributes:
        tilt: Harmonic k has the level ``k ** -tilt``, before formants.
        attack: Seconds to full strength; the release takes 60 ms.
        formants: Sets of formants in Hz, of which each note has one.
        vibrato: Depth in semitones.
        breath: Level of the noise, where the tone has 1.
    """

    tilt: float
    attack: float = 0.04
    formants: tuple[tuple[float, ...], ...] = ((),)
    vibrato: float = 0.15
    breath: float = 0.01

    def play(self, notes: Sequence[Note], frames: int, sample_rate: int, rng: Rng) -> FloatArray:
        """Play notes, each with a set of formants of its own."""
        track, size = np.zeros(frames), dsp.log_uniform(rng, 0.85, 1.2)
        tilt = self.tilt * rng.uniform(0.75, 1.25)
        attack, vibrato, breath = (dsp.vary(rng, x) for x in (self.attack, self.vibrato, self.breath))
        for note in notes:
            axis = np.arange(max(2, round(note.seconds * sample_rate))) / sample_rate
            strength = np.minimum(1, axis / attack) * np.clip((axis[-1] - axis) / 0.06, 0, 1)
            wobble = np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * axis) * np.clip((axis - 0.15) / 0.25, 0, 1)
            octaves = vibrato / 12 * wobble + 0.003 * dsp.slow_walk(axis.size, sample_rate, rng, 60.0)
            formants = size * np.array(self.formants[int(rng.integers(len(self.formants)))])
            sound = dsp.tone(
                note.hertz * 2**octaves, dsp.formed(note.hertz, formants, tilt), sample_rate, rng
            )
            noise = dsp.filtered(rng.standard_normal(axis.size), sample_rate, 600.0, 6000.0)
            sound = note.velocity * strength * (dsp.unit(sound) + breath * dsp.unit(noise))
            first = round(note.start * sample_rate)
            count = max(0, min(sound.size, frames - first))
            track[first : first + count] += sound[:count]
        return track


_BAR = (1.0, 2.756, 5.404, 8.933)  # modes of a free bar, over the lowest
_STRING = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
_MEMBRANE = (1.0, 1.594, 2.136)  # of a round membrane
# formants of a, e, i, o and u of a man (G. Peterson and H. Barney, 1952)
_VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))

INSTRUMENTS: dict[str, Struck | Sustained] = {
    "Acoustic_guitar": Struck(_STRING, 0.7),
    "Applause": Struck((1.0, 1.9), 0.0012, rattle=(1.0, 0.003)),
    "Bass_drum": Struck(_MEMBRANE[:2], 0.15, rattle=(0.15, 0.003)),
    "Cowbell": Struck((1.0, 1.54, 2.6, 3.7, 5.4), 0.1),
    "Flute": Sustained(2.4, 0.06, vibrato=0.25, breath=0.2),
    "Glockenspiel": Struck(_BAR, 0.5),
    "Gong": Struck((1.0, 11.0, 17.0, 23.0), 2.0, drawn=40),
    "Hi-hat": Struck((), rattle=(1.0, 0.06), band=(5500.0, np.inf)),
    "Keys_jangling": Struck((1.0,), 0.03, drawn=5),
    "Knock": Struck((1.0,), 0.02, drawn=8),
    "Snare_drum": Struck(_MEMBRANE, 0.06, rattle=(1.5, 0.06)),
    "Telephone": Struck((1.0, 2.1, 3.4, 4.7), 0.15),
    "Trumpet": Sustained(0.7, 0.03, ((1200, 3000),)),
    # of songs only
    "bass": Struck(_STRING, 0.4),
    "organ": Sustained(1.0, 0.008, vibrato=0.05),
    "strings": Sustained(1.0, 0.12, ((450, 1000, 2700),)),
    "synthetic bass": Sustained(1.2, 0.006, vibrato=0.0),
    "voice": Sustained(0.8, 0.04, _VOWELS, vibrato=0.25, breath=0.05),
}
