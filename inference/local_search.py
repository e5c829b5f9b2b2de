"""Local searches: about one separator call a step, near the ratio that earlier steps chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encore.inference.line_search import SAME_RATIO
from encore.inference.search import Search, SearchState, at_least_one, no_ratios


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
        if not 0 <= self.first < 1:
            raise ValueError(f"first={self.first}: give a mixing ratio in [0, 1); 1 is the one-step estimate")
        if not 0 < self.width <= 0.5:
            raise ValueError(f"width={self.width}: give a distance of two ratios in (0, 0.5]")
        at_least_one("patience", self.patience)

    def propose(self, state: SearchState) -> Tensor:
        """Return one ratio in the first round."""
        if state.ratios.shape[1]:
            return no_ratios(state)
        centre = state.history.new_full((len(state.ratios),), self.first)
        for chosen in state.chosen:
            centre = chosen.where(~chosen.isnan(), centre)
        failures = state.steps_kept.clamp_max(self.patience)
        return self._around(centre).gather(1, failures[:, None]).to(state.ratios)

    def max_candidates(self) -> int:
        """Return one a step."""
        return self.steps

    def _around(self, centre: Tensor) -> Tensor:
        """Return the ratios after 0, 1, .. failures, ``(b, patience + 1)``; NaN where nothing is left."""
        offsets = [0.0]
        for halving in range(self.patience):
            offsets += [-self.width * 0.5**halving, self.width * 0.5**halving]
        ratios = centre[:, None] + centre.new_tensor(offsets)
        inside = (ratios >= 0) & (ratios < 1)
        # those inside first, in order
        order = (~inside).long().argsort(dim=1, stable=True)
        ratios = ratios.where(inside, torch.nan).gather(1, order)[:, : self.patience]
        return torch.nn.functional.pad(ratios, (0, 1), value=torch.nan)


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
        ratios = tuple(float(ratio) for ratio in self.ratios)
        if not ratios or not all(0 <= ratio <= 1 for ratio in ratios):
            raise ValueError(f"ratios={list(ratios)}: give at least one mixing ratio, each in [0, 1]")
        object.__setattr__(self, "ratios", ratios)
        object.__setattr__(self, "steps", min(self.steps, len(ratios)))

    def propose(self, state: SearchState) -> Tensor:
        """Return the ratio of this step, unless it lost against this estimate before."""
        if state.ratios.shape[1]:
            return no_ratios(state)
        step = state.step - 1
        ratio = self.ratios[step]
        # by the number of steps in a row that kept the estimate
        new = [ratio not in self.ratios[step - kept : step] for kept in range(state.step)]
        ratios = state.ratios.new_full((len(state.ratios), 1), ratio)
        return ratios.where(torch.tensor(new, device=ratios.device)[state.steps_kept][:, None], torch.nan)

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
    taken). After them the item is finished: exactly, because this search would try nothing more, whatever
    other ratios might gain. Every step is one round.

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
        object.__setattr__(self, "first", tuple(float(ratio) for ratio in self.first))
        if not self.first or not all(0 <= ratio <= 1 for ratio in self.first):
            raise ValueError(f"first={list(self.first)}: give at least one mixing ratio, each in [0, 1]")
        if not 0 < self.width <= 0.5:
            raise ValueError(f"width={self.width}: give a distance of two ratios in (0, 0.5]")
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink={self.shrink}: give a factor in (0, 1), or neighbours are tried twice")
        if self.probes < 0:
            raise ValueError(f"probes={self.probes}: must be 0 or more")

    def propose(self, state: SearchState) -> Tensor:
        """Return the last chosen ratio and a neighbour in the first round, NaN for what is left out."""
        if state.ratios.shape[1]:
            return no_ratios(state)
        if state.step == 1:
            return state.ratios.new_tensor(self.first).expand(len(state.ratios), len(self.first))
        mean = self._mean
        local = _Neighbourhood.start(state.history.new_zeros(len(state.ratios)), mean, self.width)
        for number, chosen in enumerate(state.chosen):
            local = local.after(chosen, self.shrink, first=number == 0)
        mean_untried = all(abs(mean - ratio) > SAME_RATIO for ratio in self.first)
        mean_next = (local.kept == 1) & ~local.moved & mean_untried
        again = (local.kept == 0) | mean_next
        aside = ~mean_next & ((local.kept > 0) | (local.lost < 2))
        ratios = torch.stack((local.centre, local.neighbour()), dim=1)
        going_on = (local.kept <= self.probes)[:, None]
        return ratios.where(torch.stack((again, aside), dim=1) & going_on, torch.nan)

    def max_candidates(self) -> int:
        """Return the ratios of the first step and two of every later one."""
        return min(self.steps, 1) * len(self.first) + 2 * max(0, self.steps - 1)

    @property
    def _mean(self) -> float:
        return sum(self.first) / len(self.first)


@dataclass(frozen=True, slots=True)
class _Neighbourhood:
    """Where a local search is, each ``(b,)``.

    ``centre`` is the last chosen ratio, ``side`` that of its next neighbour (-1 the estimate's, 1 the
    mixture's), ``lost`` on how many sides neighbours have lost against it, ``kept`` how many steps in a row
    kept the estimate, ``moved`` whether any step did not.
    """

    centre: Tensor
    width: Tensor
    side: Tensor
    lost: Tensor
    kept: Tensor
    moved: Tensor

    @classmethod
    def start(cls, zeros: Tensor, centre: float, width: float) -> _Neighbourhood:
        """Return it before the first step."""
        return cls(zeros + centre, zeros + width, zeros - 1, zeros, zeros, zeros > 0)

    def neighbour(self) -> Tensor:
        """Return the ratio at the width from the centre, on the other side at an end of [0, 1]."""
        ratio = (self.centre + self.side * self.width).clamp(0, 1)
        return ratio.where(ratio != self.centre, self.centre - self.side * self.width)

    def after(self, chosen: Tensor, shrink: float, first: bool) -> _Neighbourhood:
        """Return it after a step that took ``chosen``, NaN where it kept the estimate."""
        kept, away = chosen.isnan(), chosen != self.centre
        moved_on = ~kept & (away | first)
        held = ~kept & ~moved_on & (self.kept == 0)
        # at an end of [0, 1] there is but one side
        sides = torch.where((self.centre > 0) & (self.centre < 1), 1, 2)
        turned = torch.where(kept | held, -self.side, self.side)
        return _Neighbourhood(
            centre=self.centre.where(kept, chosen),
            width=torch.where(kept, self.width * shrink, self.width),
            # no neighbour was tried in the first step
            side=self.side if first else torch.where(moved_on, (chosen - self.centre).sign(), turned),
            lost=torch.where(moved_on, 0, self.lost + held * sides),
            kept=torch.where(kept, self.kept + 1, 0),
            moved=self.moved | ~kept,
        )
