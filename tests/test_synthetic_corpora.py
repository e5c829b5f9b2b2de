"""Laws of the synthetic corpora: seeds, layouts that our readers find, levels, splits and commands."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from encore.data.corpus_writer import write_corpus
from encore.data.source_corpora import FSD_CLASSES, fsdkaggle2018
from encore.synthetic_corpora.__main__ import main
from encore.synthetic_corpora.song import STEMS
from encore.synthetic_corpora.sound_corpora import FsdKaggle2018, Musdb18Hq

RATE = 16_000


def power_db(signal: np.ndarray) -> float:
    return 10 * float(np.log10((signal.astype(float) ** 2).mean()))


def entries(listing: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0].astype(np.int64)


LAYOUTS = {
    "musdb18_hq": "--train {size} --test 0 --seconds 12 --sample-rate 22050",
    "fsdkaggle2018": "--train {size} --test 1 --classes Knock Gong",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_depend_on_the_seed_but_not_on_workers_or_size(layout: str, tmp_path: Path) -> None:
    def write(name: str, options: str) -> dict[str, bytes]:
        assert main([layout, str(tmp_path / name), *options.split()]) == 0
        files = [path for path in (tmp_path / name).rglob("*.*") if path.is_file()]
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    large = write("large", LAYOUTS[layout].format(size=2) + " --seed 3 --workers 2")
    (command,) = re.findall(f"encore.synthetic_corpora {layout} OUT (.*)", large["README.md"].decode())
    assert write("again", f"{command} --workers 1") == large
    for seed in (3, 4):
        small = write(str(seed), LAYOUTS[layout].format(size=1) + f" --seed {seed} --workers 1")
        audio = {name: data for name, data in small.items() if name.endswith(".wav")}
        assert audio
        assert all((large.get(name) == data) is (seed == 3) for name, data in audio.items())


def test_fsdkaggle2018_is_found_by_our_reader_by_zenodos_tables(tmp_path: Path) -> None:
    classes = ("Knock", "Hi-hat", "Cowbell", "Bass_drum")
    sizes = "--train 5 --test 2 --seed 3 --classes"
    assert main(["fsdkaggle2018", str(tmp_path), *sizes.split(), *classes]) == 0
    parts = {split: fsdkaggle2018(tmp_path, split, valid_every=5) for split in ("train", "valid", "test")}  # type: ignore[arg-type]
    assert {split: len(part) for split, part in parts.items()} == {"train": 16, "valid": 4, "test": 8}
    assert fsdkaggle2018(tmp_path, verified_only=True, valid_every=5) == parts["train"]
    truth = {Path(entry["fname"]).stem: entry["label"] for entry in entries(tmp_path / "clips.jsonl")}
    found = [recording for part in parts.values() for recording in part]
    assert {recording.name: recording.label for recording in found} == truth
    for info in (soundfile.info(recording.path) for recording in found):
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert 0.3 <= info.duration <= 5
    names = ("train_post_competition.csv", "test_post_competition_scoring_clips.csv")
    train, test = (list(csv.DictReader((tmp_path / "FSDKaggle2018.meta" / name).open())) for name in names)
    assert list(train[0]) == ["fname", "label", "manually_verified", "freesound_id", "license"]
    assert list(test[0]) == ["fname", "label", "usage", "freesound_id", "license"]
    # sorted by name, which does not depend on the class
    assert [row["fname"] for row in train] == sorted(row["fname"] for row in train)
    assert len({row["label"] for row in train[:8]}) >= 3


def test_names_of_clips_differ_and_so_do_seeds_and_parts() -> None:
    first, second = (FsdKaggle2018(out=Path(), seed=seed) for seed in (0, 1))
    places = [(split, index) for split in ("train", "test") for index in (0, 1, 1 << 19)]
    assert len({first.clip_name(*place, label) for place in places for label in FSD_CLASSES}) == 6 * 41
    made = [(first, "train", 0), (first, "test", 0), (first, "train", 1), (second, "train", 0)]
    clips = [next(iter(corpus.make(split, index, "Knock")[0].values())) for corpus, split, index in made]
    assert len({np.asarray(clip).tobytes() for clip in clips}) == 4


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, Any]]:
    """Two songs to train and one to test, 12 s each, at 22.05 kHz."""
    out = tmp_path_factory.mktemp("songs")
    write_corpus(Musdb18Hq(out=out, train=2, test=1, seconds=12, sample_rate=22050, seed=5), workers=1)
    made = entries(out / "songs.jsonl")
    assert sorted(out.glob("*/*")) == sorted(out / entry["split"] / entry["name"] for entry in made)
    return {out / entry["split"] / entry["name"]: entry for entry in made}


def test_songs_have_the_layout_of_musdb18_hq_and_mixtures_are_sums(songs: dict[Path, dict[str, Any]]) -> None:
    assert [entry["split"] for entry in songs.values()] == ["train", "train", "test"]
    for folder, entry in songs.items():
        assert {"tempo", "tonic", "mode", "beats"} <= set(entry)
        assert folder.name.count(" - ") == 1
        assert {path.name for path in folder.iterdir()} == {f"{stem}.wav" for stem in (*STEMS, "mixture")}
        for info in map(soundfile.info, folder.iterdir()):
            assert (info.subtype, info.channels, info.samplerate) == ("PCM_16", 2, 22050)
            assert info.frames == 12 * 22050
        stems, mixture = [samples(folder / f"{stem}.wav") for stem in STEMS], samples(folder / "mixture.wav")
        # a sum in int16 that wrapped round would differ from this one in int64
        np.testing.assert_array_equal(mixture, sum(stems))
        assert max(np.abs(sound).max() for sound in (mixture, *stems)) < 0.91 * 32768
    assert len({(folder / "vocals.wav").read_bytes() for folder in songs}) == 3
    assert all(len({entry[key] for entry in songs.values()}) == 3 for key in ("tempo", "name"))


def test_every_stem_sounds_soon_and_for_half_of_the_song_in_stereo(songs: dict[Path, Any]) -> None:
    for folder in songs:
        levels = []
        for stem in STEMS:
            sound = samples(folder / f"{stem}.wav") / 32768
            blocks = np.square(sound[: len(sound) // 11025 * 11025]).reshape(-1, 22050).mean(1)
            loud = blocks > 1e-4 * blocks.max()
            assert np.argmax(loud) * 0.5 < 10, stem
            assert loud.mean() >= 0.5, stem
            assert np.abs(sound.mean(0)).max() < 1e-4, "no offset"
            assert stem == "bass" or np.abs(sound[:, 0] - sound[:, 1]).max() > 1e-3
            levels.append(power_db(sound))
        assert min(levels) > -60
        assert max(levels) - min(levels) < 15


def test_drums_keep_the_listed_tempo(songs: dict[Path, dict[str, Any]]) -> None:
    for folder, entry in songs.items():
        sound = samples(folder / "drums.wav") / 32768
        size = 220
        power = np.square(sound[: len(sound) // size * size]).reshape(-1, size * 2).mean(1)
        rises = np.maximum(0, np.diff(10 * np.log10(power + 1e-6)))  # of the level in dB
        times, ratios = np.arange(len(rises)) * size / 22050, np.linspace(0.93, 1.07, 141)
        # how regular the hits are in beats and halves of beats, at any phases
        hertz = entry["tempo"] / 60 * ratios[:, None, None] * np.array([[1.0], [2.0]])
        strength = np.abs(((rises - rises.mean()) * np.exp(-2j * np.pi * hertz * times)).sum(-1)).sum(-1)
        assert ratios[int(strength.argmax())] == pytest.approx(1, abs=0.01), entry


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("musdb18_hq --sample-rate 16000", "sample_rate must be 22050 or 44100 or 48000, not 16000"),
        ("musdb18_hq --train 0", "train=0: must be at least 1"),
        ("musdb18_hq --seconds nan", "seconds=nan: must be at least 12"),
        ("fsdkaggle2018 --train 1048577", "train=1048577: must be from 0 to 1048576"),
        ("fsdkaggle2018 --workers 0", "workers must be at least 1, not 0"),
        ("fsdkaggle2018 --classes Gong Gong", "not ('Gong', 'Gong')"),
    ],
)
def test_command_line_refuses_in_one_line(
    arguments: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, *options = arguments.split()
    assert main([layout, str(tmp_path / "corpus"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(reason)
    assert not (tmp_path / "corpus").exists()


def test_a_full_folder_is_kept_without_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    tiny = f"fsdkaggle2018 {tmp_path} --train 2 --test 2 --workers 1 --classes Knock".split()
    assert main(tiny) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert main([*tiny, "--overwrite"]) == 0
    assert main([*tiny, "--overwrite", "--seed", "1", "--train", "1"]) == 0
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert len(list(tmp_path.rglob("*.wav"))) == 3
