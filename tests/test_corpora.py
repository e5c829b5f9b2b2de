from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from encore.data.corpora import (
    Item,
    audio_files,
    blind_folder,
    dns,
    evenly_spaced,
    mixed_folders,
    paired_folders,
    voicebank_demand,
)


def _touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def _names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


@pytest.fixture
def vbd(tmp_path: Path) -> Path:
    for kind in ("clean", "noisy"):
        for speaker in ("p287", "p225", "p226"):
            _touch(*(tmp_path / f"{kind}_trainset_28spk_wav" / f"{speaker}_00{n}.wav" for n in (2, 1)))
        _touch(tmp_path / f"{kind}_testset_wav" / "p232_001.wav")
    return tmp_path


def test_voicebank_demand_as_published(vbd: Path) -> None:
    train, valid, test = (voicebank_demand(vbd, split) for split in ("train", "valid", "test"))
    assert _names(train) == ["p225_001", "p225_002"]
    assert _names(valid) == ["p226_001", "p226_002", "p287_001", "p287_002"]
    assert _names(test) == ["p232_001"]
    assert train[0].mixture == vbd / "noisy_trainset_28spk_wav" / "p225_001.wav"
    assert train[0].references == {"speech": vbd / "clean_trainset_28spk_wav" / "p225_001.wav"}


def test_voicebank_demand_validation_speakers(vbd: Path) -> None:
    assert _names(voicebank_demand(vbd, "valid", valid_speakers=["p225"])) == ["p225_001", "p225_002"]
    assert len(voicebank_demand(vbd, "train", valid_speakers=["p225"])) == 4
    assert len(voicebank_demand(vbd, "train", valid_speakers=[])) == 6
    with pytest.raises(ValueError, match="valid_speakers: p999 have no files"):
        voicebank_demand(vbd, "train", valid_speakers=["p225", "p999"])


def test_voicebank_demand_in_sgmse_layout(tmp_path: Path) -> None:
    for split, name in (("train", "p226_001"), ("valid", "p225_001"), ("test", "p232_001")):
        _touch(*(tmp_path / split / kind / f"{name}.wav" for kind in ("clean", "noisy")))
    assert _names(voicebank_demand(tmp_path, "train")) == ["p226_001"]
    assert _names(voicebank_demand(tmp_path, "valid")) == ["p225_001"]
    assert _names(voicebank_demand(tmp_path, "test")) == ["p232_001"]


def _dns(root: Path, count: int = 6, noise: bool = True) -> None:
    for number in range(count):
        _touch(root / "noisy" / f"book_{count - number}_snr{number}_tl-21_fileid_{number}.wav")
        _touch(root / "clean" / f"clean_fileid_{number}.wav")
        if noise:
            _touch(root / "noise" / f"noise_fileid_{number}.wav")


@pytest.mark.parametrize("inside", ["", "training", "datasets/training"])
def test_dns_pairs_by_file_id(tmp_path: Path, inside: str) -> None:
    _dns(tmp_path / inside)
    train, valid = dns(tmp_path, "train", valid_every=3), dns(tmp_path, "valid", valid_every=3)
    for item in train + valid:
        assert item.mixture is not None
        number = item.mixture.stem.rsplit("_", 1)[1]
        assert item.references["speech"].name == f"clean_fileid_{number}.wav"
        assert item.references["noise"].name == f"noise_fileid_{number}.wav"
    # names sort by book, against the file ids
    assert [name[-1] for name in _names(valid)] == ["3", "0"]
    assert [name[-1] for name in _names(train)] == ["5", "4", "2", "1"]


def test_dns_without_noise_test_set_and_blind(tmp_path: Path) -> None:
    _dns(tmp_path, noise=False)
    assert set(dns(tmp_path, valid_every=3)[0].references) == {"speech"}
    for place, number in (("no_reverb", 1), ("with_reverb", 2)):
        folder = tmp_path / "test_set" / "synthetic" / place
        _touch(
            folder / "noisy" / f"clnsp_fileid_{number}.wav", folder / "clean" / f"clean_fileid_{number}.wav"
        )
    assert _names(dns(tmp_path, "test")) == ["clnsp_fileid_1"]
    assert _names(dns(tmp_path, "test", reverb=True)) == ["clnsp_fileid_2"]
    _touch(tmp_path / "test_set" / "real_recordings" / "phone.wav")
    assert dns(tmp_path, "blind")[0].references == {}
    assert _names(dns(tmp_path, "blind")) == ["phone"]


def test_dns_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no folder noisy"):
        dns(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no folder test_set/synthetic/no_reverb"):
        dns(tmp_path, "test")
    _dns(tmp_path, count=1)
    with pytest.raises(ValueError, match="valid_every=2 leaves no file"):
        dns(tmp_path, "train", valid_every=2)
    _touch(tmp_path / "noisy" / "one.wav")
    with pytest.raises(ValueError, match=r"one\.wav does not end in fileid_<number>"):
        dns(tmp_path)
    with pytest.raises(ValueError, match="valid_every=0"):
        dns(tmp_path, valid_every=0)


def test_paired_folders_pair_subfolders_and_suffixes(tmp_path: Path) -> None:
    _touch(tmp_path / "n" / "a" / "1.wav", tmp_path / "n" / "2.flac", tmp_path / "n" / "._2.flac")
    _touch(tmp_path / "c" / "a" / "1.flac", tmp_path / "c" / "2.wav", tmp_path / "c" / "notes.txt")
    _touch(tmp_path / "z" / "a" / "1.wav", tmp_path / "z" / "2.wav")
    items = paired_folders(tmp_path / "n", tmp_path / "c", source="vocals", noise=tmp_path / "z")
    assert _names(items) == ["2", "a/1"]
    assert items[1].references == {
        "vocals": tmp_path / "c" / "a" / "1.flac",
        "noise": tmp_path / "z" / "a" / "1.wav",
    }


def test_mixed_and_blind_folders(tmp_path: Path) -> None:
    _touch(tmp_path / "b" / "2.wav", tmp_path / "a" / "1.wav", tmp_path / "s" / "x.wav")
    pools = mixed_folders({"speech": tmp_path / "s", "noise": [tmp_path / "b", str(tmp_path / "a")]})
    assert pools == {
        "speech": [tmp_path / "s" / "x.wav"],
        "noise": [tmp_path / "a" / "1.wav", tmp_path / "b" / "2.wav"],
    }
    assert _names(blind_folder(tmp_path)) == ["a/1", "b/2", "s/x"]
    with pytest.raises(ValueError, match="folders is empty"):
        mixed_folders({})


def _unmatched(root: Path) -> list[Item]:
    _touch(*(root / "n" / f"{n}.wav" for n in range(6)), root / "c" / "5.wav")
    return paired_folders(root / "n", root / "c")


def _unmatched_reference(root: Path) -> list[Item]:
    _touch(root / "n" / "0.wav", root / "c" / "0.wav", root / "c" / "1.wav")
    return paired_folders(root / "n", root / "c")


def _twice(root: Path) -> list[Item]:
    _touch(root / "n" / "0.wav", root / "n" / "0.flac", root / "c" / "0.wav")
    return paired_folders(root / "n", root / "c")


def _without_audio(root: Path) -> list[Path]:
    _touch(root / "readme.txt")
    return audio_files(root)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda root: voicebank_demand(root / "no"),
            FileNotFoundError,
            "no is not a folder.*correct data.root",
        ),
        (lambda root: voicebank_demand(root), FileNotFoundError, "noisy_trainset_28spk_wav is not a folder"),
        (lambda root: voicebank_demand(root, "dev"), ValueError, "split='dev' is unknown: use one of train"),
        (_unmatched, ValueError, r"5 files of .*n are not in .*c \(0, 1, 2 and 2 more\)"),
        (_unmatched_reference, ValueError, r"1 files of .*c are not in .*n \(1\)"),
        (_twice, ValueError, "are both '0'"),
        (_without_audio, ValueError, "has no audio files: expected .wav"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(
    tmp_path: Path, call: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("count", "limit"), [(7, 3), (3, 7), (5, None), (5, 5)])
def test_spread_takes_distinct_indices_in_order(count: int, limit: int | None) -> None:
    chosen = evenly_spaced(count, limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, limit or count)
    assert all(0 <= index < count for index in chosen)
