"""Sound events of struck things: drums, bars, bells, doors, keys."""

from __future__ import annotations

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.events_shared import (
    LONGEST,
    hits,
    log_uniform,
    melody,
    moments,
    placed,
    ringing,
    scattered,
    struck,
)
from encore.data.synthesis.noise_broadband import unit
from encore.data.synthesis.song_sounds import filtered, sine, times

_BAR = np.array([1.0, 2.756, 5.404, 8.933])  # modes of a free bar, over the lowest
_MEMBRANE = np.array([1.0, 1.594, 2.136, 2.296, 2.653, 2.918])  # of a round membrane


def bass_drum(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A bass drum: a membrane whose pitch falls as it comes to rest, and the beater's click."""
    onsets, velocities = hits(rng, single=0.4, most=8, per_second=(1.2, 4.5))
    low, drop = log_uniform(rng, 34, 75), log_uniform(rng, 20, 260)
    ring, fall = log_uniform(rng, 0.06, 0.5), log_uniform(rng, 0.008, 0.05)
    click, skin = float(rng.uniform(0, 0.5)), float(rng.uniform(0, 0.4))
    sounds = []
    for velocity in velocities:
        axis = times(min(6 * ring, 2.0), sample_rate)
        body = sine(low + drop * velocity * np.exp(-axis / fall), axis) * np.exp(-axis / ring)
        overtone = skin * sine(_MEMBRANE[1] * low, axis) * np.exp(-axis / (0.4 * ring))
        beater = rng.standard_normal(axis.size) * np.exp(-axis / 0.003)
        sound = (body + overtone) * np.minimum(1, axis / 0.0015) + click * velocity * filtered(
            beater, sample_rate, low=900.0, high=5000.0
        )
        sounds.append(velocity * sound)
    return placed(onsets, sounds, sample_rate)


def snare_drum(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A snare drum: two modes of the head and the wires' hiss; single, in rhythm or as a roll."""
    roll = rng.random() < 0.3
    onsets, velocities = hits(
        rng, single=0.0 if roll else 0.4, most=40 if roll else 8, per_second=(14, 26) if roll else (1.5, 6)
    )
    if roll:
        velocities = velocities * np.linspace(float(rng.uniform(0.2, 1)), 1, velocities.size)
    tone, ring = log_uniform(rng, 150, 290), log_uniform(rng, 0.03, 0.1)
    wires, buzz = log_uniform(rng, 0.3, 1.2), log_uniform(rng, 0.025, 0.12)
    low = log_uniform(rng, 700, 2500)
    sounds = []
    for velocity in velocities:
        axis = times(6 * max(ring, buzz), sample_rate)
        head = ringing(
            struck(0.0, 1.0, axis[-1], sample_rate, contact=0.001),
            sample_rate,
            tone * _MEMBRANE[:3],
            ring * np.array([1, 0.7, 0.4]),
            (1.0, 0.6, 0.3),
        )
        hiss = filtered(
            rng.standard_normal(axis.size) * np.exp(-axis / buzz), sample_rate, low=low, high=11_000.0
        )
        hiss[: head.size] += head / wires
        sounds.append(velocity * hiss)
    return placed(onsets, sounds, sample_rate)


def hi_hat(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Closed, half-open or open hats: a cluster of inharmonic squares and noise, above some 5 kHz."""
    onsets, velocities = hits(rng, single=0.35, most=16, per_second=(2, 9))
    closed, opened = log_uniform(rng, 0.012, 0.06), log_uniform(rng, 0.15, 0.6)
    often_open = float(rng.choice([0.0, 0.15, 1.0], p=[0.5, 0.3, 0.2]))
    metal = rng.uniform(0.7, 1.4) * np.array([2367.0, 3600.0, 3789.0, 4266.0, 5283.0, 7605.0])
    share, low = float(rng.uniform(0.2, 0.9)), log_uniform(rng, 4500, 6500)
    sounds = []
    for velocity in velocities:
        ring = opened if rng.random() < often_open else closed
        axis = times(min(6 * ring, 2.5), sample_rate)
        cluster = np.zeros(axis.size)
        for hertz in metal[metal < 0.45 * sample_rate]:
            cluster += np.sign(sine(float(hertz), axis, float(rng.uniform(0, 6.28))))
        mixed = share * unit(cluster) + (1 - share) * rng.standard_normal(axis.size)
        sounds.append(velocity * filtered(mixed * np.exp(-axis / ring), sample_rate, low=low, order=4))
    return placed(onsets, sounds, sample_rate)


def cowbell(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A cowbell: two strong inharmonic modes and a few above them; in rhythm, or swinging from a neck."""
    swinging = rng.random() < 0.3
    onsets, velocities = hits(
        rng, single=0.3, most=14, per_second=(2, 5) if swinging else (1.5, 6), loose=0.2 if swinging else 0.02
    )
    low, ring = log_uniform(rng, 380, 950), log_uniform(rng, 0.03, 0.3)
    ratios = np.array(
        [1.0, rng.uniform(1.45, 1.62), rng.uniform(2.4, 2.8), rng.uniform(3.4, 4.1), rng.uniform(5, 6)]
    )
    levels = np.array([1.0, rng.uniform(0.6, 1.1), *(rng.uniform(0.1, 0.45, 3))])
    seconds = min(float(onsets[-1]) + 5 * ring, LONGEST)
    force = struck(onsets, velocities, seconds, sample_rate, contact=log_uniform(rng, 0.0003, 0.0012))
    return ringing(force, sample_rate, low * ratios, ring * ratios**-0.5, levels)


def glockenspiel(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A tune on steel bars, struck by hard mallets."""
    notes = melody(rng, 780, 3300, most=10, seconds=(0.1, 0.8), longest=4.0)
    ring, contact = log_uniform(rng, 0.25, 1.2), log_uniform(rng, 0.0001, 0.0006)
    levels = np.array([1.0, rng.uniform(0.1, 0.5), rng.uniform(0.05, 0.3), rng.uniform(0, 0.1)])
    sounds = []
    for _, _, hertz in notes:
        fall = ring * (1000 / hertz) ** 0.5
        force = struck(0.0, float(rng.uniform(0.5, 1)), min(5 * fall, 3.0), sample_rate, contact=contact)
        sounds.append(ringing(force, sample_rate, hertz * _BAR, fall / np.array([1, 3, 7, 14]), levels))
    return placed([start for start, _, _ in notes], sounds, sample_rate)


def gong(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A gong or tam-tam: dense modes, of which the high ones bloom after the soft blow and die first."""
    seconds = float(rng.uniform(2.0, LONGEST))
    low, count = log_uniform(rng, 55, 220), int(rng.integers(40, 70))
    # the modes of a plate are about evenly spaced, here up to some 3 to 6 kHz
    top = log_uniform(rng, 2500, 6500)
    hertz = low * np.append(1.0, np.sort(np.exp(rng.uniform(np.log(1.3), np.log(top / low), count - 1))))
    ring = log_uniform(rng, 1.0, 3.5) * (hertz / low) ** -rng.uniform(0.3, 0.7)
    levels = (hertz / low) ** -rng.uniform(0.2, 0.8) * rng.lognormal(0, 0.5, count)
    onsets, velocities = hits(rng, single=0.8, most=3, per_second=(0.6, 2.0))
    early = onsets < 0.6 * seconds
    onsets, velocities = onsets[early], velocities[early]
    blow = struck(onsets, velocities, seconds, sample_rate, contact=log_uniform(rng, 0.003, 0.012))
    rise = log_uniform(rng, 0.03, 0.35)
    axis = times(seconds, sample_rate)
    shimmer = np.zeros(axis.size)
    for onset, velocity in zip(onsets, velocities, strict=True):
        since = np.maximum(axis - onset, 0) / rise
        shimmer += velocity * since * np.exp(1 - since)
    shimmer *= rng.standard_normal(axis.size)
    body = unit(ringing(blow, sample_rate, hertz, ring, levels))
    bloom = unit(ringing(shimmer, sample_rate, hertz[count // 4 :], ring[count // 4 :], levels[count // 4 :]))
    return body + float(rng.uniform(0.25, 1.0)) * bloom


def chime(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Wind chimes, whose tubes meet at random in gusts, or a slow tune of long tubes."""
    if rng.random() < 0.3:
        notes = melody(rng, 260, 700, most=4, seconds=(0.5, 1.0), longest=3.5)
        fixed: list[tuple[float, float]] = [(start, hertz) for start, _, hertz in notes]
        ring, seconds = log_uniform(rng, 0.8, 2.0), LONGEST
    else:
        seconds, rate = float(rng.uniform(2.0, LONGEST)), log_uniform(rng, 4, 16)
        steps = np.array([0, 2, 4, 7, 9, 12, 14])[: int(rng.integers(4, 8))]
        tubes = log_uniform(rng, 500, 1500) * 2 ** (steps / 12)
        gust, phase = float(rng.uniform(1, 6)), float(rng.uniform(0, 6.28))
        onsets = scattered(rng, 0.7 * seconds, rate * (1 + np.sin(gust * moments(0.7 * seconds) + phase)))
        fixed = [(0.02 + float(onset - onsets[0]), float(rng.choice(tubes))) for onset in onsets]
        ring = log_uniform(rng, 0.4, 1.5)
    total = np.zeros(round(seconds * sample_rate))
    contact, bright = log_uniform(rng, 0.0002, 0.001), float(rng.uniform(0.2, 0.8))
    for tube in sorted({hertz for _, hertz in fixed}):
        own = [onset for onset, hertz in fixed if hertz == tube]
        force = struck(own, rng.uniform(0.2, 1, len(own)), seconds, sample_rate, contact=contact)
        # two modes that a tube out of round splits beat slowly
        split = tube * (1 + rng.uniform(0.0005, 0.004))
        partials = np.array([tube, split, tube * _BAR[1], tube * _BAR[2]])
        total += ringing(
            force, sample_rate, partials, ring * np.array([1, 1, 0.5, 0.2]), (1, 0.7, bright, bright / 2)
        )
    return total


def knock(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Knuckles on a door, two to seven in a row, perhaps twice."""
    onsets, velocities = hits(rng, single=0.05, most=7, per_second=(2.5, 8), loose=0.06)
    if rng.random() < 0.3 and onsets[-1] < 1.5:
        pause = float(onsets[-1] + rng.uniform(0.5, 1.2))
        onsets, velocities = np.append(onsets, onsets + pause), np.append(velocities, velocities)
    count = int(rng.integers(5, 10))
    low = log_uniform(rng, 70, 180)
    hertz = np.append(low, low * rng.uniform(1.3, 7, count))
    ring = log_uniform(rng, 0.01, 0.04) * (hertz / low) ** -0.6
    seconds = min(float(onsets[-1]) + 0.25, LONGEST)
    contact = log_uniform(rng, 0.0007, 0.003)
    return ringing(
        struck(onsets, velocities, seconds, sample_rate, contact=contact),
        sample_rate,
        hertz,
        ring,
        np.append(1.0, rng.uniform(0.2, 1, count)),
    )


def tambourine(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A tambourine struck or shaken: each time its jingles clash a few dozen times within a moment."""
    shaken = rng.random() < 0.4
    onsets, velocities = hits(
        rng, single=0.05 if shaken else 0.3, most=20, per_second=(5, 10) if shaken else (1.5, 5)
    )
    spread = log_uniform(rng, 0.008, 0.035)
    clashes = [onset + rng.exponential(spread, int(rng.integers(10, 25))) for onset in onsets]
    weights = [
        velocity * rng.lognormal(-1, 0.6, own.size) for velocity, own in zip(velocities, clashes, strict=True)
    ]
    seconds = min(float(onsets[-1]) + 8 * spread + 0.2, LONGEST)
    force = struck(np.concatenate(clashes), np.concatenate(weights), seconds, sample_rate, contact=0.0001)
    force *= rng.standard_normal(force.size)
    hertz = rng.uniform(3200, 11_000, 24)
    sound = unit(
        ringing(force, sample_rate, hertz, rng.uniform(0.008, 0.04, hertz.size), rng.uniform(0.3, 1, 24))
    )
    if not shaken:
        skin = struck(onsets, velocities, seconds, sample_rate, contact=0.004)
        low = log_uniform(rng, 160, 420)
        sound += float(rng.uniform(0.1, 0.6)) * unit(ringing(skin, sample_rate, low * _MEMBRANE[:4], 0.03))
    return sound


def keys_jangling(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A bunch of keys shaken: clinks of a few keys, each with high modes of its own, in irregular gusts."""
    seconds = float(rng.uniform(0.8, 4.5))
    rate, shake = log_uniform(rng, 8, 35), float(rng.uniform(1, 4))
    phase = float(rng.uniform(0, 6.28))
    swings = 1 + np.sin(6.28 * shake * moments(seconds - 0.2) + phase)
    onsets = scattered(rng, seconds - 0.2, rate * swings**2)
    onsets += 0.02 - onsets[0]
    owner = rng.integers(0, 5, onsets.size)
    total = np.zeros(round(seconds * sample_rate))
    for key in range(5):
        own = onsets[owner == key]
        force = struck(own, rng.lognormal(-0.5, 0.7, own.size), seconds, sample_rate, contact=0.0001)
        hertz = rng.uniform(1800, 7600, 5)
        total += ringing(force, sample_rate, hertz, rng.uniform(0.006, 0.06, 5), rng.uniform(0.3, 1, 5))
    return total
