"""What accompanies a song, the stem ``other``: pads, keys, guitars and now and then a counter-melody."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.song import Bar, Note, Song, pitches
from encore.data.synthesis.song_effects import coloured, echoed, panned, reverberated, warmed, widened
from encore.data.synthesis.song_sounds import envelope, filtered, level, mix_in, plucked, sine, times, wave

_INSTRUMENTS = {
    "rock": ("guitar", "guitar", "organ", "strings"),
    "pop": ("piano", "guitar", "strings", "pad", "bell"),
    "electronic": ("pad", "stab", "bell", "strings"),
    "ballad": ("piano", "strings", "guitar", "pad"),
    "funk": ("guitar", "organ", "piano", "stab"),
    "waltz": ("piano", "strings", "guitar", "organ"),
}


def harmony(song: Song, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Play two instruments with the chords, and sometimes a third with a line of its own.

    Args:
        song: The composition.
        sample_rate: Hz.
        rng: Draws instruments, rhythms and voicings.

    Returns:
        ``(time, 2)``, any level.
    """
    names = [str(name) for name in rng.permutation(_INSTRUMENTS[song.genre])[:2]]
    total = np.zeros((round(song.seconds * sample_rate), 2))
    for place, name in enumerate(names):
        part = _layer(song, name, sample_rate, rng, melody=False, late=place == 1 and rng.random() < 0.5)
        if loudness := level(part):
            total += part / loudness * 10 ** (float(rng.uniform(-5, 0)) / 20)
    if rng.random() < 0.5:
        name = str(rng.choice(("bell", "strings", "stab", "piano")))
        part = _layer(song, name, sample_rate, rng, melody=True, late=True)
        if loudness := level(part):
            total += part / loudness * 10 ** (float(rng.uniform(-8, -2)) / 20)
    return reverberated(
        total, sample_rate, rng, seconds=float(rng.uniform(0.6, 2.2)), amount=float(rng.uniform(0.05, 0.4))
    )


def _layer(
    song: Song, name: str, sample_rate: int, rng: np.random.Generator, *, melody: bool, late: bool
) -> FloatArray:
    """One instrument ``(time, 2)``; a ``late`` one waits for the fuller sections."""
    player = _Instrument(name, sample_rate, rng)
    track: FloatArray = np.zeros((round(song.seconds * sample_rate), 2))
    notes = _counter_melody(song, rng) if melody else _chords(song, player, rng)
    spread = float(rng.uniform(0, 0.35))
    place = float(rng.uniform(-0.6, 0.6))
    for bar, note in notes:
        if late and bar.energy < 0.6 and bar.number > 3:
            continue
        own = float(np.clip(place + spread * rng.uniform(-1, 1), -1, 1))
        mix_in(track, panned(player.play(note), own), note.start, sample_rate)
    track = coloured(track, sample_rate, rng)
    if name in ("pad", "strings", "organ") or rng.random() < 0.4:
        track = widened(track, sample_rate, rng, float(rng.uniform(0.3, 0.8)))
    if name == "guitar":
        track = warmed(track, float(rng.uniform(0, 0.9)) if song.genre == "rock" else 0.1)
    if rng.random() < 0.25:
        seconds = song.beat_seconds * float(rng.choice((0.5, 0.75, 1.0)))
        track = echoed(
            track, sample_rate, seconds=seconds, feedback=0.45, amount=float(rng.uniform(0.1, 0.35))
        )
    return track


def _chords(song: Song, player: _Instrument, rng: np.random.Generator) -> Iterator[tuple[Bar, Note]]:
    """The chord of every bar, held, struck in a rhythm, or broken."""
    centre = int(rng.integers(58, 68))
    if player.held:
        style = str(rng.choice(("held", "held", "struck")))
    else:
        style = str(rng.choice(("struck", "broken", "strummed")))
    rhythm = [half / 2 for half in range(2 * song.beats) if half == 0 or rng.random() < 0.4]
    order = rng.permutation(6)
    for bar in song.playing("other"):
        voicing = _voicing(bar.chord, centre, 4 if player.held else 5)
        strength = 0.6 + 0.4 * bar.energy
        if style == "held":
            seconds = (song.time(bar, song.beats) - bar.start) * 0.98
            yield from ((bar, Note(bar.start, seconds, pitch, strength)) for pitch in voicing)
        elif style == "broken":
            for step in range(2 * song.beats):
                pitch = voicing[int(order[step % len(order)]) % len(voicing)]
                start = song.time(bar, step / 2) + abs(float(rng.normal(0, 0.004)))
                yield bar, Note(start, 1.2 * song.beat_seconds, pitch, strength * float(rng.uniform(0.7, 1)))
        else:
            for place, beat in enumerate(rhythm):
                end = rhythm[place + 1] if place + 1 < len(rhythm) else float(song.beats)
                seconds = (song.time(bar, end) - song.time(bar, beat)) * float(rng.uniform(0.5, 0.95))
                gap = 0.014 if style == "strummed" else 0.002
                ordered = voicing if place % 2 == 0 else voicing[::-1]
                for string, pitch in enumerate(ordered):
                    start = song.time(bar, beat) + gap * string + abs(float(rng.normal(0, 0.002)))
                    yield bar, Note(start, seconds, pitch, strength * float(rng.uniform(0.75, 1)))


def _counter_melody(song: Song, rng: np.random.Generator) -> Iterator[tuple[Bar, Note]]:
    """A slow line of chord notes, every other bar."""
    last = float(rng.integers(70, 82))
    for bar in song.playing("other"):
        if bar.number % 2:
            continue
        for beat in range(0, song.beats, int(rng.integers(1, 3))):
            last = float(min(pitches(bar.chord, 66, 88), key=lambda p: abs(p - last - rng.normal(0, 4))))
            start = song.time(bar, beat)
            yield bar, Note(start, song.beat_seconds * float(rng.uniform(0.6, 1.6)), last, 0.8)


def _voicing(chord: tuple[int, ...], centre: int, size: int) -> list[float]:
    """Notes of a chord around a MIDI number, from low to high."""
    near = sorted(pitches(chord, centre - 12, centre + 14), key=lambda pitch: abs(pitch - centre))
    return [float(pitch) for pitch in sorted(near[:size])]


class _Instrument:
    """One way to sound, drawn once; equal notes are computed once."""

    def __init__(self, name: str, sample_rate: int, rng: np.random.Generator) -> None:
        self.name, self.rate = name, sample_rate
        self.held = name in ("pad", "strings", "organ")
        self.bright, self.ring = rng.uniform(0.2, 0.9), rng.uniform(0.4, 1.4)
        self.place, self.cutoff = rng.uniform(0.07, 0.35), rng.uniform(900, 5000)
        self.detune = rng.uniform(2, 11, size=3) * np.array([-1, 0.1, 1]) / 1200  # octaves
        self.attack = rng.uniform(0.04, 0.35) if name in ("pad", "strings") else rng.uniform(0.002, 0.012)
        self.ratio, self.index = float(rng.choice((1, 2, 3, 3.5, 7))), rng.uniform(0.4, 2.2)
        self.bars = rng.dirichlet(np.ones(6)) + 0.05  # drawbars of the organ
        self.tremolo, self.depth = rng.uniform(3, 7), rng.uniform(0, 0.4)
        self._known: dict[tuple[float, int], FloatArray] = {}

    def play(self, note: Note) -> FloatArray:
        """One note ``(time,)``."""
        key = (note.pitch, round(note.seconds * 20))
        if key not in self._known:
            self._known[key] = self._sound(note.hertz, max(0.05, key[1] / 20))
        return note.velocity * self._known[key]

    def _sound(self, hertz: float, seconds: float) -> FloatArray:
        if self.name == "guitar":
            return plucked(
                hertz, seconds + 0.1, self.rate, brightness=self.bright, ring=self.ring, place=self.place
            )
        release = 0.25 if self.held else 0.06
        shape = envelope(
            seconds,
            self.rate,
            attack=self.attack,
            decay=0.5,
            sustain=0.8 if self.held else 0.35,
            release=release,
        )
        axis = times(seconds + 5 * release, self.rate)[: len(shape)]
        if self.name == "organ":
            sound = sum(
                drawbar * sine(hertz * (number + 1), axis)
                for number, drawbar in enumerate(self.bars)
                if hertz * (number + 1) < 0.45 * self.rate
            )
            return np.asarray(shape * sound * (1 - self.depth * (0.5 + 0.5 * sine(self.tremolo, axis))))
        if self.name in ("piano", "bell"):
            ring = self.ring * (440 / hertz) ** 0.3
            index = self.index * np.exp(-axis / (0.35 * ring))
            ratio = self.ratio if self.name == "bell" else 1.0
            tone = np.sin(2 * np.pi * hertz * axis + index * sine(ratio * hertz * 1.002, axis))
            fall = np.exp(-axis / (1.5 * ring))
            return np.asarray(shape * fall * (tone + 0.3 * sine(2 * hertz * 1.001, axis)))
        odd = self.name == "stab"
        layers = [
            wave(hertz * 2**cents, axis + 0.3 * n, self.rate, odd=odd) for n, cents in enumerate(self.detune)
        ]
        sound = filtered(np.sum(layers, axis=0), self.rate, high=self.cutoff)
        return shape * sound
