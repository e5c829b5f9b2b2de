"""Line searches on curves whose best ratio is known: how near they come to it, in how many calls."""

from __future__ import annotations

import pytest
import torch
from refinement_toys import NAN, Climb, Curve, climb, flat, hill, nowhere, with_steps
from torch import Tensor

from encore.inference import BrentSearch, CoarseToFine, GoldenSection, GradientLineSearch, Search, SearchState


def in_one_step(search: Search, curve: Curve, items: int) -> Climb:
    return climb(with_steps(search, 1), curve, items)


@pytest.mark.parametrize(
    ("search", "within", "calls"),
    [
        (CoarseToFine(), 1 / 6, 6),
        (CoarseToFine(points=4, rounds=3), 1 / 4 * (2 / 5) ** 2, 12),
        (CoarseToFine(points=2, rounds=1), 1 / 2, 2),
        (GoldenSection(), 0.6181**5, 5),
        (GoldenSection(rounds=1), 0.6181**2, 2),
        (GoldenSection(rounds=8), 0.6181**9, 9),
    ],
)
def test_searches_that_enclose_a_single_maximum_come_as_near_as_stated(search, within, calls) -> None:
    """Curves with a kink at their top and unequal sides; somewhere the bound is nearly reached."""
    tops = torch.linspace(0, 0.99, 100)
    for power, left in ((2, 1), (1, 1), (0.5, 1), (1, 9), (3, 0.1)):
        result = in_one_step(search, hill(tops, power, left), 100)
        distance = (result.chosen[0].nan_to_num(1) - tops).abs()
        assert (distance <= within + 1e-6).all()
        assert distance.max() > within / 3
        assert result.calls.max() == 1 + calls


def test_the_ratios_of_two_rounds() -> None:
    """Highest at 0.4: of the thirds 1/3 is best, and the intervals to its neighbours are halved."""
    tried = in_one_step(CoarseToFine(), hill(torch.tensor([0.4])), 1).tried[0]
    expected = torch.tensor([[0, 1 / 3, 2 / 3, 1, 1 / 6, 1 / 2]])
    torch.testing.assert_close(tried, expected, equal_nan=True)


def test_golden_sections_go_where_there_is_a_score_and_else_towards_the_estimate() -> None:
    def upper(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return (-1 - ratio).where(ratio > 0.5, NAN)

    small, large = 0.381966, 0.618034
    for curve, third in ((upper, large + small**2), (flat, small * large), (nowhere, small * large)):
        tried = in_one_step(GoldenSection(rounds=2), curve, 1).tried[0]
        torch.testing.assert_close(tried, torch.tensor([[small, large, third]]))


def test_golden_sections_stay_in_their_interval() -> None:
    """The best ratio of the interval [0.1, 0.5] is its own nearest one to the top."""
    tops = torch.linspace(0, 0.99, 100)
    result = in_one_step(GoldenSection(rounds=6, low=0.1, high=0.5), hill(tops), 100)
    tried = result.tried[0]
    assert tried.min() > 0.1
    assert tried.max() < 0.5
    nearest = (tried - tops[:, None]).abs().amin(1)
    assert (nearest <= (tops - tops.clamp(0.1, 0.5)).abs() + 0.4 * 0.6181**7 + 1e-6).all()


def test_the_top_of_a_parabola_is_found_in_three_calls() -> None:
    """Exactly, but for tops within the tolerance of a ratio that was tried."""
    tops = torch.linspace(0, 0.99, 100)
    result = in_one_step(BrentSearch(tolerance=0.02), hill(tops), 100)
    distance = (result.chosen[0].nan_to_num(1) - tops).abs()
    tried = torch.tensor([0.0, 0.2, 1.0])
    far = (tops[:, None] - tried).abs().amin(1) > 0.021
    assert far.sum() > 80
    assert distance[far].max() < 1e-5
    assert distance.max() < 0.0201
    assert result.calls.max() == 4


def test_parabolas_come_near_to_tops_of_other_shapes() -> None:
    tops = torch.linspace(0, 0.9, 91)
    for power, left in ((1.5, 1), (4, 1), (2, 4), (2, 0.25)):
        curve = hill(tops, power, left)
        result = in_one_step(BrentSearch(calls=6, tolerance=0.02), curve, 91)
        reached = result.scores[1] / curve(tops, torch.arange(91), tops, tops)
        assert reached.min() > 0.85
        assert reached.mean() > 0.98
        assert result.calls.max() <= 7


def test_where_a_parabola_has_no_top_the_golden_section_goes_on() -> None:
    """Of 0, 0.2 and 1 these curves are highest at 0 and fall ever less steeply."""
    for top, power in ((0.05, 0.25), (0.0, 0.1)):
        search = BrentSearch(calls=6, tolerance=0.02)
        result = in_one_step(search, hill(torch.tensor([top]), power), 1)
        tried = result.tried[0][0].tolist()
        assert tried[:4] == pytest.approx([0.2, 1, 0, 0.2 * 0.381966])
        assert abs(float(result.chosen[0]) - top) < 0.03


def test_a_step_starts_where_the_last_one_ended_and_ends_once_enough_is_gained() -> None:
    """Each step can gain half of what the last one did, so that 0.4 of it is enough and 0.6 never is."""

    def curve(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return score + 0.5**moves * (1 - (ratio - 0.5).abs())

    for search, each in (
        (BrentSearch(first=0.5, enough=0.4, steps=4), 1),
        (GradientLineSearch(0.5, enough=0.4, steps=4), 2),
    ):
        result = climb(search, curve, 1)
        assert result.chosen[:, 0].tolist() == [0.5] * 4
        assert result.tried[1].shape[1] == result.tried[3].shape[1] == 2
        assert result.calls == 1 + each * result.tried[0].shape[1] - each + each * 3
    for tried in climb(BrentSearch(first=0.5, enough=0.6, steps=4), curve, 1).tried:
        assert (tried < 1).sum() >= 2


def test_a_loss_is_never_enough_even_after_a_larger_one() -> None:
    """Scores fall where the previous estimate does not compete."""
    state = SearchState(
        history=[0.0, 1.0, 0.5], chosen=[0.2, 0.2], round=1, ratios=[0.2, 1.0], scores=[0.4, 0.0]
    )
    assert BrentSearch(enough=0.5).propose(state) == [0.0]


def test_gradients_find_the_top_of_a_cubic_by_the_third_ratio() -> None:
    """``r (1 - r) (r + a)``, as high at 0 as at 1; on the other side of ``first`` than 1 it takes three."""
    shift = torch.linspace(0.05, 3, 60)
    tops = ((1 - shift) + (shift.square() + shift + 1).sqrt()) / 3

    def curve(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        return ratio * (1 - ratio) * (ratio + shift[item])

    for first in (0.1, 0.2, 0.9):
        result = in_one_step(GradientLineSearch(first, points=3, reach=1, tolerance=0), curve, 60)
        assert (result.chosen[0] - tops).abs().max() < (1e-3 if first == 0.9 else 0.04)
        assert result.calls.max() == 7


def test_gradients_find_the_top_of_a_parabola() -> None:
    """By its height at ratio 1 on that side; below ``first`` after one more ratio."""
    tops = torch.linspace(0, 0.99, 100)
    result = in_one_step(GradientLineSearch(0.3, points=2, tolerance=0), hill(tops), 100)
    above = tops >= 0.3
    torch.testing.assert_close(result.chosen[0][above], tops[above], rtol=0, atol=1e-5)
    result = in_one_step(GradientLineSearch(0.3, points=3, tolerance=0), hill(tops), 100)
    torch.testing.assert_close(result.chosen[0], tops, rtol=0, atol=1e-4)
    assert result.calls.max() <= 1 + 2 * 3


def test_gradients_leave_no_more_than_their_tolerance_on_a_concave_curve() -> None:
    tops = torch.linspace(0, 1, 101)
    for tolerance in (0.0, 0.01, 0.1):
        result = in_one_step(GradientLineSearch(points=8, tolerance=tolerance), hill(tops), 101)
        assert ((1 - tops).square() - result.scores[1] <= tolerance + 1e-5).all()
        assert result.calls.max() <= 1 + 2 * 8


def test_where_a_cubic_has_no_top_the_middle_goes_on() -> None:
    """From 0.2 this curve climbs ever more steeply up to 0.9, and ratio 1 is higher still."""
    tried = in_one_step(GradientLineSearch(0.2), hill(torch.tensor([0.9]), power=0.5), 1).tried[0]
    torch.testing.assert_close(tried, torch.tensor([[0.2, 1.0, 0.6]]))


def test_gradients_move_no_farther_than_their_reach() -> None:
    tried = in_one_step(GradientLineSearch(0.5, reach=0.2), hill(torch.tensor([0.0])), 1).tried[0]
    torch.testing.assert_close(tried, torch.tensor([[0.5, 1.0, 0.3]]))


def test_a_slope_that_does_not_exist_ends_a_step() -> None:
    """A top at ``first``, where the curve has a kink and the slope is NaN."""
    result = climb(GradientLineSearch(0.25, steps=3), hill(torch.tensor([0.25]), power=0.5), 1)
    assert result.calls == 1 + 2 * 2
