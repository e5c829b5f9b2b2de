"""Limits hold for every item and every search, and change nothing before they are reached."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from refinement_toys import COUNT, SEARCHES, all_curves, climb, every_search, falling, with_steps
from test_searches import cost
from torch import Tensor

from encore.inference import (
    CoarseToFine,
    EarlyStopping,
    GradientLineSearch,
    GridSearch,
    LocalSearch,
    MaxEvaluations,
    refine,
)
from encore.metrics import oracle


@every_search
def test_no_item_costs_more_than_the_limit_and_until_then_nothing_changes(search) -> None:
    free = climb(search, all_curves, COUNT)
    for most in (1, 2, 5, 8):
        limited = climb(MaxEvaluations(search, most), all_curves, COUNT)
        assert (limited.calls <= most).all()
        assert (limited.scores.diff(dim=0) >= 0).all()
        # one more candidate would have been too many, or there was none
        assert (free.calls.clamp_max(most) - limited.calls < cost(search)).all()
        # steps that ended within the limit are the same
        done = 1 + cost(search) * torch.stack([(r < 1).sum(1) for r in free.tried]).cumsum(0) <= most
        assert torch.equal(limited.scores[1:][done], free.scores[1:][done])
        assert torch.equal(limited.chosen[done].nan_to_num(9), free.chosen[done].nan_to_num(9))
    assert torch.equal(climb(MaxEvaluations(search, 1000), all_curves, COUNT).scores, free.scores)


def test_without_calls_left_the_estimate_stays_even_where_it_does_not_compete() -> None:
    """A grid that can pay for none of its ratios but 1 would go back to the one-step estimate."""
    limited = MaxEvaluations(GridSearch(4, steps=4, keep_best=False), 5)
    result = climb(limited, lambda ratio, item, moves, score: score + 1 - ratio, 1)
    assert result.chosen[:, 0].tolist() == pytest.approx([0.25, 0.75, math.nan, math.nan], nan_ok=True)
    assert result.scores[:, 0].tolist() == [0, 0.75, 1, 1, 1]


def test_a_call_for_each_source_is_counted() -> None:
    mixture = torch.randn(1, 1, 40, generator=torch.Generator().manual_seed(0))
    references = torch.stack((0.3 * mixture, 0.1 * mixture), dim=1)
    result = refine(
        lambda x: torch.stack((0.5 * x, 0.2 * x), dim=1),
        mixture,
        oracle(lambda y, s: -(y - s).square().mean((1, 2)), references),
        MaxEvaluations(GridSearch(4, steps=5), 6),
    )
    # two candidates of two calls each beside the first; a third would be the seventh
    assert result.evaluations.tolist() == [5]


def test_early_stopping_waits_for_as_many_small_gains_as_its_patience() -> None:
    """Gains of 8, 4, 2, 1, 0.5, .., at ratio 0."""

    def curve(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return score + 8 * 0.5**moves - 100 * ratio

    for minimum, patience, steps in ((3, 1, 3), (3, 2, 4), (1, 1, 5), (9, 4, 4), (1e-9, 1, 20)):
        result = climb(EarlyStopping(LocalSearch(first=[0.0], probes=9), minimum, patience), curve, 1)
        assert int((result.scores.diff(dim=0) > 0).sum()) == steps, (minimum, patience)
    once = climb(CoarseToFine(steps=1), falling, 1)
    assert climb(EarlyStopping(CoarseToFine(), 1.0, patience=3), falling, 1).calls == once.calls


def test_limits_have_the_settings_of_the_search_inside_and_can_be_nested() -> None:
    inner = GradientLineSearch(steps=7, keep_best=False)
    for limited in (EarlyStopping(inner, 0.1), MaxEvaluations(EarlyStopping(inner, 0.1), 9)):
        assert (limited.steps, limited.keep_best, limited.needs_gradient) == (7, False, True)
        assert limited.max_candidates() == inner.max_candidates()
        assert hash(replace(limited)) == hash(limited)
    nested = MaxEvaluations(EarlyStopping(SEARCHES[0], 0.01, patience=3), 9)
    swapped = EarlyStopping(MaxEvaluations(SEARCHES[0], 9), 0.01, patience=3)
    a, b = climb(nested, all_curves, COUNT), climb(swapped, all_curves, COUNT)
    assert torch.equal(a.scores, b.scores)
    assert torch.equal(a.calls, b.calls)
    assert with_steps(nested, 2).steps == 2
    with pytest.raises(TypeError):
        EarlyStopping(inner, 0.1, steps=3)
