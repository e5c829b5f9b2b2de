"""Noises with pitch: mains hum, machines, music, alarms.

Every noise is ``noise(frames, sample_rate, rng) -> (frames,)``; all its parameters come from ``rng``.
"""

from __future__ import annotations

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.noise_broadband import resonate, shaped, slow_walk, swell, unit


def harmonics(phase: FloatArray, amplitudes: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Sum of sines at multiples of a phase.

    Args:
        phase: ``(time,)``, of the fundamental, in cycles.
        amplitudes: ``(harmonics,)``, of the multiples 1, 2, ...
        rng: Source of the starting phases.

    Returns:
        ``(time,)``.
    """
    total = np.zeros(phase.size)
    for number, amplitude in enumerate(amplitudes, start=1):
        total += amplitude * np.sin(2 * np.pi * (number * phase + rng.random()))
    return total


def hum(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Mains hum with drifting frequency, a comb of harmonics, and a transformer's hiss."""
    mains = float(rng.choice([50.0, 60.0])) * float(rng.choice([1, 1, 2]))
    frequency = mains * (1 + 0.002 * slow_walk(frames, sample_rate, rng, 0.7))
    phase = np.cumsum(frequency) / sample_rate
    count = int(rng.uniform(600, 3500) / mains)
    number = np.arange(1, count + 1)
    # weak below 150 Hz, as a small loudspeaker or casing radiates it
    amplitudes = (
        np.minimum(number * mains / 150, 1) * number ** -rng.uniform(0.2, 1) * rng.lognormal(0, 0.8, count)
    )
    buzz = unit(harmonics(phase, amplitudes, rng) * swell(frames, sample_rate, rng, 2.0, 1.0))
    hiss = shaped(frames, sample_rate, rng, float(rng.uniform(-4, 0)), 4.0)
    return buzz + float(rng.uniform(0.05, 0.4)) * hiss * swell(frames, sample_rate, rng, 2.0, 1.0)


def machine(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A rotating engine or fan: harmonics, air noise beaten by blades, and a rattle once in a few turns."""
    turns = float(np.exp(rng.uniform(np.log(8), np.log(90))))  # per second
    frequency = turns * (1 + float(rng.uniform(0.005, 0.08)) * slow_walk(frames, sample_rate, rng, 0.8))
    phase = np.cumsum(frequency) / sample_rate
    count = int(min(rng.uniform(400, 3000), 0.4 * sample_rate) / turns / 1.3)
    amplitudes = np.arange(1, count + 1) ** -rng.uniform(0.4, 1.2) * rng.lognormal(0, 0.9, count)
    engine = harmonics(phase, amplitudes[:80], rng)
    blades = int(rng.integers(1, 6))
    beat = 1 + rng.uniform(0.2, 0.95) * np.sin(2 * np.pi * blades * phase)
    air = shaped(frames, sample_rate, rng, float(rng.uniform(-6, -1)), 5.0) * beat
    strikes = np.diff(np.floor(phase / int(rng.integers(1, 5))), prepend=0.0) * rng.lognormal(0, 0.6, frames)
    strikes[0] = 1.0
    rattle = np.zeros(frames)
    for _ in range(4):
        rattle += resonate(strikes, sample_rate, rng.uniform(300, 5000), rng.uniform(0.002, 0.02))
    weights = rng.uniform(0.15, 1, 3)
    parts = (unit(part) for part in (engine, air, rattle))
    return sum((w * part for w, part in zip(weights, parts, strict=True)), np.zeros(frames))


_CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 3, 7, 10), (0, 5, 7), (0, 4, 7, 9))


def music(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A chord progression played as pads and arpeggio, with a bass and, often, drums."""
    beat = 60 / float(rng.uniform(70, 150))
    seconds = frames / sample_rate
    root = int(rng.integers(40, 60))
    score: FloatArray = np.zeros(frames)
    overtones = np.arange(1, int(rng.integers(3, 9))) ** -rng.uniform(0.7, 2)
    start = -float(rng.uniform(0, 4)) * beat
    while start < seconds:
        chord = root + int(rng.choice([0, 5, 7, 9, 2])) + np.array(_CHORDS[int(rng.integers(len(_CHORDS)))])
        _note(score, sample_rate, rng, start, 4 * beat, float(chord[0] - 12), overtones, 1.0)
        for pitch in chord:
            _note(score, sample_rate, rng, start, 4 * beat, float(pitch), overtones, 0.4)
        for step in range(8):
            pitch = float(rng.choice(chord)) + 12 * int(rng.integers(0, 3))
            level = float(rng.uniform(0, 0.9))
            _note(score, sample_rate, rng, start + step * beat / 2, beat, pitch, overtones, level)
        start += 4 * beat
    score = unit(score)
    if rng.random() < 0.7:
        score += float(rng.uniform(0.3, 1)) * _drums(frames, sample_rate, rng, beat)
    return score


def _note(
    score: FloatArray,
    sample_rate: int,
    rng: np.random.Generator,
    start: float,
    length: float,
    pitch: float,
    overtones: FloatArray,
    level: float,
) -> None:
    """Add one note (times in seconds, pitch a MIDI number) to the score in place."""
    first, count = round(start * sample_rate), round(length * sample_rate)
    inside = slice(max(first, 0), min(first + count, score.size))
    if inside.start >= inside.stop:
        return
    time = (np.arange(inside.start, inside.stop) - first) / sample_rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    audible = overtones[: max(int(0.45 * sample_rate / frequency), 1)]
    envelope = np.minimum(time / 0.01, 1) * np.exp(-2 * time / length) * np.clip((length - time) / 0.03, 0, 1)
    score[inside] += level * envelope * harmonics(frequency * time, audible, rng)


def _drums(frames: int, sample_rate: int, rng: np.random.Generator, beat: float) -> FloatArray:
    """Kick on the beats, snare on the off-beats, hats on the halves; unit standard deviation."""
    time = np.arange(frames) / sample_rate + rng.uniform(0, 4) * beat
    since = time % beat
    kick = np.sin(2 * np.pi * (50 * since + 6 * (1 - np.exp(-since / 0.03)))) * np.exp(-since / 0.09)
    snare = shaped(frames, sample_rate, rng, 0.0, 3.0) * np.exp(-((time + beat) % (2 * beat)) / 0.07)
    hat = shaped(frames, sample_rate, rng, 6.0, 2.0) * np.exp(-(time % (beat / 2)) / 0.02)
    drums = kick + rng.uniform(0.2, 0.8) * snare + rng.uniform(0.1, 0.5) * hat
    return unit(drums)


def alarm(frames: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A siren, bell or beeper: a few harmonics whose pitch sweeps, steps or pulses, over street noise."""
    time = np.arange(frames) / sample_rate
    base = float(np.exp(rng.uniform(np.log(350), np.log(2200))))
    cycle = (time * rng.uniform(0.4, 5) + rng.random()) % 1
    kind = int(rng.integers(3))
    course = (np.abs(2 * cycle - 1), (cycle > 0.5).astype(np.float64), 0 * cycle)[kind]
    octaves = float(rng.uniform(0.2, 1)) * course
    phase = np.cumsum(base * 2**octaves) / sample_rate
    audible = max(int(0.45 * sample_rate / (base * 2 ** float(octaves.max()))), 1)
    tone = harmonics(phase, np.arange(1, min(audible, 3) + 1) ** -rng.uniform(0.5, 2), rng)
    if kind == 2:
        tone *= np.clip(np.minimum(cycle, 0.6 - cycle) / 0.01, 0, 1)  # pulsed, with soft edges
    tone *= swell(frames, sample_rate, rng, 3.0, 0.7)
    street = shaped(frames, sample_rate, rng, float(rng.uniform(-6, -3)), 4.0)
    street *= swell(frames, sample_rate, rng, 3.0, 1.0)
    return unit(tone) + float(rng.uniform(0.2, 0.8)) * street
