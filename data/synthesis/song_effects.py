"""What is done to the instruments of a song: place, room, echo, chorus, warmth; stereo is ``(time, 2)``."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter, oaconvolve

from encore.data.synthesis import FloatArray
from encore.data.synthesis.song_sounds import filtered


def panned(signal: FloatArray, place: float) -> FloatArray:
    """A mono signal between the loudspeakers at constant power; -1 is left, 1 right."""
    angle = (place + 1) * np.pi / 4
    return np.asarray(signal[:, None] * np.array([np.cos(angle), np.sin(angle)]))


def widened(signal: FloatArray, sample_rate: int, rng: np.random.Generator, amount: float) -> FloatArray:
    """A stereo signal whose sides differ: each gets a delayed, slowly moving copy of the other one.

    Args:
        signal: ``(time, 2)``.
        sample_rate: Hz.
        rng: Draws delays and their movement.
        amount: Level of the copies.
    """
    axis = np.arange(len(signal))
    result = signal.copy()
    for side in range(2):
        rate, depth = rng.uniform(0.15, 0.9), rng.uniform(0.0005, 0.002) * sample_rate
        delay = rng.uniform(0.008, 0.022) * sample_rate
        place = axis - delay - depth * np.sin(2 * np.pi * rate * axis / sample_rate + rng.uniform(0, 6.28))
        result[:, side] += amount * np.interp(place, axis, signal[:, 1 - side], left=0.0)
    return result


def echoed(
    signal: FloatArray, sample_rate: int, *, seconds: float, feedback: float, amount: float
) -> FloatArray:
    """Echoes that come back from side to side, each ``feedback`` of the one before and a little duller."""
    result, copy, hop = signal.copy(), signal, max(1, round(seconds * sample_rate))
    for repeat in range(1, 5):
        copy = filtered(copy[:-hop, ::-1] * feedback, sample_rate, high=4500.0, order=1)
        if not len(copy):
            break
        result[repeat * hop :] += amount / feedback * copy
    return result


def reverberated(
    signal: FloatArray, sample_rate: int, rng: np.random.Generator, *, seconds: float, amount: float
) -> FloatArray:
    """A room: noise that dies within ``seconds`` (60 dB), duller the longer it lasts, other on either side.

    Args:
        signal: ``(time, 2)``.
        sample_rate: Hz.
        rng: Draws the room.
        seconds: Reverberation time.
        amount: Level of the room, where the signal itself has 1.
    """
    axis = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = rng.standard_normal((len(axis), 2)) * np.exp(-6.9 * axis / seconds)[:, None]
    damped = filtered(noise, sample_rate, low=180.0, high=float(rng.uniform(2500, 6500)), order=1)
    share = np.exp(-4 * axis / seconds)[:, None]
    response = share * noise + (1 - share) * damped
    before = np.zeros((round(rng.uniform(0.005, 0.03) * sample_rate), 2))
    response = np.concatenate((before, response))
    response *= amount / np.sqrt(np.square(response).sum(0))
    wet = np.stack(
        [oaconvolve(signal[:, side], response[:, side])[: len(signal)] for side in range(2)], axis=1
    )
    return signal + wet


def warmed(signal: FloatArray, drive: float) -> FloatArray:
    """Soft clipping at about the same level; ``drive`` from 0 (none) to 1, in units of the signal's peak."""
    peak = float(np.abs(signal).max())
    if drive <= 0 or peak == 0:
        return signal
    gain = (0.3 + 4 * drive) / peak
    return np.asarray(np.tanh(gain * signal) / gain)


def equalised(
    signal: FloatArray, sample_rate: int, *, hertz: float, gain_db: float, width: float
) -> FloatArray:
    """Raise or lower what lies around a frequency.

    Source: R. Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter coefficients".
    """
    amplitude = 10 ** (gain_db / 40)
    omega = 2 * np.pi * min(hertz, 0.45 * sample_rate) / sample_rate
    alpha = np.sin(omega) * width / 2
    numerator = np.array([1 + alpha * amplitude, -2 * np.cos(omega), 1 - alpha * amplitude])
    denominator = np.array([1 + alpha / amplitude, -2 * np.cos(omega), 1 - alpha / amplitude])
    return np.asarray(lfilter(numerator / denominator[0], denominator / denominator[0], signal, axis=0))


def coloured(
    signal: FloatArray, sample_rate: int, rng: np.random.Generator, range_db: float = 5.0
) -> FloatArray:
    """Two random bells of an equaliser."""
    for _ in range(2):
        hertz = float(np.exp(rng.uniform(np.log(120), np.log(7000))))
        gain = float(rng.uniform(-range_db, range_db))
        signal = equalised(signal, sample_rate, hertz=hertz, gain_db=gain, width=float(rng.uniform(0.6, 1.6)))
    return signal
