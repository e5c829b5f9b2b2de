"""Tones, envelopes and filters that the instruments of songs are made of; signals are ``(time,)``."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.signal import butter, sosfilt

from encore.data.synthesis import FloatArray

_TABLE = 4096


def mix_in(track: FloatArray, sound: FloatArray, start: float, sample_rate: int) -> None:
    """Add a sound to a track, ``(time,)`` or ``(time, channel)``, from a second on; the rest is lost."""
    first = round(start * sample_rate)
    skipped = max(0, -first)
    first = max(0, first)
    count = min(len(sound) - skipped, len(track) - first)
    if count > 0:
        track[first : first + count] += sound[skipped : skipped + count]


def times(seconds: float, sample_rate: int) -> FloatArray:
    """Seconds of every sample, at least two."""
    return np.arange(max(2, round(seconds * sample_rate))) / sample_rate


def envelope(
    seconds: float,
    sample_rate: int,
    *,
    attack: float = 0.005,
    decay: float = 0.1,
    sustain: float = 0.7,
    release: float = 0.05,
) -> FloatArray:
    """Rise in ``attack`` seconds, fall towards ``sustain`` with ``decay``, and let go after ``seconds``.

    Returns:
        ``(time,)``, ``seconds + 5 release`` long, from 0 to 1.
    """
    axis = times(seconds + 5 * release, sample_rate)
    held = np.minimum(axis / attack, 1) * (
        sustain + (1 - sustain) * np.exp(-np.maximum(0, axis - attack) / decay)
    )
    return np.asarray(held * np.exp(-np.maximum(0, axis - seconds) / release))


def sine(hertz: float | FloatArray, axis: FloatArray, phase: float = 0.0) -> FloatArray:
    """A sine of constant or, given for every sample, moving frequency."""
    return np.asarray(np.sin(turns(hertz, axis) * 2 * np.pi + phase))


def turns(hertz: float | FloatArray, axis: FloatArray) -> FloatArray:
    """Phase in turns of an oscillator whose frequency is constant or given for every sample."""
    if np.ndim(hertz) == 0:
        return np.asarray(hertz * axis)
    step = axis[1] - axis[0]
    return np.asarray(np.cumsum(hertz) * step)


def wave(
    hertz: float | FloatArray, axis: FloatArray, sample_rate: int, *, odd: bool = False, tilt: float = 1.0
) -> FloatArray:
    """A saw, or with ``odd`` a square, without harmonics above the Nyquist frequency; peak about 1.

    Args:
        hertz: Frequency, constant or for every sample.
        axis: Seconds of the samples.
        sample_rate: Hz.
        odd: Leave out even harmonics.
        tilt: Harmonic k has the level ``k ** -tilt``.
    """
    highest = float(np.max(hertz))
    harmonics = max(1, min(64, int(0.45 * sample_rate / highest)))
    table = _harmonic_table(harmonics, odd, round(tilt, 2))
    place = (turns(hertz, axis) % 1.0) * _TABLE
    low = place.astype(np.int64)
    return table[low] + (place - low) * (table[low + 1] - table[low])


@lru_cache(maxsize=512)
def _harmonic_table(harmonics: int, odd: bool, tilt: float) -> FloatArray:
    """One turn and a sample more of a sum of harmonics."""
    number = np.arange(1, harmonics + 1, 2 if odd else 1)
    angle = 2 * np.pi * np.arange(_TABLE + 1) / _TABLE
    table = (number[:, None] ** -tilt * np.sin(number[:, None] * angle)).sum(0)
    return np.asarray(table / np.abs(table).max())


def plucked(
    hertz: float, seconds: float, sample_rate: int, *, brightness: float, ring: float, place: float
) -> FloatArray:
    """A plucked string: harmonics that start together and die the sooner the higher they are.

    Args:
        hertz: Frequency.
        seconds: Length.
        sample_rate: Hz.
        brightness: From 0 (dull) to 1.
        ring: Seconds in which the first harmonic falls to 1/e.
        place: Where it is plucked, as a share of the string.
    """
    axis = times(seconds, sample_rate)
    sound = np.zeros_like(axis)
    for number in range(1, min(18, int(0.45 * sample_rate / hertz)) + 1):
        level = np.sin(np.pi * number * place) / number ** (1.8 - 0.9 * brightness)
        # stiffness sharpens what is high
        frequency = hertz * number * np.sqrt(1 + 0.00015 * number**2)
        fall = ring / (1 + (0.35 - 0.25 * brightness) * (number - 1))
        used = axis[: max(2, int(7 * fall * sample_rate))]
        sound[: len(used)] += level * np.exp(-used / fall) * np.sin(2 * np.pi * frequency * used)
    return np.asarray(sound * np.minimum(1, (axis[-1] - axis) / 0.01))


def filtered(
    signal: FloatArray,
    sample_rate: int,
    *,
    low: float | None = None,
    high: float | None = None,
    order: int = 2,
) -> FloatArray:
    """Keep what lies above ``low`` and below ``high`` Hz, along the first axis."""
    limit = 0.48 * sample_rate
    if high is not None and high < limit:
        signal = sosfilt(butter(order, high, "lowpass", fs=sample_rate, output="sos"), signal, axis=0)
    if low is not None:
        signal = sosfilt(
            butter(order, min(low, limit), "highpass", fs=sample_rate, output="sos"), signal, axis=0
        )
    return np.asarray(signal)


def level(signal: FloatArray) -> float:
    """Root mean square of what is within 40 dB of the loudest 50 ms; 0 for silence."""
    power = np.square(signal).reshape(len(signal), -1).mean(1)
    size = max(1, len(power) // 1200)
    blocks = power[: len(power) // size * size].reshape(-1, size).mean(1)
    heard = blocks[blocks > 1e-4 * blocks.max()] if blocks.max() > 0 else blocks[:0]
    return float(np.sqrt(heard.mean())) if len(heard) else 0.0
