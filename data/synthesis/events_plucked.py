"""Sound events of plucked strings, electric pianos and telephones."""

from __future__ import annotations

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.events_shared import LONGEST, hits, log_uniform, melody, placed, ringing, struck
from encore.data.synthesis.song_effects import equalised
from encore.data.synthesis.song_sounds import filtered, plucked, sine, times, wave


def double_bass(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A double bass, plucked, walking."""
    notes = melody(rng, 41, 160, most=10, seconds=(0.2, 1.2), longest=4.0)
    bright, ring = float(rng.uniform(0.05, 0.6)), log_uniform(rng, 0.25, 1.0)
    place, body = float(rng.uniform(0.15, 0.4)), log_uniform(rng, 90, 130)
    sounds = []
    for _, length, hertz in notes:
        sound = plucked(hertz, length + 0.4, sample_rate, brightness=bright, ring=ring, place=place)
        axis = times(length + 0.4, sample_rate)
        finger = filtered(rng.standard_normal(axis.size), sample_rate, low=300.0, high=1500.0) * np.exp(
            -axis / 0.01
        )
        damped = np.exp(-np.maximum(axis - length, 0) / 0.05)
        sounds.append(float(rng.uniform(0.6, 1)) * (sound + 0.15 * finger) * damped)
    track = placed([start for start, _, _ in notes], sounds, sample_rate)
    return equalised(track, sample_rate, hertz=body, gain_db=6.0, width=1.0)


def acoustic_guitar(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A guitar: strummed chords or single strings, Karplus-Strong, under the body's resonances."""
    loss, softness = log_uniform(rng, 0.4, 2.5), float(rng.uniform(0.1, 0.5))
    place = float(rng.uniform(0.08, 0.35))
    onsets, sounds = [], []
    if rng.random() < 0.5:
        notes = [
            (start, hertz)
            for start, _, hertz in melody(rng, 82, 660, most=14, seconds=(0.1, 0.8), longest=3.5)
        ]
    else:
        beats, _ = hits(rng, single=0.3, most=8, per_second=(0.8, 3.5))
        notes = []
        for start in beats:
            root = 82.41 * 2 ** (float(rng.choice([0, 3, 5, 7, 8, 10])) / 12)
            third = int(rng.choice([3, 4]))
            strings = np.array([0, 7, 12, 12 + third, 19, 24])[int(rng.integers(0, 3)) :]
            gap = log_uniform(rng, 0.004, 0.04)
            notes += [(start + gap * n, root * 2 ** (step / 12)) for n, step in enumerate(strings)]
    for start, hertz in notes:
        onsets.append(start)
        sounds.append(
            float(rng.uniform(0.6, 1)) * karplus_strong(hertz, 2.0, sample_rate, rng, loss, softness, place)
        )
    track = placed(onsets, sounds, sample_rate)
    for hertz, gain in ((log_uniform(rng, 95, 120), 6.0), (log_uniform(rng, 190, 230), 4.0)):
        track = equalised(track, sample_rate, hertz=hertz, gain_db=gain, width=0.8)
    return track


def karplus_strong(
    hertz: float,
    seconds: float,
    sample_rate: int,
    rng: np.random.Generator,
    ring: float,
    softness: float,
    place: float,
) -> FloatArray:
    """A plucked string: a burst of noise that goes round in a delay line and loses its highs.

    Args:
        hertz: Frequency.
        seconds: Length.
        sample_rate: Hz.
        rng: Draws the burst.
        ring: Seconds in which the fundamental of a string of 200 Hz falls to 1/e; others as 1 / frequency.
        softness: Of the loop's low-pass, up to 0.5.
        place: Where it is plucked, as a share of the string: every ``1 / place``-th harmonic is missing.

    Returns:
        ``(time,)``, peak about 1.

    Source: D. Jaffe and J. Smith, "Extensions of the Karplus-Strong plucked-string algorithm", 1983.
    """
    # the low-pass delays by its softness, interpolation by the rest
    whole, part = divmod(sample_rate / hertz - softness, 1.0)
    period = int(whole)
    gain = np.exp(-1 / (ring * 200))
    taps = gain * np.convolve([1 - softness, softness], [1 - part, part])
    burst = filtered(
        rng.uniform(-1, 1, period + 2), sample_rate, high=float(rng.uniform(2500, 7000)), order=1
    )
    burst -= np.roll(burst, max(1, round(place * period)))
    count = round(seconds * sample_rate)
    string = np.zeros((count // period + 3) * period + 2)
    string[: period + 2] = burst
    for first in range(period + 2, string.size - period + 1, period):
        block = slice(first - period, first)
        string[first : first + period] = (
            taps[0] * string[block]
            + taps[1] * string[first - period - 1 : first - 1]
            + taps[2] * string[first - period - 2 : first - 2]
        )
    axis = times(seconds, sample_rate)
    return np.asarray(string[:count] * np.clip((seconds - axis) / 0.05, 0, 1))


def electric_piano(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """An electric piano: a tone and its struck tine, chords or a tune, often with tremolo."""
    notes = melody(rng, 165, 1000, most=8, seconds=(0.15, 1.6), longest=4.2)
    index, ring = float(rng.uniform(0.1, 0.6)), log_uniform(rng, 0.5, 2.0)
    tine = float(rng.choice([7.0, 14.0, 4.0]))
    chord = ((0,), (0, 4, 7), (0, 3, 7, 10), (0, 4, 7, 11))[int(rng.integers(4))]
    sounds = []
    for _, length, hertz in notes:
        axis = times(min(length + 0.3, 2.5), sample_rate)
        total = np.zeros(axis.size)
        for interval in chord:
            own = hertz * 2 ** (interval / 12)
            total += np.exp(-axis / ring) * np.sin(2 * np.pi * own * axis)
            total += 0.3 * np.exp(-2 * axis / ring) * np.sin(4 * np.pi * own * axis)
            if tine * own < 0.45 * sample_rate:
                total += index * np.exp(-axis / 0.08) * np.sin(2 * np.pi * tine * own * axis)
        sounds.append(total * np.minimum(1, axis / 0.002) * np.clip((axis[-1] - axis) / 0.08, 0, 1))
    track = placed([start for start, _, _ in notes], sounds, sample_rate)
    axis = np.arange(track.size) / sample_rate
    depth = float(rng.choice([0.0, rng.uniform(0.2, 0.6)]))
    return np.asarray(track * (1 - depth * (0.5 + 0.5 * sine(float(rng.uniform(3.5, 6.5)), axis))))


def telephone(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A telephone: two bells under a clapper, an electronic warble, or keys being dialled."""
    kind = str(rng.choice(["bell", "warble", "dialled"], p=[0.4, 0.35, 0.25]))
    if kind == "dialled":
        return _dialled(sample_rate, rng)
    ring, pause = float(rng.uniform(0.4, 1.8)), float(rng.uniform(0.2, 1.2))
    starts = [
        start for start in (0.02, 0.02 + ring + pause, 0.02 + 2 * (ring + pause)) if start + ring < LONGEST
    ]
    if kind == "bell":
        clapper = float(rng.uniform(18, 27))
        onsets = np.concatenate([start + np.arange(0, ring, 1 / clapper) for start in starts])
        seconds = min(float(onsets[-1]) + 0.9, LONGEST)
        total = np.zeros(round(seconds * sample_rate))
        fall, low = log_uniform(rng, 0.08, 0.35), log_uniform(rng, 700, 1500)
        for bell in range(2):
            force = struck(
                onsets[bell::2], rng.uniform(0.8, 1, onsets[bell::2].size), seconds, sample_rate, contact=2e-4
            )
            hertz = low * rng.uniform(1.1, 1.35) ** bell * np.array([1.0, 2.1, 3.4, 4.7])
            total += ringing(force, sample_rate, hertz, fall, (1.0, 0.8, 0.5, 0.3))
        return total
    axis = times(ring, sample_rate)
    low, speed = log_uniform(rng, 600, 1600), log_uniform(rng, 8, 25)
    high = low * float(rng.choice([1.125, 1.2, 1.25, 1.333]))
    pitch = np.where((axis * speed) % 1 < 0.5, low, high)
    warble = wave(pitch, axis, sample_rate, odd=bool(rng.random() < 0.5), tilt=float(rng.uniform(1, 2.5)))
    warble *= np.clip(np.minimum(axis, ring - axis) / 0.01, 0, 1)
    return placed(starts, [warble] * len(starts), sample_rate)


def _dialled(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Two sines a key, as Recommendation Q.23 of the ITU has them."""
    rows, columns = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0)
    length, gap = float(rng.uniform(0.07, 0.25)), float(rng.uniform(0.05, 0.25))
    count = min(int(rng.integers(3, 12)), int(4.5 / (length + gap)))
    axis = times(length, sample_rate)
    edge = np.clip(np.minimum(axis, length - axis) / 0.004, 0, 1)
    sounds = [
        edge * (sine(float(rng.choice(rows)), axis) + sine(float(rng.choice(columns)), axis))
        for _ in range(count)
    ]
    return placed([0.02 + (length + gap) * number for number in range(count)], sounds, sample_rate)
