from __future__ import annotations

import math

import pytest
import torch
from draws import check_uniform, seeded
from torch import Tensor

from encore.data.mixing import (
    batch_remix,
    blend,
    components_of,
    linear_path,
    random_gains,
    random_ratios,
    random_snr,
)

CPU = torch.device("cpu")


def signals(batch: int = 6, sources: int = 2, channels: int = 2, time: int = 300) -> tuple[Tensor, Tensor]:
    components = torch.randn(batch, sources + 1, channels, time, generator=seeded(9), dtype=torch.float64)
    return components.sum(1), components[:, :sources]


def test_blend_is_its_formula_and_exact_at_both_ends() -> None:
    mixture, estimate = torch.randn(2, 3, 2, 50, generator=seeded())
    ratio = torch.tensor([0.25, 0.0, 1.0])
    blended = blend(mixture, estimate, ratio)
    torch.testing.assert_close(blended[0], 0.25 * mixture[0] + 0.75 * estimate[0], rtol=0, atol=0)
    assert torch.equal(blended[1], estimate[1])
    assert torch.equal(blended[2], mixture[2])
    loud = blend(torch.full((1, 1, 2), 3.0), torch.full((1, 1, 2), 5.0), torch.tensor([0.5]))
    assert (loud == 4).all()


def test_gains_are_one_for_each_component_uniform_in_decibels() -> None:
    gains = random_gains(torch.ones(5000, 2, 1, 2, dtype=torch.float64), (-6.0, 3.0), generator=seeded())
    assert torch.equal(gains[..., 0], gains[..., 1])
    drawn = 20 * gains[..., 0, 0].log10()
    check_uniform(drawn, -6, 3)
    assert abs(torch.corrcoef(drawn.T)[0, 1]) < 0.06


def test_snr_is_met_exactly_uniform_over_its_range_and_references_stay() -> None:
    components = components_of(*signals(batch=4000, time=8))
    for low, high in ((7.5, 7.5), (-5.0, 15.0)):
        drawn = random_snr(components, (low, high), generator=seeded())
        assert torch.equal(drawn[:, :2], components[:, :2])
        signal, noise = drawn[:, :2].sum(1), drawn[:, 2]
        snr = 10 * torch.log10(signal.square().sum((1, 2)) / noise.square().sum((1, 2)))
        check_uniform(snr, low, high)
        # a gain: the noise keeps its shape
        shape = (noise / components[:, 2]).flatten(1)
        torch.testing.assert_close(shape, shape[:, :1].expand_as(shape), rtol=1e-9, atol=0)


def test_snr_leaves_items_without_residual_or_signal() -> None:
    mixture, references = signals(sources=3)
    noiseless = references.float()
    # summed in another order: the residual is rounding, which must not become noise
    rounded = (noiseless[:, 2] + noiseless[:, 1]) + noiseless[:, 0]
    components = components_of(rounded, noiseless)
    assert components[:, 3].any()
    assert torch.equal(random_snr(components, (0.0, 0.0), generator=seeded()), components)
    for silent in (slice(0, 3), slice(3, 4), slice(0, 4)):
        components = components_of(mixture, references)
        components[:, silent] = 0
        assert torch.equal(random_snr(components, (0.0, 0.0), generator=seeded()), components)


def test_remix_hands_each_source_around_and_loses_none() -> None:
    components = torch.randn(16, 3, 1, 4, generator=seeded())
    remixed = batch_remix(components, generator=seeded())
    assert torch.equal(remixed[:, 0], components[:, 0])
    orders = []
    for index in (1, 2):
        distance = (remixed[:, None, index] - components[None, :, index]).abs().sum((2, 3))
        assert (distance.min(1).values == 0).all()
        orders.append(distance.argmin(1))
        assert orders[-1].sort().values.tolist() == list(range(16))
    assert not torch.equal(orders[0], orders[1])


def test_the_linear_path_is_the_blend_with_a_perfect_estimate() -> None:
    mixture, references = signals()
    source = torch.tensor([0, 1, 0, 1, 0, 1])
    ratio = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.3, 0.8])
    moved = linear_path(components_of(mixture, references), source, ratio)
    perfect = references[torch.arange(6), source]
    torch.testing.assert_close(moved.sum(1), blend(mixture, perfect, ratio), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(moved[torch.arange(6), source], perfect, rtol=0, atol=0)
    torch.testing.assert_close(moved[4, 1], float(ratio[4]) * references[4, 1], rtol=0, atol=0)
    torch.testing.assert_close(moved[2].sum(0), mixture[2])
    torch.testing.assert_close(moved[0].sum(0), references[0, 0], rtol=0, atol=0)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_ratios_follow_the_beta_distribution(beta: float) -> None:
    ratio = random_ratios(20000, beta, generator=seeded(), device=CPU).double()
    assert ratio.min() >= 0
    assert ratio.max() <= 1
    mean, square = beta / (beta + 1), beta / (beta + 2)
    variance = square - mean**2
    assert ratio.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / 20000))
    assert ratio.var() == pytest.approx(variance, rel=0.05)
    # the distribution function is r ** beta
    for r in (0.2, 0.5, 0.9):
        assert (ratio <= r).double().mean() == pytest.approx(r**beta, abs=4 * 0.5 / math.sqrt(20000))
    again = random_ratios(20000, beta, generator=seeded(), device=CPU).double()
    assert torch.equal(ratio, again)
    meta = torch.device("meta")
    assert random_ratios(4, beta, generator=seeded(), device=meta).device == meta
