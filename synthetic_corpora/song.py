"""Songs: a key, a tempo and chords from a seed, and four stems that play over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.signal import oaconvolve

from encore.synthetic_corpora import FloatArray, Rng, dsp
from encore.synthetic_corpora.instruments import INSTRUMENTS, Note

_MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
_PROGRESSIONS = ("0453", "0534", "5304", "0343", "0656", "0234", "3045")  # degrees of the scale, from 0 on
_CHORDS = ("Acoustic_guitar", "Flute", "Glockenspiel", "organ", "strings")  # instruments


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its start in seconds, the stems that play, and its chord's pitch classes, the root first."""

    start: float
    stems: frozenset[str]
    chord: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Song:
    """What all stems of a song have in common; the pitch classes of ``scale`` begin with the tonic."""

    mode: str
    scale: tuple[int, ...]
    tempo: float
    beats: int
    seconds: float
    bars: tuple[Bar, ...] = field(repr=False)

    def playing(self, stem: str) -> Iterator[Bar]:
        """Iterate over the bars in which a stem plays."""
        return (bar for bar in self.bars if stem in bar.stems)

    def note(self, bar: Bar, start: float, end: float, pitch: int, rng: Rng) -> Note:
        """Return a note of a MIDI pitch between two beats of a bar, a few milliseconds late."""
        late, beat = abs(float(rng.normal(0, 0.005))), 60 / self.tempo
        seconds = (end - start) * beat * float(rng.uniform(0.8, 0.97))
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        return Note(bar.start + start * beat + late, seconds, hertz, float(rng.uniform(0.7, 1)))


Parts = dict[str, list[Note]]
"""Notes by instrument."""


def compose(seconds: float, rng: Rng) -> Song:
    """Compose a song: verse, chorus and bridge of four bars in turn; one stem rests in each bridge."""
    mode, tonic = str(rng.choice(list(_MODES))), int(rng.integers(12))
    tempo, beats = float(rng.uniform(70, 150)), int(rng.choice([3, 4]))
    length, scale = beats * 60 / tempo, tuple((tonic + step) % 12 for step in _MODES[mode])
    progressions = rng.choice(_PROGRESSIONS, 3)
    stems = frozenset(STEMS)
    bars: list[Bar] = []
    while len(bars) * length < seconds:
        section, place = divmod(len(bars), 4)
        if place == 0:
            resting = str(rng.choice(STEMS)) if section % 3 == 2 else ""
            stems = frozenset(STEMS) - {resting}
        degree = int(progressions[section % 3][place])
        chord = tuple(scale[(degree + 2 * third) % 7] for third in range(3))
        bars.append(Bar(len(bars) * length, stems, chord))
    return Song(mode, scale, tempo, beats, seconds, tuple(bars))


def drums(song: Song, rng: Rng) -> Parts:
    """Kick on the first and third beat and a few eighths more, snare between them, hats on every eighth."""
    eighths = range(2 * song.beats)
    kicks = [eighth for eighth in eighths if eighth % 4 == 0 or rng.random() < 0.2]
    hits = {
        "Bass_drum": (int(rng.integers(28, 37)), kicks),
        "Snare_drum": (int(rng.integers(52, 60)), eighths[2::4]),
        "Hi-hat": (60, eighths),
    }
    return {
        name: [song.note(bar, hit / 2, hit / 2, pitch, rng) for bar in song.playing("drums") for hit in own]
        for name, (pitch, own) in hits.items()
    }


def bass(song: Song, rng: Rng) -> Parts:
    """The root of the chord on each first beat, then roots, fifths and octaves in the song's rhythm."""
    starts = [eighth for eighth in range(2 * song.beats) if not eighth or rng.random() < 0.45]
    notes = []
    for bar in song.playing("bass"):
        root = 30 + (bar.chord[0] - 6) % 12  # F#1 to F2
        for start, end in zip(starts, [*starts[1:], 2 * song.beats], strict=True):
            pitch = root + int(rng.choice([0, 0, 7, 12])) * (start > 0)
            notes.append(song.note(bar, start / 2, end / 2, pitch, rng))
    return {str(rng.choice(["bass", "synthetic bass"])): notes}


def harmony(song: Song, rng: Rng) -> Parts:
    """Chords of two instruments, each held for a bar or repeated on every beat."""
    parts: Parts = {}
    for name in rng.permutation(_CHORDS)[:2].tolist():
        center, every = int(rng.integers(57, 68)), int(rng.choice([1, song.beats]))
        parts[name] = [
            song.note(bar, beat, beat + every, pitch, rng)
            for bar in song.playing("other")
            for beat in range(0, song.beats, every)
            for pitch in _pitches(bar.chord, center - 9, center + 9)[:4]
        ]
    return parts


def vocals(song: Song, rng: Rng) -> Parts:
    """A melody of steps about the center of a singer's range, with a breath in each bar."""
    center = pitch = int(rng.integers(50, 70))
    motif = [eighth for eighth in range(2 * song.beats - 1) if not eighth or rng.random() < 0.55]
    notes = []
    for bar in song.playing("vocals"):
        starts = motif if rng.random() < 0.7 else motif[::2]
        for start, end in zip(starts, [*starts[1:], 2 * song.beats - 1], strict=True):
            wanted = pitch + 0.15 * (center - pitch) + rng.normal(0, 2.2)
            near = _pitches(song.scale if start % 2 else bar.chord, center - 9, center + 9)
            pitch = near[int(np.abs(np.array(near) - wanted).argmin())]
            notes.append(song.note(bar, start / 2, end / 2, pitch, rng))
    return {"voice": notes}


_PLAYERS = {"vocals": vocals, "drums": drums, "bass": bass, "other": harmony}
STEMS = tuple(_PLAYERS)


def play(song: Song, stem: str, sample_rate: int, rng: Rng) -> FloatArray:
    """Play a stem in a room: ``(time, 2)``; drums and chords are spread between the loudspeakers."""
    frames = round(song.seconds * sample_rate)
    spread = 0.5 if stem in ("drums", "other") else 0.05
    stereo = np.zeros((frames, 2))
    for name, notes in _PLAYERS[stem](song, rng).items():
        sound = dsp.unit(INSTRUMENTS[name].play(notes, frames, sample_rate, rng))
        stereo += panned(sound * (0.3 if name == "Hi-hat" else 1.0), rng.uniform(-spread, spread))
    room = (rng.uniform(0.3, 1.2), rng.uniform(6, 15))
    sides = [oaconvolve(side, dsp.room_response(sample_rate, rng, *room))[:frames] for side in stereo.T]
    return np.stack(sides, axis=1)


def panned(signal: FloatArray, place: float) -> FloatArray:
    """Place a mono signal between the loudspeakers at constant power; -1 is left, 1 right."""
    angle = (place + 1) * np.pi / 4
    return np.asarray(signal[:, None] * np.array([np.cos(angle), np.sin(angle)]))


def _pitches(classes: tuple[int, ...], low: int, high: int) -> list[int]:
    """List the MIDI pitches of some pitch classes."""
    return [pitch for pitch in range(low, high + 1) if pitch % 12 in classes]
