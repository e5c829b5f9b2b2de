"""Laws of the corpus of composed songs, on a small one: two songs to train and one to test, 12 s each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from encore.synthetic_corpora.corpus_files import write_corpus
from encore.synthetic_corpora.instruments import INSTRUMENTS
from encore.synthetic_corpora.song import STEMS, bass, compose, panned
from encore.synthetic_corpora.sound_corpora import Musdb18Hq

RATE = 22050
SECONDS = 12.0


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16", always_2d=True)[0].astype(np.int64)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("songs")
    write_corpus(Musdb18Hq(out=out, train=2, test=1, seconds=SECONDS, sample_rate=RATE, seed=5), workers=1)
    entries = [json.loads(line) for line in (out / "songs.jsonl").read_text().splitlines()]
    assert sorted(out.glob("*/*")) == sorted(out / entry["split"] / entry["name"] for entry in entries)
    return {out / entry["split"] / entry["name"]: entry for entry in entries}


def test_the_layout_is_that_of_musdb18_hq_and_mixtures_are_sums(songs: dict[Path, dict[str, Any]]) -> None:
    assert [entry["split"] for entry in songs.values()] == ["train", "train", "test"]
    for folder, entry in songs.items():
        assert {"tempo", "tonic", "mode", "genre"} <= set(entry)
        assert folder.name.count(" - ") == 1
        assert {path.name for path in folder.iterdir()} == {f"{stem}.wav" for stem in (*STEMS, "mixture")}
        for info in map(soundfile.info, folder.iterdir()):
            assert (info.subtype, info.channels, info.samplerate) == ("PCM_16", 2, RATE)
            assert info.frames == SECONDS * RATE
        stems, mixture = [samples(folder / f"{stem}.wav") for stem in STEMS], samples(folder / "mixture.wav")
        # a sum in int16 that wrapped round would differ from this one in int64
        np.testing.assert_array_equal(mixture, sum(stems))
        assert max(np.abs(sound).max() for sound in (mixture, *stems)) < 0.91 * 32768


def test_every_stem_sounds_soon_and_for_half_of_the_song_in_stereo(songs: dict[Path, Any]) -> None:
    for folder in songs:
        levels = []
        for stem in STEMS:
            sound = samples(folder / f"{stem}.wav") / 32768
            blocks = np.square(sound[: len(sound) // (RATE // 2) * (RATE // 2)]).reshape(-1, RATE).mean(1)
            loud = blocks > 1e-4 * blocks.max()
            assert np.argmax(loud) * 0.5 < 10, stem
            assert loud.mean() >= 0.5, stem
            assert np.abs(sound.mean(0)).max() < 1e-4, "no offset"
            assert stem == "bass" or np.abs(sound[:, 0] - sound[:, 1]).max() > 1e-3
            levels.append(10 * np.log10(np.square(sound).mean()))
        assert min(levels) > -60
        assert max(levels) - min(levels) < 15


def test_panning_keeps_the_power_and_leans_to_its_side() -> None:
    for place in (-1.0, 0.0, 0.7):
        left, right = panned(np.ones(1), place)[0]
        # constant power: the angle between the sides is proportional to the place
        assert [left**2 + right**2, np.arctan2(right, left)] == pytest.approx([1, (place + 1) * np.pi / 4])


def test_test_songs_are_none_of_the_training_songs(songs: dict[Path, dict[str, Any]]) -> None:
    assert len({(folder / "vocals.wav").read_bytes() for folder in songs}) == 3
    assert len({entry["tempo"] for entry in songs.values()}) == 3
    settings = Musdb18Hq(out=Path("unused"), seed=5)
    names = [{settings.title(split, index) for index in range(0, 6000, 40)} for split in ("train", "test")]
    assert [len(side) for side in names] == [150, 150]
    assert not set.intersection(*({name.split(" - ")[1] for name in side} for side in names))  # titles


def test_drums_keep_the_listed_tempo(songs: dict[Path, dict[str, Any]]) -> None:
    for folder, entry in songs.items():
        sound = samples(folder / "drums.wav") / 32768
        size = RATE // 100
        power = np.square(sound[: len(sound) // size * size]).reshape(-1, size * 2).mean(1)
        rises = np.maximum(0, np.diff(10 * np.log10(power + 1e-6)))  # of the level in dB, a hundred a second
        times, ratios = np.arange(len(rises)) / 100, np.linspace(0.93, 1.07, 141)
        # how regular the hits are in beats and halves of beats, whatever their phases
        hertz = entry["tempo"] / 60 * ratios[:, None, None] * np.array([[1.0], [2.0]])
        strength = np.abs(((rises - rises.mean()) * np.exp(-2j * np.pi * hertz * times)).sum(-1)).sum(-1)
        assert ratios[int(strength.argmax())] == pytest.approx(1, abs=0.01), entry


def strongest_class(sound: np.ndarray) -> int:
    """Pitch class of the best fundamental from 40 to 140 Hz, by its octaves."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 8 * RATE))
    candidates = np.arange(28, 49)
    bins = np.round(440 * 2 ** ((candidates - 69) / 12) * 8).astype(int)
    return int(candidates[np.argmax(sum(spectrum[bins * octave] for octave in (1, 2, 4)))] % 12)


def test_the_bass_begins_bars_with_the_root_of_the_chord() -> None:
    hits = []
    for seed in range(4):
        song, rng = compose(20.0, np.random.default_rng(seed)), np.random.default_rng(seed)
        ((name, notes),) = bass(song, rng).items()
        track = INSTRUMENTS[name].play(notes, 20 * RATE, RATE, rng)
        for bar in song.playing("bass"):
            part = track[round(bar.start * RATE) :][: round(60 / song.tempo * RATE)]
            if len(part) > 0.3 * RATE:
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
