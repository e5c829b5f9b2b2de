"""The composition of a song: key, tempo, form and chords, which all of its stems share.

Everything that differs between songs is drawn continuously or from many combinations, so that a song never
heard has sounds, chords and rhythms never heard, of families that were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

STEMS = ("vocals", "drums", "bass", "other")
GENRES = ("rock", "pop", "electronic", "ballad", "funk", "waltz")

_SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
# of degrees, counted from 0; drawn anew for verse, chorus and bridge
_PROGRESSIONS = (
    (0, 4, 5, 3),
    (0, 5, 3, 4),
    (5, 3, 0, 4),
    (0, 3, 4, 3),
    (0, 3, 0, 4),
    (1, 4, 0, 5),
    (0, 6, 5, 6),
    (0, 2, 3, 4),
    (3, 0, 4, 5),
    (0, 5, 1, 4),
    (0, 0, 3, 4),
    (5, 4, 3, 4),
)
_TEMPI = {  # beats a minute
    "rock": (105, 160),
    "pop": (90, 128),
    "electronic": (112, 138),
    "ballad": (64, 88),
    "funk": (88, 118),
    "waltz": (84, 150),
}
_FORM = ("verse", "chorus", "verse", "chorus", "bridge", "chorus")
_LONGEST_INTRO = 5.0  # seconds: every stem sounds soon


@dataclass(frozen=True, slots=True)
class Note:
    """One note.

    Attributes:
        start: Seconds from the song's start.
        seconds: Until it is let go.
        pitch: MIDI number, 69 is 440 Hz; fractions are allowed.
        velocity: How hard it is played, from 0 to 1.
    """

    start: float
    seconds: float
    pitch: float
    velocity: float

    @property
    def hertz(self) -> float:
        """Its frequency."""
        return float(440.0 * 2 ** ((self.pitch - 69) / 12))


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        number: Counted from 0.
        start: Seconds from the song's start.
        section: ``"intro"``, ``"verse"``, ``"chorus"`` or ``"bridge"``.
        place: Number of the bar in its section.
        last: Whether it is the section's last one.
        energy: How full the section is, from 0 to 1.
        stems: Which of `STEMS` play.
        chord: Pitch classes of the chord, its root first.
    """

    number: int
    start: float
    section: str
    place: int
    last: bool
    energy: float
    stems: frozenset[str]
    chord: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Song:
    """What all stems of a song agree on.

    Attributes:
        genre: One of `GENRES`.
        tempo: Beats a minute.
        beats: Of a bar, 3 or 4.
        swing: Share of an eighth note by which off-beats are late, from 0 to 0.33.
        tonic: Pitch class of the key.
        mode: A name of a scale.
        scale: Pitch classes of the key.
        seconds: Length of the song.
        bars: In order.
    """

    genre: str
    tempo: float
    beats: int
    swing: float
    tonic: int
    mode: str
    scale: tuple[int, ...]
    seconds: float
    bars: tuple[Bar, ...] = field(repr=False)

    @property
    def beat_seconds(self) -> float:
        """Length of a beat."""
        return 60 / self.tempo

    def time(self, bar: Bar, beat: float) -> float:
        """Seconds from the song's start at a beat of a bar, swung."""
        whole, part = divmod(beat, 1.0)
        # the middle of the beat moves, and what lies at either side of it with it
        middle = 0.5 + 0.5 * self.swing
        part = part / 0.5 * middle if part < 0.5 else middle + (part - 0.5) / 0.5 * (1 - middle)
        return bar.start + (whole + part) * self.beat_seconds

    def playing(self, stem: str) -> Iterator[Bar]:
        """The bars in which a stem plays."""
        return (bar for bar in self.bars if stem in bar.stems)


def compose(seconds: float, rng: np.random.Generator) -> Song:
    """Compose a song.

    Args:
        seconds: Its length; the last bar may reach beyond.
        rng: Source of all choices.

    Returns:
        The song. Every stem plays from the second section on, which begins within 5 s, and in most others.
    """
    genre = str(rng.choice(GENRES))
    tempo = float(rng.uniform(*_TEMPI[genre]))
    beats = 3 if genre == "waltz" else 4
    minor = rng.random() < 0.45
    mode = str(rng.choice(("minor", "dorian") if minor else ("major", "mixolydian")))
    tonic = int(rng.integers(12))
    scale = tuple((tonic + step) % 12 for step in _SCALES[mode])
    swing = float(rng.uniform(0.1, 0.33)) if rng.random() < 0.3 else float(rng.uniform(0, 0.04))
    bars = tuple(_bars(seconds, beats * 60 / tempo, scale, rng))
    return Song(genre, tempo, beats, swing, tonic, mode, scale, seconds, bars)


def pitches(classes: tuple[int, ...], low: int, high: int) -> list[int]:
    """MIDI numbers from ``low`` to ``high`` whose pitch class is among ``classes``."""
    return [pitch for pitch in range(low, high + 1) if pitch % 12 in classes]


def _bars(seconds: float, length: float, scale: tuple[int, ...], rng: np.random.Generator) -> Iterator[Bar]:
    chords = {section: _chords(scale, rng) for section in ("verse", "chorus", "bridge")}
    chords["intro"] = chords["verse"]
    sevenths = rng.random() < 0.35
    number, start = 0, 0.0
    for section, count, energy, stems in _sections(length, rng):
        for place in range(count):
            degree = chords[section][place % 4]
            size = 4 if sevenths and rng.random() < 0.6 else 3
            chord = tuple(scale[(degree + 2 * third) % 7] for third in range(size))
            yield Bar(number, start, section, place, place == count - 1, energy, stems, chord)
            number, start = number + 1, start + length
            if start >= seconds:
                return


def _chords(scale: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    return _PROGRESSIONS[int(rng.integers(len(_PROGRESSIONS)))]


def _sections(length: float, rng: np.random.Generator) -> Iterator[tuple[str, int, float, frozenset[str]]]:
    """Name, bars, energy and stems of one section after the other, without end."""
    everything = frozenset(STEMS)
    intro = min(int(rng.integers(1, 3)), max(1, int(_LONGEST_INTRO / length)))
    opening = rng.permutation(["drums", "bass", "other"])[: int(rng.integers(1, 4))]
    yield "intro", intro, 0.4, frozenset(str(stem) for stem in opening)
    yield "verse", 4, float(rng.uniform(0.45, 0.7)), everything
    place = 1
    while True:
        section = _FORM[place % len(_FORM)]
        energy = {"verse": 0.55, "chorus": 0.9, "bridge": 0.4}[section] + float(rng.uniform(-0.1, 0.1))
        stems = everything
        if section == "bridge" or (section == "verse" and rng.random() < 0.3):
            stems -= {str(rng.choice(["drums", "bass", "vocals", "other"]))}
        yield section, 8 if section == "chorus" and length < 1.9 else 4, energy, stems
        place += 1
