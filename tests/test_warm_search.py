"""Searches that live on earlier steps: what they try next, and when they stop."""

from __future__ import annotations

import math

import pytest
import torch
from climbing import NAN, climb, falling, trace_of
from torch import Tensor

from encore.inference.limits import Stopping
from encore.inference.line_search import CoarseToFine
from encore.inference.search import Trace
from encore.inference.warm_search import ScheduledSearch, WarmSearch


def test_a_schedule_tries_a_share_once_on_an_estimate() -> None:
    """Item 0 never gains, item 1 gains at 0.3 in its first step alone, item 2 at 0.1 and then at 0.3."""

    def curve(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        wanted = torch.tensor([[9, 9, 9], [0.3, 9, 9], [0.1, 0.3, 9]])[item, moves]
        return torch.where((shares - wanted).abs() < 1e-6, score + 1, score - 1)

    result = climb(ScheduledSearch([0.3, 0.3, 0.1, 0.3, 0.3, 0.1, 0.0, 0.1]), curve, 3)
    expected = [
        [[0.3], [0.3], [0.3]],
        # new on an estimate that is new, old on one that is not
        [[NAN], [0.3], [NAN]],
        [[0.1], [0.1], [0.1]],
        [[NAN], [NAN], [0.3]],
        [[NAN], [NAN], [0.3]],
        [[NAN], [NAN], [0.1]],
        [[0.0], [0.0], [0.0]],
    ]
    tried = [t if t.shape[1] else torch.full((3, 1), NAN) for t in result.tried]
    torch.testing.assert_close(torch.stack(tried[:7]), torch.tensor(expected), equal_nan=True)
    # nothing new is left after step 7
    assert len(result.tried[7]) == 0
    assert result.scores[-1].tolist() == [0, 1, 2]
    assert result.calls.tolist() == [4, 5, 7]


def test_a_schedule_goes_on_with_an_estimate_that_is_new() -> None:
    """Item 0 never gains, item 1 in every step, and at the same share."""

    def curve(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return score + item - 0.5 + 0 * shares

    result = climb(ScheduledSearch([0.2, 0.2]), curve, 2)
    assert [len(tried) for tried in result.tried] == [2, 1]
    assert result.scores[-1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("chosen", "shares"),
    [
        ([0.0], [0.0, 0.2]),  # below 0 there is nothing
        ([0.5], [0.5, 0.3]),  # the side of the estimate first
        ([0.5, 0.3], [0.3, 0.1]),  # on along the side that won
        ([0.5, 0.3, 0.1], [0.1, 0.0]),  # not beyond the end
        ([0.5, 0.5], [0.5, 0.7]),  # the other side
        ([0.5, 0.5, 0.7], [0.7, 0.9]),
        ([0.5, 0.5, 0.5], [0.5, NAN]),  # both sides have lost
        ([0.0, 0.0], [0.0, NAN]),  # at the end there is one
        ([0.5, NAN], [NAN, 0.6]),  # a probe on the other side, half as far
        ([0.0, NAN], [NAN, 0.1]),
        ([0.5, NAN, 0.6], [0.6, 0.7]),  # the width stays halved
        ([0.5, NAN, NAN], [NAN, NAN]),  # one probe it was
        ([NAN], [0.25, NAN]),  # the mean of the first
        ([NAN, 0.25], [0.25, 0.15]),
        ([NAN, NAN], [NAN, NAN]),
    ],
)
def test_warm_searches_try_the_last_share_and_a_neighbour(chosen, shares) -> None:
    search = WarmSearch(first=[0.0, 0.5], width=0.2, shrink=0.5, probes=1)
    trace = asked(len(chosen) + 1, chosen)
    torch.testing.assert_close(search.propose(trace), torch.tensor([shares]), equal_nan=True)
    # the trace of the last step says the same
    over = search.finished(asked(len(chosen), chosen[:-1]), torch.tensor([math.isnan(chosen[-1])]))
    assert bool(over) == all(map(math.isnan, shares))


def asked(step: int, chosen: list[float]) -> Trace:
    nothing = torch.empty(1, 0)
    shares, history = torch.tensor(chosen)[:, None], torch.zeros(step, 1)
    return trace_of(step, nothing, nothing, nothing, shares, history, steps=20)


def test_a_first_share_that_won_has_not_yet_met_its_neighbours() -> None:
    search = WarmSearch(first=[0.2, 0.4, 0.6], width=0.1)
    for count, share in ((1, 0.3), (2, 0.5), (3, NAN)):
        shares = search.propose(asked(count + 1, [0.4] * count))
        torch.testing.assert_close(shares, torch.tensor([[0.4, share]]), equal_nan=True)


def test_a_first_share_that_is_its_own_mean_is_not_tried_again() -> None:
    search = WarmSearch(first=[0.3], width=0.2, shrink=0.5, probes=2)
    for chosen, share in (([NAN], 0.2), ([NAN, NAN], 0.35)):
        shares = search.propose(asked(len(chosen) + 1, chosen))
        torch.testing.assert_close(shares, torch.tensor([[NAN, share]]), equal_nan=True)


def test_stopping_waits_for_as_many_small_gains_as_it_should() -> None:
    """Gains of 8, 4, 2, 1, 0.5, .., at share 0."""

    def curve(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return score + 8 * 0.5**moves - 100 * shares

    for minimum, patience, steps in ((3, 1, 3), (3, 2, 4), (1, 1, 5), (9, 4, 4), (1e-9, 1, 20)):
        search = Stopping(WarmSearch(first=[0.0], probes=9), minimum, patience)
        result = climb(search, curve, 1, steps=20)
        assert int((result.scores.diff(dim=0) > 0).sum()) == steps, (minimum, patience)
    kept = climb(Stopping(CoarseToFine(), 1.0, patience=3), falling, 1, steps=20)
    assert kept.calls == climb(CoarseToFine(), falling, 1).calls
