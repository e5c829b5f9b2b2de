from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from corpus_trees import RATE, tone, write
from torch import Tensor

from encore.data.activity import HOP, active_start, first_sound, is_silent
from encore.data.corpora import Item
from encore.data.dataset import SegmentDataset


def noise(frames: int, seed: int = 0, channels: int = 1) -> Tensor:
    return torch.randn(channels, frames, generator=torch.Generator().manual_seed(seed)) * 0.1


def led(lead: int, frames: int, seed: int = 0, channels: int = 1) -> Tensor:
    signal = noise(frames, seed, channels)
    signal[:, :lead] = 0
    return signal


def librosa_start(signal: Tensor) -> int:
    return int(librosa.effects.trim(signal.numpy(), top_db=60)[1][0])


@pytest.mark.parametrize("frames", [20_000, 20_479, 2048, 100])
@pytest.mark.parametrize("lead", [0, 90, 1400, 11_111])
def test_the_first_sound_is_librosas(frames: int, lead: int) -> None:
    # loud, as librosa takes nothing for quieter than -100 dBFS, 60 dB below a peak of -40
    signal = 20 * led(min(lead, frames - 10), frames)
    assert first_sound(signal) == librosa_start(signal)


def test_the_first_sound_of_a_rising_signal_is_librosas_at_any_slope_and_in_any_channel() -> None:
    for seed, decades in enumerate((2, 4, 5, 6)):
        fade = torch.logspace(-decades, 0, 40_000)
        signal = noise(40_000, seed, 2) * torch.stack((fade, fade.square()))
        starts = [first_sound(signal), first_sound(signal.flip(0)), librosa_start(signal)]
        assert len(set(starts)) == 1
        assert (starts[0] > 0) == (decades > 3)


def test_the_level_of_a_signal_does_not_matter() -> None:
    signal = led(9000, 20_000)
    assert first_sound(signal * 1e-4) == first_sound(signal) == first_sound(signal * 100) > 7000
    assert first_sound(torch.zeros(2, 5000)) == 0


def test_how_far_below_the_peak_silence_begins() -> None:
    signal = noise(40_000)
    signal[:, :10_000] *= 10 ** (-40 / 20)
    assert first_sound(signal, below_db=60) == 0
    # the frame that reaches 1000 samples or so into the loud part is above -30 dB
    assert first_sound(signal, below_db=30) == 18 * HOP


def test_all_are_active_where_the_last_one_begins_and_silent_ones_are_not_waited_for() -> None:
    signals = [led(lead, 30_000, lead) for lead in (2000, 12_000, 7000)]
    assert active_start(signals) == first_sound(signals[1]) == librosa_start(signals[1])
    assert active_start([*signals, torch.zeros(1, 30_000)]) == active_start(iter(signals))
    assert active_start([]) == 0


def test_silence_is_below_minus_60_dbfs_over_channels_and_time() -> None:
    signal = torch.full((2, 1000), 10 ** (-60 / 20))
    assert is_silent(signal * 0.99)
    assert not is_silent(signal * 1.01)
    signal[0] = 0
    assert is_silent(signal * 1.4)
    assert not is_silent(signal * 1.42)
    assert is_silent(torch.zeros(1, 10))


def item(folder: Path, leads: dict[str, int], frames: int, rate: int = RATE) -> Item:
    """Stems that begin after each other, and a mixture that is not quite their sum."""
    stems = {stem: tone(500, frames, lead=lead) for stem, lead in leads.items()}
    files = {stem: write(folder / f"{stem}.wav", waveform, rate) for stem, waveform in stems.items()}
    mixture = write(folder / "mixture.wav", np.sum(list(stems.values()), axis=0) + 0.01, rate)
    return Item(name="song", mixture=mixture, references=files)


def dataset(song: Item, **options: object) -> SegmentDataset:
    defaults: dict[str, object] = {"sources": ["vocals", "drums"], "sample_rate": RATE}
    return SegmentDataset([song], **{**defaults, **options})  # type: ignore[arg-type]


def test_an_active_crop_begins_where_the_last_source_does(tmp_path: Path) -> None:
    song = item(tmp_path, {"vocals": 9000, "drums": 3000, "bass": 0}, 30_000)
    whole = dataset(song)[0]
    cut = dataset(song, max_frames=10_000, crop="active")[0]
    start = first_sound(whole["references"][0])
    assert 9000 - 1024 <= start <= 9000
    assert torch.equal(cut["mixture"], whole["mixture"][:, start : start + 10_000])
    assert torch.equal(cut["references"], whole["references"][..., start : start + 10_000])
    # a source that is not asked for counts as well
    one = dataset(song, max_frames=10_000, crop="active", sources=["bass"])[0]
    assert torch.equal(one["mixture"], cut["mixture"])
    assert torch.equal(dataset(song, max_frames=10_000)[0]["mixture"], whole["mixture"][:, :10_000])


def test_a_crop_that_would_reach_beyond_the_end_begins_earlier(tmp_path: Path) -> None:
    song = item(tmp_path, {"vocals": 25_000, "drums": 0}, 30_000)
    whole = dataset(song)[0]["mixture"]
    assert torch.equal(dataset(song, max_frames=10_000, crop="active")[0]["mixture"], whole[:, 20_000:])
    for frames in (30_000, 40_000, None):
        assert torch.equal(dataset(song, max_frames=frames, crop="active")[0]["mixture"], whole)


def test_the_place_does_not_depend_on_the_sampling_rate(tmp_path: Path) -> None:
    song = item(tmp_path, {"vocals": 18_000, "drums": 0}, 60_000, rate=16_000)
    whole = dataset(song)[0]["references"]
    own = first_sound(dataset(song, sample_rate=16_000)[0]["references"][0])
    cut = dataset(song, max_frames=5000, crop="active")[0]["references"]
    torch.testing.assert_close(cut, whole[..., own // 2 : own // 2 + 5000], rtol=0, atol=1e-6)


def test_a_rebuilt_mixture_is_the_sum_of_all_references_and_the_crop_is_of_it(tmp_path: Path) -> None:
    song = item(tmp_path, {"vocals": 9000, "drums": 0, "bass": 0}, 30_000)
    assert song.mixture is not None
    everything = dataset(song, sources=["vocals", "drums", "bass"])[0]
    rebuilt = dataset(song, rebuild_mixture=True)[0]
    torch.testing.assert_close(rebuilt["mixture"], everything["references"].sum(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(everything["mixture"] - rebuilt["mixture"], torch.full((1, 30_000), 0.01))
    song.mixture.unlink()
    cut = dataset(song, rebuild_mixture=True, max_frames=8000, crop="active")[0]["mixture"]
    start = first_sound(everything["references"][0])
    assert torch.equal(cut, rebuilt["mixture"][:, start : start + 8000])


def test_a_mixture_that_begins_after_its_sources_is_waited_for(tmp_path: Path) -> None:
    """Two sources that cancel each other at first."""
    one, other = tone(500, 30_000), -tone(500, 30_000)
    other[12_000:] *= -1
    files = {"vocals": write(tmp_path / "a.wav", one), "drums": write(tmp_path / "b.wav", other)}
    song = Item(name="song", mixture=None, references=files)
    whole, cut = dataset(song)[0], dataset(song, max_frames=8000, crop="active")[0]
    start = first_sound(whole["mixture"])
    assert 11_000 < start <= 12_000
    assert torch.equal(cut["references"], whole["references"][..., start : start + 8000])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "loudest"}, "crop='loudest' is unknown: use one of start, active"),
        (
            {"rebuild_mixture": True, "residual": "bass"},
            "rebuild_mixture=True leaves nothing for residual='bass'",
        ),
    ],
)
def test_mistakes_are_one_line(options: dict[str, object], message: str) -> None:
    song = Item(name="a", mixture=Path("a.wav"), references={"vocals": Path("b.wav"), "drums": Path("c.wav")})
    with pytest.raises(ValueError, match=message) as caught:
        dataset(song, **options)
    assert "\n" not in str(caught.value)
