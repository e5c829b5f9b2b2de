"""Orders of sources, against trying all of them, and estimates moved to where they sum to the mixture."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Generator, Tensor

from encore.inference.consistency import sum_to_mixture
from encore.inference.permutation import matching_order, reference_order, reorder
from encore.metrics.reference import si_sdr


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("sources", [1, 2, 3, 4])
def test_the_matching_order_is_the_closest_of_all(sources: int) -> None:
    estimates, known = noise(5, sources, 2, 30), noise(5, sources, 2, 31)[..., 1:]
    order = matching_order(estimates, known)
    for item in range(5):
        distances = {
            candidate: (estimates[item, list(candidate)] - known[item]).square().sum().item()
            for candidate in permutations(range(sources))
        }
        assert tuple(order[item].tolist()) == min(distances, key=lambda candidate: distances[candidate])


def test_the_reference_order_has_the_best_mean_si_sdr() -> None:
    references = noise(6, 3, 1, 50)
    levels = torch.tensor([0.1, 10.0, 1.0])[:, None, None]
    estimates = (references * levels)[:, [2, 0, 1]] + 0.3 * noise(6, 3, 1, 51)[..., 1:]
    order = reference_order(estimates, references)
    for item in range(6):
        means = {
            candidate: si_sdr(estimates[item, list(candidate)], references[item]).mean().item()
            for candidate in permutations(range(3))
        }
        assert tuple(order[item].tolist()) == max(means, key=lambda candidate: means[candidate])
    assert order.unique(dim=0).tolist() == [[1, 2, 0]]


def test_reordering_undoes_a_shuffle() -> None:
    known = noise(4, 3, 2, 20)
    shuffled = torch.stack(
        [item[torch.randperm(3, generator=Generator().manual_seed(n))] for n, item in enumerate(known)]
    )
    assert torch.equal(reorder(shuffled, matching_order(shuffled, known)), known)


def test_where_all_orders_are_equally_good_sources_stay() -> None:
    silence = torch.zeros(2, 3, 1, 10)
    assert matching_order(noise(2, 3, 1, 10), silence).tolist() == [[0, 1, 2]] * 2
    assert reference_order(silence, silence).tolist() == [[0, 1, 2]] * 2
    # a silent reference takes what is left
    references = noise(1, 2, 1, 40)
    estimates = references.flip(1) + 0.1
    references[:, 1] = 0
    assert reference_order(estimates, references).tolist() == [[1, 0]]


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
