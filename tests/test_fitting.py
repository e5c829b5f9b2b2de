"""Fitted schedules: the ratio that is best for all items, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from encore.inference import FixedListSearch, fit_schedule, refine, refine_fixed
from encore.metrics import Quality, oracle
from encore.models.types import Separator


def closeness(estimates: Tensor, references: Tensor) -> Tensor:
    """Return minus the mean squared distance to the references."""
    return -(estimates - references).square().mean((1, 2))


def towards(target: float) -> Separator:
    """Return a separator whose estimate is the better the nearer its input's level is to the target."""

    def separate(mixture: Tensor) -> Tensor:
        level = mixture.mean((1, 2), keepdim=True)
        return (torch.ones_like(mixture) + (level - target).abs())[:, None]

    return separate


def item(level: float) -> tuple[Tensor, Quality]:
    return torch.full((1, 1, 10), level), oracle(closeness, torch.ones(1, 1, 1, 10))


@pytest.mark.parametrize("workers", [1, 2])
def test_it_finds_the_ratio_whose_inputs_are_separated_best(workers) -> None:
    """y_0 = 1 + |2 - t|; an input's level r * 2 + (1 - r) * y_0 is t = 1.75 at r = 2/3 as y_0 = 1.25."""
    ratios = [0.0, 1 / 3, 2 / 3, 0.9]
    fitted = fit_schedule(towards(1.75), [item(2.0)] * 3, steps=1, ratios=ratios, workers=workers)
    assert fitted == [2 / 3]


def test_the_next_step_begins_with_the_estimates_of_the_last() -> None:
    """After the first ratio every estimate is perfect, 1: then r * 2 + (1 - r) * 1 = 1.75 at r = 0.75."""
    ratios = [0.0, 2 / 3, 0.75]
    assert fit_schedule(towards(1.75), [item(2.0)], steps=2, ratios=ratios, keep_best=False) == [2 / 3, 0.75]


def test_the_mean_over_items_counts() -> None:
    """Mixtures at 2 want 2/3; those at 1.75 have a perfect estimate from the start and lose by any mix."""
    items, ratios = [item(level) for level in (2.0, 1.75, 1.75, 1.75, 1.75)], [2 / 3, 0.98]
    for keep_best, best in ((True, 2 / 3), (False, 0.98)):
        assert fit_schedule(towards(1.75), items, steps=1, ratios=ratios, keep_best=keep_best) == [best]


@pytest.mark.parametrize("keep_best", [True, False])
def test_each_ratio_is_the_one_that_refinement_with_the_list_gains_most_by(keep_best) -> None:
    generator = torch.Generator().manual_seed(0)
    ratios, items = (0.0, 0.2, 0.5, 0.8), []
    for level in (0.1, 0.3, 1.0, 2.0, 5.0):
        references, noise = level * torch.randn(2, 1, 2, 1, 40, generator=generator)
        items.append((references.sum(1) + noise[:, 0], oracle(closeness, references)))

    def separate(x: Tensor) -> Tensor:
        return torch.stack((torch.tanh(0.9 * x), 0.6 * x.flip(-1) - 0.2 * x.sin()), dim=1)

    def mean_score(schedule: list[float]) -> float:
        if keep_best:
            search = FixedListSearch(ratios=schedule)
            scores = [refine(separate, mixture, quality, search).scores[-1] for mixture, quality in items]
        else:
            scores = [
                quality(refine_fixed(separate, mixture, schedule).estimates) for mixture, quality in items
            ]
        return float(torch.cat(scores).mean())

    fitted = fit_schedule(separate, items, steps=3, ratios=ratios, keep_best=keep_best)
    assert len(set(fitted)) > 1
    for step in range(3):
        assert fitted[step] == max(ratios, key=lambda ratio, n=step: mean_score([*fitted[:n], ratio]))


def test_items_without_a_score_are_left_out() -> None:
    broken, ratios = item(math.nan), [0.0, 2 / 3]
    assert fit_schedule(towards(1.75), [item(2.0), broken], steps=1, ratios=ratios) == [2 / 3]
    with pytest.raises(ValueError, match="the quality can score none of the 1"):
        fit_schedule(towards(1.75), [broken], steps=1)
