"""Local searches: about one separator call a step, near the ratio that earlier steps chose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from encore.inference.line_search import SAME_RATIO
from encore.inference.search import Search, SearchState, at_least_one, check_first, check_width


@dataclass(frozen=True)
class GreedySearch(Search):
    """Try one ratio a step: the last one that was taken, and around it after failures.

    The estimate moves on with the first ratio that scores higher. After failures the ratio is at a distance
    from the last one taken (from ``first``, if none was): ``width`` on the side of the estimate, as much on
    the side of the mixture, then half of it on either side, and so on; ratios outside [0, 1) are left out.
    After ``patience`` failures in a row the item is finished: exactly, because this search would try nothing
    more.

    Args:
        first: Ratio of the first step, in [0, 1).
        width: Distance of the first neighbours, in (0, 0.5].
        patience: Failures in a row that finish an item, at least 1.
    """

    first: float = 0.3
    width: float = 0.2
    patience: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_first(self.first)
        check_width(self.width)
        at_least_one("patience", self.patience)

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return one ratio in the first round."""
        centre, failures = state.last_chosen(self.first), state.steps_kept
        distances = [self.width / 2**halving for halving in range(self.patience)]
        around = [centre, *(centre + side * distance for distance in distances for side in (-1, 1))]
        inside = [ratio for ratio in map(_rounded, around) if 0 <= ratio < 1]
        return [] if state.round else inside[: self.patience][failures : failures + 1]

    def max_candidates(self) -> int:
        """Return one a step."""
        return self.steps


@dataclass(frozen=True, kw_only=True)
class FixedListSearch(Search):
    """Try one ratio a step, from a list, and take it only where it scores higher than the estimate.

    A ratio that was tried since the estimate last changed cannot win now: it is not tried again.

    Args:
        ratios: Mixing ratio of each step, fitted beforehand; at least one, each in [0, 1].
    """

    ratios: Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "ratios", _checked("ratios", self.ratios))
        object.__setattr__(self, "steps", min(self.steps, len(self.ratios)))

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return the ratio of this step, unless it lost against this estimate before."""
        before = self.ratios[: state.step - 1]
        ratio, lost = self.ratios[state.step - 1], before[len(before) - state.steps_kept :]
        return [] if state.round or ratio in lost else [ratio]

    def max_candidates(self) -> int:
        """Return one a step."""
        return self.steps


@dataclass(frozen=True)
class LocalSearch(Search):
    """Try the ratio that won the last step and, for as long as it pays, one neighbour.

    Step 1 tries ``first``. A later step tries the last chosen ratio and a neighbour at ``width`` from it: on
    the side where the last neighbour won, on the other one where it lost; once it has lost on both, the
    chosen ratio goes alone. Where the estimate was kept, only what is still untried can win: up to ``probes``
    steps in a row try one more neighbour, on alternating sides (the mean of ``first``, if nothing of it was
    taken). After them the item is finished: exactly, because this search would try nothing more, even
    where other ratios would gain. Every step is one round.

    Args:
        first: Ratios of the first step, at least one, each in [0, 1].
        width: Distance of a neighbour, in (0, 0.5].
        shrink: Factor of the width, in (0, 1), for each step that kept the estimate.
        probes: Steps in a row that go on with an estimate that was kept, 0 or more.
    """

    first: Sequence[float] = (0.0, 0.4)
    width: float = 0.15
    shrink: float = 0.5
    probes: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "first", _checked("first", self.first))
        check_width(self.width)
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink={self.shrink}: give a factor in (0, 1), or neighbours are tried twice")
        if self.probes < 0:
            raise ValueError(f"probes={self.probes}: must be 0 or more")

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return the last chosen ratio and a neighbour in the first round."""
        kept = state.steps_kept
        if state.round or kept > self.probes:
            return []
        if not state.chosen:
            return self.first
        centre, neighbour, sides_lost = self._around(state.chosen)
        if not kept:
            return [centre, neighbour] if sides_lost < 2 else [centre]
        if len(state.chosen) == 1 and all(abs(centre - ratio) > SAME_RATIO for ratio in self.first):
            return [centre]
        return [neighbour]

    def max_candidates(self) -> int:
        """Return the ratios of the first step and two of every later one."""
        return min(self.steps, 1) * len(self.first) + 2 * max(0, self.steps - 1)

    def _around(self, chosen: Sequence[float]) -> tuple[float, float, int]:
        """Return the last chosen ratio, its next neighbour, and on how many sides neighbours have lost."""
        centre, width, side, sides_lost = sum(self.first) / len(self.first), self.width, -1.0, 0
        for step, (ratio, before) in enumerate(zip(chosen, (0.0, *chosen), strict=False)):
            if math.isnan(ratio):
                width *= self.shrink
                side = -side if step else side
            elif step == 0 or abs(ratio - centre) > SAME_RATIO:
                # no neighbour was tried in the first step
                side = math.copysign(1, ratio - centre) if step else side
                centre, sides_lost = ratio, 0
            elif not math.isnan(before):
                # at an end of [0, 1] there is but one side
                side, sides_lost = -side, sides_lost + (1 if 0 < centre < 1 else 2)
        neighbour = _rounded(min(max(centre + side * width, 0.0), 1.0))
        if neighbour == centre:
            neighbour = _rounded(centre - side * width)
        return centre, neighbour, sides_lost


def _rounded(ratio: float) -> float:
    """Return a ratio without the error of single precision, which would set it beside the ends of [0, 1]."""
    return round(ratio, 6)


def _checked(name: str, ratios: Sequence[float]) -> tuple[float, ...]:
    """Return mixing ratios as floats; raise a ValueError if there is none, or one outside [0, 1]."""
    numbers = tuple(float(ratio) for ratio in ratios)
    if not numbers or not all(0 <= ratio <= 1 for ratio in numbers):
        raise ValueError(f"{name}={list(numbers)}: give at least one mixing ratio, each in [0, 1]")
    return numbers
