"""Sound events of instruments that hold their notes: blown and bowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.events_shared import Note, log_uniform, melody, placed
from encore.data.synthesis.noise_broadband import slow_walk, unit
from encore.data.synthesis.song_sounds import filtered, times

_HARMONICS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Blown:
    """How a held note sounds.

    Attributes:
        levels: ``(harmonic,)``.
        attack: Seconds to full strength.
        bright: How much sooner high harmonics fade than the first: harmonic k follows the strength to the
            power ``1 + bright * (k - 1)``.
        vibrato: Depth in semitones.
        breath: Level of the noise, of the tone's.
        breath_hertz: Lowest and highest frequency of the noise.
        tremolo: Depth of a slow modulation of the strength, 0 to 1.
        scoop: Semitones below the pitch at which a note begins.
    """

    levels: FloatArray
    attack: float
    bright: float = 0.05
    vibrato: float = 0.0
    breath: float = 0.0
    breath_hertz: tuple[float, float] = (500.0, 6000.0)
    tremolo: float = 0.0
    scoop: float = 0.0


def held(
    hertz: float, seconds: float, sample_rate: int, rng: np.random.Generator, sound: Blown
) -> FloatArray:
    """One held note, additive, with the noise of breath or bow; ``(time,)``, about unit level.

    Args:
        hertz: Frequency.
        seconds: Length, its release of 60 ms included.
        sample_rate: Hz.
        rng: Draws vibrato's speed, drift and noise.
        sound: Its timbre.
    """
    axis = times(seconds, sample_rate)
    strength = np.minimum(1, axis / sound.attack) * np.clip((seconds - axis) / 0.06, 0, 1)
    strength *= 1 + 0.1 * slow_walk(axis.size, sample_rate, rng, 6.0)
    wobble = np.sin(2 * np.pi * (float(rng.uniform(4.5, 6.5)) * axis + rng.random()))
    strength = np.clip(strength * (1 + sound.tremolo * wobble) / (1 + sound.tremolo), 0, None)
    semitones = sound.vibrato * np.clip((axis - 0.15) / 0.25, 0, 1) * wobble
    semitones = (
        semitones + 0.04 * slow_walk(axis.size, sample_rate, rng, 8.0) - sound.scoop * np.exp(-axis / 0.03)
    )
    turns = np.cumsum(hertz * 2 ** (semitones / 12)) / sample_rate
    tone = np.zeros(axis.size)
    for number, level in enumerate(sound.levels[: int(0.45 * sample_rate / (1.06 * hertz))], start=1):
        shape = strength ** (1 + sound.bright * (number - 1))
        tone += level * shape * np.sin(2 * np.pi * (number * turns + rng.random()))
    low, high = sound.breath_hertz
    noise = filtered(rng.standard_normal(axis.size), sample_rate, low=low, high=high)
    return np.asarray(unit(tone) + sound.breath * strength * unit(noise))


def formed(
    hertz: float, centres: FloatArray, widths: FloatArray, gains: FloatArray, tilt: float
) -> FloatArray:
    """Levels of the harmonics of a note under fixed resonances.

    Args:
        hertz: Fundamental.
        centres: ``(resonance,)`` in Hz.
        widths: ``(resonance,)`` in Hz.
        gains: ``(resonance,)``.
        tilt: Without resonances harmonic k has the level ``k ** -tilt``.
    """
    number = np.arange(1, _HARMONICS + 1)
    away = (number[:, None] * hertz - centres) / widths
    return np.asarray(number**-tilt * (0.15 + (gains / (1 + away**2)).sum(1)))


def flute(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A flute: few harmonics, much breath, late vibrato."""
    second, third = float(rng.uniform(0.08, 0.45)), float(rng.uniform(0.02, 0.2))
    levels = np.array([1.0, second, third, 0.3 * third, 0.01, 0.005])
    sound = Blown(
        levels=levels,
        attack=log_uniform(rng, 0.03, 0.12),
        bright=0.3,
        vibrato=float(rng.uniform(0, 0.3)),
        breath=log_uniform(rng, 0.06, 0.35),
        breath_hertz=(float(rng.uniform(600, 1500)), float(rng.uniform(4000, 7500))),
        tremolo=float(rng.uniform(0, 0.25)),
    )
    notes = melody(rng, 262, 1800, most=10, seconds=(0.12, 2.5), longest=4.5)
    return _play(notes, sample_rate, rng, lambda _: sound)


def trumpet(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A trumpet: many harmonics around 1.2 kHz, the more the louder, and a scooped attack."""
    centre, width = log_uniform(rng, 900, 1700), log_uniform(rng, 500, 1200)
    muted, attack = rng.random() < 0.2, log_uniform(rng, 0.015, 0.06)
    scoop, vibrato = float(rng.uniform(0, 1.2)), float(rng.choice([0.0, rng.uniform(0.1, 0.4)]))
    if muted:
        centre, width = log_uniform(rng, 1800, 2800), 500.0

    def sound(hertz: float) -> Blown:
        levels = formed(
            hertz, np.array([centre, 2.6 * centre]), np.array([width, 1.5 * width]), np.array([3.0, 0.8]), 0.7
        )
        return Blown(levels=levels, attack=attack, bright=0.18, vibrato=vibrato, breath=0.02, scoop=scoop)

    return _play(melody(rng, 165, 950, most=12, seconds=(0.09, 1.8), longest=4.5), sample_rate, rng, sound)


def clarinet(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A clarinet: odd harmonics far above the even ones."""
    number = np.arange(1, 21)
    even = float(rng.uniform(0.005, 0.06))
    levels = number ** -rng.uniform(1.1, 1.9) * np.where(number % 2 == 1, 1.0, even)
    sound = Blown(
        levels=levels,
        attack=log_uniform(rng, 0.02, 0.08),
        bright=0.1,
        breath=log_uniform(rng, 0.005, 0.02),
        breath_hertz=(300.0, 3000.0),
        tremolo=float(rng.uniform(0, 0.1)),
    )
    notes = melody(rng, 147, 900, most=10, seconds=(0.12, 2.2), longest=4.5)
    return _play(notes, sample_rate, rng, lambda _: sound)


def harmonica(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A harmonica: two or three reeds at once, out of tune by a little, under the hollow of the hands."""
    centre = log_uniform(rng, 1500, 2800)
    tilt, tremolo = float(rng.uniform(0.3, 0.8)), float(rng.choice([0.1, rng.uniform(0.3, 0.8)]))
    intervals = ((0, 4), (0, 3), (0, 4, 7), (0, 5), (0, 12))[int(rng.integers(5))]
    attack = log_uniform(rng, 0.03, 0.1)

    def chord(hertz: float, seconds: float) -> FloatArray:
        total = np.zeros(times(seconds, sample_rate).size)
        for interval in intervals:
            reed = hertz * 2 ** ((interval + rng.normal(0, 0.05)) / 12)
            levels = formed(reed, np.array([centre]), np.array([0.6 * centre]), np.array([2.0]), tilt)
            sound = Blown(levels=levels, attack=attack, tremolo=tremolo, breath=0.06, scoop=0.3)
            total += held(reed, seconds, sample_rate, rng, sound)
        return total

    notes = melody(rng, 262, 900, most=8, seconds=(0.2, 2.0), longest=4.5)
    return placed([note[0] for note in notes], [chord(note[2], note[1]) for note in notes], sample_rate)


def violin(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A violin or fiddle: a bowed saw under the body's resonances, with wide vibrato and the bow's noise."""
    return _bowed(sample_rate, rng, 196, 1600, np.array([280.0, 470.0, 1000.0, 2700.0]))


def cello(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A cello: as a violin, more than an octave lower."""
    return _bowed(sample_rate, rng, 65, 330, np.array([110.0, 200.0, 420.0, 1100.0]))


def _bowed(
    sample_rate: int, rng: np.random.Generator, low: float, high: float, body: FloatArray
) -> FloatArray:
    centres = body * rng.uniform(0.88, 1.14, body.size)
    gains, tilt = rng.uniform(0.8, 2.5, body.size), float(rng.uniform(0.5, 0.9))
    vibrato, attack = float(rng.uniform(0.05, 0.5)), log_uniform(rng, 0.03, 0.2)
    bow = log_uniform(rng, 0.04, 0.15)

    def sound(hertz: float) -> Blown:
        return Blown(
            levels=formed(hertz, centres, 0.3 * centres, gains, tilt),
            attack=attack,
            vibrato=vibrato,
            breath=bow,
            breath_hertz=(float(3 * body[0]), float(3 * body[-1])),
            tremolo=0.08,
        )

    return _play(melody(rng, low, high, most=10, seconds=(0.15, 3.0), longest=4.6), sample_rate, rng, sound)


def _play(
    notes: Sequence[Note], sample_rate: int, rng: np.random.Generator, sound: Callable[[float], Blown]
) -> FloatArray:
    """Play notes with the timbre that ``sound`` gives for a frequency, each at a strength of its own."""
    sounds = [
        float(rng.uniform(0.6, 1)) * held(hertz, seconds, sample_rate, rng, sound(hertz))
        for _, seconds, hertz in notes
    ]
    return placed([start for start, _, _ in notes], sounds, sample_rate)
