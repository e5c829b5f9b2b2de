"""What sound events are made of: strikes, ringing bodies, rows of hits, melodies; signals are ``(time,)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import lfilter

from encore.data.synthesis import FloatArray
from encore.data.synthesis.song_sounds import mix_in

LONGEST = 5.0  # seconds of an event, reverberation included

Event = Callable[[int, np.random.Generator], FloatArray]
"""``event(sample_rate, rng) -> (time,)``: one dry recording, at any level and of any length."""

Note = tuple[float, float, float]
"""When it starts and how long it lasts, in seconds, and its frequency in Hz."""

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def hits(
    rng: np.random.Generator,
    *,
    single: float,
    most: int,
    per_second: tuple[float, float],
    loose: float = 0.03,
) -> tuple[FloatArray, FloatArray]:
    """Draw when a thing is struck: once, or in a row at a tempo, with accents and now and then a gap.

    Args:
        rng: Source of the draws.
        single: Chance of one strike only.
        most: Largest number of strikes.
        per_second: Slowest and fastest tempo.
        loose: Standard deviation of an onset, in distances of two strikes.

    Returns:
        Onsets in seconds, ascending, the first of them 0.02, and velocities from 0.2 to 1.
    """
    if rng.random() < single:
        return np.array([0.02]), np.array([1.0])
    gap = 1 / log_uniform(rng, *per_second)
    count = min(int(rng.integers(2, most + 1)), 1 + int(0.85 * LONGEST / gap))
    steps = np.arange(max(2, count))
    kept = (steps == 0) | (rng.random(steps.size) > rng.choice([0.0, 0.25]))
    onsets = gap * (steps + loose * rng.standard_normal(steps.size))
    velocities = np.clip(rng.normal(0.75, rng.uniform(0.03, 0.25), steps.size), 0.2, 1.0)
    chosen = np.sort(onsets[kept])
    return chosen - chosen[0] + 0.02, velocities[kept]


def scattered(rng: np.random.Generator, seconds: float, per_second: float | FloatArray) -> FloatArray:
    """Draw the onsets of a Poisson process.

    Args:
        rng: Source of the draws.
        seconds: Its length.
        per_second: Its rate; or its rates at the `moments` of its length.

    Returns:
        Onsets in seconds, ascending; at least one.
    """
    grid = moments(seconds)
    expected = np.cumsum(per_second + 0 * grid) * seconds / grid.size
    count = max(1, int(rng.poisson(expected[-1])))
    return np.sort(np.interp(rng.random(count) * expected[-1], expected, grid))


def moments(seconds: float) -> FloatArray:
    """500 moments from 0 to ``seconds``, evenly spread."""
    return np.linspace(0, seconds, 500)


def struck(
    onsets: ArrayLike, velocities: ArrayLike, seconds: float, sample_rate: int, *, contact: float
) -> FloatArray:
    """Forces on a body: raised cosines of unit area, the longer (softer) the duller.

    Args:
        onsets: Seconds at which they begin.
        velocities: Their areas.
        seconds: Length of the result.
        sample_rate: Hz.
        contact: Seconds that one lasts.

    Returns:
        ``(time,)``.
    """
    force = np.zeros(round(seconds * sample_rate))
    places = np.round(np.atleast_1d(np.asarray(onsets, float)) * sample_rate).astype(np.int64)
    strength = np.broadcast_to(np.asarray(velocities, float), places.shape)
    inside = places < force.size
    np.add.at(force, places[inside], strength[inside])
    pulse = np.hanning(max(1, round(contact * sample_rate)) + 2)[1:-1]
    return np.asarray(np.convolve(force, pulse / pulse.sum())[: force.size])


def ringing(
    force: FloatArray, sample_rate: int, hertz: ArrayLike, decay: ArrayLike, gain: ArrayLike = 1.0
) -> FloatArray:
    """Let a force ring a body's modes; those above 0.45 of the sampling rate are left out.

    Args:
        force: ``(time,)``.
        sample_rate: Hz.
        hertz: ``(mode,)``.
        decay: Seconds in which each mode falls to 1/e; one for all or ``(mode,)``.
        gain: Of each mode: the peak of its answer to a unit impulse.

    Returns:
        ``(time,)``.

    Source: J.-M. Adrien, "The missing link: modal synthesis", 1991: independent two-pole resonators.
    """
    total = np.zeros_like(force)
    for frequency, fall, level in np.broadcast(hertz, decay, gain):
        angle = 2 * np.pi * frequency / sample_rate
        if frequency > 0.45 * sample_rate:
            continue
        radius = np.exp(-1 / (fall * sample_rate))
        total += level * lfilter([np.sin(angle)], [1, -2 * radius * np.cos(angle), radius**2], force)
    return total


def placed(
    onsets: Sequence[float] | FloatArray, sounds: Sequence[FloatArray], sample_rate: int
) -> FloatArray:
    """Sum of sounds that begin at given seconds, as long as the last of them needs."""
    ends = [onset + sound.size / sample_rate for onset, sound in zip(onsets, sounds, strict=True)]
    track = np.zeros(round(min(max(ends), LONGEST) * sample_rate))
    for onset, sound in zip(onsets, sounds, strict=True):
        mix_in(track, sound, float(onset), sample_rate)
    return track


def melody(
    rng: np.random.Generator,
    low: float,
    high: float,
    *,
    most: int,
    seconds: tuple[float, float],
    longest: float,
) -> list[Note]:
    """Draw notes that follow on one another by steps and leaps of a scale, with rests.

    Args:
        rng: Source of the draws.
        low: Lowest frequency, Hz.
        high: Highest, Hz.
        most: Largest number of notes.
        seconds: Shortest and longest note.
        longest: Seconds that all may last.

    Returns:
        At least one.
    """
    base = log_uniform(rng, low, min(high, 2 * low))
    scale = np.asarray(_SCALES[int(rng.integers(len(_SCALES)))])
    degrees = np.concatenate([scale + 12 * octave for octave in range(6)])
    pitches = base * 2 ** (degrees[base * 2 ** (degrees / 12) <= high] / 12)
    place = int(rng.integers(pitches.size))
    usual = log_uniform(rng, *seconds)
    notes: list[Note] = []
    start, count = 0.02, int(rng.integers(1, most + 1))
    if count == 1:
        return [(start, log_uniform(rng, max(0.3, seconds[0]), max(0.3, seconds[1])), float(pitches[place]))]
    for _ in range(count):
        length = min(max(usual * float(rng.choice([0.5, 1, 1, 1, 2])), seconds[0]), seconds[1])
        if notes and start + length > longest:
            break
        notes.append((start, min(length, longest - start), float(pitches[place])))
        start += length * float(rng.choice([1.0, 1.0, 1.0, 1.5]))
        place = int(np.clip(place + rng.choice([-3, -2, -1, -1, 0, 1, 1, 2, 3]), 0, pitches.size - 1))
    return notes
