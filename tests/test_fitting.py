"""Fitted schedules: the ratio that is best for all items, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from refinement_toys import closeness
from torch import Tensor

from encore.inference import FixedListSearch, fit_schedule, refine, refine_fixed
from encore.metrics import oracle


@pytest.mark.parametrize(("keep_best", "workers"), [(True, 1), (False, 1), (True, 2)])
def test_each_ratio_is_the_one_that_refinement_with_the_list_gains_most_by(keep_best, workers) -> None:
    """On the mean of all items, and each step from the estimates of the last."""
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

    fitted = fit_schedule(separate, items, steps=3, ratios=ratios, keep_best=keep_best, workers=workers)
    assert len(set(fitted)) > 1
    for step in range(3):
        assert fitted[step] == max(ratios, key=lambda ratio, n=step: mean_score([*fitted[:n], ratio]))


def test_items_without_a_score_are_left_out() -> None:
    """y_0 = 1 + |2 - t|; an input's level r * 2 + (1 - r) * y_0 is t = 1.75 at r = 2/3 as y_0 = 1.25."""
    quality = oracle(closeness, torch.ones(1, 1, 1, 10))
    good, broken = ((torch.full((1, 1, 10), level), quality) for level in (2.0, math.nan))

    def separate(mixture: Tensor) -> Tensor:
        return (torch.ones_like(mixture) + (mixture.mean((1, 2), keepdim=True) - 1.75).abs())[:, None]

    assert fit_schedule(separate, [good, broken], steps=1, ratios=[0.0, 1 / 3, 2 / 3, 0.9]) == [2 / 3]
    with pytest.raises(ValueError, match="the quality can score none of the 1"):
        fit_schedule(separate, [broken], steps=1)
