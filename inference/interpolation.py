"""Line searches that estimate where the score is highest: by a parabola, or by slopes and a cubic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encore.inference.line_search import (
    SAME_RATIO,
    SMALL_SECTION,
    around_the_best,
    distance,
    finite_scores,
)
from encore.inference.search import Search, SearchState, at_least_one, unless_kept


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
        _check_first(self.first)
        if not 0 < self.width <= 0.5:
            raise ValueError(f"width={self.width}: give a distance of two ratios in (0, 0.5]")
        if self.calls < 2:
            raise ValueError(f"calls={self.calls}: a step starts with 2")
        # the second ratio may be as near as half the width, and must be tried
        if not 0 < self.tolerance <= self.width / 2:
            raise ValueError(
                f"tolerance={self.tolerance}: give a distance in (0, width / 2 = {self.width / 2}]"
            )
        _positive("enough", self.enough)

    def propose(self, state: SearchState) -> Tensor:
        """Return one ratio a round."""
        last = state.last_chosen(self.first)
        if state.ratios.shape[1] == 0:
            return unless_kept(_with_ratio_one(last), state)
        ratio = self._second(last) if state.ratios.shape[1] == 2 else self._next(state)
        more = ((state.ratios < 1).sum(1) < self.calls) & ~_gained(state, self.enough)
        far = distance(ratio[:, None], state.ratios).squeeze(1) >= self.tolerance
        return ratio.where(more & far, torch.nan)[:, None]

    def max_candidates(self) -> int:
        """Return the most calls of each step."""
        return self.steps * self.calls

    def _second(self, last: Tensor) -> Tensor:
        """Return the ratio at ``width`` below the last chosen, or above it near 0."""
        below = (last - self.width).clamp_min(0)
        return below.where(last >= self.width / 2, last + self.width)

    def _next(self, state: SearchState) -> Tensor:
        """Return the maximum of the parabola, or the golden section."""
        left, best, right = around_the_best(state)
        left, right = left.where(left < best, 0), right.where(right > best, 1)
        upper = right - best > best - left
        golden = best.lerp(right.where(upper, left), SMALL_SECTION)
        top = _top_of_the_parabola(state, best)
        # a maximum there would end the step, with nothing gained and nothing known of the ratios next to 1
        vain = top > 1 - self.tolerance
        return golden.where(top.isnan() | vain, top.clamp(left, right))


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
        _check_first(self.first)
        at_least_one("points", self.points)
        if not 0 < self.reach <= 1:
            raise ValueError(f"reach={self.reach}: give a distance of two ratios in (0, 1]")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance={self.tolerance}: give a gain of 0 or more")
        _positive("enough", self.enough)

    def propose(self, state: SearchState) -> Tensor:
        """Return one ratio a round: the last chosen one, later the maximum of the cubic."""
        if state.ratios.shape[1] == 0:
            return unless_kept(_with_ratio_one(state.last_chosen(self.first)), state)
        left, best, right = around_the_best(state, among=~state.slopes.isnan())
        height, slope = _at(best, state.scores, state), _at(best, state.slopes, state)
        up = slope > 0
        other = right.where(up, left)
        known, end = other != best, up.to(best.dtype)
        span = other.where(known, end) - best
        # seen from the best ratio, with the distance to the other one as unit of length
        rise, last = slope * span, _at(other, state.slopes, state) * span
        fall = height - _at(other, state.scores, state)
        step = torch.where(
            known, _top_of_the_cubic(rise, fall, last) * span, span.clamp(-self.reach, self.reach)
        )
        ratio = (best + step).clamp(0, 1)[:, None]
        more = ((state.ratios < 1).sum(1) < self.points) & ~_gained(state, self.enough)
        worthwhile = more & (rise > self.tolerance)
        return ratio.where(worthwhile[:, None] & (distance(ratio, state.ratios) > SAME_RATIO), torch.nan)

    def max_candidates(self) -> int:
        """Return the most ratios of each step; each costs two calls."""
        return self.steps * self.points


def _with_ratio_one(ratio: Tensor) -> Tensor:
    """Return ratios ``(b,)`` and 1, as ``(b, 2)``."""
    return torch.stack((ratio, torch.ones_like(ratio)), dim=1)


def _gained(state: SearchState, part: float) -> Tensor:
    """Return ``(b,)``: whether the best candidate gains ``part`` of what the last step did; no in step 1."""
    if len(state.history) < 2:
        return torch.zeros_like(state.previous, dtype=torch.bool)
    wanted = part * (state.previous - state.history[-2])
    gain = finite_scores(state).amax(1) - state.previous
    return (gain > 0) & (gain >= wanted)


def _at(ratio: Tensor, values: Tensor, state: SearchState) -> Tensor:
    """Return those ``(b,)`` of ``values`` ``(b, n)`` that belong to a tried ratio."""
    column = (state.ratios == ratio[:, None]).to(torch.uint8).argmax(1, keepdim=True)
    return values.gather(1, column).squeeze(1)


def _top_of_the_parabola(state: SearchState, best: Tensor) -> Tensor:
    """Return where the parabola through the best ratio and its neighbours has its maximum, NaN if nowhere."""
    ratios, order = state.ratios.nan_to_num(nan=torch.inf).sort(dim=1)
    if ratios.shape[1] < 3:
        return torch.full_like(best, torch.nan)
    count = ratios.isfinite().sum(1)
    at = (ratios < best[:, None]).sum(1)
    start = torch.minimum(at - 1, count - 3).clamp_min(0)
    columns = start[:, None] + torch.arange(3, device=start.device)
    x = ratios.gather(1, columns).double()
    y = finite_scores(state).gather(1, order).gather(1, columns).double()
    slopes = y.diff(dim=1) / x.diff(dim=1)
    bend = (slopes[:, 1] - slopes[:, 0]) / (x[:, 2] - x[:, 0])
    top = (x[:, 0] + x[:, 1]) / 2 - slopes[:, 0] / (2 * bend)
    return top.where((bend < 0) & top.isfinite() & bend.isfinite(), torch.nan).to(best.dtype)


def _top_of_the_cubic(rise: Tensor, fall: Tensor, last: Tensor) -> Tensor:
    """Return where between 0 and 1 the cubic p with these values is highest; 0.5 if nowhere.

    With ``p'(0) = rise > 0``, ``p(1) - p(0) = -fall`` and ``p'(1) = last`` it is
    ``p(u) = p(0) + rise u + a u^2 + b u^3``, ``a = -3 fall - 2 rise - last``, ``b = rise + last + 2 fall``.
    Of the two zeros of p', ``rise / (sqrt(a^2 - 3 b rise) - a)`` is the one where p bends down. Where
    ``last`` is NaN p is a parabola.
    """
    a, b = -3 * fall - 2 * rise - last, rise + last + 2 * fall
    cubic = rise / ((a.square() - 3 * b * rise).sqrt() - a)
    top = cubic.where(~last.isnan(), rise / (2 * (rise + fall)))
    return top.where((top > 0) & (top < 1), 0.5)


def _check_first(first: float) -> None:
    if not 0 <= first < 1:
        raise ValueError(f"first={first}: give a mixing ratio in [0, 1); 1 is the one-step estimate")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}={value}: must be above 0")
