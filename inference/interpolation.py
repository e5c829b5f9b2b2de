"""Line searches that guess where the curve is highest: by a parabola, or by slopes and a cubic."""

from __future__ import annotations

import torch
from torch import Tensor

from encore.inference.line_search import (
    SAME_SHARE,
    SMALL_SECTION,
    LineSearch,
    around_the_best,
    at_least_one,
    distance,
    heights,
)
from encore.inference.search import Trace


class ParabolicSearch(LineSearch):
    """The top of the parabola through the best share and its neighbours, again and again.

    A step starts with the last chosen share (and with share 1, which costs nothing), then tries one at
    ``width`` from it, on the side of the estimate if there is room. Where the parabola has no top, or it is
    share 1, the golden section of the larger side takes its place. A step ends when a share gains
    ``enough`` of what the last step did, or the next share is within ``tolerance`` of one tried before.

    Args:
        first: Share that the first step starts with, below 1.
        width: Distance of the second share, in (0, 0.5].
        calls: Most calls of a step, at least 2.
        tolerance: Smallest distance between two shares that is worth a call, in (0, width / 2].
        enough: Part of the last step's gain, above 0, that ends a step after the first; infinite for none.
    """

    def __init__(
        self,
        first: float = 0.2,
        width: float = 0.2,
        calls: int = 3,
        tolerance: float = 0.05,
        enough: float = 0.2,
    ) -> None:
        _below_one("first", first)
        if not 0 < width <= 0.5:
            raise ValueError(f"width={width}: give a distance of two shares in (0, 0.5]")
        if calls < 2:
            raise ValueError(f"calls={calls}: a step starts with 2")
        # the second share may be as near as half the width, and must be tried
        if not 0 < tolerance <= width / 2:
            raise ValueError(f"tolerance={tolerance}: give a distance in (0, width / 2 = {width / 2}]")
        _positive("enough", enough)
        self.first = first
        self.width = width
        self.calls = calls
        self.tolerance = tolerance
        self.enough = enough

    def propose(self, trace: Trace) -> Tensor:
        """One share a round."""
        last = _last_chosen(trace, self.first)
        if trace.ratios.shape[1] == 0:
            return _with_share_one(last)
        share = self._second(last) if trace.ratios.shape[1] == 2 else self._next(trace)
        more = ((trace.ratios < 1).sum(1) < self.calls) & ~_gained(trace, self.enough)
        far = distance(share[:, None], trace.ratios).squeeze(1) >= self.tolerance
        return share.where(more & far, torch.nan)[:, None]

    def _second(self, last: Tensor) -> Tensor:
        """At the width below the last chosen share; above it where less than half of that is left."""
        below = (last - self.width).clamp_min(0)
        return below.where(last >= self.width / 2, last + self.width)

    def _next(self, trace: Trace) -> Tensor:
        """The top of the parabola, or the golden section."""
        left, best, right = around_the_best(trace)
        left, right = left.where(left < best, 0), right.where(right > best, 1)
        upper = right - best > best - left
        golden = best.lerp(right.where(upper, left), SMALL_SECTION)
        top = _top_of_the_parabola(trace, best)
        # a top there would end the step, with nothing gained and nothing known of the shares next to 1
        vain = top > 1 - self.tolerance
        return golden.where(top.isnan() | vain, top.clamp(left, right))


class SlopeSearch(LineSearch):
    """Follows the slope of the curve to the top of the cubic through two shares.

    A step starts with the last chosen share (and with share 1, which costs nothing). From the best share so
    far it goes the way the slope points: to the top of the cubic through it and the nearest share tried on
    that side, or by ``reach`` where none was. A step ends when a share gains ``enough`` of what the last step
    did, or when the slope, kept up for the rest of the way, would gain no more than ``tolerance``: on a
    concave curve nothing in between can gain more.

    Every share counts as two calls, because the slope is computed with it.

    Args:
        first: Share that the first step starts with, below 1.
        points: Most shares of a step, at least 1.
        reach: How far to go where nothing is known about that side, in (0, 1].
        tolerance: Largest gain that is not worth a call, in the unit of the measure, 0 or more.
        enough: Part of the last step's gain, above 0, that ends a step after the first; infinite for none.
    """

    wants_slopes = True

    def __init__(
        self,
        first: float = 0.2,
        points: int = 2,
        reach: float = 0.3,
        tolerance: float = 0.01,
        enough: float = 0.2,
    ) -> None:
        _below_one("first", first)
        at_least_one("points", points)
        if not 0 < reach <= 1:
            raise ValueError(f"reach={reach}: give a distance of two shares in (0, 1]")
        if not tolerance >= 0:
            raise ValueError(f"tolerance={tolerance}: give a gain of 0 or more")
        _positive("enough", enough)
        self.first = first
        self.points = points
        self.reach = reach
        self.tolerance = tolerance
        self.enough = enough

    def propose(self, trace: Trace) -> Tensor:
        """One share a round: the last chosen one, later the top of the cubic."""
        if trace.ratios.shape[1] == 0:
            return _with_share_one(_last_chosen(trace, self.first))
        left, best, right = around_the_best(trace, among=~trace.slopes.isnan())
        height, slope = _at(best, trace.scores, trace), _at(best, trace.slopes, trace)
        up = slope > 0
        other = right.where(up, left)
        known, end = other != best, up.to(best.dtype)
        span = other.where(known, end) - best
        # seen from the best share, with the way to the other one as unit of length
        rise, last = slope * span, _at(other, trace.slopes, trace) * span
        fall = height - _at(other, trace.scores, trace)
        step = torch.where(
            known, _top_of_the_cubic(rise, fall, last) * span, span.clamp(-self.reach, self.reach)
        )
        share = (best + step).clamp(0, 1)[:, None]
        more = ((trace.ratios < 1).sum(1) < self.points) & ~_gained(trace, self.enough)
        worthwhile = more & (rise > self.tolerance)
        return share.where(worthwhile[:, None] & (distance(share, trace.ratios) > SAME_SHARE), torch.nan)


def _last_chosen(trace: Trace, first: float) -> Tensor:
    """Share ``(b,)`` below 1 of the last step that took one; ``first`` if none did."""
    last = trace.ratios.new_full((len(trace.ratios),), first)
    for chosen in trace.chosen:
        last = chosen.where(chosen < 1, last)
    return last


def _with_share_one(share: Tensor) -> Tensor:
    """Shares ``(b,)`` and 1, as ``(b, 2)``."""
    return torch.stack((share, torch.ones_like(share)), dim=1)


def _gained(trace: Trace, part: float) -> Tensor:
    """Items ``(b,)`` whose best candidate gains ``part`` of what the last step did; none in step 1."""
    if len(trace.history) < 2:
        return torch.zeros_like(trace.previous, dtype=torch.bool)
    wanted = part * (trace.previous - trace.history[-2])
    gain = heights(trace).amax(1) - trace.previous
    return (gain > 0) & (gain >= wanted)


def _at(share: Tensor, values: Tensor, trace: Trace) -> Tensor:
    """Of ``values`` ``(b, n)`` those ``(b,)`` at a tried share."""
    column = (trace.ratios == share[:, None]).to(torch.uint8).argmax(1, keepdim=True)
    return values.gather(1, column).squeeze(1)


def _top_of_the_parabola(trace: Trace, best: Tensor) -> Tensor:
    """Where the parabola through the best share and the two next to it is highest; NaN if nowhere."""
    shares, order = trace.ratios.nan_to_num(nan=torch.inf).sort(dim=1)
    if shares.shape[1] < 3:
        return torch.full_like(best, torch.nan)
    count = shares.isfinite().sum(1)
    at = (shares < best[:, None]).sum(1)
    start = torch.minimum(at - 1, count - 3).clamp_min(0)
    columns = start[:, None] + torch.arange(3, device=start.device)
    x = shares.gather(1, columns).double()
    y = heights(trace).gather(1, order).gather(1, columns).double()
    slopes = y.diff(dim=1) / x.diff(dim=1)
    bend = (slopes[:, 1] - slopes[:, 0]) / (x[:, 2] - x[:, 0])
    top = (x[:, 0] + x[:, 1]) / 2 - slopes[:, 0] / (2 * bend)
    return top.where((bend < 0) & top.isfinite() & bend.isfinite(), torch.nan).to(best.dtype)


def _top_of_the_cubic(rise: Tensor, fall: Tensor, last: Tensor) -> Tensor:
    """Where between 0 and 1 the cubic p with these values is highest; the middle if nowhere.

    With ``p'(0) = rise > 0``, ``p(1) - p(0) = -fall`` and ``p'(1) = last`` it is
    ``p(u) = p(0) + rise u + a u^2 + b u^3``, ``a = -3 fall - 2 rise - last``, ``b = rise + last + 2 fall``.
    Of the two zeros of p', ``rise / (sqrt(a^2 - 3 b rise) - a)`` is the one where p bends down. Where
    ``last`` is NaN p is a parabola.
    """
    a, b = -3 * fall - 2 * rise - last, rise + last + 2 * fall
    cubic = rise / ((a.square() - 3 * b * rise).sqrt() - a)
    top = cubic.where(~last.isnan(), rise / (2 * (rise + fall)))
    return top.where((top > 0) & (top < 1), 0.5)


def _below_one(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value}: give a share of the mixture in [0, 1); 1 is the one-step estimate")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}={value}: must be above 0")
