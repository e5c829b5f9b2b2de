"""References that are the sum of several recordings, or of none: reading, checking and listing them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from corpus_trees import RATE, tone, write

from encore.data.audio import AudioFileError, read_audio
from encore.data.corpora import Item, Reference
from encore.data.dataset import SegmentDataset


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Recordings of 1000 samples, but one of 600, one of 1200, one in stereo and one at another rate."""
    lengths = {"mixture": 1000, "vocals": 1000, "guitar": 1000, "piano": 600, "long": 1200}
    made = {
        name: write(tmp_path / f"{name}.wav", tone(500 + 100 * place, frames))
        for place, (name, frames) in enumerate(lengths.items())
    }
    made["stereo"] = write(tmp_path / "stereo.wav", tone(800, 1000, channels=2))
    made["rate"] = write(tmp_path / "rate.wav", tone(800, 1000), 2 * RATE)
    return made


def item(files: dict[str, Path], other: Reference, mixture: str | None = "mixture") -> Item:
    references = {"vocals": files["vocals"], "other": other}
    return Item(name="song", mixture=None if mixture is None else files[mixture], references=references)


def sample(song: Item, **options: object) -> dict:
    defaults: dict[str, object] = {"sources": ["vocals", "other"], "sample_rate": RATE}
    return SegmentDataset([song], **{**defaults, **options})[0]  # type: ignore[arg-type, return-value]


def test_an_item_names_each_file_once_the_mixture_first(files: dict[str, Path]) -> None:
    song = item(files, (files["piano"], files["guitar"], files["vocals"]))
    assert song.files == [files[name] for name in ("mixture", "vocals", "piano", "guitar")]
    assert item(files, (), None).files == [files["vocals"]]


def test_parts_are_summed_and_shorter_ones_end_in_silence(files: dict[str, Path]) -> None:
    summed = sample(item(files, (files["guitar"], files["piano"])))
    guitar, piano = (read_audio(files[name])[0] for name in ("guitar", "piano"))
    expected = guitar.clone()
    expected[:, :600] += piano
    assert torch.equal(summed["references"][1], expected)
    assert torch.equal(summed["mixture"], read_audio(files["mixture"])[0])
    alone = sample(item(files, (files["piano"],)))["references"][1]
    assert torch.equal(alone[:, :600], piano)
    assert not bool(alone[:, 600:].any())


def test_no_parts_are_silence(files: dict[str, Path]) -> None:
    silent = sample(item(files, (), None))
    assert not bool(silent["references"][1].any())
    assert torch.equal(silent["mixture"], silent["references"][0])


def test_segments_of_sums_are_parts_of_the_whole(files: dict[str, Path]) -> None:
    song = item(files, (files["piano"], files["guitar"], files["stereo"]), None)
    for rate in (RATE, RATE // 2):
        whole = sample(song, sample_rate=rate)
        dataset = SegmentDataset([song], sources=["vocals", "other"], sample_rate=rate, segment=300)
        for draw in range(20):
            segment = dataset[0, draw]
            distance = (whole["mixture"][0].unfold(0, 300, 1) - segment["mixture"][0]).abs().amax(1)
            start = int(distance.argmin())
            expected = whole["references"][..., start : start + 300]
            torch.testing.assert_close(segment["references"], expected, rtol=0, atol=1e-5)


def test_the_longest_part_sets_the_length_without_plain_files(files: dict[str, Path]) -> None:
    song = Item(
        name="song",
        mixture=None,
        references={"a": (files["piano"],), "b": (files["long"], files["guitar"]), "c": ()},
    )
    assert sample(song, sources=["a", "b", "c"])["references"].shape == (3, 1, 1200)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("piano", "long"), r"long\.wav: 1200 frames at 8000 Hz, but .*mixture\.wav has 1000"),
        (("guitar", "rate"), r"rate\.wav: 1000 frames at 16000 Hz, but .*mixture\.wav has 1000 at 8000 Hz"),
        ("piano", r"piano\.wav: 600 frames at 8000 Hz, but .*mixture\.wav has 1000"),
    ],
)
def test_what_does_not_fit_is_named(
    files: dict[str, Path], other: str | tuple[str, ...], message: str
) -> None:
    song = item(files, files[other] if isinstance(other, str) else tuple(files[name] for name in other))
    with pytest.raises(AudioFileError, match=message) as caught:
        sample(song)
    assert "\n" not in str(caught.value)


def test_an_item_without_files_is_named(files: dict[str, Path]) -> None:
    nothing = Item(name="nothing", mixture=None, references={"vocals": (), "other": ()})
    with pytest.raises(ValueError, match="'nothing' names no file"):
        sample(nothing)
