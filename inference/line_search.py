"""Line searches: find the ratio of a step with the highest score in few separator calls.

Within a step the score is a curve over the mixing ratio in [0, 1]: mostly smooth and with one maximum, not
always. A line search looks at the scores of the step's earlier rounds; it comes close to such a maximum, and
on any other curve it still ends within a stated number of calls. This module has those that enclose the
maximum, `encore.inference.interpolation` those that estimate where it is.

Ratio 1 costs no call, so searches that can use the score there propose it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from encore.inference.search import Search, SearchState, at_least_one, no_ratios, unless_kept

#: The golden section: parts of a line of length 1.
SMALL_SECTION, LARGE_SECTION = (3 - math.sqrt(5)) / 2, (math.sqrt(5) - 1) / 2
#: Two ratios nearer to each other than this count as equal.
SAME_RATIO = 1e-4


@dataclass(frozen=True)
class CoarseToFine(Search):
    """Try the ratios 0, 1/P, .. 1, then in each round P evenly spread between the best one's neighbours.

    A step makes at most ``P * rounds`` calls. On a curve with one maximum the best ratio tried is at most
    ``1 / P * (2 / (P + 1)) ** (rounds - 1)`` away from it.

    Args:
        points: Number P of ratios in a round, at least 2; those tried before are left out.
        rounds: Rounds of a step, at least 1.
    """

    points: int = 3
    rounds: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 2:
            raise ValueError(f"points={self.points}: at least 2 are needed to enclose a maximum")
        at_least_one("rounds", self.rounds)

    def propose(self, state: SearchState) -> Tensor:
        """Return all ratios of a round."""
        items, tried = state.ratios.shape
        points = self.points
        if tried == 0:
            grid = state.ratios.new_tensor(range(points + 1)) / points
            return unless_kept(grid.expand(items, points + 1), state)
        if tried > points * self.rounds:
            return no_ratios(state)
        left, _, right = around_the_best(state)
        parts = state.ratios.new_tensor(range(1, points + 1)) / (points + 1)
        ratios = torch.lerp(left[:, None], right[:, None], parts)
        return ratios.where(distance(ratios, state.ratios) > SAME_RATIO, torch.nan)

    def max_candidates(self) -> int:
        """Return P a round."""
        return self.steps * self.points * self.rounds


@dataclass(frozen=True)
class GoldenSection(Search):
    """Try two ratios, then one a round in the part of the interval that must hold the maximum.

    A step makes ``rounds + 1`` calls. On a curve with one maximum the best ratio tried is at most
    ``(high - low) * 0.618 ** (rounds + 1)`` away from it. The ends of the interval are never tried.

    Args:
        rounds: Rounds of a step, at least 1.
        low: Lower end of the interval that is searched.
        high: Its upper end; ``0 <= low < high <= 1``.
    """

    rounds: int = 4
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one("rounds", self.rounds)
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"low={self.low}, high={self.high}: give ratios with 0 <= low < high <= 1")

    def propose(self, state: SearchState) -> Tensor:
        """Return both inner points of the interval, later the one that is new."""
        items, tried = state.ratios.shape
        low, high = (state.ratios.new_full((items,), end) for end in (self.low, self.high))
        points = torch.stack((low.lerp(high, SMALL_SECTION), low.lerp(high, LARGE_SECTION)), dim=1)
        if tried == 0:
            return unless_kept(points, state)
        if tried > self.rounds:
            return no_ratios(state)
        scores = finite_scores(state)
        new, height = points, scores[:, :2]
        for column in range(2, tried + 1):
            lower = height[:, 0] >= height[:, 1]
            low, high = low.where(lower, points[:, 0]), points[:, 1].where(lower, high)
            new = low.lerp(high, SMALL_SECTION).where(lower, low.lerp(high, LARGE_SECTION))[:, None]
            if column < tried:
                points = _paired(lower, points, new)
                height = _paired(lower, height, scores[:, column : column + 1])
        return new

    def max_candidates(self) -> int:
        """Return one more than the rounds of each step."""
        return self.steps * (self.rounds + 1)


def around_the_best(state: SearchState, among: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the left neighbour, the best ratio tried (of equal ones the larger) and the right one, ``(b,)``.

    A missing neighbour is the best ratio itself. ``among`` ``(b, n)`` says which ratios can be the best.
    """
    scores = finite_scores(state) if among is None else finite_scores(state).where(among, -torch.inf)
    highest = (scores == scores.amax(1, keepdim=True)) & ~state.ratios.isnan()
    best = state.ratios.where(highest, -torch.inf).amax(1, keepdim=True)
    left = state.ratios.where(state.ratios < best, -torch.inf).amax(1)
    right = state.ratios.where(state.ratios > best, torch.inf).amin(1)
    best = best.squeeze(1)
    return left.where(left.isfinite(), best), best, right.where(right.isfinite(), best)


def finite_scores(state: SearchState) -> Tensor:
    """Return scores ``(b, n)``, minus infinity where there is none."""
    return state.scores.nan_to_num(nan=-torch.inf).where(~state.ratios.isnan(), -torch.inf)


def distance(ratios: Tensor, tried: Tensor) -> Tensor:
    """Return the distance ``(b, k)`` of ratios ``(b, k)`` to the nearest one tried."""
    return (ratios[:, :, None] - tried[:, None]).abs().nan_to_num(nan=torch.inf).amin(2)


def _paired(lower: Tensor, pair: Tensor, new: Tensor) -> Tensor:
    """Return the inner points ``(b, 2)``, or their scores, of the lower or the upper part of an interval."""
    return torch.where(
        lower[:, None], torch.cat((new, pair[:, :1]), dim=1), torch.cat((pair[:, 1:], new), dim=1)
    )
