"""Items read whole, in random segments or cut where they sound; references that are sums of recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_trees import RATE, tone, write
from draws import check_uniform
from torch import Tensor
from torch.utils.data import DataLoader

from encore.common.dsp import resample
from encore.data.activity import first_sound
from encore.data.audio import AudioFileError, read_audio
from encore.data.corpora import Item
from encore.data.datamodule import SeparationData
from encore.data.dataset import SegmentDataset

BOTH = ["speech", "noise"]


def noise(frames: int, seed: int, channels: int = 1) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((frames, channels)).astype(np.float32)


def item(folder: Path, name: str, frames: int, *, rate: int = RATE, channels: int = 1) -> Item:
    """Speech, noise and their sum; the seed comes from the length, so items differ."""
    speech, other = noise(frames, frames, channels), noise(frames, frames + 1, channels)
    signals = {"mixture": speech + other, "speech": speech, "noise": other}
    files = {kind: write(folder / f"{name}_{kind}.wav", signal, rate) for kind, signal in signals.items()}
    return Item(name=name, mixture=files.pop("mixture"), references=files)


def dataset(*items: Item, **options: Any) -> SegmentDataset:
    return SegmentDataset(items, **{"sources": ["speech"], "sample_rate": RATE, **options})


def read(file: object) -> Tensor:
    assert isinstance(file, Path)
    return read_audio(file)[0]


def place(part: Tensor, whole: Tensor) -> int:
    """Find the start of a segment in a recording by its samples alone."""
    distance = (whole[0].unfold(0, part.shape[-1], 1) - part[0]).abs().amax(1)
    assert float(distance.min()) < 1e-6
    return int(distance.argmin())


def test_whole_items_are_returned_as_they_are_or_cut(tmp_path: Path) -> None:
    long, short = item(tmp_path, "a", 1234), item(tmp_path, "b", 300)
    sample = dataset(long, sources=["noise", "speech"])[0]
    assert sample["name"] == "a"
    assert torch.equal(sample["mixture"], read(long.mixture))
    assert torch.equal(sample["references"], torch.stack([read(long.references[s]) for s in BOTH[::-1]]))
    cut = dataset(long, short, max_frames=500)
    assert torch.equal(cut[0]["mixture"], sample["mixture"][:, :500])
    assert torch.equal(cut[1]["mixture"], read(short.mixture))


def test_segments_of_mixture_and_references_lie_at_one_place(tmp_path: Path) -> None:
    song = item(tmp_path, "a", 1000)
    whole, segments = dataset(song, sources=BOTH)[0], dataset(song, sources=BOTH, segment=300)
    starts = []
    for draw in range(300):
        sample = segments[0, draw]
        start = place(sample["mixture"], whole["mixture"])
        assert torch.equal(sample["mixture"], whole["mixture"][:, start : start + 300])
        assert torch.equal(sample["references"], whole["references"][..., start : start + 300])
        starts.append(start)
    check_uniform(starts, 0, 700)


def test_short_items_are_padded_with_zeros_at_the_end(tmp_path: Path) -> None:
    short = item(tmp_path, "a", 60)
    whole, sample = dataset(short)[0], dataset(short, segment=100)[0]
    for key in ("mixture", "references"):
        assert sample[key].shape[-1] == 100
        assert torch.equal(sample[key][..., :60], whole[key])
        assert not bool(sample[key][..., 60:].any())


def test_resampled_segments_are_parts_of_the_resampled_recording(tmp_path: Path) -> None:
    fast = item(tmp_path, "a", 7001, rate=48000)
    whole = dataset(fast, sample_rate=16000)[0]["mixture"]
    assert whole.shape == (1, 2334)
    torch.testing.assert_close(whole, resample(read(fast.mixture), 48000, 16000))
    for draw in range(5):
        place(dataset(fast, sample_rate=16000, segment=400)[0, draw]["mixture"], whole)


def test_a_mixture_may_be_the_sum_of_all_references_and_a_source_the_rest_of_it(tmp_path: Path) -> None:
    recorded = item(tmp_path, "a", 500)
    expected = dataset(recorded, sources=BOTH, segment=200)[0, 1]
    speech = {"speech": recorded.references["speech"]}
    for song, options, tolerance in (
        (replace(recorded, mixture=None), {"sources": BOTH[:1]}, 0.0),
        (recorded, {"sources": BOTH, "rebuild_mixture": True}, 0.0),
        (replace(recorded, references=speech), {"sources": BOTH, "residual": "noise"}, 1e-5),
    ):
        sample = dataset(song, segment=200, **options)[0, 1]
        torch.testing.assert_close(sample["mixture"], expected["mixture"], rtol=1e-6, atol=1e-7)
        wanted = expected["references"][: len(sample["references"])]
        torch.testing.assert_close(sample["references"], wanted, rtol=tolerance, atol=tolerance / 100)


def test_channels(tmp_path: Path) -> None:
    stereo, mono = item(tmp_path, "a", 400, channels=2), item(tmp_path, "b", 401)
    whole = read(stereo.mixture)
    assert torch.equal(dataset(stereo, channels=2)[0]["mixture"], whole)
    torch.testing.assert_close(dataset(stereo)[0]["mixture"], (whole[:1] + whole[1:]) / 2)
    assert torch.equal(dataset(mono, channels=2)[0]["mixture"], read(mono.mixture).expand(2, 401))
    with pytest.raises(AudioFileError, match="2 channels cannot become 3: set channels=2 or 1"):
        dataset(stereo, channels=3)[0]


def test_blind_items_have_no_references(tmp_path: Path) -> None:
    blind = dataset(replace(item(tmp_path, "a", 400), references={}), segment=100)
    assert blind.blind
    assert set(blind[0]) == {"mixture", "name"}
    assert set(SeparationData.collate([blind[0]])) == {"mixture", "names"}


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import encore.data.reading as module

    opened: list[Path] = []
    real = module.audio_info
    monkeypatch.setattr(module, "audio_info", lambda file: (opened.append(file), real(file))[1])
    segments = dataset(item(tmp_path, "a", 400), segment=100)
    for draw in range(3):
        segments[0, draw]
    assert len(opened) == len(set(opened)) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_corrupt_file_is_named(tmp_path: Path, num_workers: int) -> None:
    broken = item(tmp_path, "a", 4000)
    file = tmp_path / "a_speech.wav"
    file.write_bytes(file.read_bytes()[:-100])
    loader = DataLoader(dataset(broken, segment=100), num_workers=num_workers)
    with pytest.raises(AudioFileError, match=r"a_speech\.wav: truncated"):
        next(iter(loader))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Recordings of 1000 samples, but one of 600, one of 1200, one in stereo and one at another rate."""
    lengths = {"mixture": 1000, "vocals": 1000, "guitar": 1000, "piano": 600, "long": 1200, "rate": 1000}
    made = {
        name: write(
            tmp_path / f"{name}.wav", tone(500 + 100 * number, frames), 2 * RATE if name == "rate" else RATE
        )
        for number, (name, frames) in enumerate(lengths.items())
    }
    made["stereo"] = write(tmp_path / "stereo.wav", tone(800, 1000, channels=2))
    return made


def sums(files: dict[str, Path], *other: str, mixture: bool = True) -> Item:
    """An item whose second reference is the sum of these files."""
    references = {"vocals": files["vocals"], "other": tuple(files[name] for name in other)}
    return Item(name="song", mixture=files["mixture"] if mixture else None, references=references)


def references(song: Item, **options: Any) -> Tensor:
    return dataset(song, **{"sources": ["vocals", "other"], **options})[0]["references"]


def test_parts_are_summed_shorter_ones_end_in_silence_and_no_parts_are_silence(
    files: dict[str, Path],
) -> None:
    song = sums(files, "piano", "guitar", "vocals")
    assert song.files == [files[name] for name in ("mixture", "vocals", "piano", "guitar")]
    expected = read(files["guitar"])
    expected[:, :600] += read(files["piano"])
    assert torch.equal(references(sums(files, "guitar", "piano"))[1], expected)
    alone = references(sums(files, "piano"))[1]
    assert torch.equal(alone[:, :600], read(files["piano"]))
    assert not bool(alone[:, 600:].any())
    silent = dataset(sums(files, mixture=False), sources=["vocals", "other"])[0]
    assert not bool(silent["references"][1].any())
    assert torch.equal(silent["mixture"], silent["references"][0])
    # without plain files the longest part sets the length
    parts = {"vocals": (files["piano"],), "other": (files["long"], files["guitar"])}
    assert references(Item(name="song", mixture=None, references=parts)).shape == (2, 1, 1200)


def test_segments_of_sums_are_parts_of_the_whole(files: dict[str, Path]) -> None:
    song, options = sums(files, "piano", "guitar", "stereo", mixture=False), {"sources": ["vocals", "other"]}
    for rate in (RATE, RATE // 2):
        whole = dataset(song, sample_rate=rate, **options)[0]
        segments = dataset(song, sample_rate=rate, segment=300, **options)
        for draw in range(20):
            start = place(segments[0, draw]["mixture"], whole["mixture"])
            expected = whole["references"][..., start : start + 300]
            torch.testing.assert_close(segments[0, draw]["references"], expected, rtol=0, atol=1e-5)


def test_files_of_an_item_that_do_not_match_are_named(files: dict[str, Path]) -> None:
    plain = replace(sums(files), references={"vocals": files["vocals"], "other": files["piano"]})
    nothing = Item(name="nothing", mixture=None, references={"vocals": (), "other": ()})
    for song, message in (
        (sums(files, "piano", "long"), r"long\.wav: 1200 frames at 8000 Hz, but .*mixture\.wav has 1000"),
        (sums(files, "guitar", "rate"), r"rate\.wav: 1000 frames at 16000 Hz, but .*mixture\.wav has 1000 a"),
        (plain, r"piano\.wav: 600 frames at 8000 Hz, but .*mixture\.wav has 1000"),
        (nothing, "'nothing' names no file"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            references(song)
        assert "\n" not in str(caught.value)


def led(folder: Path, frames: int, rate: int = RATE, **leads: int) -> Item:
    """Stems that begin after each other, and a mixture that is not quite their sum."""
    stems = {stem: tone(500, frames, lead=lead) for stem, lead in leads.items()}
    written = {stem: write(folder / f"{stem}.wav", waveform, rate) for stem, waveform in stems.items()}
    mixture = write(folder / "mixture.wav", np.sum(list(stems.values()), axis=0) + 0.01, rate)
    return Item(name="song", mixture=mixture, references=written)


def test_an_active_crop_begins_where_the_last_source_does(tmp_path: Path) -> None:
    song = led(tmp_path, 30_000, speech=9000, drums=3000, bass=0)
    whole, options = dataset(song)[0], {"max_frames": 10_000, "crop": "active"}
    start = first_sound(whole["references"][0])
    assert 9000 - 1024 <= start <= 9000
    # a source that is not returned counts as well
    for cut in (dataset(song, **options)[0], dataset(song, sources=["bass"], **options)[0]):
        assert torch.equal(cut["mixture"], whole["mixture"][:, start : start + 10_000])
    assert torch.equal(dataset(song, max_frames=10_000)[0]["mixture"], whole["mixture"][:, :10_000])
    # the mixture that is rebuilt is cut, and the recorded one not read
    everything = dataset(song, sources=["speech", "drums", "bass"])[0]["references"].sum(0)
    torch.testing.assert_close(whole["mixture"] - everything, torch.full((1, 30_000), 0.01))
    (tmp_path / "mixture.wav").unlink()
    rebuilt = dataset(song, rebuild_mixture=True, **options)[0]["mixture"]
    torch.testing.assert_close(rebuilt, everything[:, start : start + 10_000], rtol=0, atol=1e-6)


def test_a_crop_that_would_reach_beyond_the_end_begins_earlier(tmp_path: Path) -> None:
    song = led(tmp_path, 30_000, speech=25_000, drums=0)
    whole = dataset(song)[0]["mixture"]
    assert torch.equal(dataset(song, max_frames=10_000, crop="active")[0]["mixture"], whole[:, 20_000:])
    for frames in (30_000, 40_000, None):
        assert torch.equal(dataset(song, max_frames=frames, crop="active")[0]["mixture"], whole)


def test_the_start_does_not_depend_on_the_sampling_rate(tmp_path: Path) -> None:
    song = led(tmp_path, 60_000, 16_000, speech=18_000, drums=0)
    whole, own = dataset(song)[0]["references"], dataset(song, sample_rate=16_000)[0]["references"]
    start = first_sound(own[0]) // 2
    cut = dataset(song, max_frames=5000, crop="active")[0]["references"]
    torch.testing.assert_close(cut, whole[..., start : start + 5000], rtol=0, atol=1e-6)


def test_a_crop_begins_where_the_mixture_sounds(tmp_path: Path) -> None:
    """Two sources that cancel each other at first."""
    one, other = tone(500, 30_000), -tone(500, 30_000)
    other[12_000:] *= -1
    stems = {"speech": write(tmp_path / "a.wav", one), "drums": write(tmp_path / "b.wav", other)}
    song = Item(name="song", mixture=None, references=stems)
    whole, cut = dataset(song)[0], dataset(song, max_frames=8000, crop="active")[0]
    start = first_sound(whole["mixture"])
    assert 11_000 < start <= 12_000
    assert torch.equal(cut["references"], whole["references"][..., start : start + 8000])
