"""Laws of what synthetic corpora are made of: rooms, instruments, songs and sound events."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import stft

from encore.data.source_corpora import FSD_CLASSES
from encore.synthetic_corpora import FloatArray, dsp
from encore.synthetic_corpora.events import EVENTS, Rhythm, draw_event
from encore.synthetic_corpora.instruments import INSTRUMENTS
from encore.synthetic_corpora.song import STEMS, bass, compose, panned

RATE = 16_000


def test_room_has_its_decay_and_energy() -> None:
    response = dsp.room_response(RATE, np.random.default_rng(1), 0.5, 4.0)
    assert response[0] == 1
    assert -10 * np.log10((response[1:] ** 2).sum()) == pytest.approx(4.0)
    decay = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])  # Schroeder's backward integral
    late = np.arange(int(0.06 * RATE), int(0.3 * RATE))
    assert -60 / np.polyfit(late / RATE, decay[late], 1)[0] == pytest.approx(0.5, rel=0.15)


def _statistics(sound: FloatArray) -> FloatArray:
    """Mean, deviation, change and peaks of 40 mel bands of 32 ms, in dB below the loudest, at least -60."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), 42) / 2595) - 1)
    hertz, (low, middle, high) = np.fft.rfftfreq(512, 1 / RATE), (edges[n : 40 + n, None] for n in range(3))
    bank = np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)
    power = np.abs(stft(sound, RATE, nperseg=512, noverlap=256)[2]) ** 2
    decibels = 10 * np.log10(bank / np.maximum(bank.sum(1, keepdims=True), 1e-9) @ power + 1e-12)
    mel = np.maximum(decibels - decibels.max(), -60.0)
    change = np.abs(np.diff(mel, axis=1)).mean(1)
    return np.concatenate((mel.mean(1), mel.std(1), change, np.percentile(mel, 95, axis=1)))


def test_classes_are_distinct_to_a_nearest_neighbour_and_no_class_is_one_sound() -> None:
    rngs = [np.random.default_rng(seed) for seed in range(11)]
    drawn = np.array([[_statistics(draw_event(label, RATE, rng)) for rng in rngs] for label in EVENTS])
    drawn /= drawn.std((0, 1))
    train, test = drawn[:, :8], drawn[:, 8:]
    away = np.square(test[:, :, None, None] - train).mean(-1).min(-1)
    assert (away.argmin(-1) == np.arange(len(EVENTS))[:, None]).mean() > 0.85  # chance is 0.07
    apart = np.sqrt(np.square(train[:, :, None] - train[:, None]).mean(-1))[:, *np.triu_indices(8, 1)]
    centroids = train.mean(1)
    between = np.sqrt(np.square(centroids[:, None] - centroids).mean(-1))[np.triu_indices(len(EVENTS), 1)]
    # no two clips are nearly one, and those of any class vary at least a quarter as much as classes do
    assert apart.min() > 0.05
    assert apart.mean(1).min() > 0.25 * between.mean()


@pytest.mark.parametrize("label", EVENTS)
def test_an_event_sounds_from_the_beginning_at_any_rate(label: str) -> None:
    assert label in FSD_CLASSES
    for rate in (16_000, 44_100):
        sound = draw_event(label, rate, np.random.default_rng(5))
        assert 0.3 <= len(sound) / rate <= 5
        peak = np.abs(sound).max()
        assert 10 ** (-18 / 20) <= peak <= 10 ** (-0.5 / 20)
        assert np.abs(sound[: rate // 4]).max() > 10 ** (-40 / 20) * peak


def test_a_mode_rings_as_the_closed_form_says() -> None:
    force = dsp.struck([0.1, 0.2], [1.0, 0.5], 8000, RATE)
    assert force.sum() == pytest.approx(1.5)
    assert np.flatnonzero(force)[0] == 1600
    axis, impulse = np.arange(8000) / RATE, np.eye(1, 8000)[0]
    # the third is above 0.45 of the rate
    two = dsp.ringing(impulse, RATE, (440.0, 3000.0, 9000.0), (0.1, 0.05, 1.0), (1.0, 0.5, 9.0))
    expected = sum(
        gain * np.exp(-axis / decay) * np.sin(2 * np.pi * hertz * (axis + 1 / RATE))
        for hertz, decay, gain in ((440, 0.1, 1.0), (3000, 0.05, 0.5))
    )
    np.testing.assert_allclose(two, expected, atol=1e-9)


def test_rows_of_notes_ascend_and_gaps_are_as_regular_as_their_rhythm() -> None:
    for shape in (1.0, 100.0):
        rhythm, gaps = Rhythm(200, 50, most=200, single=0, regularity=shape, pitches=0), []
        for seed in range(50):
            notes = rhythm.draw(np.random.default_rng(seed))
            own = np.diff([note.start for note in notes])
            assert notes[0].start == pytest.approx(0.02)
            assert own.min(initial=1) >= 0
            assert all(140 <= note.hertz <= 560 and 0.2 <= note.velocity <= 1 for note in notes)
            gaps.append(own.std() / own.mean() if own.size > 30 else np.nan)
        assert np.nanmean(gaps) == pytest.approx(shape**-0.5, rel=0.1)  # Poisson's is 1


def test_panning_keeps_the_power_and_leans_to_its_side() -> None:
    for place in (-1.0, 0.0, 0.7):
        left, right = panned(np.ones(1), place)[0]
        # constant power: the angle between the sides is proportional to the place
        assert [left**2 + right**2, np.arctan2(right, left)] == pytest.approx([1, (place + 1) * np.pi / 4])


def strongest_class(sound: np.ndarray) -> int:
    """Pitch class of the best fundamental from 40 to 140 Hz, by its octaves."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 8 * 22050))
    candidates = np.arange(28, 49)
    bins = np.round(440 * 2 ** ((candidates - 69) / 12) * 8).astype(int)
    return int(candidates[np.argmax(sum(spectrum[bins * octave] for octave in (1, 2, 4)))] % 12)


def test_the_bass_begins_bars_with_the_root_of_the_chord() -> None:
    hits = []
    for seed in range(4):
        song, rng = compose(20.0, np.random.default_rng(seed)), np.random.default_rng(seed)
        ((name, notes),) = bass(song, rng).items()
        track = INSTRUMENTS[name].play(notes, 20 * 22050, 22050, rng)
        for bar in song.playing("bass"):
            part = track[round(bar.start * 22050) :][: round(60 / song.tempo * 22050)]
            if len(part) > 0.3 * 22050:
                hits.append(strongest_class(part) == bar.chord[0])
    # by chance one in twelve; short notes and what follows within the beat blur the rest
    assert np.mean(hits) > 0.6


def test_songs_differ_and_their_bars_follow_each_other() -> None:
    songs = [compose(60.0, np.random.default_rng(seed)) for seed in range(40)]
    assert len({song.tempo for song in songs}) == 40
    assert len({(song.scale[0], song.mode) for song in songs}) >= 20
    assert {song.beats for song in songs} == {3, 4}
    for song in songs:
        length, starts = song.beats * 60 / song.tempo, [bar.start for bar in song.bars]
        np.testing.assert_allclose(np.diff(starts), length)
        assert starts[-1] < 60.0 <= starts[-1] + length + 1e-9
        assert all(set(bar.chord) <= set(song.scale) for bar in song.bars)
        own = [[bar.start for bar in song.playing(stem)] for stem in STEMS]
        assert all(bars[0] < 10 and len(bars) >= len(song.bars) / 2 for bars in own)
