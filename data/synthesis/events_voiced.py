"""Sound events of throats: dogs, cats and people who laugh; pulses of a glottis under moving formants."""

from __future__ import annotations

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.events_shared import LONGEST, hits, log_uniform, placed
from encore.data.synthesis.noise_broadband import slow_walk, unit
from encore.data.synthesis.song_sounds import filtered, times

_FRAME = 0.004  # seconds at which levels of harmonics are set
_HARMONICS = 40


def voiced(
    pitch: FloatArray,
    strength: FloatArray,
    formants: FloatArray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    tilt: float,
    breath: float,
    rough: float = 0.0,
) -> FloatArray:
    """A sound of a throat: harmonics, and noise where they are, as loud as formants let them be.

    Args:
        pitch: ``(time,)`` in Hz.
        strength: ``(time,)``.
        formants: ``(formant, time)`` in Hz; each is a fifth of itself wide, and at least 80 Hz.
        sample_rate: Hz.
        rng: Draws noise and roughness.
        tilt: Without formants harmonic k has the level ``k ** -tilt``.
        breath: Level of the noise, of the tone's.
        rough: Standard deviation of the pitch from one few milliseconds to the next, in octaves.

    Returns:
        ``(time,)``.
    """
    frames = np.arange(0, pitch.size, round(_FRAME * sample_rate))
    shaken = pitch * 2 ** (rough * slow_walk(pitch.size, sample_rate, rng, 90.0))
    turns = np.cumsum(shaken) / sample_rate
    centres = formants[:, frames]
    widths = np.maximum(0.2 * centres, 80.0)
    axis = np.arange(pitch.size)
    tone = np.zeros(pitch.size)
    for number in range(1, _HARMONICS + 1):
        hertz = number * shaken[frames]
        if hertz.min() > 0.45 * sample_rate:
            break
        level = (1 / (1 + ((hertz - centres) / widths) ** 2)).sum(0) + 0.02
        level = level * number**-tilt * (hertz < 0.45 * sample_rate)
        tone += np.interp(axis, frames, level) * np.sin(2 * np.pi * number * turns)
    noise = np.zeros(pitch.size)
    for place in centres.mean(1):
        noise += unit(
            filtered(
                rng.standard_normal(pitch.size), sample_rate, low=0.8 * place, high=1.25 * place, order=1
            )
        )
    return np.asarray((unit(tone) + breath * unit(noise)) * strength)


def bark(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A dog: short cries whose pitch jumps up and falls, the mouth opening and closing, with much noise."""
    onsets, velocities = hits(rng, single=0.2, most=7, per_second=(1.2, 3.5), loose=0.12)
    size = log_uniform(rng, 0.7, 1.7)  # of the vocal tract, against that of a middling dog
    usual, length = log_uniform(rng, 250, 650) / size, log_uniform(rng, 0.09, 0.25)
    breath, rough = float(rng.uniform(0.1, 0.7)), float(rng.uniform(0.03, 0.15))
    sounds = []
    for velocity in velocities:
        axis = times(length * float(rng.uniform(0.85, 1.2)), sample_rate)
        share = axis / axis[-1]
        arch = np.sin(np.pi * share**0.7)
        pitch = usual * (0.75 + 0.5 * arch) * float(rng.uniform(0.93, 1.08))
        formants = np.stack([(550 + 350 * arch), (1150 + 450 * arch), 2600 + 200 * arch]) / size
        strength = velocity * np.minimum(1, axis / 0.008) * (1 - share) ** 0.7
        sounds.append(
            voiced(pitch, strength, formants, sample_rate, rng, tilt=0.6, breath=breath, rough=rough)
        )
    return placed(onsets, sounds, sample_rate)


def meow(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A cat: a long cry whose pitch arches while the mouth opens from m to a and closes to u."""
    size, usual = log_uniform(rng, 0.8, 1.25), log_uniform(rng, 380, 850)
    breath, opened = float(rng.uniform(0.02, 0.2)), float(rng.uniform(0.35, 0.65))
    start = 0.02
    onsets: list[float] = []
    sounds: list[FloatArray] = []
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        length = log_uniform(rng, 0.35, 1.5)
        if onsets and start + length > LONGEST - 0.3:
            break
        axis = times(length, sample_rate)
        share = axis / length
        arch = np.interp(share, [0, opened, 1], [0, 1, float(rng.uniform(0, 0.3))])
        arch = 0.5 - 0.5 * np.cos(np.pi * arch)
        wobble = 1 + 0.03 * np.sin(2 * np.pi * float(rng.uniform(5, 9)) * axis)
        pitch = usual * (0.8 + float(rng.uniform(0.2, 0.7)) * arch) * wobble
        front = np.interp(share, [0, opened, 1], [2400, 2000, 1000])
        formants = np.stack([450 + 700 * arch, front, 3500 + 300 * arch]) / size
        strength = np.minimum(1, axis / 0.06) * np.clip((length - axis) / 0.12, 0, 1) * (0.35 + 0.65 * arch)
        sounds.append(
            voiced(pitch, strength, formants, sample_rate, rng, tilt=0.5, breath=breath, rough=0.01)
        )
        onsets.append(start)
        start += length + float(rng.uniform(0.2, 0.9))
    return placed(onsets, sounds, sample_rate)


def laughter(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A person laughs: ha after ha, each breathed in and out, their pitch and strength falling."""
    start = 0.02
    onsets: list[float] = []
    sounds: list[FloatArray] = []
    woman = rng.random() < 0.5
    usual, size = log_uniform(rng, 230, 480) if woman else log_uniform(rng, 120, 280), 0.87 if woman else 1.0
    vowel = np.array([[730.0, 1200, 2500], [560, 1750, 2550], [500, 950, 2450]][int(rng.integers(3))]) / size
    rate, tilt = float(rng.uniform(3.8, 6.5)), float(rng.uniform(0.5, 1.1))
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        count = int(rng.integers(3, 10))
        peak = float(rng.uniform(1.0, 1.6))
        for number in range(count):
            length = float(rng.uniform(0.5, 0.75)) / rate
            if start + length > LONGEST - 0.4:
                break
            axis = times(length, sample_rate)
            fall = (peak - (peak - 0.8) * number / count) * float(rng.uniform(0.94, 1.06))
            pitch = usual * fall * (1.06 - 0.2 * axis / length)
            formants = np.repeat(vowel[:, None], axis.size, axis=1)
            strength = (1 - 0.6 * number / count) * np.minimum(1, axis / 0.025) * (1 - axis / length) ** 0.5
            voice = voiced(pitch, strength, formants, sample_rate, rng, tilt=tilt, breath=0.2, rough=0.02)
            puff = times(0.35 / rate, sample_rate)
            aspirated = filtered(rng.standard_normal(puff.size), sample_rate, low=900.0, high=4500.0, order=1)
            sounds += [voice, 0.15 * strength.max() * unit(aspirated) * np.sin(np.pi * puff / puff[-1])]
            onsets += [start, start + length]
            start += 1 / rate * float(rng.uniform(0.93, 1.07))
        start += float(rng.uniform(0.3, 0.7))
    return placed(onsets, sounds, sample_rate)
