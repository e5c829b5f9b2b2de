"""Line searches: find the ratio of a step with the highest score in few separator calls.

Within a step the score is a curve over the mixing ratio in [0, 1]: mostly smooth and with one maximum, not
always. A line search comes close to such a maximum by the scores of the step's earlier rounds, and on any
other curve it still ends within a stated number of calls. `CoarseToFine` and `GoldenSection` enclose the
maximum, `BrentSearch` and `GradientLineSearch` estimate where it is.

Ratio 1 costs no call, so searches that can use the score there propose it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from encore.inference.search import Search, SearchState, at_least_one, check_first, check_width

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

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return all ratios of a round."""
        if state.round == 0:
            return [] if state.steps_kept else [n / self.points for n in range(self.points + 1)]
        if state.round == self.rounds:
            return []
        left, right = _neighbours(state, _best(state))
        between = [left + (right - left) * n / (self.points + 1) for n in range(1, self.points + 1)]
        return [ratio for ratio in between if _distance(ratio, state) > SAME_RATIO]

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

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return both inner points of the interval, later the one that is new."""
        if state.round == 0:
            sections = (SMALL_SECTION, LARGE_SECTION)
            points = [self.low + section * (self.high - self.low) for section in sections]
            return [] if state.steps_kept else points
        if state.round == self.rounds:
            return []
        # of equal ones the one nearer to the estimate
        best = min(zip(state.scores, state.ratios, strict=True), key=lambda pair: (-pair[0], pair[1]))[1]
        left, right = _neighbours(state, best, self.low, self.high)
        section = SMALL_SECTION if best - left > right - best else LARGE_SECTION
        return [left + section * (right - left)]

    def max_candidates(self) -> int:
        """Return one more than the rounds of each step."""
        return self.steps * (self.rounds + 1)


@dataclass(frozen=True)
class BrentSearch(Search):
    """Try the maximum of the parabola through the best ratio and its neighbours, repeatedly.

    A step starts with the last chosen ratio (and with ratio 1, which costs nothing), then tries one at
    ``width`` from it, on the side of the estimate if there is room. Where the parabola has no maximum, or it
    is at ratio 1, the golden section of the larger side is tried instead. A step ends when a ratio gains
    ``enough`` of what the last step did, or the next ratio is within ``tolerance`` of one tried before.

    Args:
        first: Ratio that the first step starts with, below 1.
        width: Distance of the second ratio, in (0, 0.5].
        calls: Most calls of a step, at least 2.
        tolerance: Smallest distance between two ratios that is worth a call, in (0, width / 2].
        enough: Part of the last step's gain, above 0, that ends a step after the first; infinite for none.

    Source: R. Brent, "Algorithms for Minimization without Derivatives", 1973, chapter 5.
    """

    first: float = 0.2
    width: float = 0.2
    calls: int = 3
    tolerance: float = 0.05
    enough: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_first(self.first)
        _check_enough(self.enough)
        check_width(self.width)
        if self.calls < 2:
            raise ValueError(f"calls={self.calls}: a step starts with 2")
        # the second ratio may be as near as half the width, and must be tried
        if not 0 < self.tolerance <= self.width / 2:
            raise ValueError(
                f"tolerance={self.tolerance}: give a distance in (0, width / 2 = {self.width / 2}]"
            )

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return one ratio a round."""
        last = state.last_chosen(self.first)
        if state.round == 0:
            return [] if state.steps_kept else [last, 1.0]
        if _calls(state) >= self.calls or _gained(state, self.enough):
            return []
        if state.round == 1:
            ratio = last + self.width if last < self.width / 2 else max(last - self.width, 0.0)
        else:
            ratio = self._next(state)
        return [ratio] if _distance(ratio, state) >= self.tolerance else []

    def max_candidates(self) -> int:
        """Return the most calls of each step."""
        return self.steps * self.calls

    def _next(self, state: SearchState) -> float:
        """Return the maximum of the parabola, or the golden section of the larger side."""
        best = _best(state)
        left, right = _neighbours(state, best)
        top = _top_of_the_parabola(state, best)
        # a maximum at 1 would end the step, with nothing gained and nothing known of the ratios next to 1
        if math.isnan(top) or top > 1 - self.tolerance:
            end = right if right - best > best - left else left
            return best + SMALL_SECTION * (end - best)
        return min(max(top, left), right)


@dataclass(frozen=True)
class GradientLineSearch(Search):
    """Follow the slope of the score to the maximum of the cubic through two ratios.

    A step starts with the last chosen ratio (and with ratio 1, which costs nothing). From the best ratio so
    far it moves in the direction of the slope: to the maximum of the cubic through it and the nearest ratio
    tried on that side, or by ``reach`` where none was. A step ends when a ratio gains ``enough`` of what the
    last step did, or when the slope, kept up for the rest of the way, would gain no more than ``tolerance``:
    on a concave curve nothing in between can gain more.

    Every ratio counts as two calls, because the slope is computed with it.

    Args:
        first: Ratio that the first step starts with, below 1.
        points: Most ratios of a step, at least 1.
        reach: How far to move where nothing is known about that side, in (0, 1].
        tolerance: Largest gain that is not worth a call, in the unit of the quality, 0 or more.
        enough: Part of the last step's gain, above 0, that ends a step after the first; infinite for none.
    """

    first: float = 0.2
    points: int = 2
    reach: float = 0.3
    tolerance: float = 0.01
    enough: float = 0.2

    needs_gradient = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_first(self.first)
        _check_enough(self.enough)
        at_least_one("points", self.points)
        if not 0 < self.reach <= 1:
            raise ValueError(f"reach={self.reach}: give a distance of two ratios in (0, 1]")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance={self.tolerance}: give a gain of 0 or more")

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return one ratio a round: the last chosen one, later the maximum of the cubic."""
        if state.round == 0:
            return [] if state.steps_kept else [state.last_chosen(self.first), 1.0]
        # ratio 1 costs no call and has no slope
        points = zip(state.scores, state.ratios, state.slopes, strict=True)
        with_slope = [point for point in points if not math.isnan(point[2])]
        if not with_slope or _calls(state) >= self.points or _gained(state, self.enough):
            return []
        height, best, slope = max(with_slope)
        left, right = _neighbours(state, best)
        other = right if slope > 0 else left
        # seen from the best ratio, with the distance to the other one as unit of length
        span = other - best
        rise = slope * span
        if not rise > self.tolerance:
            return []
        if other in state.ratios:
            place = state.ratios.index(other)
            fall, last = height - state.scores[place], state.slopes[place] * span
            step = _top_of_the_cubic(rise, fall, last) * span
        else:
            step = min(max(span, -self.reach), self.reach)
        ratio = min(max(best + step, 0.0), 1.0)
        return [ratio] if _distance(ratio, state) > SAME_RATIO else []

    def max_candidates(self) -> int:
        """Return the most ratios of each step; each costs two calls."""
        return self.steps * self.points


def _best(state: SearchState) -> float:
    """Return the best ratio tried, of equal ones the larger."""
    return max(zip(state.scores, state.ratios, strict=True))[1]


def _neighbours(state: SearchState, ratio: float, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """Return the ratios tried to the left and to the right of one; the ends where there is none."""
    left = max((tried for tried in state.ratios if tried < ratio), default=low)
    return left, min((tried for tried in state.ratios if tried > ratio), default=high)


def _distance(ratio: float, state: SearchState) -> float:
    """Return the distance of a ratio to the nearest one tried."""
    return min(abs(ratio - tried) for tried in state.ratios)


def _calls(state: SearchState) -> int:
    """Return the number of ratios tried in this step that cost a call."""
    return sum(ratio < 1 for ratio in state.ratios)


def _gained(state: SearchState, part: float) -> bool:
    """Return whether the best candidate gains ``part`` of what the last step did; no in step 1."""
    if len(state.history) < 2:
        return False
    gain, last = max(state.scores) - state.history[-1], state.history[-1] - state.history[-2]
    return gain > 0 and gain >= part * last


def _top_of_the_parabola(state: SearchState, best: float) -> float:
    """Return where the parabola through the best ratio and its neighbours has its maximum, NaN if nowhere."""
    points = sorted(zip(state.ratios, state.scores, strict=True))
    if len(points) < 3:
        return math.nan
    start = max(min(sorted(state.ratios).index(best) - 1, len(points) - 3), 0)
    (x0, y0), (x1, y1), (x2, y2) = points[start : start + 3]
    slope = (y1 - y0) / (x1 - x0)
    bend = ((y2 - y1) / (x2 - x1) - slope) / (x2 - x0)
    return (x0 + x1) / 2 - slope / (2 * bend) if -math.inf < bend < 0 else math.nan


def _top_of_the_cubic(rise: float, fall: float, last: float) -> float:
    """Return where between 0 and 1 the cubic p with these values is highest; 0.5 if nowhere.

    With ``p'(0) = rise > 0``, ``p(1) - p(0) = -fall`` and ``p'(1) = last`` it is
    ``p(u) = p(0) + rise u + a u^2 + b u^3``, ``a = -3 fall - 2 rise - last``, ``b = rise + last + 2 fall``.
    Of the two zeros of p', ``rise / (sqrt(a^2 - 3 b rise) - a)`` is the one where p bends down. Where
    ``last`` is NaN p is a parabola.
    """
    a, b = -3 * fall - 2 * rise - last, rise + last + 2 * fall
    under_root = a * a - 3 * b * rise
    divisor = 2 * (rise + fall) if math.isnan(last) else math.nan
    if under_root >= 0:
        divisor = math.sqrt(under_root) - a
    return rise / divisor if rise < divisor < math.inf else 0.5


def _check_enough(enough: float) -> None:
    if not enough > 0:
        raise ValueError(f"enough={enough}: must be above 0")
