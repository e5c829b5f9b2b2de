"""Fitted schedules: the share that is best for all items, step by step."""

from __future__ import annotations

import math

import pytest
import torch

from encore.inference.fitting import fit_schedule
from encore.metrics import Quality


class Closeness(Quality):
    """Minus the mean squared distance to the reference."""

    name, needs_reference, sample_rate = "closeness", True, 16000

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None):
        return -(estimate - reference).square().mean((1, 2))


def towards(target: float):
    """A separator whose estimate is the better the nearer its input's level is to the target."""

    def separate(mixture: torch.Tensor) -> torch.Tensor:
        level = mixture.mean((1, 2), keepdim=True)
        return (torch.ones_like(mixture) + (level - target).abs())[:, None]

    return separate


def items(levels=(2.0, 2.0, 2.0)):
    return [(torch.full((1, 1, 10), level), torch.ones(1, 1, 10)) for level in levels]


@pytest.mark.parametrize("lanes", [1, 2])
def test_it_finds_the_share_whose_blends_are_separated_best(lanes) -> None:
    """y_0 = 1 + |2 - t|; a blend's level r * 2 + (1 - r) * y_0 hits t = 1.75 at r = 2/3 when y_0 = 1.25."""
    shares = [0.0, 1 / 3, 2 / 3, 0.9]
    assert fit_schedule(towards(1.75), items(), Closeness(), steps=1, shares=shares, lanes=lanes) == [2 / 3]


def test_the_next_step_begins_where_the_last_one_led() -> None:
    """After the first share every estimate is perfect, 1: then r * 2 + (1 - r) * 1 = 1.75 at r = 0.75."""
    shares = [0.0, 2 / 3, 0.75]
    fitted = fit_schedule(towards(1.75), items(), Closeness(), steps=2, shares=shares, keep_previous=False)
    assert fitted == [2 / 3, 0.75]


def test_it_is_the_mean_over_items_that_counts() -> None:
    """Mixtures at 2 want 2/3; those at 1.75 have a perfect estimate from the start and lose by any blend."""
    many, shares = items((2.0, 1.75, 1.75, 1.75, 1.75)), [2 / 3, 0.98]
    for keep, best in ((True, 2 / 3), (False, 0.98)):
        fitted = fit_schedule(towards(1.75), many, Closeness(), steps=1, shares=shares, keep_previous=keep)
        assert fitted == [best]


def test_items_without_a_score_are_left_out_and_mistakes_are_named() -> None:
    broken = (torch.full((1, 1, 10), math.nan), torch.ones(1, 1, 10))
    shares = [0.0, 2 / 3]
    fitted = fit_schedule(towards(1.75), [*items(), broken], Closeness(), steps=1, shares=shares)
    assert fitted == [2 / 3]
    with pytest.raises(ValueError, match="none of the 1 can be scored by 'closeness'"):
        fit_schedule(towards(1.75), [broken], Closeness(), steps=1)
    with pytest.raises(ValueError, match="shares in"):
        fit_schedule(towards(1.75), items(), Closeness(), steps=1, shares=[1.1])
