"""Laws of the corpus of composed songs, on a small one: two songs to train and one to test, 12 s each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from encore.data.synthesis.__main__ import main
from encore.data.synthesis.musdb18_hq import Musdb18Hq, write_corpus
from encore.data.synthesis.song import STEMS, Song, compose
from encore.data.synthesis.song_bass import bass
from encore.data.synthesis.song_effects import panned
from encore.data.synthesis.song_titles import artist_and_title

RATE = 22050
SECONDS = 12.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("songs")
    write_corpus(Musdb18Hq(out=out, train=2, test=1, seconds=SECONDS, sample_rate=RATE, seed=5), workers=1)
    return out


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "songs.jsonl").read_text().splitlines()]


def folders(out: Path) -> list[Path]:
    return [out / entry["split"] / entry["name"] for entry in entries(out)]


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16", always_2d=True)[0].astype(np.int64)


def test_the_layout_is_that_of_musdb18_hq(corpus: Path) -> None:
    assert [entry["split"] for entry in entries(corpus)] == ["train", "train", "test"]
    assert sorted(corpus.glob("*/*")) == sorted(folders(corpus))
    for folder in folders(corpus):
        assert folder.name.count(" - ") == 1
        assert {path.name for path in folder.iterdir()} == {f"{stem}.wav" for stem in (*STEMS, "mixture")}
        for path in folder.iterdir():
            info = soundfile.info(path)
            assert (info.subtype, info.channels, info.samplerate) == ("PCM_16", 2, RATE)
            assert info.frames == SECONDS * RATE


def test_the_listing_says_what_a_song_is(corpus: Path) -> None:
    for entry in entries(corpus):
        assert {"name", "split", "tempo", "tonic", "mode", "genre", "seconds"} <= set(entry)
        assert entry["seconds"] == SECONDS
        assert 0 <= entry["tonic"] < 12


def test_mixtures_are_the_sums_of_the_written_stems_and_do_not_clip(corpus: Path) -> None:
    for folder in folders(corpus):
        total = sum(samples(folder / f"{stem}.wav") for stem in STEMS)
        mixture = samples(folder / "mixture.wav")
        # a sum in int16 that wrapped round would differ from this one in int64
        np.testing.assert_array_equal(mixture, total)
        assert np.abs(mixture).max() < 0.91 * 32768
        for stem in STEMS:
            assert np.abs(samples(folder / f"{stem}.wav")).max() < 0.91 * 32768


def test_every_stem_sounds_soon_and_for_half_of_the_song(corpus: Path) -> None:
    for folder in folders(corpus):
        for stem in STEMS:
            sound = samples(folder / f"{stem}.wav") / 32768
            size = RATE // 2
            blocks = np.square(sound[: len(sound) // size * size]).reshape(-1, size * 2).mean(1)
            heard = blocks > 1e-4 * blocks.max()
            assert blocks.max() > 1e-6, stem
            assert np.argmax(heard) * 0.5 < 10, stem
            assert heard.mean() >= 0.5, stem


def test_stems_are_at_levels_of_a_mix_and_stereo(corpus: Path) -> None:
    for folder in folders(corpus):
        levels, widths = {}, {}
        for stem in STEMS:
            sound = samples(folder / f"{stem}.wav") / 32768
            levels[stem] = 10 * np.log10(np.square(sound).mean())
            widths[stem] = np.abs(sound[:, 0] - sound[:, 1]).max()
            assert np.abs(sound.mean(0)).max() < 1e-4, "no offset"
        assert max(levels.values()) - min(levels.values()) < 15
        assert widths["other"] > 1e-3
        assert widths["vocals"] > 1e-3
        assert widths["drums"] > 1e-3


@pytest.mark.parametrize("place", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_panning_keeps_the_power_and_leans_to_its_side(place: float) -> None:
    # asked of the instruments alone, for a room makes any stem stereo
    signal = np.random.default_rng(0).standard_normal(100)
    stereo = panned(signal, place)
    np.testing.assert_allclose(np.square(stereo).sum(1), np.square(signal))
    left, right = np.square(stereo).sum(0)
    # constant power: the angle between the sides is proportional to the place
    assert np.arctan2(np.sqrt(right), np.sqrt(left)) == pytest.approx((place + 1) * np.pi / 4, abs=1e-6)


def test_neither_workers_nor_the_size_of_the_corpus_change_a_byte(corpus: Path, tmp_path: Path) -> None:
    smaller = Musdb18Hq(out=tmp_path, train=1, test=1, seconds=SECONDS, sample_rate=RATE, seed=5)
    write_corpus(smaller, workers=2)
    first, _, tested = entries(corpus)
    assert entries(tmp_path) == [first, tested]
    for folder in folders(tmp_path):
        for path in folder.iterdir():
            assert path.read_bytes() == (corpus / path.relative_to(tmp_path)).read_bytes()


def test_test_songs_are_none_of_the_training_songs(corpus: Path) -> None:
    assert len({(folder / "vocals.wav").read_bytes() for folder in folders(corpus)}) == 3
    first, second, tested = entries(corpus)
    assert tested["tempo"] not in (first["tempo"], second["tempo"])
    names = [[artist_and_title(5, split, index) for index in range(300)] for split in range(2)]
    assert len({*names[0], *names[1]}) == 600
    titles = [{name.split(" - ")[1] for name in side} for side in names]
    assert not titles[0] & titles[1]


def test_no_names_twice_when_they_run_out() -> None:
    names = [artist_and_title(0, 0, index) for index in range(4990, 5010)]
    assert len(set(names)) == 20


def onsets(path: Path) -> np.ndarray:
    """Rises of the level in dB, a hundred a second."""
    sound = samples(path) / 32768
    size = RATE // 100
    power = np.square(sound[: len(sound) // size * size]).reshape(-1, size * 2).mean(1)
    rises = np.maximum(0, np.diff(10 * np.log10(power + 1e-6)))
    return rises - rises.mean()


def test_drums_keep_the_listed_tempo(corpus: Path) -> None:
    for entry, folder in zip(entries(corpus), folders(corpus), strict=True):
        rises = onsets(folder / "drums.wav")
        times = np.arange(len(rises)) / 100

        def strength(tempo: float, rises: np.ndarray = rises, times: np.ndarray = times) -> float:
            # how regular the hits are in beats, halves and quarters of beats, whatever their phases
            hertz = tempo / 60 * np.array([[1.0], [2.0], [4.0]])
            return float(np.abs((rises * np.exp(-2j * np.pi * hertz * times)).sum(1)).sum())

        shares = np.linspace(0.93, 1.07, 141)
        found = shares[int(np.argmax([strength(entry["tempo"] * share) for share in shares]))]
        assert found == pytest.approx(1, abs=0.01), entry


def strongest_class(sound: np.ndarray) -> int:
    """Pitch class of the best fundamental from 40 to 140 Hz, by its octaves."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 8 * RATE))
    candidates = np.arange(28, 49)
    bins = np.round(440 * 2 ** ((candidates - 69) / 12) * 8).astype(int)
    return int(candidates[np.argmax(sum(spectrum[bins * octave] for octave in (1, 2, 4)))] % 12)


def test_the_bass_begins_bars_with_the_root_of_the_chord() -> None:
    hits = []
    for seed in range(4):
        song = compose(20.0, np.random.default_rng(seed))
        track = bass(song, RATE, np.random.default_rng(seed + 100)).mean(1)
        for bar in song.playing("bass"):
            start = round(bar.start * RATE)
            part = track[start : start + round(song.beat_seconds * RATE)]
            if len(part) > 0.3 * RATE:
                hits.append(strongest_class(part) == bar.chord[0])
    # by chance one in twelve; short notes and what follows within the beat blur the rest
    assert np.mean(hits) > 0.6


def test_songs_differ_in_what_a_listener_hears_first() -> None:
    songs = [compose(30.0, np.random.default_rng(seed)) for seed in range(40)]
    assert len({song.tempo for song in songs}) == 40
    assert len({song.tonic for song in songs}) >= 8
    assert len({song.mode for song in songs}) >= 3
    assert {song.beats for song in songs} == {3, 4}
    assert any(song.swing > 0.1 for song in songs)
    assert any(song.swing < 0.1 for song in songs)


@pytest.mark.parametrize("seed", range(30))
def test_bars_follow_each_other_and_end_with_the_song(seed: int) -> None:
    song: Song = compose(60.0, np.random.default_rng(seed))
    length = song.beats * song.beat_seconds
    starts = [bar.start for bar in song.bars]
    np.testing.assert_allclose(np.diff(starts), length)
    assert starts[-1] < 60.0 <= starts[-1] + length + 1e-9
    assert all(set(bar.chord) <= set(song.scale) for bar in song.bars)
    for stem in STEMS:
        own = [bar.start for bar in song.playing(stem)]
        assert own[0] < 10
        assert len(own) >= len(song.bars) / 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train": 0}, "train=0"),
        ({"test": -1}, "test=-1"),
        ({"seconds": 3.0}, "seconds=3"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"sample_rate": 8000}, "sample_rate must be 22050, 44100 or 48000 Hz, not 8000"),
        ({"seed": -1}, "seed must not be negative, not -1"),
    ],
)
def test_bad_values_are_named_with_what_would_do(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Musdb18Hq(out=tmp_path, **changed)
    assert {"give", "must"} & set(str(caught.value).split())
    assert "\n" not in str(caught.value)


def test_bad_workers_and_a_full_folder_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    corpus = Musdb18Hq(out=tmp_path, train=1, test=0, seconds=SECONDS)
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        write_corpus(corpus, workers=0, overwrite=True)
    with pytest.raises(ValueError, match="--overwrite"):
        write_corpus(corpus, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_writes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--train", "1", "--test", "0", "--seconds", "12", "--sample-rate", "22050", "--workers", "1"]
    assert main(["musdb18_hq", str(tmp_path / "songs"), *small]) == 0
    assert [entry["split"] for entry in entries(tmp_path / "songs")] == ["train"]
    capsys.readouterr()
    assert main(["musdb18_hq", str(tmp_path / "none"), "--train", "0"]) == 1
    assert capsys.readouterr().err.startswith("error: train=0")
    assert not (tmp_path / "none").exists()
