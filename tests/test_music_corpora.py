from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus_trees import RATE, SOURCES, TITLES, hertz, moises, musdb, names, song, songs, tone, touch, write
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from encore.data.dataset import SegmentDataset
from encore.data.music_corpora import VALID_SONGS, moisesdb, musdb18_hq, song_folders
from encore.data.pools import stem_csv, stem_folders

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four training songs and a test song in the layout of MUSDB18-HQ, under other titles."""
    musdb(tmp_path, frames=200)
    return tmp_path


def test_musdb18_hq_keeps_the_official_songs_for_validation(tmp_path: Path) -> None:
    official = sorted(VALID_SONGS)
    others = ["A Classic Education - NightOwl", "Zeno - Signs"]
    songs(tmp_path / "train", [*official, *others], frames=20)
    songs(tmp_path / "test", ["Al James - Schoolboy Facination"], frames=20)
    train, valid, test = (musdb18_hq(tmp_path, split) for split in ("train", "valid", "test"))
    assert len(official) == 14
    assert names(valid) == official
    assert names(train) == others
    assert names(test) == ["Al James - Schoolboy Facination"]
    folder = tmp_path / "train" / "Zeno - Signs"
    assert train[1].mixture == folder / "mixture.wav"
    assert train[1].references == {source: folder / f"{source}.wav" for source in SOURCES}


def test_other_songs_are_held_out_by_number_or_title(root: Path) -> None:
    for valid_songs, held_out in (
        (1, ["Ana - One"]),
        (2, ["Ana - One", "Cat - Three"]),  # evenly spaced over the sorted titles
        (["Dan - Four", "Bob - Two"], ["Bob - Two", "Dan - Four"]),
    ):
        train, valid = (musdb18_hq(root, split, valid_songs=valid_songs) for split in ("train", "valid"))
        assert names(valid) == held_out
        assert names(train) == sorted(set(TITLES[:4]) - set(held_out))
    for none in (0, []):
        assert names(musdb18_hq(root, valid_songs=none)) == sorted(TITLES[:4])


def test_a_folder_for_validation_is_used_as_it_is(root: Path) -> None:
    songs(root / "valid", ["Fay - Six"], frames=20)
    assert names(musdb18_hq(root, "valid")) == ["Fay - Six"]
    assert names(musdb18_hq(root)) == sorted(TITLES[:4])


def test_mixtures_may_be_absent(root: Path) -> None:
    (root / "train" / "Ana - One" / "mixture.wav").unlink()
    first, second = musdb18_hq(root, valid_songs=0)[:2]
    assert first.mixture is None
    assert second.mixture is not None
    recorded, summed = (
        SegmentDataset([item], sources=["bass"], sample_rate=RATE)[0]["mixture"]
        for item in (second, replace(second, mixture=None))
    )
    torch.testing.assert_close(recorded, summed, rtol=0, atol=1e-6)


def test_songs_in_any_audio_format_and_other_files_beside_them(tmp_path: Path) -> None:
    song(tmp_path / "b", 0, frames=40, suffix=".flac", mixture=False)
    song(tmp_path / "a", 1, frames=40)
    song(tmp_path / ".hidden", 2, frames=40)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no song")
    (tmp_path / "a" / "cover.png").write_bytes(b"")
    (tmp_path / "a" / "._bass.wav").write_bytes(b"")
    items = song_folders(tmp_path)
    assert names(items) == ["a", "b"]
    assert items[1].references["bass"] == tmp_path / "b" / "bass.flac"
    assert items[1].mixture is None


def test_a_grouping_sums_stems_takes_the_rest_and_leaves_absent_ones_silent(tmp_path: Path) -> None:
    song(tmp_path / "full", 0, stems=("vocals", "choir", "drums", "guitar", "piano"), frames=40)
    song(tmp_path / "solo", 1, stems=("piano",), frames=40)
    items = song_folders(tmp_path, {"vocals": ["vocals", "choir"], "other": None, "drums": ["drums"]})
    full, solo = tmp_path / "full", tmp_path / "solo"
    assert items[0].references == {
        "vocals": (full / "vocals.wav", full / "choir.wav"),
        "other": (full / "guitar.wav", full / "piano.wav"),
        "drums": (full / "drums.wav",),
    }
    assert items[1].references == {"vocals": (), "other": (solo / "piano.wav",), "drums": ()}
    two = SegmentDataset(items, sources=["vocals", "other"], sample_rate=RATE)
    for place, frequencies in (
        (0, ([hertz(0, 0), hertz(0, 1)], [hertz(0, 3), hertz(0, 4)])),
        (1, ([], [hertz(1, 0)])),
    ):
        for source, stems in enumerate(frequencies):
            expected = sum(torch.from_numpy(tone(stem, 40)).float().T for stem in stems) + torch.zeros(1, 40)
            torch.testing.assert_close(two[place]["references"][source], expected, rtol=0, atol=1e-6)
    without_rest = song_folders(tmp_path, {"keys": ["piano", "organ"]})
    assert [item.references for item in without_rest] == [
        {"keys": (full / "piano.wav",)},
        {"keys": (solo / "piano.wav",)},
    ]


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    """Ten songs of MoisesDB; the first has several files a stem, not all of one length."""
    base = tmp_path / "moisesdb_v0.1"
    drums = {"drums": [80], "percussion": [70]}
    moises(base, "00", {"vocals": [80, 60], **drums, "bass": [80], "guitar": [75, 80]})
    for number in range(1, 10):
        stems = {stem: [80] for stem in ("vocals", "drums", "bass", "piano")}
        moises(base, f"{number:02d}", {**stems, "wind": []})
    (base / "03" / "wind").mkdir()
    return base


def test_moisesdb_groups(studio: Path) -> None:
    items = moisesdb(studio, valid_songs=[], test_songs=[])
    assert names(items) == [f"{number:02d}" for number in range(10)]
    first = {source: [file.parent.name for file in items[0].references[source]] for source in SOURCES}  # type: ignore[union-attr]
    assert first == {
        "vocals": ["vocals", "vocals"],
        "drums": ["drums", "percussion"],
        "bass": ["bass"],
        "other": ["guitar", "guitar"],
    }
    assert all(item.mixture is None for item in items)
    guitars = moisesdb(studio, groups={"guitar": ["guitar"], "rest": None}, valid_songs=0, test_songs=0)
    assert [len(item.references["guitar"]) for item in guitars] == [2] + 9 * [0]  # type: ignore[arg-type]
    assert len(guitars[0].references["rest"]) == 5  # type: ignore[arg-type]
    sample = SegmentDataset(items[:1], sources=["vocals", "other"], sample_rate=RATE)[0]
    assert sample["mixture"].shape == (1, 80)
    vocals = torch.from_numpy(tone(500, 80)).float().T
    torch.testing.assert_close(sample["references"][0, :, :60], 2 * vocals[:, :60], rtol=0, atol=1e-6)
    torch.testing.assert_close(sample["references"][0, :, 60:], vocals[:, 60:], rtol=0, atol=1e-6)


def test_moisesdb_splits_share_no_song(studio: Path) -> None:
    held_out = {"valid_songs": 2, "test_songs": 3}
    parts = [names(moisesdb(studio, split, **held_out)) for split in ("train", "valid", "test")]
    assert parts[2] == ["00", "03", "06"]
    assert parts[1] == ["01", "05"]  # spread over the seven others
    assert sorted(name for part in parts for name in part) == [f"{number:02d}" for number in range(10)]
    by_name = moisesdb(studio, "test", valid_songs=2, test_songs=["07"])
    assert names(by_name) == ["07"]


def test_a_folder_per_stem(tmp_path: Path) -> None:
    touch(tmp_path, "vocals/0.wav", "vocals/deep/1.flac", "drums/a.wav", "drums/._a.wav")
    assert stem_folders(tmp_path) == {
        "drums": [tmp_path / "drums" / "a.wav"],
        "vocals": [tmp_path / "vocals" / "0.wav", tmp_path / "vocals" / "deep" / "1.flac"],
    }
    assert list(stem_folders(tmp_path, ["vocals"])) == ["vocals"]


def test_lists_of_stems(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.wav", "b.wav")
    here, there = tmp_path / "in" / "a.wav", tmp_path / "b.wav"
    table = tmp_path / "in" / "list.csv"
    table.write_text(f"instrum,path\nvocals,a.wav\ndrums,{there}\nvocals,{there}\n")
    other = tmp_path / "other.csv"
    other.write_text("path,instrum\nb.wav,bass\n")
    assert stem_csv(table) == {"drums": [there], "vocals": sorted([here, there])}
    assert list(stem_csv([table, other])) == ["bass", "drums", "vocals"]
    assert stem_csv([table, other], ["bass"]) == {"bass": [there]}
    for text, message in (
        ("instrum,path\n", "lists no files"),
        ("stem,path\nvocals,a.wav\n", r"list\.csv, line 2: instrum is missing; the columns are stem, path"),
        ("instrum,path\nvocals,gone.wav\n", r"line 2: .*gone\.wav is missing"),
    ):
        table.write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            stem_csv(table)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"lists no voice; it has bass: name some"):
        stem_csv(other, ["voice"])
    with pytest.raises(FileNotFoundError, match="is not a file: give a CSV file"):
        stem_csv(tmp_path / "gone.csv")


def grouped(sources: object) -> Callable[[Path], object]:
    return partial(musdb18_hq, split="test", sources=sources)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            musdb18_hq,
            r"valid_songs: 14 of 14 are not in .*train \(ANiMAL - Rockshow; .* and 11 more\).*: .*"
            r"data\.train\.valid_songs=4$",
        ),
        (partial(musdb18_hq, valid_songs=["Ana - One", "Eve"]), r"valid_songs: 1 of 2 .*\(Eve\)"),
        (partial(musdb18_hq, valid_songs=4), "valid_songs=4, but .*train has 4 to choose from: give 0 to 3"),
        (partial(musdb18_hq, valid_songs=-1), "valid_songs=-1, but"),
        (partial(musdb18_hq, valid_songs=TITLES[:4]), "valid_songs names all 4 songs"),
        (partial(musdb18_hq, split="valid", valid_songs=0), r"holds out no songs: .*data\.valid=null"),
        (partial(musdb18_hq, split="dev"), "split='dev' is unknown: use one of train, valid, test"),
        (
            grouped(["vocals", "piano"]),
            r"Eve - Five has no piano; it has bass, drums, other, vocals: .*sources=\{piano: \[piano\]\}",
        ),
        (
            grouped({"vocals": ["voice"]}),
            "grouping: no song of .*test has a stem for 'vocals'; the stems are bass, drums, other, vocals",
        ),
        (grouped({"a": ["bass"], "b": ["bass"]}), "grouping: the stem 'bass' is in several sources"),
        (grouped({"a": None, "b": None}), r"grouping: \['a', 'b'\] are all the rest"),
        (grouped({"all": list(SOURCES), "rest": None}), "no song of .*test has a stem for 'rest'"),
        (partial(moisesdb, split="test", test_songs=0), r"test_songs=0 holds out no songs.*data\.test=null"),
        (partial(stem_folders, sources=["kazoo"]), "has no folder kazoo; it has test, train: change"),
    ],
)
def test_a_mistake_is_one_line(root: Path, call: Callable[[Path], object], message: str) -> None:
    moises_like = getattr(call, "func", call) is moisesdb
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        call(root / "train" if moises_like else root)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        call(root / "nowhere")


def test_song_folders_that_are_not_what_they_seem(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no songs: expected folders with files such as vocals\.wav"):
        song_folders(tmp_path)
    with pytest.raises(ValueError, match="has no folders: expected one per stem"):
        stem_folders(tmp_path)
    song(tmp_path / "a", 0, frames=20)
    write(tmp_path / "a" / "bass.flac", tone(500, 20))
    with pytest.raises(ValueError, match=r"a has the stem 'bass' twice: keep one of them"):
        song_folders(tmp_path)
    (tmp_path / "a" / "bass.flac").unlink()
    (tmp_path / "a" / "mixture.wav").unlink()
    write(tmp_path / "a" / "mixture" / "one.wav", tone(500, 20))
    with pytest.raises(ValueError, match="mixture is a folder: give a file as mixture, or none"):
        song_folders(tmp_path)


def test_groupings_and_lists_can_be_given_on_the_command_line(
    root: Path, studio: Path, tmp_path: Path
) -> None:
    def corpus(config: str, place: Path, part: str, *overrides: str) -> Any:
        common = [f"data={config}", f"data.root={place}", "name=x"]
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return instantiate(compose("train", overrides=[*common, *overrides]).data[part])()

    two = "data.train.sources={vocals:[vocals],accompaniment:null}"
    for songs_of_two in (
        corpus("musdb18_hq", root, "valid", "data.train.valid_songs=1", two),
        corpus("song_folders", root, "train", two),
    ):
        found = {source: len(files) for source, files in songs_of_two[0].references.items()}
        assert found == {"vocals": 1, "accompaniment": 3}
    groups = "data.train.groups={keys:[piano],rest:null}"
    keys = corpus("moisesdb", studio, "test", groups, "data.test.test_songs=2")
    assert [list(item.references) for item in keys] == 2 * [["keys", "rest"]]
    table = tmp_path / "list.csv"
    table.write_text("instrum,path\nvocals,train/Ana - One/vocals.wav\n")
    by_list = ("data.train._target_=encore.data.pools.stem_csv", f"data.train.path={table}")
    listed = corpus("stem_folders", root, "train", *by_list)
    assert listed == {"vocals": [root / "train" / "Ana - One" / "vocals.wav"]}
