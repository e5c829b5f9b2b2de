"""The bass of a song: a line over the chords, in one drawn timbre."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.song import Bar, Note, Song, pitches
from encore.data.synthesis.song_effects import coloured, panned, warmed, widened
from encore.data.synthesis.song_sounds import envelope, filtered, mix_in, plucked, sine, times, wave

_LOW, _HIGH = 28, 48  # E1 to C3


def bass(song: Song, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Play the bass of a song.

    Args:
        song: The composition.
        sample_rate: Hz.
        rng: Draws timbre, rhythm and passing notes.

    Returns:
        ``(time, 2)``, any level.
    """
    sound = _Timbre(song, sample_rate, rng)
    track: FloatArray = np.zeros(round(song.seconds * sample_rate))
    for note in _line(song, rng):
        mix_in(track, sound.play(note, rng), note.start, sample_rate)
    track = warmed(track, float(rng.uniform(0, 0.5)))
    stereo = panned(coloured(track, sample_rate, rng, 3.0), float(rng.uniform(-0.12, 0.12)))
    if rng.random() < 0.3:
        stereo = widened(stereo, sample_rate, rng, float(rng.uniform(0.1, 0.35)))
    return stereo


def _line(song: Song, rng: np.random.Generator) -> Iterator[Note]:
    """Roots on strong beats, chord and passing notes between, a step into the next chord now and then."""
    busy = {"verse": rng.uniform(0.1, 0.6), "chorus": rng.uniform(0.3, 0.9)}
    style = str(rng.choice(("sustained", "eighths", "rhythm", "walking")))
    if song.genre in ("ballad", "waltz"):
        style = str(rng.choice(("sustained", "rhythm")))
    bars = list(song.playing("bass"))
    for bar in bars:
        following = song.bars[min(bar.number + 1, len(song.bars) - 1)]
        starts = _starts(song, style, busy.get(bar.section, 0.2), rng)
        for place, start in enumerate(starts):
            end = starts[place + 1] if place + 1 < len(starts) else float(song.beats)
            pitch = _pitch(song, bar, following, style, start, end, rng)
            begin = song.time(bar, start) + float(rng.normal(0, 0.004))
            held = (song.time(bar, end) - song.time(bar, start)) * float(rng.uniform(0.6, 0.97))
            yield Note(max(0.0, begin), held, pitch, float(rng.uniform(0.7, 1.0)))


def _starts(song: Song, style: str, busy: float, rng: np.random.Generator) -> list[float]:
    """Beats of a bar at which a note begins; 0 always."""
    if style == "sustained":
        return [0.0] + ([song.beats / 2] if rng.random() < busy else [])
    if style == "walking":
        return [float(beat) for beat in range(song.beats)]
    if style == "eighths":
        return [half / 2 for half in range(2 * song.beats)]
    grid = [step / 4 for step in range(1, 4 * song.beats)]
    return [0.0, *(beat for beat in grid if rng.random() < (0.45 if beat % 1 == 0 else 0.18) * (0.5 + busy))]


def _pitch(
    song: Song, bar: Bar, following: Bar, style: str, start: float, end: float, rng: np.random.Generator
) -> float:
    root = _nearest(bar.chord[0], 36)
    if start == 0:
        return root
    if style in ("walking", "rhythm") and end == song.beats and rng.random() < 0.6:
        # a step below or above the next root leads into it
        return _nearest(following.chord[0], 36) + float(rng.choice((-2, -1, 1, 2)))
    draw = rng.random()
    if draw < 0.5:
        return root
    if draw < 0.7:
        return root + 12 if root + 12 <= _HIGH else root
    choices = pitches(bar.chord if draw < 0.92 else song.scale, max(_LOW, int(root) - 5), int(root) + 9)
    return float(rng.choice(choices))


def _nearest(pitch_class: int, centre: int) -> float:
    """The note of a pitch class that is nearest to a MIDI number."""
    return float(centre + (pitch_class - centre + 6) % 12 - 6)


class _Timbre:
    """One way to sound, drawn once for the song."""

    def __init__(self, song: Song, sample_rate: int, rng: np.random.Generator) -> None:
        self.rate = sample_rate
        synthetic = 0.75 if song.genre == "electronic" else 0.35
        kinds = ("saw", "fm", "sub") if rng.random() < synthetic else ("plucked", "plucked", "picked")
        self.kind = str(rng.choice(kinds))
        self.brightness, self.ring = rng.uniform(0.1, 0.8), rng.uniform(0.5, 1.6)
        self.place = rng.uniform(0.08, 0.3)
        self.cutoff, self.sweep = rng.uniform(250, 1100), rng.uniform(0, 2500)
        self.ratio, self.index = float(rng.choice((1, 2, 3))), rng.uniform(0.5, 3.5)
        self.odd, self.decay = rng.random() < 0.4, rng.uniform(0.1, 0.5)
        self.glide = rng.uniform(0.02, 0.08) if rng.random() < 0.3 else 0.0

    def play(self, note: Note, rng: np.random.Generator) -> FloatArray:
        """One note ``(time,)``."""
        if self.kind in ("plucked", "picked"):
            sound = plucked(
                note.hertz,
                note.seconds + 0.06,
                self.rate,
                brightness=self.brightness * (0.6 + 0.4 * note.velocity),
                ring=self.ring,
                place=self.place,
            )
            axis = times(len(sound) / self.rate, self.rate)[: len(sound)]
            if self.kind == "picked":
                click = rng.standard_normal(len(axis)) * np.exp(-axis / 0.004)
                sound = sound + 0.25 * filtered(click, self.rate, low=700.0, high=4000.0)
            return note.velocity * sound
        shape = envelope(note.seconds, self.rate, decay=self.decay, sustain=0.6, release=0.012)
        axis = times(note.seconds + 5 * 0.012, self.rate)[: len(shape)]
        hertz: float | FloatArray = note.hertz
        if self.glide:
            hertz = note.hertz * (1 - 0.25 * np.exp(-axis / self.glide))
        if self.kind == "sub":
            sound = sine(hertz, axis) + 0.15 * sine(2 * np.asarray(hertz), axis)
        elif self.kind == "fm":
            index = self.index * np.exp(-axis / self.decay)
            sound = sine(hertz, axis, 0.0) * 0.2 + np.sin(
                2 * np.pi * note.hertz * axis + index * sine(self.ratio * note.hertz, axis)
            )
        else:
            open_wave = wave(hertz, axis, self.rate, odd=self.odd)
            dull = filtered(open_wave, self.rate, high=self.cutoff)
            bright = filtered(open_wave, self.rate, high=self.cutoff + self.sweep)
            share = np.exp(-axis / self.decay)
            sound = share * bright + (1 - share) * dull
        return note.velocity * shape * sound
