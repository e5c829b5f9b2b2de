"""A cap on calls holds for every item and every search, and takes nothing else away."""

from __future__ import annotations

import pytest
import torch
from climbing import CURVES, climb, saturating
from test_frugal_searches import SEARCHES, Nearness, refined

from encore.inference.limits import Capped
from encore.inference.refinement import refine
from encore.inference.search import FixedSchedule, GridSearch

SEARCHES_AND_GRID = [*(search for search, _ in SEARCHES), GridSearch(10, include_estimate=True)]


@pytest.mark.parametrize("calls", [1, 2, 5, 8])
@pytest.mark.parametrize("search", SEARCHES_AND_GRID, ids=lambda search: type(search).__name__)
def test_no_item_costs_more_than_its_cap_and_until_then_nothing_changes(search, calls) -> None:
    for curve in CURVES:
        capped = climb(Capped(search, calls), curve, 12, steps=8)
        free = climb(search, curve, 12, steps=8)
        assert (capped.calls <= calls).all()
        assert (capped.scores.diff(dim=0) >= 0).all()
        # one more share would have been too many, or there was none
        reached = free.calls.minimum(torch.tensor(calls))
        assert (reached - capped.calls < 1 + search.wants_slopes).all()
    enough = climb(Capped(search, 1000), saturating, 12, steps=8)
    assert torch.equal(enough.scores, climb(search, saturating, 12, steps=8).scores)


@pytest.mark.parametrize("calls", [1, 4, 7])
def test_refinement_counts_what_the_cap_allows(calls) -> None:
    tops = torch.linspace(0, 0.5, 4)
    result, _ = refined(Capped(GridSearch(10), calls), tops, steps=6)
    assert result.evaluations.tolist() == [calls] * 4


def test_a_call_for_each_source_is_counted() -> None:
    mixture = torch.randn(1, 1, 40, generator=torch.Generator().manual_seed(0))
    result = refine(
        lambda x: torch.stack((0.5 * x, 0.2 * x), dim=1),
        mixture,
        source="all",
        steps=5,
        search=Capped(GridSearch(4), 6),
        quality=Nearness(),
        reference=torch.stack((0.3 * mixture, 0.1 * mixture), dim=1),
    )
    # two shares of two calls each beside the first; a third would be the seventh
    assert result.evaluations.tolist() == [5]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="calls=0"):
        Capped(GridSearch(2), 0)
    with pytest.raises(ValueError, match="search=FixedSchedule"):
        Capped(FixedSchedule([0.1]), 4)
