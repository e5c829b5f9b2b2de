"""Orders of sources, against trying all of them."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Generator, Tensor

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
