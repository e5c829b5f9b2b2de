"""Searches: which mixing ratios are tried in a refinement step.

A search is a frozen set of settings without state: everything it may look at is in the `SearchState`, row by
row and item by item, so no item's result depends on its batch-mates. A step runs in rounds: `Search.propose`
is called again, with the scores of what was tried, until it proposes nothing more. An item for which it
proposes nothing in a step keeps its estimate and costs nothing, so a search ends early by proposing nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchState:
    """What is known when a round of a step begins; ``b`` items.

    Args:
        step: Number of the step, from 1.
        ratios: ``(b, n)`` mixing ratios tried in earlier rounds of this step; NaN where none was.
        scores: ``(b, n)`` their scores, higher is better; NaN where not eligible.
        slopes: ``(b, n)`` derivatives of the scores by the ratio; NaN unless the search needs them.
        chosen: ``(step - 1, b)`` ratios chosen in earlier steps; NaN where the estimate was kept.
        history: ``(step, b)`` scores of the estimates so far, the one-step estimate's first.
        evaluations: ``(b,)`` separator calls of each item so far.
        cost: Separator calls of one candidate with a ratio below 1.
    """

    step: int
    ratios: Tensor
    scores: Tensor
    slopes: Tensor
    chosen: Tensor
    history: Tensor
    evaluations: Tensor
    cost: int

    @classmethod
    def start(cls, score: Tensor, evaluations: Tensor, cost: int) -> SearchState:
        """Return the state before the first step, with the one-step estimates' scores ``(b,)``."""
        none = score.new_empty(len(score), 0)
        return cls(
            step=0,
            ratios=none,
            scores=none,
            slopes=none,
            chosen=score.new_empty(0, len(score)),
            history=score[None].clone(),
            evaluations=evaluations,
            cost=cost,
        )

    @property
    def previous(self) -> Tensor:
        """``(b,)`` scores of the current estimates."""
        return self.history[-1]

    @property
    def steps_kept(self) -> Tensor:
        """``(b,)`` number of steps in a row, up to the last one, that kept the estimate."""
        return self.chosen.isnan().flip(0).long().cumprod(0).sum(0)

    def last_chosen(self, first: float) -> Tensor:
        """``(b,)`` the last ratio below 1 that was chosen; ``first`` where none was."""
        last = self.history.new_full((self.history.shape[1],), first)
        for chosen in self.chosen:
            last = chosen.where(chosen < 1, last)
        return last

    def next_step(self) -> SearchState:
        """Return the state at the beginning of the next step."""
        none = self.ratios[:, :0]
        return replace(self, step=self.step + 1, ratios=none, scores=none, slopes=none)

    def after_round(self, ratios: Tensor, scores: Tensor, slopes: Tensor, evaluations: Tensor) -> SearchState:
        """Return the state after candidates ``(b, k)`` were scored."""
        return replace(
            self,
            ratios=torch.cat((self.ratios, ratios), dim=1),
            scores=torch.cat((self.scores, scores), dim=1),
            slopes=torch.cat((self.slopes, slopes), dim=1),
            evaluations=evaluations,
        )

    def after_step(self, chosen: Tensor, score: Tensor) -> SearchState:
        """Return the state after ratios ``(b,)`` were chosen, NaN for none, with the scores now."""
        return replace(
            self,
            chosen=torch.cat((self.chosen, chosen[None])),
            history=torch.cat((self.history, score[None])),
        )


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """Propose mixing ratios for a step from the scores so far.

    Args:
        steps: Most steps of a refinement, 0 or more.
        keep_best: Whether the previous estimate competes with the candidates; without, the best candidate of
            a step is always taken.
    """

    steps: int = 20
    keep_best: bool = True

    needs_gradient = False

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"steps={self.steps}: give a whole number from 0 up")

    @abstractmethod
    def propose(self, state: SearchState) -> Tensor:
        """Return mixing ratios ``(b, k)`` in [0, 1] to try next, NaN for none; all NaN ends the step.

        A ratio of 1 gives the one-step estimate and costs nothing.
        """

    @abstractmethod
    def max_candidates(self) -> int:
        """Return the most candidates with a ratio below 1 that an item can cost in all steps."""


def proposals(search: Search, state: SearchState, eligible: Tensor) -> Tensor | None:
    """Return the ratios ``(b, k)`` of the next round, NaN for none; None if the step is over.

    Items that are not ``eligible`` ``(b,)``, and those that had no proposal in the first round of the step,
    take no part.

    Raises:
        ValueError: If the search proposes numbers that are not mixing ratios.
    """
    ratios = search.propose(state).to(state.ratios)
    if len(ratios) != len(state.ratios) or ((ratios < 0) | (ratios > 1)).any():
        raise ValueError(
            f"search={type(search).__name__} proposed {ratios.tolist()} for {len(state.ratios)} items: it"
            " must give each one a row of mixing ratios in [0, 1]"
        )
    if state.ratios.shape[1]:
        eligible = eligible & ~state.ratios.isnan().all(1)
    ratios = ratios.where(eligible[:, None], torch.nan)
    return None if ratios.isnan().all() else ratios


def no_ratios(state: SearchState) -> Tensor:
    """Return a proposal of nothing."""
    return state.ratios.new_empty(len(state.ratios), 0)


@dataclass(frozen=True)
class GridSearch(Search):
    """Try the published fixed grid: the ratios 1, 1 - 1/K, .. 1/K in every step.

    Because the set never changes, an item whose estimate was kept is finished: every later step would repeat
    this one.

    Args:
        candidates: Number K of ratios, at least 1, the bare estimate not counted.
        include_estimate: Try the bare estimate (ratio 0) too.

    >>> GridSearch(4, include_estimate=True).ratios()
    [1.0, 0.75, 0.5, 0.25, 0.0]

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025.
    """

    candidates: int = 10
    include_estimate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one("candidates", self.candidates)

    def ratios(self) -> list[float]:
        """Return the grid, from the mixture towards the estimate."""
        count = self.candidates
        return [(count - j) / count for j in range(count + int(self.include_estimate))]

    def propose(self, state: SearchState) -> Tensor:
        """Return the whole grid in the first round."""
        if state.ratios.shape[1]:
            return no_ratios(state)
        grid = state.ratios.new_tensor(self.ratios()).expand(len(state.ratios), -1)
        return unless_kept(grid, state) if self.keep_best else grid

    def max_candidates(self) -> int:
        """Return the grid's size without ratio 1, times the steps."""
        return self.steps * (self.candidates - 1 + int(self.include_estimate))


@dataclass(frozen=True)
class AnnealedGridSearch(Search):
    """Try the published annealed grid: at step i = 0 .. T-1 the ratios ``(1 - i/T)(1 - j/K)``, j = 0 .. K-1.

    Args:
        candidates: Number K of ratios in each step, at least 1.

    >>> AnnealedGridSearch(2, steps=4).ratios(2)
    [0.75, 0.375]

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025.
    """

    candidates: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one("candidates", self.candidates)

    def ratios(self, step: int) -> list[float]:
        """Return the grid of one step; the mixture itself is in the first one only."""
        largest = 1 - (step - 1) / self.steps
        return [largest * (1 - j / self.candidates) for j in range(self.candidates)]

    def propose(self, state: SearchState) -> Tensor:
        """Return the step's grid in the first round."""
        if state.ratios.shape[1]:
            return no_ratios(state)
        return state.ratios.new_tensor(self.ratios(state.step)).expand(len(state.ratios), -1)

    def max_candidates(self) -> int:
        """Return the candidates of all steps, less ratio 1 of the first."""
        return max(0, self.steps * self.candidates - 1)


def linear_schedule(steps: int, last: float | None = None) -> Tensor:
    """Return the mixing ratios of the published linear schedule, for `encore.inference.refine_fixed`.

    The estimate's part rises as ``n / steps`` for n = 1 .. steps - 1, or to ``last`` in ``steps`` steps.

    >>> linear_schedule(5), linear_schedule(2, last=0.5)
    (tensor([0.8000, 0.6000, 0.4000, 0.2000]), tensor([0.7500, 0.5000]))

    Source: Magalini, Manattini and Marri, "Progressive inference for music demixing", 2025.
    """
    at_least_one("steps", steps)
    if last is None:
        return 1 - torch.arange(1, steps) / steps if steps > 1 else torch.ones(1)
    if not 0 <= last <= 1:
        raise ValueError(f"last={last}: give the estimate's part in the last step, in [0, 1]")
    return 1 - last * torch.arange(1, steps + 1) / steps


def linear_state_schedule(steps: int) -> Tensor:
    """Return the ratios of the state form that give the inputs of `linear_schedule` for a linear separator.

    The mixture's part is to go from ``1 - (n - 1) / N`` to ``1 - n / N``: by the ratio of the two.

    >>> linear_state_schedule(4)
    tensor([0.7500, 0.6667, 0.5000])
    """
    at_least_one("steps", steps)
    return torch.tensor([1 - 1 / (steps - n + 1) for n in range(1, steps)] or [1.0])


def unless_kept(ratios: Tensor, state: SearchState) -> Tensor:
    """Return ratios ``(b, k)`` with NaN for items whose estimate the last step kept."""
    if state.step == 1:
        return ratios
    return ratios.where(~state.chosen[-1].isnan()[:, None], torch.nan)


def at_least_one(name: str, value: int) -> None:
    """Raise a ValueError for a number below 1."""
    if value < 1:
        raise ValueError(f"{name}={value}: at least 1 is needed")
