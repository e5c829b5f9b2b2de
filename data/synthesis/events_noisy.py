"""Sound events of noise: hands, machines for writing, paper, glass, blades, fireworks."""

from __future__ import annotations

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.events_shared import (
    LONGEST,
    hits,
    log_uniform,
    moments,
    placed,
    ringing,
    scattered,
    struck,
)
from encore.data.synthesis.noise_broadband import shaped, slow_walk, swell, unit
from encore.data.synthesis.song_sounds import filtered, sine, times


def applause(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Three to some hundred people who clap, each with hands and a tempo of their own."""
    seconds = float(rng.uniform(1.5, LONGEST))
    frames = round(seconds * sample_rate)
    total = np.zeros(frames)
    people, groups = log_uniform(rng, 4, 150), 6
    for _ in range(groups):
        # the hands of a group resonate alike: a cavity of a few hundred Hz to 2 kHz, wide
        rate = people / groups * float(rng.uniform(2.5, 5))
        onsets = scattered(rng, seconds, rate)
        force = struck(onsets, rng.lognormal(-0.5, 0.5, onsets.size), seconds, sample_rate, contact=0.0015)
        force *= rng.standard_normal(frames)
        hertz = log_uniform(rng, 600, 2200) * np.array([1.0, 1.9])
        total += unit(ringing(force, sample_rate, hertz, (0.0012, 0.0006), (1.0, 0.7)))
        total += float(rng.uniform(0.1, 0.4)) * unit(filtered(force, sample_rate, low=1500.0))
    crowd = 0.12 * np.log10(people) * shaped(frames, sample_rate, rng, -2.0, 2.0)
    fade = np.clip(times(seconds, sample_rate) / rng.uniform(0.02, 0.8), 0, 1)
    end = np.clip((seconds - times(seconds, sample_rate)) / rng.uniform(0.02, 1.2), 0, 1)
    return np.asarray((unit(total) + crowd) * fade * end * swell(frames, sample_rate, rng, 2.0, 1.0))


def computer_keyboard(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Typing: every key clicks when pressed, thuds on the board, and clicks again, softer, when let go."""
    seconds = float(rng.uniform(1.0, LONGEST))
    rate = log_uniform(rng, 3.5, 11)
    gaps = 1 / rate * rng.gamma(3.0, 1 / 3, int(2 * rate * seconds) + 2)
    gaps[rng.random(gaps.size) < 0.08] += rng.uniform(0.2, 0.8)
    onsets = np.cumsum(gaps)
    onsets = np.append(0.03, onsets[onsets < seconds - 0.15])
    velocities = rng.lognormal(-0.3, 0.3, onsets.size)
    releases = onsets + rng.uniform(0.05, 0.12, onsets.size)
    clicks = np.concatenate((onsets, onsets + rng.uniform(0.004, 0.012), releases))
    strength = np.concatenate((velocities, 0.7 * velocities, float(rng.uniform(0.2, 0.6)) * velocities))
    force = struck(clicks, strength, seconds, sample_rate, contact=0.0012)
    force *= rng.standard_normal(force.size)
    hertz = log_uniform(rng, 1600, 3200) * np.array([1.0, rng.uniform(1.3, 1.7), rng.uniform(1.9, 2.6)])
    click = unit(ringing(force, sample_rate, hertz, rng.uniform(0.0008, 0.004, 3), (1.0, 0.8, 0.6)))
    board = struck(onsets, velocities, seconds, sample_rate, contact=0.002)
    low = log_uniform(rng, 130, 350)
    thud = unit(ringing(board, sample_rate, low * np.array([1.0, 1.7, 2.6]), 0.008))
    return click + float(rng.uniform(0.2, 0.7)) * thud


def finger_snapping(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Snaps of fingers: a short click with one wide resonance, and the slap on the palm just after it."""
    onsets, velocities = hits(rng, single=0.3, most=9, per_second=(1, 3.5), loose=0.05)
    seconds = min(float(onsets[-1]) + 0.2, LONGEST)
    snap = struck(onsets, velocities, seconds, sample_rate, contact=0.0008)
    late = float(rng.uniform(0.002, 0.007))
    slap = struck(onsets + late, velocities, seconds, sample_rate, contact=0.003)
    noise = rng.standard_normal(snap.size)
    hertz = log_uniform(rng, 1500, 3300)
    tone = ringing(
        snap, sample_rate, (hertz, 1.6 * hertz), (log_uniform(rng, 0.0015, 0.005), 0.0015), (1, 0.5)
    )
    palm = filtered(slap * noise, sample_rate, low=500.0, high=2500.0)
    return unit(tone) + float(rng.uniform(0.1, 0.5)) * unit(palm)


def tearing(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Paper or cloth torn: fibres snap ever faster, a crackle that becomes a hiss whose pitch rises."""
    sounds, onsets, start = [], [], 0.02
    low, fibres = log_uniform(rng, 700, 2500), log_uniform(rng, 250, 2500)
    for _ in range(int(rng.integers(1, 6))):
        seconds = log_uniform(rng, 0.15, 1.5)
        speed = float(rng.uniform(0.3, 2.5))
        snaps = scattered(rng, seconds, fibres * (0.3 + moments(1.0) ** speed))
        force = struck(snaps, rng.lognormal(0, 0.9, snaps.size), seconds, sample_rate, contact=0.0001)
        force *= rng.choice([-1.0, 1.0], force.size)
        hiss = filtered(force, sample_rate, low=low, order=1) + 0.5 * ringing(
            force, sample_rate, rng.uniform(1500, 6500, 3), 0.0008
        )
        axis = times(seconds, sample_rate)[: hiss.size]
        shape = np.minimum(1, axis / 0.01) * (0.4 + 0.6 * (axis / seconds) ** speed)
        rough = 1 + 0.6 * np.tanh(slow_walk(hiss.size, sample_rate, rng, float(rng.uniform(15, 50))))
        sounds.append(hiss * shape * rough * np.clip((seconds - axis) / 0.02, 0, 1))
        onsets.append(start)
        start += seconds + float(rng.uniform(0.02, 0.5))
        if start > LONGEST - 0.5:
            break
    return placed(onsets, sounds, sample_rate)


def shatter(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Glass breaks: a crash, and shards that ring high as they fall, ever fewer."""
    seconds = log_uniform(rng, 0.7, 3.5)
    frames = round(seconds * sample_rate)
    last = log_uniform(rng, 0.12, 0.7)
    rate = log_uniform(rng, 60, 350)
    onsets = 0.02 + scattered(rng, seconds - 0.05, rate * np.exp(-moments(seconds - 0.05) / last))
    size = np.exp(-np.minimum(onsets / last, 3) / 2) * rng.lognormal(-0.5, 0.8, onsets.size)
    total = np.zeros(frames)
    owner = rng.integers(0, 12, onsets.size)
    for shard in range(12):
        own = owner == shard
        force = struck(onsets[own], size[own], seconds, sample_rate, contact=0.0001)
        hertz = log_uniform(rng, 2000, 5500) * np.array([1.0, 1.0 + rng.uniform(0.2, 0.9)])
        total += ringing(force, sample_rate, hertz, rng.uniform(0.006, 0.05, 2), (1.0, 0.7))
    axis = np.maximum(times(seconds, sample_rate)[:frames] - 0.02, 0)
    crash = shaped(frames, sample_rate, rng, float(rng.uniform(0, 4)), 4.0)
    crash *= np.exp(-axis / log_uniform(rng, 0.02, 0.12)) * (axis > 0)
    return unit(total) + float(rng.uniform(0.5, 2)) * unit(crash)


def scissors(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Scissors: the blades scrape along each other, ever higher, and meet with a click; again and again."""
    onsets, velocities = hits(rng, single=0.1, most=14, per_second=(1.2, 4.5), loose=0.08)
    scrape = log_uniform(rng, 0.07, 0.25)
    low, high = log_uniform(rng, 2200, 3500), log_uniform(rng, 4500, 7000)
    metal = rng.uniform(3000, 7500, 4)
    sounds = []
    for velocity in velocities:
        length = scrape * float(rng.uniform(0.7, 1.3))
        axis = times(length + 0.1, sample_rate)
        share = np.clip(axis / length, 0, 1)
        noise = rng.standard_normal(axis.size)
        # a band that moves up: noise on a carrier that does
        carrier = sine(low + (high - low) * share, axis)
        slow = filtered(noise, sample_rate, high=900.0)
        hiss = unit(slow) * carrier + 0.3 * filtered(noise, sample_rate, low=4000.0)
        shape = np.minimum(1, axis / 0.01) * (0.3 + 0.7 * share) * (axis < length)
        blades = struck(length, 1.0, axis[-1] + 1 / sample_rate, sample_rate, contact=0.0002)
        click = ringing(blades, sample_rate, metal, 0.012, (1.0, 0.8, 0.6, 0.5))
        sound = hiss * shape
        sound[: click.size] += 1.5 * click[: sound.size]
        sounds.append(velocity * sound)
    return placed(onsets, sounds, sample_rate)


def writing(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """A pencil or chalk on paper: scratching strokes, a tap where one begins, and pauses between words."""
    start, onsets, sounds = 0.02, [], []
    usual, centre = log_uniform(rng, 0.05, 0.16), log_uniform(rng, 900, 3000)
    width, tap = float(rng.uniform(1.5, 3)), float(rng.uniform(0, 1.2))
    low = log_uniform(rng, 180, 500)
    until = float(rng.uniform(1.2, LONGEST - 0.3))
    while start < until:
        length = usual * float(rng.uniform(0.5, 1.8))
        axis = times(length + 0.05, sample_rate)
        grain = rng.standard_normal(axis.size)
        scratch = filtered(grain, sample_rate, low=centre / width, high=centre * width)
        # speed, and with it level, is that of a stroke: none, most, none
        scratch *= np.sin(np.pi * np.clip(axis / length, 0, 1)) ** float(rng.uniform(0.5, 1.5))
        blow = struck(0.0, 1.0, axis.size / sample_rate, sample_rate, contact=0.002)
        knock = ringing(blow, sample_rate, low * np.array([1.0, 2.3]), 0.006)
        sounds.append(float(rng.uniform(0.4, 1)) * (unit(scratch) + tap * knock[: axis.size] * 3))
        onsets.append(start)
        start += length + float(rng.choice([0.01, 0.04, 0.3], p=[0.5, 0.4, 0.1])) * float(
            rng.uniform(0.5, 1.5)
        )
    return placed(onsets, sounds, sample_rate)


def fireworks(sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Shells: perhaps a whistle on the way up, a boom that rolls among houses, and a crackle of stars."""
    start, onsets, sounds = 0.02, [], []
    distant = log_uniform(rng, 300, 2500)
    for _ in range(int(rng.integers(1, 6))):
        if rng.random() < 0.3:
            length = float(rng.uniform(0.3, 0.9))
            axis = times(length, sample_rate)
            first, last = log_uniform(rng, 900, 2500), log_uniform(rng, 900, 3500)
            whistle = sine(first + (last - first) * axis / length, axis)
            sounds.append(0.2 * whistle * np.sin(np.pi * axis / length) ** 0.5)
            onsets.append(start)
            start += length
        roll = log_uniform(rng, 0.12, 0.6)
        axis = times(5 * roll, sample_rate)
        boom = filtered(rng.standard_normal(axis.size), sample_rate, low=40.0, high=distant, order=1)
        shape = np.exp(-axis / roll) + 4 * np.exp(-axis / 0.015)
        sounds.append(unit(boom) * shape * np.minimum(1, axis / 0.002) * float(rng.uniform(0.5, 1.2)))
        onsets.append(start)
        if rng.random() < 0.6:
            length = float(rng.uniform(0.5, 1.6))
            pops = scattered(rng, length, 90 * np.exp(-moments(2.0)))
            force = struck(pops, rng.lognormal(-1, 0.7, pops.size), length + 0.1, sample_rate, contact=0.0008)
            force *= rng.standard_normal(force.size)
            stars = ringing(force, sample_rate, rng.uniform(700, 4000, 4), 0.002)
            sounds.append(float(rng.uniform(0.2, 0.6)) * unit(stars))
            onsets.append(start + float(rng.uniform(0.1, 0.5)))
        start += log_uniform(rng, 0.15, 1.6)
        if start > LONGEST - 0.8:
            break
    return placed(onsets, sounds, sample_rate)
