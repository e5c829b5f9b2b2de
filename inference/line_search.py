"""Line searches: where along the blends of a step the measure is highest, in few separator calls.

Within a step the score is a curve over the mixture's share in [0, 1]: mostly smooth and with one maximum, not
always. A line search looks at the scores of the step's earlier rounds; it comes close to such a maximum, and
on any other curve it still ends within a stated number of calls. This module has those that enclose the
maximum, `encore.inference.interpolation` those that guess where it is.

Share 1 costs no call, so searches that can use the height of the curve there propose it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from encore.inference.search import Trace

#: The golden section: parts of a line of length 1.
SMALL_SECTION, LARGE_SECTION = (3 - math.sqrt(5)) / 2, (math.sqrt(5) - 1) / 2
#: Nearer to each other than this, two shares are the same one.
SAME_SHARE = 1e-4


class LineSearch:
    """What line searches share: a step tries what its scores and the last chosen share ask for, nothing else.

    So a step after one that kept the estimate would repeat it, and the item is finished.
    """

    steps: int | None = None
    selects = True
    wants_slopes = False

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Exactly the items whose previous estimate was kept."""
        return kept


class CoarseToFine(LineSearch):
    """Shares 0, 1/P, .. 1, then in each round P evenly spread between the neighbours of the best so far.

    A step makes at most ``P * rounds`` calls. On a curve with one maximum the best share tried is at most
    ``1 / P * (2 / (P + 1)) ** (rounds - 1)`` away from it.

    Args:
        points: Number P of shares in a round, at least 2; those tried before are left out.
        rounds: Rounds of a step, at least 1.
    """

    def __init__(self, points: int = 3, rounds: int = 2) -> None:
        if points < 2:
            raise ValueError(f"points={points}: at least 2 are needed to enclose a maximum")
        at_least_one("rounds", rounds)
        self.points = points
        self.rounds = rounds

    def propose(self, trace: Trace) -> Tensor:
        """All of a round's shares."""
        items, tried = trace.ratios.shape
        points = self.points
        if tried == 0:
            return (trace.ratios.new_tensor(range(points + 1)) / points).expand(items, points + 1)
        if tried > points * self.rounds:
            return trace.ratios.new_empty(items, 0)
        left, _, right = around_the_best(trace)
        parts = trace.ratios.new_tensor(range(1, points + 1)) / (points + 1)
        shares = torch.lerp(left[:, None], right[:, None], parts)
        return shares.where(distance(shares, trace.ratios) > SAME_SHARE, torch.nan)


class GoldenSection(LineSearch):
    """Two shares, then one a round in the part of the interval that must hold the maximum.

    A step makes ``rounds + 1`` calls. On a curve with one maximum the best share tried is at most
    ``(high - low) * 0.618 ** (rounds + 1)`` away from it. The ends of the interval are never tried.

    Args:
        rounds: Rounds of a step, at least 1.
        low: Lower end of the interval that is searched.
        high: Its upper end; ``0 <= low < high <= 1``.
    """

    def __init__(self, rounds: int = 4, low: float = 0.0, high: float = 1.0) -> None:
        at_least_one("rounds", rounds)
        if not 0 <= low < high <= 1:
            raise ValueError(f"low={low}, high={high}: give shares with 0 <= low < high <= 1")
        self.rounds = rounds
        self.low = low
        self.high = high

    def propose(self, trace: Trace) -> Tensor:
        """Both inner points of the interval, later the one that is new."""
        items, tried = trace.ratios.shape
        low, high = (trace.ratios.new_full((items,), end) for end in (self.low, self.high))
        points = torch.stack((low.lerp(high, SMALL_SECTION), low.lerp(high, LARGE_SECTION)), dim=1)
        if tried == 0:
            return points
        if tried > self.rounds:
            return trace.ratios.new_empty(items, 0)
        scores = heights(trace)
        new, height = points, scores[:, :2]
        for column in range(2, tried + 1):
            lower = height[:, 0] >= height[:, 1]
            low, high = low.where(lower, points[:, 0]), points[:, 1].where(lower, high)
            new = low.lerp(high, SMALL_SECTION).where(lower, low.lerp(high, LARGE_SECTION))[:, None]
            if column < tried:
                points = _paired(lower, points, new)
                height = _paired(lower, height, scores[:, column : column + 1])
        return new


def around_the_best(trace: Trace, among: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The best share tried, of equal ones the larger, between its neighbours: ``(b,)``, itself for none.

    ``among`` ``(b, n)`` says which of the shares can be the best.
    """
    scores = heights(trace) if among is None else heights(trace).where(among, -torch.inf)
    highest = (scores == scores.amax(1, keepdim=True)) & ~trace.ratios.isnan()
    best = trace.ratios.where(highest, -torch.inf).amax(1, keepdim=True)
    left = trace.ratios.where(trace.ratios < best, -torch.inf).amax(1)
    right = trace.ratios.where(trace.ratios > best, torch.inf).amin(1)
    best = best.squeeze(1)
    return left.where(left.isfinite(), best), best, right.where(right.isfinite(), best)


def heights(trace: Trace) -> Tensor:
    """Scores ``(b, n)`` with the lowest one wherever there is none."""
    return trace.scores.nan_to_num(nan=-torch.inf).where(~trace.ratios.isnan(), -torch.inf)


def distance(shares: Tensor, tried: Tensor) -> Tensor:
    """Distance ``(b, k)`` of shares ``(b, k)`` to the nearest one tried."""
    return (shares[:, :, None] - tried[:, None]).abs().nan_to_num(nan=torch.inf).amin(2)


def at_least_one(name: str, value: int) -> None:
    """Complain of a number below 1."""
    if value < 1:
        raise ValueError(f"{name}={value}: at least 1 is needed")


def _paired(lower: Tensor, pair: Tensor, new: Tensor) -> Tensor:
    """Inner points ``(b, 2)``, or their heights, of the lower or the upper part of an interval."""
    return torch.where(
        lower[:, None], torch.cat((new, pair[:, :1]), dim=1), torch.cat((pair[:, 1:], new), dim=1)
    )
