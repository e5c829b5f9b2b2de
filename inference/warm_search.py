"""Searches that live on what earlier steps found: about one separator call a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encore.inference.line_search import SAME_SHARE
from encore.inference.search import Trace


class ScheduledSearch:
    """One candidate a step, its share from a list, taken only where it scores higher than the estimate.

    A share that was tried since the estimate last changed cannot win now: it is not tried again, and an item
    for which no other share is left is finished, both exactly.

    Args:
        ratios: Mixture share of each step, fitted beforehand; at least one, each in [0, 1].
    """

    selects = True
    wants_slopes = False

    def __init__(self, ratios: Sequence[float]) -> None:
        self.ratios = [float(ratio) for ratio in ratios]
        if not self.ratios or not all(0 <= ratio <= 1 for ratio in self.ratios):
            raise ValueError(f"ratios={self.ratios}: give at least one mixture share, each in [0, 1]")

    @property
    def steps(self) -> int:
        """One step for each ratio."""
        return len(self.ratios)

    def propose(self, trace: Trace) -> Tensor:
        """The share of this step, unless it lost against this estimate before."""
        items, tried = trace.ratios.shape
        if tried:
            return trace.ratios.new_empty(items, 0)
        share = self.ratios[trace.step - 1]
        new = [share not in self._tried(trace.step - 1, keeps) for keeps in range(trace.step)]
        shares = trace.ratios.new_full((items, 1), share)
        return shares.where(_look_up(new, _keeps(trace.chosen))[:, None], torch.nan)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Exactly the items that no share still to come was not tried on."""
        left = set(self.ratios[trace.step :])
        nothing = [left <= self._tried(trace.step, keeps) for keeps in range(trace.step + 1)]
        keeps = torch.where(kept, _keeps(trace.chosen) + 1, 0)
        return _look_up(nothing, keeps)

    def _tried(self, step: int, keeps: int) -> set[float]:
        """Shares of the last ``keeps`` steps up to ``step``."""
        return set(self.ratios[step - keeps : step])


class WarmSearch:
    """The share that won the last step and, for as long as it pays, one neighbour.

    Step 1 tries ``first``. A later step tries the last chosen share and a neighbour at ``width`` from it: on
    the side where the last neighbour won, on the other one where it lost; once it has lost on both, the
    chosen share goes alone. Where the estimate was kept, only what is still untried can win: up to ``probes``
    steps in a row try one more neighbour, on alternating sides (the mean of ``first``, if nothing of it was
    taken). After them the item is finished: exactly, because this search would try nothing more, whatever
    other shares might gain. Every step is one round.

    Args:
        first: Shares of the first step, at least one, each in [0, 1].
        width: Distance of a neighbour, in (0, 0.5].
        shrink: Factor of the width, in (0, 1), for each step that kept the estimate.
        probes: Steps in a row that go on with an estimate that was kept, 0 or more.
    """

    steps = None
    selects = True
    wants_slopes = False

    def __init__(
        self,
        first: Sequence[float] = (0.0, 0.4),
        width: float = 0.15,
        shrink: float = 0.5,
        probes: int = 1,
    ) -> None:
        self.first = [float(share) for share in first]
        if not self.first or not all(0 <= share <= 1 for share in self.first):
            raise ValueError(f"first={self.first}: give at least one mixture share, each in [0, 1]")
        if not 0 < width <= 0.5:
            raise ValueError(f"width={width}: give a distance of two shares in (0, 0.5]")
        if not 0 < shrink < 1:
            raise ValueError(f"shrink={shrink}: give a factor in (0, 1), or neighbours are tried twice")
        if probes < 0:
            raise ValueError(f"probes={probes}: must be 0 or more")
        self.mean = sum(self.first) / len(self.first)
        self.width = width
        self.shrink = shrink
        self.probes = probes

    def propose(self, trace: Trace) -> Tensor:
        """One round: the last chosen share and a neighbour, NaN for what is left out."""
        items, tried = trace.ratios.shape
        if tried:
            return trace.ratios.new_empty(items, 0)
        if trace.step == 1:
            return trace.ratios.new_tensor(self.first).expand(items, len(self.first))
        way = self._way(trace)
        going_on = way.keeps <= self.probes
        mean_untried = all(abs(self.mean - share) > SAME_SHARE for share in self.first)
        mean_next = (way.keeps == 1) & ~way.moved & mean_untried
        again = (way.keeps == 0) | mean_next
        aside = ~mean_next & ((way.keeps > 0) | (way.lost < 2))
        shares = torch.stack((way.centre, way.neighbour()), dim=1)
        return shares.where(torch.stack((again, aside), dim=1) & going_on[:, None], torch.nan)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Exactly the items whose estimate was kept more than ``probes`` times in a row."""
        return kept & (_keeps(trace.chosen) >= self.probes)

    def _way(self, trace: Trace) -> _Way:
        """What the steps before this one have led to."""
        like = trace.ratios.new_zeros(len(trace.ratios))
        way = _Way(
            centre=like + self.mean,
            width=like + self.width,
            side=like - 1,
            lost=like,
            keeps=like,
            moved=like > 0,
        )
        for number, chosen in enumerate(trace.chosen):
            way = way.after(chosen, self.shrink, first=number == 0)
        return way


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a warm search stands, each ``(b,)``.

    ``centre`` is the last chosen share, ``side`` that of its next neighbour (-1 the estimate's, 1 the
    mixture's), ``lost`` on how many sides neighbours have lost against it, ``keeps`` how many steps in a row
    kept the estimate, ``moved`` whether any step did not.
    """

    centre: Tensor
    width: Tensor
    side: Tensor
    lost: Tensor
    keeps: Tensor
    moved: Tensor

    def neighbour(self) -> Tensor:
        """At the width from the centre, on the other side where this one has ended."""
        share = (self.centre + self.side * self.width).clamp(0, 1)
        return share.where(share != self.centre, self.centre - self.side * self.width)

    def after(self, chosen: Tensor, shrink: float, first: bool) -> _Way:
        """The same once a step took ``chosen``, NaN where it kept the estimate."""
        kept, away = chosen.isnan(), chosen != self.centre
        moved_on = ~kept & (away | first)
        held = ~kept & ~moved_on & (self.keeps == 0)
        # at an end of [0, 1] there is but one side
        sides = torch.where((self.centre > 0) & (self.centre < 1), 1, 2)
        turned = torch.where(kept | held, -self.side, self.side)
        return _Way(
            centre=self.centre.where(kept, chosen),
            width=torch.where(kept, self.width * shrink, self.width),
            # no neighbour was tried in the first step
            side=self.side if first else torch.where(moved_on, (chosen - self.centre).sign(), turned),
            lost=torch.where(moved_on, 0, self.lost + held * sides),
            keeps=torch.where(kept, self.keeps + 1, 0),
            moved=self.moved | ~kept,
        )


def _keeps(chosen: Tensor) -> Tensor:
    """How many of the last steps ``(b,)`` in a row kept the estimate, of shares chosen ``(steps, b)``."""
    return chosen.isnan().flip(0).long().cumprod(0).sum(0)


def _look_up(values: Sequence[bool], indices: Tensor) -> Tensor:
    return torch.tensor(values, device=indices.device)[indices]
