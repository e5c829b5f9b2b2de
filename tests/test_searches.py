"""What every search keeps to: bounded calls, rising scores, items that do not depend on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from refinement_toys import (
    COUNT,
    SEARCHES,
    Climb,
    all_curves,
    climb,
    every_search,
    falling,
    flat,
    nowhere,
    on,
    saturating,
    with_steps,
)
from torch import Tensor

from encore.inference import (
    AnnealedGridSearch,
    BrentSearch,
    CoarseToFine,
    EarlyStopping,
    FixedListSearch,
    GoldenSection,
    GradientLineSearch,
    GreedySearch,
    GridSearch,
    LocalSearch,
    Search,
    SearchState,
    linear_schedule,
    linear_state_schedule,
)


def equal(
    a: Climb, b: Climb, items: Any = slice(None), names: tuple[str, ...] = ("scores", "chosen")
) -> None:
    for name in names:
        found, expected = getattr(a, name), getattr(b, name)[..., items]
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True, msg=f"{name} of {items}")


def cost(search: Search) -> int:
    return 2 if search.needs_gradient else 1


def alternating(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    """Each step can gain 1, at two ratios in turn."""
    return score + 1 - (ratio - 0.1 - 0.3 * (moves % 2)).square()


def test_the_fixed_grid_has_the_published_ratios() -> None:
    """The paper counts the estimate's part: 0, 0.1 .. 0.9."""
    assert GridSearch(10).ratios() == pytest.approx([1 - j / 10 for j in range(10)], rel=1e-15)
    assert GridSearch(10, include_estimate=True).ratios() == [*GridSearch(10).ratios(), 0.0]
    assert GridSearch() == GridSearch(10)
    assert GridSearch(1).ratios() == [1.0]


def test_the_annealed_grid_has_the_published_ratios() -> None:
    """The paper counts the estimate's part: ``i/T + j (1 - i/T) / K`` at steps i = 0 .. T - 1."""
    for steps, count in ((20, 10), (1, 1), (3, 7)):
        search = AnnealedGridSearch(count, steps=steps)
        for i in range(steps):
            published = [1 - (i / steps + j * (1 - i / steps) / count) for j in range(count)]
            assert search.ratios(i + 1) == pytest.approx(published, rel=1e-12)
        # only the first step has the mixture itself, which costs nothing
        assert [step for step in range(1, steps + 1) if 1.0 in search.ratios(step)] == [1]


def test_linear_schedules_have_the_published_ratios() -> None:
    def estimates_part(steps: int, last: float | None = None) -> list[float]:
        return (1 - linear_schedule(steps, last)).tolist()

    assert estimates_part(10) == pytest.approx([n / 10 for n in range(1, 10)], rel=1e-6)
    assert estimates_part(4, last=0.8) == pytest.approx([0.2, 0.4, 0.6, 0.8], rel=1e-6)
    assert linear_schedule(1).tolist() == linear_state_schedule(1).tolist() == [1.0]
    for steps in (2, 3, 10):
        # products of the state form's ratios are the mixture's parts
        torch.testing.assert_close(linear_state_schedule(steps).cumprod(0), linear_schedule(steps))


@every_search
def test_scores_never_fall_and_calls_stay_within_the_bound(search) -> None:
    """That they are mixing ratios is checked in `refinement_toys.Recorded`."""
    result = climb(search, all_curves, COUNT)
    rise = result.scores.diff(dim=0)
    assert (rise >= 0).all()
    assert torch.equal(rise > 0, ~result.chosen.isnan())
    assert (result.calls <= 1 + cost(search) * search.max_candidates()).all()
    counted = sum((ratios < 1).sum(1) for ratios in result.tried)
    assert torch.equal(result.calls, 1 + cost(search) * counted)
    first, second = (with_steps(search, steps).max_candidates() for steps in (1, 2))
    for ratios in result.tried:
        assert (ratios < 1).sum(1).max() <= max(first, second - first)
        # a ratio is tried once in a step; NaN is sorted to the end
        assert not (ratios.sort(dim=1).values.diff(dim=1) < 1e-6).any()
    for curve in (falling, flat, nowhere):
        assert result.chosen[:, on(curve)].isnan().all()
    assert (result.scores[-1, on(saturating)] > 0.3).all()
    # an item that tries nothing in a step is finished; a fixed list goes on with the next ratio that is new
    tried = torch.stack([(~ratios.isnan()).any(1) for ratios in result.tried])
    assert (~tried[:-1] & tried[1:]).any() == isinstance(search, FixedListSearch)


@every_search
def test_no_item_depends_on_its_batch_mates(search) -> None:
    names = ("scores", "chosen", "calls")
    together = climb(search, all_curves, COUNT)
    shuffled = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))[: COUNT // 2]
    equal(climb(search, all_curves, shuffled.tolist()), together, shuffled, names)
    # nor on one whose one-step estimate has no score, which is returned as it is
    unscored = [0, 13, COUNT - 1]
    some = climb(search, all_curves, COUNT, unscored)
    for name in names:
        values = getattr(some, name)
        assert ((values[..., unscored] == 1) if name == "calls" else values[..., unscored].isnan()).all()
        values[..., unscored] = getattr(together, name)[..., unscored]
    equal(some, together, names=names)


class Repeating:
    """A search that proposes for kept estimates too what it proposed in the step before."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def __getattr__(self, name: str) -> Any:
        return getattr(self.search, name)

    def propose(self, state: SearchState) -> Sequence[float]:
        if isinstance(self.search, FixedListSearch):
            return [] if state.round else [self.search.ratios[state.step - 1]]
        taken = [ratio for ratio in state.chosen if not math.isnan(ratio)]
        return self.search.propose(replace(state, chosen=taken))


def test_what_a_kept_estimate_would_have_tried_changes_nothing_but_calls() -> None:
    """The other searches propose nothing that they tried before, or, as early stopping, guess."""
    for search in SEARCHES:
        if isinstance(search, AnnealedGridSearch | GreedySearch | LocalSearch | EarlyStopping):
            continue
        without, repeating = climb(search, all_curves, COUNT), climb(Repeating(search), all_curves, COUNT)
        equal(without, repeating)
        assert (without.calls <= repeating.calls).all()
        assert without.calls.sum() < repeating.calls.sum()


def test_no_steps_make_no_calls() -> None:
    for search in SEARCHES:
        idle = with_steps(search, 0)
        assert idle.max_candidates() == 0
        assert (climb(idle, all_curves, COUNT).calls == 1).all()


def test_the_bound_on_calls_is_reached() -> None:
    def rising(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return score + 1 + ratio

    def sinking(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return score + 1 - ratio

    for search, curve in (
        (GridSearch(4, steps=5), rising),
        (GridSearch(4, include_estimate=True, steps=5), rising),
        (AnnealedGridSearch(4, steps=5), flat),
        (FixedListSearch(ratios=[0.1, 0.2, 0.3]), flat),
        (GreedySearch(steps=5), rising),
        (LocalSearch(first=[0.0], width=0.01, steps=5), rising),
        (CoarseToFine(steps=5), sinking),
        (GoldenSection(steps=5), rising),
        (BrentSearch(enough=math.inf, steps=5), alternating),
        (GradientLineSearch(enough=math.inf, tolerance=0, steps=5), alternating),
    ):
        assert climb(search, curve, 1).calls == 1 + cost(search) * search.max_candidates(), search


def test_frugal_searches_have_most_of_the_grids_gain_for_a_seventh_of_its_calls() -> None:
    grid = climb(GridSearch(10, include_estimate=True), saturating, 20)
    assert grid.calls.float().mean() > 150
    for search, part, calls in (
        (BrentSearch(), 0.99, 22),
        (LocalSearch(), 0.95, 20),
        (GreedySearch(), 0.95, 20),
        (EarlyStopping(BrentSearch(), 0.01), 0.98, 13),
    ):
        result = climb(search, saturating, 20)
        assert result.scores[-1].mean() > part * grid.scores[-1].mean(), search
        assert result.calls.float().mean() < calls, search


def test_a_fixed_list_has_a_step_for_each_ratio_and_lists_are_equal_to_tuples() -> None:
    assert LocalSearch(first=[0.2]) == LocalSearch(first=(0.2,))
    assert FixedListSearch(ratios=[0.2, 0.1], steps=1).steps == 1
    assert FixedListSearch(ratios=[0.2, 0.1], steps=9).steps == 2
