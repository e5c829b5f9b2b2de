"""The lead of a song: a voice that sings vowels and consonants, by harmonics under moving formants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from encore.data.synthesis import FloatArray
from encore.data.synthesis.song import Bar, Note, Song, pitches
from encore.data.synthesis.song_effects import coloured, echoed, panned, reverberated, warmed, widened
from encore.data.synthesis.song_sounds import filtered, mix_in

_VOWELS = {  # formants in Hz of a tall man, after Peterson and Barney, 1952
    "a": (730, 1090, 2440, 3400, 4500),
    "e": (530, 1840, 2480, 3500, 4500),
    "i": (270, 2290, 3010, 3600, 4600),
    "o": (570, 840, 2410, 3300, 4400),
    "u": (300, 870, 2240, 3200, 4300),
    "@": (500, 1500, 2500, 3500, 4500),
    "m": (250, 1100, 2200, 3200, 4200),
}
_LEVELS = np.array([1.0, 0.55, 0.3, 0.2, 0.08])
_WIDTHS = np.array([80.0, 100.0, 140.0, 200.0, 260.0])
_FRAME = 0.005  # seconds at which formants and levels are set
_HARMONICS = 48


@dataclass(frozen=True, slots=True)
class Syllable:
    """One sung syllable: a note, a vowel, and the consonant before it (empty for none)."""

    note: Note
    vowel: str
    consonant: str


def vocals(song: Song, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Sing a song.

    Args:
        song: The composition.
        sample_rate: Hz.
        rng: Draws the singer, the melody and the words.

    Returns:
        ``(time, 2)``, any level.
    """
    singer = _Singer(sample_rate, rng)
    phrases = list(_phrases(song, singer, rng))
    lead = np.zeros(round(song.seconds * sample_rate))
    for phrase in phrases:
        start, sound = singer.sing(phrase, rng)
        mix_in(lead, sound, start, sample_rate)
    track = panned(lead, float(rng.uniform(-0.1, 0.1)))
    if rng.random() < 0.45:
        track = track + _second_voice(song, phrases, singer, rng)
    track = warmed(coloured(track, sample_rate, rng, 3.0), float(rng.uniform(0, 0.15)))
    if rng.random() < 0.4:
        seconds = song.beat_seconds * float(rng.choice((0.5, 0.75, 1.0)))
        track = echoed(
            track, sample_rate, seconds=seconds, feedback=0.4, amount=float(rng.uniform(0.05, 0.25))
        )
    return reverberated(
        track, sample_rate, rng, seconds=float(rng.uniform(0.6, 2.4)), amount=float(rng.uniform(0.08, 0.35))
    )


def _second_voice(
    song: Song, phrases: list[list[Syllable]], singer: _Singer, rng: np.random.Generator
) -> FloatArray:
    """The same words again, in unison or a third away, at the sides."""
    sample_rate = singer.rate
    apart = str(rng.choice(("unison", "third")))
    track = np.zeros(round(song.seconds * sample_rate))
    for phrase in phrases:
        moved = [_moved(syllable, song, apart, rng) for syllable in phrase]
        start, sound = singer.sing(moved, rng)
        mix_in(track, sound, start, sample_rate)
    stereo = widened(panned(track, float(rng.uniform(-0.6, 0.6))), sample_rate, rng, 0.8)
    return float(rng.uniform(0.2, 0.5)) * stereo


def _moved(syllable: Syllable, song: Song, apart: str, rng: np.random.Generator) -> Syllable:
    note = syllable.note
    pitch = note.pitch
    if apart == "third":
        above = pitches(song.scale, int(pitch) + 3, int(pitch) + 4)
        pitch = float(above[0]) if above else pitch
    late = float(rng.normal(0.008, 0.01))
    return Syllable(
        Note(max(0.0, note.start + late), note.seconds, pitch + float(rng.normal(0, 0.08)), note.velocity),
        syllable.vowel,
        syllable.consonant,
    )


def _phrases(song: Song, singer: _Singer, rng: np.random.Generator) -> Iterator[list[Syllable]]:
    """Phrases of about two bars with a breath at their ends, a motif that comes back in every section."""
    motif = _rhythm(song, rng)
    bars = list(song.playing("vocals"))
    last = float(singer.centre)
    for first in range(0, len(bars), 2):
        pair = [bar for bar in bars[first : first + 2] if bar.number - bars[first].number < 2]
        rhythm = motif if rng.random() < 0.6 else _rhythm(song, rng)
        syllables: list[Syllable] = []
        lift = 4.0 if pair[0].section == "chorus" else 0.0
        for begin, end in rhythm:
            place = int(begin // song.beats)
            if place >= len(pair):
                break
            bar = pair[place]
            strong = begin % 1 == 0
            last = _next_pitch(song, bar, last, singer.centre + lift, strong, singer, rng)
            start = song.time(bar, begin % song.beats) + float(rng.normal(0.01, 0.012))
            seconds = (end - begin) * song.beat_seconds * float(rng.uniform(0.8, 0.97))
            note = Note(max(0.0, start), max(0.12, seconds), last, float(rng.uniform(0.7, 1.0)))
            vowel = str(rng.choice(("a", "e", "i", "o", "u", "@")))
            consonant = str(rng.choice(("", "s", "t", "m", "b"), p=(0.35, 0.15, 0.2, 0.2, 0.1)))
            syllables.append(Syllable(note, vowel, consonant))
        if syllables:
            yield syllables


def _rhythm(song: Song, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Beginnings and ends in beats of the notes of two bars; the end of the second is for breath."""
    beat, total = (
        float(rng.choice((0.0, 0.0, 0.5, 1.0))),
        2.0 * song.beats - float(rng.choice((0.5, 1.0, 1.5))),
    )
    notes = []
    lengths = (0.5, 0.5, 1.0, 1.0, 1.5, 2.0) if song.tempo < 120 else (0.5, 1.0, 1.0, 1.5, 2.0, 2.0)
    while beat < total - 0.25:
        end = min(beat + float(rng.choice(lengths)), total)
        if rng.random() > 0.1:  # else a rest
            notes.append((beat, end))
        beat = end
    return notes or [(0.0, total)]


def _next_pitch(
    song: Song, bar: Bar, last: float, centre: float, strong: bool, singer: _Singer, rng: np.random.Generator
) -> float:
    """Mostly steps; chord notes on strong beats; drawn back to the middle of the range."""
    wanted = last + 0.15 * (centre - last) + float(rng.normal(0, 2.2))
    choices = pitches(bar.chord if strong and rng.random() < 0.8 else song.scale, singer.low, singer.high)
    return float(min(choices, key=lambda pitch: abs(pitch - wanted)))


class _Singer:
    """One voice: range, vocal tract, vibrato and breath."""

    def __init__(self, sample_rate: int, rng: np.random.Generator) -> None:
        self.rate = sample_rate
        tract = float(rng.uniform(0, 1))  # from a bass to a soprano
        self.formant_scale = 0.98 + 0.27 * tract + float(rng.normal(0, 0.03))
        self.low = int(41 + 17 * tract + rng.integers(-2, 3))
        self.high = self.low + 17
        self.centre = self.low + 8
        self.vibrato_hertz, self.vibrato = float(rng.uniform(4.6, 6.4)), float(rng.uniform(0.1, 0.55))
        self.glide = float(rng.uniform(0.02, 0.07))
        self.breath, self.tilt = float(rng.uniform(0.004, 0.03)), float(rng.uniform(0.4, 1.1))
        self.jitter, self.width = float(rng.uniform(0.03, 0.12)), float(rng.uniform(0.8, 1.5))
        self.accent = {vowel: rng.normal(1, 0.05, size=5) for vowel in _VOWELS}

    def sing(self, phrase: list[Syllable], rng: np.random.Generator) -> tuple[float, FloatArray]:
        """When a phrase begins, in seconds, and its sound ``(time,)``."""
        begin = phrase[0].note.start - 0.12
        seconds = phrase[-1].note.start + phrase[-1].note.seconds + 0.2 - begin
        frames = np.arange(0, seconds, _FRAME)
        pitch, loudness, formants, noise = self._tracks(phrase, begin, frames, rng)
        axis = np.arange(round(seconds * self.rate)) / self.rate
        hertz = np.interp(axis, frames, 440.0 * 2 ** ((pitch - 69) / 12))
        turns = np.cumsum(hertz) / self.rate
        frame_hertz = 440.0 * 2 ** ((pitch - 69) / 12)
        sound = np.zeros_like(axis)
        for number in range(1, _HARMONICS + 1):
            place = number * frame_hertz
            if place.min() > 0.45 * self.rate or place.min() > 9000:
                break
            level = (
                self._response(place, formants) * number**-self.tilt * (place < 0.45 * self.rate) * loudness
            )
            sound += np.interp(axis, frames, level) * np.sin(2 * np.pi * number * turns)
        hiss = rng.standard_normal(len(axis))
        breath = filtered(hiss, self.rate, low=900.0, high=7000.0)
        sharp = filtered(hiss, self.rate, low=4200.0)
        sound += self.breath * np.interp(axis, frames, loudness) * breath
        sound += np.interp(axis, frames, noise) * sharp
        return begin, sound

    def _tracks(
        self, phrase: list[Syllable], begin: float, frames: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Pitch (MIDI), level of the voice, formants ``(frame, 5)`` and level of hissing, for every frame."""
        pitch = np.full(len(frames), phrase[0].note.pitch)
        loudness, noise = np.zeros(len(frames)), np.zeros(len(frames))
        formants = np.tile(np.array(_VOWELS[phrase[0].vowel], dtype=float), (len(frames), 1))
        for syllable in phrase:
            note = syllable.note
            start, end = note.start - begin, note.start - begin + note.seconds
            inside = (frames >= start) & (frames < end)
            since = np.maximum(0, frames - start)
            pitch[frames >= start] = note.pitch
            growing = np.clip((since - 0.25) / 0.3, 0, 1)
            wobble = (
                self.vibrato * growing * np.sin(2 * np.pi * self.vibrato_hertz * since + rng.uniform(0, 6.28))
            )
            pitch = np.where(inside, note.pitch + wobble, pitch)
            swell = 0.75 + 0.25 * np.sin(np.pi * np.clip(since / note.seconds, 0, 1))
            loudness = np.where(inside, note.velocity * swell, loudness)
            own = np.array(_VOWELS[syllable.vowel]) * self.accent[syllable.vowel]
            formants[frames >= start] = own
            self._consonant(syllable.consonant, frames - start, loudness, noise, formants)
        smooth = max(1, round(self.glide / _FRAME))
        kernel = np.hanning(2 * smooth + 3)[1:-1]
        kernel /= kernel.sum()
        pitch = np.convolve(np.pad(pitch, smooth, mode="edge"), kernel, mode="valid")
        pitch = pitch + np.convolve(rng.normal(0, self.jitter, len(frames)), np.ones(5) / 5, mode="same")
        loudness = np.convolve(loudness, np.hanning(7)[1:-1] / np.hanning(7).sum(), mode="same")
        loudness = loudness * (1 + 0.04 * rng.standard_normal(len(frames)))
        for index in range(formants.shape[1]):
            formants[:, index] = np.convolve(
                np.pad(formants[:, index], 6, mode="edge"), np.ones(13) / 13, "valid"
            )
        return pitch, np.maximum(loudness, 0), self.formant_scale * formants, noise

    @staticmethod
    def _consonant(
        name: str, since: FloatArray, loudness: FloatArray, noise: FloatArray, formants: FloatArray
    ) -> None:
        """Change what is sung around the beginning of a syllable."""
        if name == "s":
            noise[(since > -0.09) & (since < 0.02)] = 0.16
            loudness[(since > -0.09) & (since < 0.02)] *= 0.1
        elif name == "t":
            loudness[(since > -0.05) & (since < 0.0)] = 0.0
            noise[(since > -0.005) & (since < 0.025)] = 0.2
        elif name == "b":
            loudness[(since > -0.06) & (since < 0.01)] *= 0.05
        elif name == "m":
            humming = (since > -0.07) & (since < 0.02)
            loudness[humming] = np.maximum(loudness[humming] * 0.6, 0.25)
            formants[humming] = _VOWELS["m"]

    def _response(self, hertz: FloatArray, formants: FloatArray) -> FloatArray:
        """Level of the vocal tract at one frequency a frame."""
        widths = self.width * _WIDTHS
        away = (hertz[:, None] - formants) / widths
        return np.asarray((_LEVELS / np.sqrt(1 + away**2)).sum(1))
