"""Drums of a song: a kit of drawn sounds, and patterns by genre with fills and accents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.song import Bar, Song
from encore.data.synthesis.song_effects import coloured, panned, reverberated, warmed
from encore.data.synthesis.song_sounds import filtered, mix_in, sine, times

_STEPS = 4  # of a beat
# chance of a kick at every sixteenth of four beats beside the first
_KICKS = {
    "rock": (1, 0, 0.1, 0.1, 0, 0, 0.25, 0.1, 0.8, 0, 0.45, 0, 0, 0, 0.2, 0.1),
    "pop": (1, 0, 0, 0.1, 0, 0, 0.3, 0.1, 0.5, 0, 0.5, 0, 0, 0, 0.15, 0),
    "electronic": (1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0.05, 1, 0, 0, 0.1),
    "ballad": (1, 0, 0, 0, 0, 0, 0.2, 0, 0.7, 0, 0.2, 0, 0, 0, 0, 0),
    "funk": (1, 0, 0.2, 0.4, 0, 0.1, 0.5, 0.2, 0.2, 0.2, 0.6, 0.1, 0, 0.3, 0.3, 0.1),
    "waltz": (1, 0, 0, 0, 0, 0, 0.1, 0, 0, 0, 0.15, 0, 0, 0, 0, 0),
}


def drums(song: Song, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Play the drums of a song.

    Args:
        song: The composition.
        sample_rate: Hz.
        rng: Draws the kit, the patterns and the hands.

    Returns:
        ``(time, 2)``, any level.
    """
    kit = _Kit(sample_rate, rng)
    track: FloatArray = np.zeros((round(song.seconds * sample_rate), 2))
    patterns = {section: _pattern(song, rng) for section in ("intro", "verse", "chorus", "bridge")}
    cymbals = str(rng.choice(("hat", "ride", "shaker"), p=(0.6, 0.2, 0.2)))
    for bar in song.playing("drums"):
        for name, step, velocity in _hits(song, bar, patterns[bar.section], cymbals, rng):
            late = rng.normal(0, 0.004)
            sound = kit.hit(name, velocity, rng)
            mix_in(track, sound, song.time(bar, step / _STEPS) + late, sample_rate)
    track = warmed(coloured(track, sample_rate, rng, 4.0), float(rng.uniform(0, 0.25)))
    return reverberated(
        track, sample_rate, rng, seconds=float(rng.uniform(0.25, 1.2)), amount=float(rng.uniform(0.05, 0.3))
    )


def _pattern(song: Song, rng: np.random.Generator) -> dict[str, list[int]]:
    """Steps of a bar at which kick, snare and ghost notes fall."""
    steps = song.beats * _STEPS
    kick = [step for step in range(steps) if step == 0 or rng.random() < _KICKS[song.genre][step]]
    snare = [4, 8] if song.beats == 3 else [4, 12]
    if song.genre == "ballad" and rng.random() < 0.4:
        snare = [8]
    chance = 0.25 if song.genre == "funk" else 0.05
    ghosts = [step for step in range(steps) if step not in snare and step % 4 and rng.random() < chance]
    return {"kick": kick, "snare": snare, "ghost": ghosts, "grid": [int(rng.choice((1, 2, 2, 4)))]}


def _hits(
    song: Song, bar: Bar, pattern: dict[str, list[int]], cymbals: str, rng: np.random.Generator
) -> list[tuple[str, int, float]]:
    """Name, step and velocity of every hit of a bar."""
    steps, energy = song.beats * _STEPS, bar.energy
    hits: list[tuple[str, int, float]] = []
    fill_from = steps - _STEPS * int(rng.integers(1, 3)) if bar.last and rng.random() < 0.7 else steps
    hits += [("kick", step, 0.8 + 0.2 * energy) for step in pattern["kick"]]
    hits += [("snare", step, 0.65 + 0.35 * energy) for step in pattern["snare"] if step < fill_from]
    hits += [("snare", step, 0.18) for step in pattern["ghost"] if step < fill_from and rng.random() < 0.7]
    grid = pattern["grid"][0] if energy > 0.5 else max(2, pattern["grid"][0])
    for step in range(0, min(steps, fill_from), grid):
        accent = 1.0 if step % _STEPS == 0 else 0.65 if step % 2 == 0 else 0.45
        opened = cymbals == "hat" and step % 4 == 2 and rng.random() < 0.12 + 0.2 * (energy > 0.8)
        hits.append(("open" if opened else cymbals, step, accent * (0.45 + 0.4 * energy)))
    if fill_from < steps:
        toms = ("tom_high", "tom_high", "tom_low", "snare")
        for step in range(fill_from, steps, 1 if energy > 0.7 and rng.random() < 0.5 else 2):
            hits.append((toms[min(3, (step - fill_from) // 2)], step, 0.6 + 0.4 * rng.random()))
    if bar.place == 0 and energy > 0.6:
        hits.append(("crash", 0, 0.7))
    return [(name, step, velocity * rng.uniform(0.88, 1.08)) for name, step, velocity in hits]


class _Kit:
    """Sounds of one kit, each drawn once, played with small differences."""

    def __init__(self, sample_rate: int, rng: np.random.Generator) -> None:
        self.rate = sample_rate
        self.kick_low, self.kick_drop = rng.uniform(42, 62), rng.uniform(60, 260)
        self.kick_ring, self.kick_click = rng.uniform(0.08, 0.28), rng.uniform(0.05, 0.5)
        self.snare_tone, self.snare_ring = rng.uniform(160, 260), rng.uniform(0.06, 0.18)
        self.snare_noise, self.snare_band = rng.uniform(0.5, 1.6), rng.uniform(900, 2600)
        self.clap = rng.random() < 0.3
        self.metal = rng.uniform(0.6, 1.6) * np.array([263.0, 400.0, 421.0, 474.0, 587.0, 845.0]) * 9
        self.hat_ring, self.metal_share = rng.uniform(0.02, 0.06), rng.uniform(0.1, 0.8)
        self.crash_ring = rng.uniform(0.5, 1.3)
        self.toms = {"tom_high": rng.uniform(130, 190), "tom_low": rng.uniform(75, 115)}
        self.places = {
            "hat": rng.uniform(-0.6, 0.6),
            "ride": rng.uniform(-0.7, 0.7),
            "shaker": rng.uniform(-0.7, 0.7),
            "crash": rng.uniform(-0.8, 0.8),
            "tom_high": rng.uniform(-0.5, 0.2),
            "tom_low": rng.uniform(-0.2, 0.6),
            "snare": rng.uniform(-0.15, 0.15),
        }
        self.places["open"] = self.places["hat"]
        self.players: dict[str, Callable[[np.random.Generator], FloatArray]] = {
            "kick": self._kick,
            "snare": self._snare,
            "hat": lambda r: self._cymbal(r, self.hat_ring, 6500, 0.45),
            "open": lambda r: self._cymbal(r, 6 * self.hat_ring, 6000, 0.4),
            "ride": lambda r: self._cymbal(r, 0.35, 4200, 0.3),
            "crash": lambda r: self._cymbal(r, self.crash_ring, 2500, 0.6),
            "shaker": self._shaker,
            "tom_high": lambda r: self._tom(r, self.toms["tom_high"]),
            "tom_low": lambda r: self._tom(r, self.toms["tom_low"]),
        }

    def hit(self, name: str, velocity: float, rng: np.random.Generator) -> FloatArray:
        """One hit ``(time, 2)``; softer ones are duller too."""
        sound = velocity * self.players[name](rng)
        if velocity < 0.6:
            sound = filtered(sound, self.rate, high=3000 + 14000 * velocity, order=1)
        return panned(sound, float(self.places.get(name, 0.0)))

    def _kick(self, rng: np.random.Generator) -> FloatArray:
        axis = times(6 * self.kick_ring, self.rate)
        pitch = self.kick_low + self.kick_drop * np.exp(-axis / 0.022)
        body = sine(pitch, axis) * np.exp(-axis / self.kick_ring) * np.minimum(1, axis / 0.001)
        click = rng.standard_normal(len(axis)) * np.exp(-axis / 0.003)
        return np.asarray(body + self.kick_click * filtered(click, self.rate, low=1200.0))

    def _snare(self, rng: np.random.Generator) -> FloatArray:
        axis = times(7 * self.snare_ring, self.rate)
        noise = filtered(rng.standard_normal(len(axis)), self.rate, low=self.snare_band, high=11000.0)
        if self.clap:
            bursts = sum(np.exp(-np.maximum(0, axis - d) / 0.006) * (axis >= d) for d in (0, 0.011, 0.021))
            return np.asarray(0.8 * noise * (bursts + np.exp(-axis / self.snare_ring)))
        tone = sine(self.snare_tone, axis) + 0.6 * sine(1.68 * self.snare_tone, axis)
        body = 0.5 * tone * np.exp(-axis / (0.5 * self.snare_ring))
        return np.asarray(body + 0.5 * self.snare_noise * noise * np.exp(-axis / self.snare_ring))

    def _cymbal(self, rng: np.random.Generator, ring: float, low: float, gain: float) -> FloatArray:
        axis = times(min(6 * ring, 2.5), self.rate)
        metal = sum(
            np.sign(sine(hertz, axis, rng.uniform(0, 6.28)))
            for hertz in self.metal
            if hertz < 0.45 * self.rate
        )
        sound = rng.standard_normal(len(axis)) * (1 - self.metal_share) + 0.4 * self.metal_share * metal
        fade = np.minimum(1, (axis[-1] - axis) / 0.02)
        return gain * filtered(sound * np.exp(-axis / ring) * fade, self.rate, low=low)

    def _shaker(self, rng: np.random.Generator) -> FloatArray:
        axis = times(0.09, self.rate)
        shape = np.sin(np.pi * axis / axis[-1]) ** 2
        return 0.35 * filtered(rng.standard_normal(len(axis)) * shape, self.rate, low=5000.0)

    def _tom(self, rng: np.random.Generator, hertz: float) -> FloatArray:
        axis = times(1.2, self.rate)
        body = sine(hertz * (1 + 0.5 * np.exp(-axis / 0.03)), axis) * np.exp(-axis / 0.2)
        skin = filtered(rng.standard_normal(len(axis)) * np.exp(-axis / 0.02), self.rate, high=3000.0)
        return np.asarray(0.8 * body + 0.2 * skin)
