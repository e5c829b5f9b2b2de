"""Corpora of isolated sources: VCTK and FSDKaggle2018."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from corpus_trees import names, touch, write_table

from encore.data import recordings
from encore.data.recording_sources import find_recordings, read_at
from encore.data.source_corpora import FSD_CLASSES, Recording, fsdkaggle2018, vctk

SPEAKERS = [f"p{number}" for number in range(225, 235)] + ["p280", "s5"]
SPLITS = ("train", "valid", "test")


def speakers(recordings: list[Recording]) -> set[str | None]:
    return {recording.speaker for recording in recordings}


def labels(recordings: list[Recording]) -> set[str | None]:
    return {recording.label for recording in recordings}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VCTK 0.92, six sentences of each speaker: p280 lacks mic2, and p225 one recording by mic1."""
    root = tmp_path_factory.mktemp("vctk")
    folder = root / "VCTK-Corpus-0.92" / "wav48_silence_trimmed"
    files = {
        f"{speaker}/{speaker}_{number:03d}_{microphone}.flac"
        for speaker in SPEAKERS
        for number in range(1, 7)
        for microphone in ("mic1", "mic2")
        if (speaker, microphone) != ("p280", "mic2")
    }
    touch(folder, *(files - {"p225/p225_003_mic1.flac"}), "log.txt", "p225/._p225_001_mic1.flac")
    return root


def test_recordings_in_this_layout_are_tested_on_their_test_voices_alone(tmp_path: Path) -> None:
    assert recordings.main(["vctk", str(tmp_path), "--seconds", "2.5", "--workers", "1"]) == 0
    _, *rows = [line.split() for line in (tmp_path / "speaker-info.txt").read_text().splitlines()]
    splits = [split for _, split, _ in rows]
    counts = {"test_speakers": splits.count("test"), "valid_speakers": splits.count("valid")}
    long = {own.name: own for own in find_recordings() if own.kind == "speech"}
    long = {name: own for name, own in long.items() if len(read_at(own, 16000)) >= 2.5 * 16000}
    assert splits == sorted(splits, key=("train", "valid", "test").index)
    found = []
    for split in SPLITS:
        for recording in vctk(tmp_path, split, **counts):
            text = tmp_path / "txt" / str(recording.speaker) / f"{recording.name}.txt"
            source = long[text.read_text().strip()]
            assert [recording.speaker, split, source.group] in rows
            assert source.split == split
            samples, rate = soundfile.read(recording.path, dtype="float32")
            assert rate == 16000
            expected = read_at(source, rate)
            expected = expected / max(1, float(expected.abs().max()) / 0.99)  # no sample is clipped
            torch.testing.assert_close(torch.from_numpy(samples), expected, rtol=0, atol=2e-5)
            found.append(source.name)
    assert sorted(found) == sorted(long)


def test_the_last_speakers_are_for_testing_and_the_rest_for_training(new: Path) -> None:
    trained, tested = vctk(new, valid_every=6), vctk(new, "test")
    assert speakers(tested) == set(SPEAKERS[-10:])
    assert speakers(trained) == {"p225", "p226"}
    assert len(tested) == 10 * 6
    path = new / "VCTK-Corpus-0.92" / "wav48_silence_trimmed" / "p227" / "p227_001_mic1.flac"
    assert tested[0] == Recording(name="p227_001", path=path, label=None, speaker="p227")
    assert vctk(new / "VCTK-Corpus-0.92", "test") == tested


def test_validation_takes_every_so_many_th_sentence_of_the_training_speakers(new: Path) -> None:
    parts = {split: vctk(new, split, test_speakers=2, valid_every=3) for split in SPLITS}
    # of p225 the third is the fourth, for one is missing
    assert names(parts["valid"])[:3] == ["p225_004", "p226_003", "p226_006"]
    assert speakers(parts["valid"]) == speakers(parts["train"]) == set(SPEAKERS[:-2])
    everything = [name for part in parts.values() for name in names(part)]
    assert len(everything) == len(set(everything)) == 12 * 6 - 1
    assert speakers(parts["test"]) == {"p280", "s5"}


def test_validation_speakers_are_in_no_other_part(new: Path) -> None:
    counted = partial(vctk, new, test_speakers=3, valid_speakers=2)
    named = partial(vctk, new, test_speakers=["p234", "s5", "p280"], valid_speakers=["p233", "p232"])
    for split in SPLITS:
        assert counted(split) == named(split)
    assert speakers(counted("valid")) == {"p232", "p233"}
    assert speakers(counted("train")) == set(SPEAKERS[:7])
    assert len(counted("valid")) == 12
    assert "p225_006" in names(counted("train"))  # sentences are all kept then


def test_a_microphone_changes_recordings_but_not_who_is_in_which_part(new: Path) -> None:
    first, second = (
        vctk(new, test_speakers=["s5"], valid_every=99, microphone=microphone)
        for microphone in ("mic1", "mic2")
    )
    assert set(names(second)) - set(names(first)) == {"p225_003"}
    assert speakers(first) - speakers(second) == {"p280"}
    assert {recording.path.stem[-4:] for recording in second} == {"mic2"}
    # the last ten stay the last ten, though one of them has no recording
    assert speakers(vctk(new, "test", microphone="mic2")) == set(SPEAKERS[-10:]) - {"p280"}


def test_version_0_80_has_one_microphone(tmp_path: Path) -> None:
    touch(tmp_path / "wav48", *(f"{name}/{name}_00{number}.wav" for name in SPEAKERS for number in (1, 2)))
    assert names(vctk(tmp_path, test_speakers=11, valid_every=2)) == ["p225_001"]
    assert names(vctk(tmp_path, "valid", test_speakers=11, valid_every=2)) == ["p225_002"]
    assert vctk(tmp_path, "test", test_speakers=1)[0].path == tmp_path / "wav48" / "s5" / "s5_001.wav"
    with pytest.raises(ValueError, match=r"microphone='mic2': .*wav48 is VCTK 0\.80 with one microphone"):
        vctk(tmp_path, microphone="mic2")
    with pytest.raises(FileNotFoundError, match="has no wav48_silence_trimmed or wav48"):
        vctk(tmp_path / "wav48" / "p225")


def clips(label: str, numbers: range, **more: str) -> list[dict[str, str]]:
    return [{"fname": f"{number:08x}.wav", "label": label, **more} for number in numbers]


TRAIN = [
    *clips("Bark", range(0, 20), manually_verified="1", freesound_id="1", license="Attribution"),
    *clips("Hi-hat", range(100, 110), manually_verified="0", freesound_id="1", license="Attribution"),
    *clips("Hi-hat", range(110, 115), manually_verified="1", freesound_id="1", license="Attribution"),
]
TEST = [
    *clips("Gong", range(200, 203), usage="Public", freesound_id="1", license="Attribution"),
    *clips("Bark", range(203, 205), usage="Private", freesound_id="1", license="Attribution"),
]


@pytest.fixture
def zenodo(tmp_path: Path) -> Path:
    for part, rows, table in (
        ("train", TRAIN, "train_post_competition.csv"),
        ("test", TEST, "test_post_competition_scoring_clips.csv"),
    ):
        write_table(tmp_path / "FSDKaggle2018.meta" / table, rows)
        touch(tmp_path / f"FSDKaggle2018.audio_{part}", *(row["fname"] for row in rows))
    return tmp_path


def test_there_are_41_classes() -> None:
    assert len(FSD_CLASSES) == len(set(FSD_CLASSES)) == 41
    assert list(FSD_CLASSES) == sorted(FSD_CLASSES)
    assert (FSD_CLASSES[0], FSD_CLASSES[23], FSD_CLASSES[-1]) == ("Acoustic_guitar", "Hi-hat", "Writing")


def test_zenodos_parts_with_every_tenth_clip_of_a_class_for_validation(zenodo: Path) -> None:
    train, valid, test = (fsdkaggle2018(zenodo, split) for split in SPLITS)
    assert names(valid) == [f"{number:08x}" for number in (9, 19, 109)]
    assert sorted(names(train) + names(valid)) == [row["fname"][:8] for row in TRAIN]
    assert labels(train) == labels(valid) == {"Bark", "Hi-hat"}
    assert labels(test) == {"Bark", "Gong"}
    path = zenodo / "FSDKaggle2018.audio_test" / "000000c8.wav"
    assert test[0] == Recording(name="000000c8", path=path, label="Gong")


def test_classes_and_verified_clips_do_not_change_who_is_for_validation(zenodo: Path) -> None:
    hats = partial(fsdkaggle2018, zenodo, classes=["Hi-hat"], valid_every=7)
    assert labels(hats()) == {"Hi-hat"}
    assert names(hats("valid")) == ["0000006a", "00000071"]
    assert names(hats("valid", verified_only=True)) == ["00000071"]
    assert names(hats("train", verified_only=True)) == ["0000006e", "0000006f", "00000070", "00000072"]
    assert fsdkaggle2018(zenodo, "test", verified_only=True) == fsdkaggle2018(zenodo, "test")


def test_kaggles_layout_whose_padding_clips_are_left_out(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", clips("Knock", range(3), manually_verified="1"))
    padding = clips("None", range(20, 30), usage="Ignored")
    scored = clips("Knock", range(9, 11), usage="Public")
    write_table(tmp_path / "test_post_competition.csv", [*scored, *padding])
    touch(tmp_path / "audio_train", *(f"{number:08x}.wav" for number in range(3)))
    touch(tmp_path / "audio_test", *(f"{number:08x}.wav" for number in range(9, 11)))
    assert names(fsdkaggle2018(tmp_path)) == ["00000000", "00000001", "00000002"]
    assert names(fsdkaggle2018(tmp_path, "test")) == ["00000009", "0000000a"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(vctk, split="dev"), "split='dev' is unknown: use one of train, valid, test"),
        (partial(vctk, microphone="mic3"), "microphone='mic3' is unknown: use one of mic1, mic2"),
        (partial(vctk, valid_every=1), "valid_every=1 leaves nothing to train on"),
        (partial(vctk, test_speakers=12), "test_speakers=12, but .* has 12 .*: give 0 to 11, or names"),
        (partial(vctk, test_speakers=["p9"]), r"test_speakers: 1 of 1 are not in .* \(p9\), or in another p"),
        (partial(vctk, test_speakers="s5"), r"test_speakers='s5' is one string: give a list .*\[s5\]"),
        (partial(vctk, valid_speakers=["s5"], test_speakers=["s5"]), r"valid_speakers: 1 of 1 .* \(s5\), or"),
        (partial(vctk, split="test", test_speakers=0), "has no recordings for split='test'"),
        (partial(vctk, split="valid", valid_every=7), "has no recordings for split='valid'"),
        (partial(fsdkaggle2018, split="dev"), "split='dev' is unknown"),
        (partial(fsdkaggle2018, classes=["Dog"]), "classes='Dog' is unknown: use one of Acoustic_guitar"),
        (partial(fsdkaggle2018, classes=[]), "classes is empty"),
        (partial(fsdkaggle2018, classes=["Gong"]), "classes: .*train_post_competition.csv lists no Gong"),
        (partial(fsdkaggle2018, valid_every=1), "valid_every=1 leaves nothing to train on"),
        (partial(fsdkaggle2018, split="valid", valid_every=21), "lists no recordings for split='valid'"),
    ],
)
def test_a_mistake_is_one_line(new: Path, zenodo: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(new if getattr(call, "func", None) is vctk else zenodo)
    assert "\n" not in str(caught.value)


def test_tables_of_fsdkaggle2018_that_do_not_fit_are_named_with_their_lines(zenodo: Path) -> None:
    table = zenodo / "FSDKaggle2018.meta" / "train_post_competition.csv"
    (zenodo / "FSDKaggle2018.audio_train" / "00000000.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"audio_train lacks 1 of the files .* such as 00000000\.wav"):
        fsdkaggle2018(zenodo)
    two = clips("Bark", range(1, 3))
    for rows, message in (
        ([*two, *clips("Dog", range(2, 3))], r"csv, line 4: label 'Dog' of fname '00000002\.wav' is none of"),
        ([*two, *clips("Bark", range(2, 3))], r"csv, line 4: 00000002\.wav is listed twice"),
        ([{"fname": "00000001.wav"}], "line 2: label is missing; the columns are fname"),
    ):
        write_table(table, rows)
        with pytest.raises(ValueError, match=message):
            fsdkaggle2018(zenodo)
    write_table(table, two)
    assert len(fsdkaggle2018(zenodo)) == 2
    with pytest.raises(ValueError, match="manually_verified is missing; the columns are fname, label"):
        fsdkaggle2018(zenodo, verified_only=True)
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no FSDKaggle2018\.meta/train_post"):
        fsdkaggle2018(zenodo)
    with pytest.raises(FileNotFoundError, match="is not a folder: the FSDKaggle2018 folder was expected"):
        fsdkaggle2018(zenodo / "nowhere")
