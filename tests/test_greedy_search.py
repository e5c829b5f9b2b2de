"""What the greedy search tries, share by share."""

from __future__ import annotations

import pytest
import torch
from climbing import NAN, climb, hill, trace_of

from encore.inference.greedy_search import GreedySearch


def proposed(search: GreedySearch, *chosen: float) -> float:
    """The share of the step after these were chosen, NaN for steps that kept the estimate."""
    nothing, steps = torch.empty(1, 0), len(chosen) + 1
    shares = torch.tensor(chosen)[:, None]
    trace = trace_of(steps, nothing, nothing, nothing, shares, torch.zeros(steps, 1), steps=30)
    return float(search.propose(trace))


def test_after_failures_it_looks_around_the_last_share_taken() -> None:
    search = GreedySearch(first=0.3, width=0.2, patience=5)
    around = [0.3, 0.1, 0.5, 0.2, 0.4]
    for failures, share in enumerate(around):
        assert proposed(search, *[NAN] * failures) == pytest.approx(share)
        # the same from another share, which a later step took
        assert proposed(search, NAN, 0.6, *[NAN] * failures) == pytest.approx(share + 0.3)
    assert proposed(search, NAN, 0.6, 0.4) == pytest.approx(0.4)


def test_places_beyond_the_ends_are_left_out() -> None:
    search = GreedySearch(first=0.1, width=0.2, patience=4)
    tried = [proposed(search, *[NAN] * failures) for failures in range(4)]
    assert tried == pytest.approx([0.1, 0.3, 0.0, 0.2])
    assert proposed(search, 0.95, NAN) == pytest.approx(0.75)
    assert proposed(search, 0.95, NAN, NAN) == pytest.approx(0.85)
    assert 0 <= proposed(search, 0.95, NAN, NAN, NAN) < 1


@pytest.mark.parametrize("patience", [1, 3, 4])
def test_an_item_is_finished_after_so_many_failures(patience) -> None:
    # on a curve that never changes nothing beats its top, which the first share is
    result = climb(GreedySearch(first=0.3, patience=patience), hill(torch.full((2,), 0.3)), 2, steps=20)
    assert result.calls.tolist() == [1 + 1 + patience] * 2
    assert result.chosen[0].tolist() == pytest.approx([0.3, 0.3])
    assert result.chosen[1:].isnan().all()


def test_what_scores_higher_is_taken_at_once() -> None:
    result = climb(GreedySearch(first=0.5, width=0.2), hill(torch.tensor([0.3])), 1, steps=20)
    # 0.5 is better than the one-step estimate, fails as it repeats itself, then its neighbour 0.3 wins
    assert result.chosen[:3, 0].tolist() == pytest.approx([0.5, NAN, 0.3], nan_ok=True)
