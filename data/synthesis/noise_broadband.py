"""Noises without pitch: coloured, band-limited, modulated, wind, rain, impulses; and the tools they share.

Every noise is ``noise(frames, sample_rate, rng) -> (frames,)``; all its parameters come from ``rng``.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import istft, lfilter, stft

from encore.data.synthesis import FloatArray

_WINDOW_SECONDS = 0.032


def unit(noise: FloatArray) -> FloatArray:
    """Scale to unit standard deviation; silence stays silence."""
    return noise / max(float(noise.std()), 1e-9)


def slow_walk(frames: int, sample_rate: int, rng: np.random.Generator, per_second: float) -> FloatArray:
    """Draw a smooth random curve of about unit variance.

    Args:
        frames: Length.
        sample_rate: Hz.
        rng: Source of the knots.
        per_second: Knots per second; the curve between them is a raised cosine.

    Returns:
        ``(frames,)``.
    """
    position = np.arange(frames) * per_second / sample_rate
    knots = rng.standard_normal(int(position[-1]) + 2)
    left = position.astype(np.int64)
    weight = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    return knots[left] * (1 - weight) + knots[left + 1] * weight


def swell(
    frames: int, sample_rate: int, rng: np.random.Generator, depth_db: float, per_second: float
) -> FloatArray:
    """Draw a gain that wanders with a standard deviation of ``depth_db`` dB; ``(frames,)``, positive."""
    return 10 ** (depth_db * slow_walk(frames, sample_rate, rng, per_second) / 20)


def shaped(
    frames: int, sample_rate: int, rng: np.random.Generator, slope_db: float, wiggle_db: float
) -> FloatArray:
    """Gaussian noise whose spectrum rises by ``slope_db`` dB per octave, with bumps of ``wiggle_db`` dB.

    The spectrum is flat from 40 to 120 Hz and empty below: at a given SNR, what a high-pass filter takes out
    teaches a separator nothing.

    Args:
        frames: Length.
        sample_rate: Hz.
        rng: Source of the noise and the bumps.
        slope_db: dB per octave: -6 brown, -3 pink, 0 white, 3 blue.
        wiggle_db: Standard deviation of the bumps, which are about an octave wide.

    Returns:
        ``(frames,)``, unit standard deviation.
    """
    frequency = np.fft.rfftfreq(frames, 1 / sample_rate)
    octaves = np.log2(np.maximum(frequency, 120) / 1000)
    grid = np.arange(-6, 7)
    gain_db = slope_db * octaves + np.interp(octaves, grid, wiggle_db * rng.standard_normal(grid.size))
    gain = 10 ** (gain_db / 20) * np.clip((frequency - 20) / 20, 0, 1)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(frames)) * gain, frames)
    return unit(noise)


def coloured(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Noise from brown to blue whose colour wanders between two draws."""
    first, second = (
        shaped(frames, sample_rate, rng, rng.uniform(-7, 2.5), rng.uniform(0, 6)) for _ in range(2)
    )
    share = 0.5 + 0.5 * np.tanh(1.5 * slow_walk(frames, sample_rate, rng, float(rng.uniform(0.3, 2))))
    mixed: FloatArray = np.sqrt(share) * first + np.sqrt(1 - share) * second
    return mixed


def band(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """One to three noise bands, fixed or moving by up to an octave or so."""
    size = round(_WINDOW_SECONDS * sample_rate)
    frequency, times, spectrum = stft(rng.standard_normal(frames + 2 * size), sample_rate, nperseg=size)
    octave = np.log2(np.maximum(frequency, 20))[:, None]
    top = np.log2(min(6000, 0.4 * sample_rate))
    gain = np.zeros((frequency.size, times.size))
    for _ in range(int(rng.integers(1, 4))):
        travel = float(rng.choice([0.0, rng.uniform(0.3, 1.2)]))
        walk = slow_walk(times.size, 1000, rng, 1000 * float(rng.uniform(0.01, 0.08)))
        centre = rng.uniform(np.log2(150), top) + travel * walk
        gain += rng.uniform(0.3, 1) * np.exp(-0.5 * ((octave - centre) / rng.uniform(0.1, 0.5)) ** 2)
    _, noise = istft(spectrum * (gain + 0.005), sample_rate, nperseg=size)
    return np.asarray(noise[size : size + frames], dtype=np.float64)


def modulated(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Noise beaten by a regular or irregular envelope of 1 to 16 Hz, deep as speech's own."""
    noise = shaped(frames, sample_rate, rng, float(rng.uniform(-6, 0)), 5.0)
    rate = float(rng.uniform(1, 16))
    time = np.arange(frames) / sample_rate
    wobble = 0.5 * float(rng.uniform(0, 1)) * slow_walk(frames, sample_rate, rng, 1.5)
    wave = np.sin(2 * np.pi * (rate * time + wobble + rng.random()))
    if rng.random() < 0.4:
        wave = np.tanh(float(rng.uniform(2, 8)) * (wave + rng.uniform(-0.5, 0.5)))  # gated, with a duty cycle
    floor = 10 ** (rng.uniform(-35, -10) / 20)
    return noise * (floor + np.clip(0.5 + 0.5 * wave, 0, None) ** rng.uniform(0.7, 2.5))


def wind(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Gusts: low rumble whose level and cut-off rise together, and a whistling band."""
    gust = np.clip(slow_walk(frames, sample_rate, rng, float(rng.uniform(0.7, 2.5))), -2, 2)
    rumble = shaped(frames, sample_rate, rng, float(rng.uniform(-10, -5)), 3.0) * 10 ** (7 * gust / 20)
    hiss = shaped(frames, sample_rate, rng, float(rng.uniform(-5, -2)), 4.0) * 10 ** (14 * (gust - 1) / 20)
    flutter = swell(frames, sample_rate, rng, 3.0, 20.0)
    return flutter * (rumble + float(rng.uniform(0.3, 1.5)) * hiss)


def rain(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Drops of random size on a ringing surface over a hiss."""
    density = float(10 ** rng.uniform(1.7, 3.3))  # drops per second
    drops = (rng.random(frames) < density / sample_rate) * rng.lognormal(0, 0.7, frames)
    drops *= rng.choice([-1.0, 1.0], frames)
    ringing: FloatArray = np.zeros(frames)
    for _ in range(4):
        ringing += resonate(drops, sample_rate, rng.uniform(400, 6000), rng.uniform(0.0005, 0.006))
    ringing = unit(ringing)
    hiss = shaped(frames, sample_rate, rng, float(rng.uniform(-2, 2)), 3.0)
    return ringing + float(rng.uniform(0.1, 1)) * hiss * swell(frames, sample_rate, rng, 3.0, 0.8)


def resonate(excitation: FloatArray, sample_rate: int, frequency: float, decay_seconds: float) -> FloatArray:
    """Two-pole resonator.

    Args:
        excitation: ``(time,)``.
        sample_rate: Hz.
        frequency: Of the resonance, Hz, taken down to 0.45 of the sample rate.
        decay_seconds: Time in which the ringing falls to 1/e.

    Returns:
        ``(time,)``.
    """
    radius = np.exp(-1 / (decay_seconds * sample_rate))
    angle = 2 * np.pi * min(frequency / sample_rate, 0.45)
    return np.asarray(lfilter([np.sin(angle)], [1, -2 * radius * np.cos(angle), radius**2], excitation))


_STRIKES = {  # resonances: lowest and highest Hz, shortest and longest decay in seconds
    "click": (1500.0, 7000.0, 0.0005, 0.004),
    "knock": (120.0, 900.0, 0.01, 0.06),
    "dish": (1200.0, 6000.0, 0.04, 0.3),
    "wood": (400.0, 2500.0, 0.005, 0.03),
}


def impulsive(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Clicks, knocks, wood and dishes, singly or in quick rows, over a faint room tone."""
    times = rng.uniform(0, frames, max(int(rng.uniform(2, 9) * frames / sample_rate), 4))
    rows = [
        t + np.cumsum(rng.uniform(0.04, 0.2, int(rng.integers(1, 6)))) * sample_rate
        for t in times[: max(times.size // 4, 1)]
    ]
    onsets = np.concatenate([times, *rows]).astype(np.int64)
    noise = np.zeros(frames)
    kinds = rng.choice(list(_STRIKES), size=2)
    for kind in kinds:
        low, high, short, long = _STRIKES[str(kind)]
        chosen = onsets[rng.random(onsets.size) < 0.6]
        chosen = np.append(chosen[chosen < frames], rng.integers(frames // 2))
        blows = np.zeros(frames)
        blows[chosen] = rng.lognormal(0, 0.5, chosen.size)
        # a strike lasts about a millisecond, which keeps the lowest modes from being a mere step
        blows = np.convolve(blows, rng.standard_normal(max(sample_rate // 1000, 2)))[:frames]
        for _ in range(int(rng.integers(3, 7))):
            frequency = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            mode = resonate(blows, sample_rate, frequency, rng.uniform(short, long))
            noise += rng.uniform(0.3, 1) * unit(mode)
    room_tone = shaped(frames, sample_rate, rng, -4.0, 4.0)
    return unit(noise) + 10 ** (rng.uniform(-35, -20) / 20) * room_tone
