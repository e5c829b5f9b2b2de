"""Signal tools that sound events and songs are made with; a signal is ``(time,)``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import butter, lfilter, sosfilt

from encore.synthetic_corpora import FloatArray, Rng

_TABLE = 4096
_BUMPS = np.arange(-4, 5)  # octaves from 1 kHz


def unit(signal: FloatArray) -> FloatArray:
    """Scale to unit standard deviation; silence stays silence."""
    return signal / max(float(signal.std()), 1e-9)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def vary(rng: Rng, value: float) -> float:
    """Multiply a value by a factor from 1/2 to 2."""
    return float(value * 2 ** rng.uniform(-1, 1))


def slow_walk(frames: int, sample_rate: int, rng: Rng, per_second: float) -> FloatArray:
    """Draw a smooth curve of about unit variance: ``per_second`` knots joined by raised cosines."""
    position = np.arange(frames) * per_second / sample_rate
    knots = rng.standard_normal(int(position[-1]) + 2)
    left = position.astype(np.int64)
    weight = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    return knots[left] * (1 - weight) + knots[left + 1] * weight


def equalize(signal: FloatArray, sample_rate: int, slope_db: float, bumps_db: FloatArray) -> FloatArray:
    """Tilt a spectrum from 100 Hz to 8 kHz by dB per octave, and remove what is below 20 to 40 Hz.

    ``bumps_db`` are further gains at each octave from 62.5 Hz to 16 kHz, nine values.
    """
    frequency = np.fft.rfftfreq(signal.size, 1 / sample_rate)
    octaves = np.log2(np.clip(frequency, 100, 8000) / 1000)
    gain_db = slope_db * octaves + np.interp(octaves, _BUMPS, bumps_db)
    gain = 10 ** (gain_db / 20) * np.clip((frequency - 20) / 20, 0, 1)
    return np.fft.irfft(np.fft.rfft(signal) * gain, signal.size)


def shaped(frames: int, sample_rate: int, rng: Rng, slope_db: float) -> FloatArray:
    """Draw noise of unit variance, its spectrum bumpy and tilted by dB per octave: -6 brown, 0 white.

    What a high-pass filter removes teaches a separator nothing, so there is nothing below 20 Hz.
    """
    bumps = 4 * rng.standard_normal(_BUMPS.size)
    return unit(equalize(rng.standard_normal(frames), sample_rate, slope_db, bumps))


def filtered(signal: FloatArray, sample_rate: int, low: float, high: float) -> FloatArray:
    """Keep what is above ``low`` and below ``high`` Hz."""
    signal = sosfilt(
        butter(2, min(low, 0.45 * sample_rate), "highpass", fs=sample_rate, output="sos"), signal
    )
    if high < 0.48 * sample_rate:
        signal = sosfilt(butter(2, high, "lowpass", fs=sample_rate, output="sos"), signal)
    return np.asarray(signal)


def struck(onsets: ArrayLike, velocities: ArrayLike, frames: int, sample_rate: int) -> FloatArray:
    """Return the force of strikes at given seconds: an impulse for each."""
    force = np.zeros(frames)
    starts = np.round(np.asarray(onsets, float) * sample_rate).astype(np.int64)
    inside = (starts >= 0) & (starts < frames)
    np.add.at(force, starts[inside], np.asarray(velocities, float)[inside])
    return force


def ringing(
    force: FloatArray, sample_rate: int, hertz: ArrayLike, decay: ArrayLike, gain: ArrayLike = 1.0
) -> FloatArray:
    """Excite the modes of a body; those above 0.45 of the sample rate are left out.

    A mode falls to 1/e in ``decay`` seconds, and ``gain`` is the peak of its response to a unit impulse.

    Source: J.-M. Adrien, "The missing link: modal synthesis", 1991: independent two-pole resonators.
    """
    total = np.zeros_like(force)
    for frequency, fall, level in np.broadcast(hertz, decay, gain):
        if frequency <= 0.45 * sample_rate:
            angle, radius = 2 * np.pi * frequency / sample_rate, np.exp(-1 / (fall * sample_rate))
            total += level * lfilter([np.sin(angle)], [1, -2 * radius * np.cos(angle), radius**2], force)
    return total


def tone(hertz: FloatArray, levels: FloatArray, sample_rate: int, rng: Rng) -> FloatArray:
    """Sum harmonics of given levels at random phases; the fundamental is given for each sample."""
    levels = levels[: max(1, int(0.45 * sample_rate / hertz.max()))]
    spectrum = np.zeros(_TABLE // 2 + 1, complex)
    spectrum[1 : levels.size + 1] = levels * np.exp(2j * np.pi * rng.random(levels.size)) * _TABLE / 2
    table = np.fft.irfft(spectrum)
    turns = np.cumsum(hertz) / sample_rate % 1
    return np.asarray(np.interp(turns, np.linspace(0, 1, _TABLE + 1), np.append(table, table[0])))


def formed(hertz: float, formants: FloatArray, tilt: float) -> FloatArray:
    """Return the levels of 40 harmonics, falling as ``k ** -tilt`` but near formants in Hz, if any."""
    number = np.arange(1, 41)
    away = (number[:, None] * hertz - formants) / np.maximum(0.15 * formants, 80)
    peaks = (1 / (1 + away**2)).sum(1) + 0.05 if formants.size else 1.0
    return np.asarray(peaks * number**-tilt)


def room_response(sample_rate: int, rng: Rng, rt60: float, direct_to_reverberant_db: float) -> FloatArray:
    """Draw a room's impulse response: the direct path and a tail of decaying noise.

    The tail falls by 60 dB in ``rt60`` seconds. The direct path is the first sample, with gain 1; its energy
    is ``direct_to_reverberant_db`` above that of all else.

    Source: J.-D. Polack, "La transmission de l'énergie sonore dans les salles", 1988.
    """
    time = np.arange(round(rt60 * sample_rate)) / sample_rate
    tail = rng.standard_normal(time.size) * 10 ** (-3 * time / rt60)
    tail[0] = 0.0
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return tail
