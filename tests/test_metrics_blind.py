"""DNSMOS against the speechmos package, which computes every window by itself."""

from __future__ import annotations

import math

import pytest
import torch
from speechmos import dnsmos as speechmos_dnsmos
from torch import Tensor

from encore.metrics import blind
from encore.metrics.blind import DNSMOS_NAMES, dnsmos

RATE = 16000


def voice(seconds: float, seed: int = 0) -> Tensor:
    """Harmonics under a syllabic envelope in noise of a level that differs by seed; (time,)."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * RATE)) / RATE
    phase = 2 * math.pi * torch.cumsum(130 + 40 * torch.sin(2 * math.pi * 0.5 * time + seed), 0) / RATE
    harmonics = torch.stack([torch.sin(k * phase) / k for k in range(1, 20)]).sum(0)
    envelope = torch.sin(2 * math.pi * 1.7 * time).clamp(min=0.0) ** 2
    return 0.2 * envelope * harmonics + 10 ** (-1.5 - 0.5 * seed) * torch.randn(
        len(time), generator=generator
    )


def music(seconds: float) -> Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    return (
        0.1
        * sum(torch.sin(2 * math.pi * pitch * time) for pitch in (220.0, 277.2, 329.6))
        * torch.exp(-time % 1)
    )


def of_speechmos(clip: Tensor) -> list[float]:
    scores = speechmos_dnsmos.run(clip.numpy(), RATE)
    return [float(scores[f"{name.removeprefix('dnsmos_')}_mos"]) for name in DNSMOS_NAMES]


# repeated often or seldom, with frames that fit the clip's length or do not; one window; several; and many,
# where the published code leaves one out
@pytest.mark.parametrize(
    ("seconds", "seed"),
    [(0.3, 0), (2.5, 1), (4, 2), (4.003, 0), (6, 1), (9.01, 2), (9.5, 0), (12, 1), (17.5, 2)],
)
def test_scores_equal_those_of_speechmos(seconds: float, seed: int) -> None:
    clip = voice(seconds, seed)
    scores = [value.item() for value in dnsmos(clip).values()]
    assert scores == pytest.approx(of_speechmos(clip), abs=1e-4)


@pytest.mark.parametrize("name", ["noise", "music", "quiet"])
def test_scores_of_other_signals_equal_those_of_speechmos(name: str) -> None:
    noise = 0.1 * torch.randn(4 * RATE, generator=torch.Generator().manual_seed(0))
    clip = {"noise": noise, "music": music(4), "quiet": 1e-3 * voice(4)}[name]
    assert [value.item() for value in dnsmos(clip).values()] == pytest.approx(of_speechmos(clip), abs=1e-4)


def test_windows_are_those_of_the_published_code_for_any_length() -> None:
    for time in (*range(9 * RATE, 40 * RATE, 7777), 130 * RATE):
        repeats = blind._repeats(time)
        audio = [0] * time
        while len(audio) < int(9.01 * RATE):
            audio = audio + audio
        assert time * repeats == len(audio)
        hops = range(int(math.floor(len(audio) / RATE) - 9.01) + 1)
        windows = [audio[int(hop * RATE) : int((hop + 9.01) * RATE)] for hop in hops]
        kept = [
            hop * RATE for hop, window in zip(hops, windows, strict=True) if len(window) >= int(9.01 * RATE)
        ]
        assert blind._window_starts(len(audio)) == kept


def test_samples_beyond_full_scale_are_clipped() -> None:
    clip = 20 * voice(4)
    assert clip.abs().max() > 1.5
    assert [value.item() for value in dnsmos(clip).values()] == pytest.approx(
        of_speechmos(clip.clamp(-1, 1)), abs=1e-4
    )


def test_an_item_does_not_depend_on_its_batch_nor_on_the_names_given() -> None:
    clips = torch.stack([voice(3, seed) for seed in range(4)]).reshape(2, 2, -1)
    together = dnsmos(clips)
    for name in DNSMOS_NAMES:
        assert together[name].shape == (2, 2)
        alone = dnsmos(clips[1, 0], names=(name,))
        assert list(alone) == [name]
        torch.testing.assert_close(alone[name], together[name][1, 0], rtol=1e-5, atol=0)
    assert together["dnsmos_ovrl"].unique().numel() == 4


def test_mixed_precision_around_it_does_not_change_a_score() -> None:
    clip = voice(3)
    expected = dnsmos(clip)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = dnsmos(clip)
    assert all(torch.equal(inside[name], expected[name]) for name in DNSMOS_NAMES)


def test_what_cannot_be_scored_is_nan_and_leaves_the_batch_alone() -> None:
    clips = torch.stack([voice(3)] * 5)
    clips[1] = 0
    clips[2, 5] = torch.nan
    clips[3] *= 1e-5 / clips[3].abs().max()
    for name, scores in dnsmos(clips).items():
        assert scores.isnan().tolist() == [False, True, True, True, False], name
    assert all(scores.isnan() for scores in dnsmos(voice(0.09)).values())
    assert all(scores.isnan() for scores in dnsmos(torch.zeros(0)).values())
    assert all(scores.isfinite() for scores in dnsmos(voice(0.1)).values())


def test_wrong_rates_and_names_are_errors() -> None:
    with pytest.raises(ValueError, match="sample_rate=8000 is not the 16000 Hz of DNSMOS: resample"):
        dnsmos(voice(1), 8000)
    with pytest.raises(
        ValueError, match=r"names=\['ovrl'\] are no scores of DNSMOS: choose from dnsmos_p808"
    ):
        dnsmos(voice(1), names=("ovrl",))
