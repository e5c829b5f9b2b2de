"""Searches near the ratios of earlier steps: what they try, ratio by ratio, and when they end."""

from __future__ import annotations

import pytest
import torch
from refinement_toys import NAN, climb, hill
from torch import Tensor

from encore.inference import FixedListSearch, GreedySearch, LocalSearch, Search, SearchState


def proposed(search: Search, *chosen: float) -> list[float]:
    """Return the ratios of the step after these were chosen, NaN for steps that kept the estimate."""
    state = SearchState(history=[0.0] * (len(chosen) + 1), chosen=list(chosen))
    return list(search.propose(state))


def like(*ratios: float) -> object:
    return pytest.approx(list(ratios), nan_ok=True, abs=1e-6)


def test_greedy_search_ends_an_item_after_as_many_failures_as_its_patience() -> None:
    for patience in (1, 3, 4):
        # on a curve that never changes nothing beats its top, which is the first ratio
        search = GreedySearch(first=0.3, patience=patience)
        result = climb(search, hill(torch.full((2,), 0.3)), 2)
        assert result.calls.tolist() == [1 + 1 + patience] * 2
        assert result.chosen[0].tolist() == pytest.approx([0.3, 0.3])
        assert result.chosen[1:].isnan().all()
        assert proposed(search, 0.3, *[NAN] * patience) == []
        assert proposed(search, 0.3, *[NAN] * (patience + 3)) == []


def test_greedy_search_takes_what_scores_higher_at_once() -> None:
    result = climb(GreedySearch(first=0.5, width=0.2), hill(torch.tensor([0.3])), 1)
    # 0.5 is better than the one-step estimate, fails as it repeats itself, then its neighbour 0.3 wins
    assert result.chosen[:3, 0].tolist() == like(0.5, NAN, 0.3)


def test_a_fixed_list_tries_a_ratio_once_on_an_estimate() -> None:
    """Item 0 never gains, item 1 gains at 0.3 in its first step alone, item 2 at 0.1 and then at 0.3."""

    def curve(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        wanted = torch.tensor([[9, 9, 9], [0.3, 9, 9], [0.1, 0.3, 9]])[item, moves.long()]
        return torch.where((ratio - wanted).abs() < 1e-6, score + 1, score - 1)

    result = climb(FixedListSearch(ratios=[0.3, 0.3, 0.1, 0.3, 0.3, 0.1, 0.0, 0.1]), curve, 3)
    expected = [
        [[0.3], [0.3], [0.3]],
        # tried again on an estimate that is new
        [[NAN], [0.3], [NAN]],
        [[0.1], [0.1], [0.1]],
        [[NAN], [NAN], [0.3]],
        [[NAN], [NAN], [0.3]],
        [[NAN], [NAN], [0.1]],
        [[0.0], [0.0], [0.0]],
    ]
    tried = [ratios if ratios.shape[1] else torch.full((3, 1), NAN) for ratios in result.tried]
    torch.testing.assert_close(torch.stack(tried[:7]), torch.tensor(expected), equal_nan=True)
    # nothing new is left after step 7
    assert result.tried[7].shape == (3, 0)
    assert result.scores[-1].tolist() == [0, 1, 2]
    assert result.calls.tolist() == [4, 5, 7]


def test_a_fixed_list_takes_what_every_item_would_take_if_it_tried_all() -> None:
    """The ratio of each step, or the estimate before: as by `encore.refine_fixed` where all of them gain."""

    def curve(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return score + item - 0.5 + 0 * ratio

    result = climb(FixedListSearch(ratios=[0.2, 0.2, 0.7]), curve, 2)
    assert result.chosen[:, 0].isnan().all()
    assert result.chosen[:, 1].tolist() == like(0.2, 0.2, 0.7)
    assert result.scores[-1].tolist() == [0, 1.5]
    assert result.calls.tolist() == [3, 4]


NEAR = LocalSearch(first=[0.0, 0.5], width=0.2, shrink=0.5, probes=1)
WON = LocalSearch(first=[0.2, 0.4, 0.6], width=0.1)
MEAN = LocalSearch(first=[0.3], width=0.2, shrink=0.5, probes=2)
GREEDY = GreedySearch(first=0.3, width=0.2, patience=5)
AT_ENDS = GreedySearch(first=0.1, width=0.2, patience=4)
TRIED = [
    (NEAR, [0.0], [0.0, 0.2]),  # below 0 there is nothing
    (NEAR, [0.5], [0.5, 0.3]),  # the side of the estimate first
    (NEAR, [0.5, 0.3], [0.3, 0.1]),  # on along the side that won
    (NEAR, [0.5, 0.3, 0.1], [0.1, 0.0]),  # not beyond the end
    (NEAR, [0.5, 0.5], [0.5, 0.7]),  # the other side
    (NEAR, [0.5, 0.5, 0.7], [0.7, 0.9]),
    (NEAR, [0.5, 0.5, 0.5], [0.5]),  # both sides have lost
    (NEAR, [0.0, 0.0], [0.0]),  # at the end there is one
    (NEAR, [0.5, NAN], [0.6]),  # one more on the other side, half as far
    (NEAR, [0.0, NAN], [0.1]),
    (NEAR, [0.5, NAN, 0.6], [0.6, 0.7]),  # the width stays halved
    (NEAR, [0.5, NAN, NAN], []),  # no further
    (NEAR, [NAN], [0.25]),  # the mean of the first
    (NEAR, [NAN, 0.25], [0.25, 0.15]),
    (NEAR, [NAN, NAN], []),
    # both neighbours of a first ratio that won, then none
    (WON, [], [0.2, 0.4, 0.6]),
    (WON, [0.4], [0.4, 0.3]),
    (WON, [0.4, 0.4], [0.4, 0.5]),
    (WON, [0.4, 0.4, 0.4], [0.4]),
    # a first ratio that is their mean is not tried again
    (MEAN, [NAN], [0.2]),
    (MEAN, [NAN, NAN], [0.35]),
    # neighbours after failures, of the first ratio or of another one that a later step took
    *((GREEDY, [NAN] * n, [ratio]) for n, ratio in enumerate([0.3, 0.1, 0.5, 0.2, 0.4])),
    *((GREEDY, [NAN, 0.6, *[NAN] * n], [ratio]) for n, ratio in enumerate([0.6, 0.4, 0.8, 0.5, 0.7])),
    (GREEDY, [NAN, 0.6, 0.4], [0.4]),
    # ratios beyond the ends are left out
    *((AT_ENDS, [NAN] * n, [ratio]) for n, ratio in enumerate([0.1, 0.3, 0.0, 0.2])),
    (AT_ENDS, [0.95, NAN], [0.75]),
    (AT_ENDS, [0.95, NAN, NAN], [0.85]),
]


@pytest.mark.parametrize(("search", "chosen", "ratios"), TRIED)
def test_ratios_near_the_last_one_are_tried(search: Search, chosen: list, ratios: list) -> None:
    assert proposed(search, *chosen) == like(*ratios)
