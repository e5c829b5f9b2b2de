"""Estimates that are moved to where they sum to the mixture."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from encore.inference.consistency import sum_to_mixture


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("weighting", ["uniform", "energy"])
def test_the_sources_sum_to_the_mixture_and_stay_where_they_already_do(weighting) -> None:
    mixture, estimates = noise(3, 2, 50), noise(3, 4, 2, 50)
    moved = sum_to_mixture(estimates, mixture, weighting)
    torch.testing.assert_close(moved.sum(1), mixture)
    torch.testing.assert_close(sum_to_mixture(moved, mixture, weighting), moved)


def test_equal_parts_of_what_is_missing_lead_to_the_closest_point() -> None:
    mixture, estimates = noise(1, 1, 50), noise(1, 3, 1, 50)
    moved = sum_to_mixture(estimates, mixture)
    for seed in range(20):
        away = torch.randn(1, 3, 1, 50, generator=Generator().manual_seed(seed))
        other = moved + 0.1 * (away - away.mean(1, keepdim=True))
        assert (other - estimates).square().sum() > (moved - estimates).square().sum()


def test_parts_by_energy_leave_silence_silent_and_follow_the_levels() -> None:
    mixture, estimates = noise(1, 1, 50), noise(1, 3, 1, 50)
    estimates[:, 1] = 0
    estimates[:, 2] *= 3
    moved = sum_to_mixture(estimates, mixture, "energy")
    assert moved[:, 1].abs().max() == 0
    change = (moved - estimates).square().sum((2, 3)).sqrt()[0]
    energy = estimates.square().sum((2, 3))[0]
    assert (change[2] / change[0]).item() == pytest.approx((energy[2] / energy[0]).item(), rel=1e-4)
    silence = sum_to_mixture(0 * estimates, mixture, "energy")
    torch.testing.assert_close(silence, mixture[:, None].expand(-1, 3, -1, -1) / 3)
