from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from encore.common.dsp import resample
from encore.data.audio import AudioFileError, read_audio
from encore.data.audio_writing import write_audio
from encore.data.corpora import Item
from encore.data.dataset import SegmentDataset
from encore.data.mixing_dataset import MixingDataset

RATE = 8000


def _noise(frames: int, seed: int, channels: int = 1) -> torch.Tensor:
    return torch.randn(channels, frames, generator=torch.Generator().manual_seed(seed)) * 0.1


def _item(folder: Path, name: str, frames: int, *, rate: int = RATE, channels: int = 1) -> Item:
    """Speech, noise and their sum; the seed comes from the length, so items differ."""
    speech, noise = _noise(frames, frames, channels), _noise(frames, frames + 1, channels)
    paths = {kind: folder / f"{name}_{kind}.wav" for kind in ("mixture", "speech", "noise")}
    for kind, waveform in (("mixture", speech + noise), ("speech", speech), ("noise", noise)):
        write_audio(paths[kind], waveform, rate)
    return Item(
        name=name,
        mixture=paths["mixture"],
        references={"speech": paths["speech"], "noise": paths["noise"]},
    )


def _dataset(*items: Item, **options: object) -> SegmentDataset:
    defaults: dict[str, object] = {"sources": ["speech"], "sample_rate": RATE}
    return SegmentDataset(items, **{**defaults, **options})  # type: ignore[arg-type]


def _start(segment: torch.Tensor, whole: torch.Tensor) -> int:
    """Where a segment lies in a recording, found by its samples alone."""
    windows = whole[0].unfold(0, segment.shape[-1], 1)
    (places,) = torch.nonzero((windows == segment[0]).all(1), as_tuple=True)
    assert len(places) == 1
    return int(places)


def test_whole_items_are_returned_as_they_are(tmp_path: Path) -> None:
    item = _item(tmp_path, "a", 1234)
    sample = _dataset(item, sources=["noise", "speech"])[0]
    assert sample["name"] == "a"
    assert sample["references"].shape == (2, 1, 1234)
    assert torch.equal(sample["mixture"], read_audio(item.mixture)[0])  # type: ignore[arg-type]
    for place, source in enumerate(("noise", "speech")):
        assert torch.equal(sample["references"][place], read_audio(item.references[source])[0])


def test_max_frames_cuts_from_the_start(tmp_path: Path) -> None:
    long, short = _item(tmp_path, "a", 1234), _item(tmp_path, "b", 300)
    whole, cut = _dataset(long, short), _dataset(long, short, max_frames=500)
    assert torch.equal(cut[0]["mixture"], whole[0]["mixture"][:, :500])
    assert torch.equal(cut[1]["references"], whole[1]["references"])


def test_segments_of_mixture_and_references_lie_at_one_place(tmp_path: Path) -> None:
    item = _item(tmp_path, "a", 1000)
    whole = _dataset(item, sources=["speech", "noise"])[0]
    dataset = _dataset(item, sources=["speech", "noise"], segment=300)
    starts = []
    for draw in range(300):
        sample = dataset[0, draw]
        start = _start(sample["mixture"], whole["mixture"])
        assert torch.equal(sample["references"], whole["references"][..., start : start + 300])
        starts.append(start)
    # uniform on 0..700: mean 350, standard error 202 / sqrt(300) = 11.7
    assert abs(np.mean(starts) - 350) < 4 * 11.7
    assert 0 <= min(starts) < 35
    assert 665 < max(starts) <= 700


def test_segments_depend_on_seed_draw_and_index_alone(tmp_path: Path) -> None:
    items = [_item(tmp_path, name, frames) for name, frames in (("a", 2000), ("b", 2001))]
    first, again = _dataset(*items, segment=100, seed=7), _dataset(*items, segment=100, seed=7)
    again[1, 5]  # what was asked before must not matter
    assert torch.equal(first[0, 3]["mixture"], again[0, 3]["mixture"])
    assert torch.equal(first[0]["mixture"], first[0, 0]["mixture"])
    assert not torch.equal(first[0, 3]["mixture"], first[0, 4]["mixture"])
    other = _dataset(*items, segment=100, seed=8)
    assert not torch.equal(first[0, 3]["mixture"], other[0, 3]["mixture"])


def test_short_items_are_padded_with_zeros_at_the_end(tmp_path: Path) -> None:
    item = _item(tmp_path, "a", 60)
    whole, sample = _dataset(item)[0], _dataset(item, segment=100)[0]
    assert sample["mixture"].shape == (1, 100)
    assert sample["references"].shape == (1, 1, 100)
    assert torch.equal(sample["mixture"][:, :60], whole["mixture"])
    assert torch.equal(sample["references"][..., :60], whole["references"])
    assert float(sample["mixture"][:, 60:].abs().sum() + sample["references"][..., 60:].abs().sum()) == 0


def test_resampled_segments_are_parts_of_the_resampled_recording(tmp_path: Path) -> None:
    item = _item(tmp_path, "a", 7001, rate=48000)
    whole = _dataset(item, sample_rate=16000)[0]["mixture"]
    assert whole.shape == (1, 2334)
    torch.testing.assert_close(whole, resample(read_audio(item.mixture)[0], 48000, 16000))  # type: ignore[arg-type]
    dataset = _dataset(item, sample_rate=16000, segment=400)
    for draw in range(5):
        segment = dataset[0, draw]["mixture"]
        nearest = (whole[0].unfold(0, 400, 1) - segment[0]).abs().amax(1).min()
        assert float(nearest) < 1e-6


def test_a_missing_mixture_is_the_sum_of_all_references(tmp_path: Path) -> None:
    item = _item(tmp_path, "a", 500)
    summed = Item(name="a", mixture=None, references=item.references)
    sample = _dataset(summed, segment=200)[0, 1]
    expected = _dataset(item, segment=200)[0, 1]
    assert sample["references"].shape == (1, 1, 200)
    assert torch.equal(sample["references"], expected["references"])
    torch.testing.assert_close(sample["mixture"], expected["mixture"], rtol=1e-6, atol=1e-7)


def test_a_residual_source_is_the_rest_of_the_mixture(tmp_path: Path) -> None:
    item = _item(tmp_path, "a", 500)
    pair = Item(name="a", mixture=item.mixture, references={"speech": item.references["speech"]})
    sample = _dataset(pair, sources=["speech", "noise"], residual="noise", segment=200)[0]
    expected = _dataset(item, sources=["speech", "noise"], segment=200)[0]
    torch.testing.assert_close(sample["references"], expected["references"], rtol=1e-5, atol=1e-7)


def test_channels(tmp_path: Path) -> None:
    stereo, mono = _item(tmp_path, "a", 400, channels=2), _item(tmp_path, "b", 401)
    whole = read_audio(stereo.mixture)[0]  # type: ignore[arg-type]
    assert torch.equal(_dataset(stereo, channels=2)[0]["mixture"], whole)
    torch.testing.assert_close(_dataset(stereo)[0]["mixture"], (whole[:1] + whole[1:]) / 2)
    both = _dataset(mono, channels=2)[0]["mixture"]
    assert both.shape == (2, 401)
    assert torch.equal(both[0], both[1])
    with pytest.raises(AudioFileError, match="2 channels cannot become 3: set channels=2 or 1"):
        _dataset(stereo, channels=3)[0]


def test_blind_items_have_no_references(tmp_path: Path) -> None:
    item = _item(tmp_path, "a", 400)
    dataset = _dataset(Item(name="a", mixture=item.mixture, references={}), segment=100)
    assert dataset.blind
    assert set(dataset[0]) == {"mixture", "name"}


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import encore.data.reading as module

    asked: list[Path] = []
    real = module.audio_info
    monkeypatch.setattr(module, "audio_info", lambda file: (asked.append(file), real(file))[1])
    dataset = _dataset(_item(tmp_path, "a", 400), segment=100)
    for draw in range(3):
        dataset[0, draw]
    assert len(asked) == len(set(asked)) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_corrupt_file_is_named(tmp_path: Path, num_workers: int) -> None:
    item = _item(tmp_path, "a", 4000)
    speech = item.references["speech"]
    speech.write_bytes(speech.read_bytes()[:-100])
    loader = DataLoader(_dataset(item, segment=100), num_workers=num_workers)
    with pytest.raises(AudioFileError, match=r"a_speech\.wav: truncated"):
        next(iter(loader))


def test_files_of_an_item_must_match(tmp_path: Path) -> None:
    a, b = _item(tmp_path, "a", 400), _item(tmp_path, "b", 401)
    mixed = Item(name="x", mixture=a.mixture, references={"speech": b.references["speech"]})
    with pytest.raises(
        AudioFileError, match=r"b_speech\.wav: 401 frames at 8000 Hz, but .*a_mixture\.wav has 400"
    ):
        _dataset(mixed)[0]


def test_items_that_do_not_fit_the_sources(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    full = Item(name="full", mixture=file, references={"speech": file})
    blind = Item(name="blind", mixture=file, references={})
    summed = Item(name="summed", mixture=None, references={"speech": file})
    for items, options, message in (
        ([], {}, "items is empty"),
        ([full], {"sources": []}, "sources is empty"),
        ([full, blind], {}, "only one of 'blind' and 'full' has references"),
        ([full], {"sources": ["vocals"]}, r"'full' has no reference 'vocals'; it has \['speech'\].*residual"),
        ([summed], {"residual": "noise"}, "'summed' has no mixture"),
        ([full], {"segment": 0}, "segment=0 is not positive"),
        ([full], {"sample_rate": 0}, "sample_rate=0 is not positive"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            _dataset(*items, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@pytest.fixture
def pools(tmp_path: Path) -> dict[str, list[Path]]:
    for kind, count in (("speech", 3), ("noise", 4)):
        for number in range(count):
            write_audio(tmp_path / f"{kind}{number}.wav", _noise(2000, 10 * count + number), RATE)
    return {kind: sorted(tmp_path.glob(f"{kind}*.wav")) for kind in ("speech", "noise")}


def _pools(pools: dict[str, list[Path]], **options: object) -> MixingDataset:
    defaults: dict[str, object] = {
        "sources": ["speech", "noise"],
        "sample_rate": RATE,
        "segment": 300,
        "epoch_size": 200,
        "snr_db": (-5.0, 15.0),
    }
    return MixingDataset(pools, **{**defaults, **options})  # type: ignore[arg-type]


def test_pool_mixtures_are_sums_at_the_drawn_ratio(pools: dict[str, list[Path]]) -> None:
    ratios = []
    for sample in map(_pools(pools).__getitem__, range(200)):
        speech, noise = sample["references"].double()
        torch.testing.assert_close(sample["mixture"].double(), speech + noise, rtol=1e-5, atol=1e-7)
        ratios.append(float(10 * torch.log10(speech.square().sum() / noise.square().sum())))
    # uniform on -5..15: mean 5, standard error 5.77 / sqrt(200) = 0.41
    assert abs(np.mean(ratios) - 5) < 4 * 0.41
    assert -5.001 < min(ratios) < -4
    assert 14 < max(ratios) < 15.001
    fixed = _pools(pools, snr_db=(3.0, 3.0))[17]["references"].double()
    assert float(10 * torch.log10(fixed[0].square().sum() / fixed[1].square().sum())) == pytest.approx(
        3, rel=1e-5
    )


def test_pools_draw_all_files_and_keep_the_first_sources_level(pools: dict[str, list[Path]]) -> None:
    wholes = [read_audio(file)[0][0].unfold(0, 300, 1) for file in pools["speech"]]
    dataset = _pools(pools, sources=["speech"])
    found = set()
    for index in range(30):
        sample = dataset[index]
        assert sample["references"].shape == (1, 1, 300)
        speech = sample["references"][0, 0]
        found |= {number for number, whole in enumerate(wholes) if bool((whole == speech).all(1).any())}
    assert found == {0, 1, 2}


def test_pools_repeat_themselves_by_draw(pools: dict[str, list[Path]]) -> None:
    first, again = _pools(pools), _pools(pools)
    assert torch.equal(first[4, 2]["mixture"], again[4, 2]["mixture"])
    assert not torch.equal(first[4, 2]["mixture"], first[4, 3]["mixture"])
    assert not torch.equal(first[4]["mixture"], first[5]["mixture"])
    assert first[4, 2]["name"] != first[4, 3]["name"]
    assert len(first) == 200
    with pytest.raises(IndexError):
        first[200]


def test_pools_with_short_and_silent_files(tmp_path: Path) -> None:
    write_audio(tmp_path / "short.wav", _noise(100, 1), RATE)
    write_audio(tmp_path / "silent.wav", torch.zeros(1, 1000), RATE)
    sample = _pools({"speech": [tmp_path / "short.wav"], "noise": [tmp_path / "silent.wav"]})[0]
    assert torch.equal(sample["mixture"], sample["references"][0])
    assert float(sample["mixture"][:, 100:].abs().sum()) == 0
    assert bool(torch.isfinite(sample["references"]).all())


def test_pools_keep_their_levels_draw_gains_and_draw_silence_anew(tmp_path: Path) -> None:
    # the second half is silent: so is a segment of 300 that begins in the last 700 of 1701 places
    write_audio(tmp_path / "a.wav", torch.cat((torch.ones(1, 1000), torch.zeros(1, 1000)), 1) / 2, RATE)
    files = {"speech": [tmp_path / "a.wav"], "noise": [tmp_path / "a.wav"]}
    kept = [_pools(files, snr_db=None)[index]["references"] for index in range(200)]
    silent = np.mean([not bool(reference.any()) for sample in kept for reference in sample])
    assert abs(silent - 701 / 1701) < 4 * 0.49 / np.sqrt(400)
    assert {float(sample.max()) for sample in kept} == {0.0, 0.5}
    skipped = _pools(files, snr_db=None, gain_db=(-6.0, 0.0), skip_silent=True)
    peaks = torch.stack([skipped[index]["references"].amax((1, 2)) for index in range(200)])
    # ten draws are all silent once in 7000
    decibels = 20 * torch.log10(peaks / 0.5)
    assert -6.001 < float(decibels.min()) < -5.5
    assert -0.5 < float(decibels.max()) < 0.001
    again = _pools(files, snr_db=None, gain_db=(-6.0, 0.0), skip_silent=True)
    assert torch.equal(again[7]["mixture"], skipped[7]["mixture"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"gain_db": (-6.0, 6.0)},
            r"gain_db=\(-6.0, 6.0\) and snr_db=\(-5.0, 15.0\) both set levels: set snr_db=null",
        ),
        ({"gain_db": (6.0, -6.0), "snr_db": None}, r"gain_db=\(6.0, -6.0\) is reversed"),
        ({"sources": ["vocals"]}, r"\['vocals'\] are not in the corpus, which has \['speech', 'noise'\]"),
        ({"sources": []}, "sources is empty"),
        ({"snr_db": (5.0, 0.0)}, r"snr_db=\(5.0, 0.0\) is reversed"),
        ({"segment": 0}, "segment=0"),
    ],
)
def test_pools_refuse_bad_options(
    pools: dict[str, list[Path]], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _pools(pools, **options)
    with pytest.raises(ValueError, match=r"pools has no files for \['noise'\]"):
        _pools({**pools, "noise": []})
