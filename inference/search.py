"""Searches: which mixing ratios are tried in a refinement step.

A search is a frozen set of settings. It looks at one item at a time, by that item's `SearchState`, so that no
item's result depends on its batch-mates. A step runs in rounds: `Search.propose` is called again, with the
scores of what was tried, until it proposes nothing more. An item for which it proposes nothing in the first
round keeps its estimate and costs nothing, so a search ends early by proposing nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(kw_only=True, slots=True)
class SearchState:
    """What is known of one item when a round of a step begins.

    Args:
        history: Scores of its estimates so far, the one-step estimate's first; higher is better.
        evaluations: Separator calls so far.
        cost: Separator calls of one candidate with a ratio below 1.
        chosen: Mixing ratios chosen in earlier steps; NaN where the estimate was kept.
        round: Rounds of this step so far.
        ratios: Mixing ratios tried in them.
        scores: Their scores; minus infinity where not eligible.
        slopes: Derivatives of the scores by the ratio; NaN unless the search needs them.
        finished: Whether this step is over.
    """

    history: list[float]
    evaluations: int = 1
    cost: int = 1
    chosen: list[float] = field(default_factory=list)
    round: int = 0
    ratios: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def step(self) -> int:
        """Number of the step, from 1."""
        return len(self.chosen) + 1

    @property
    def steps_kept(self) -> int:
        """Number of steps in a row, up to the last one, that kept the estimate."""
        taken = [number for number, ratio in enumerate(self.chosen, start=1) if not math.isnan(ratio)]
        return len(self.chosen) - max(taken, default=0)

    def last_chosen(self, first: float) -> float:
        """Return the last ratio below 1 that was chosen; ``first`` where none was."""
        return next((ratio for ratio in reversed(self.chosen) if ratio < 1), first)


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
    def propose(self, state: SearchState) -> Sequence[float]:
        """Return mixing ratios in [0, 1] to try next; none ends the item's step.

        A ratio of 1 gives the one-step estimate and costs nothing.
        """

    @abstractmethod
    def max_candidates(self) -> int:
        """Return the most candidates with a ratio below 1 that an item can cost in all steps."""


class Progress:
    """The states of all items of a batch.

    Args:
        search: Proposes ratios for each of them.
        score: ``(b,)`` of the one-step estimates; an item without a score takes no part.
        evaluations: Separator calls of an item so far.
        cost: Separator calls of one candidate.
    """

    def __init__(self, search: Search, score: Tensor, *, evaluations: int, cost: int) -> None:
        self.search, self._like = search, score
        self.items = [
            SearchState(history=[value], evaluations=evaluations, cost=cost) for value in score.tolist()
        ]

    def begin_step(self) -> None:
        """Forget what the last step tried."""
        for item in self.items:
            item.round, item.ratios, item.scores, item.slopes = 0, [], [], []
            item.finished = math.isnan(item.history[0])

    def propose(self) -> Tensor | None:
        """Return the ratios ``(b, k)`` of the next round, NaN for none; None if the step is over.

        Raises:
            ValueError: If the search proposes numbers that are not mixing ratios.
        """
        rows = []
        for item in self.items:
            ratios = [] if item.finished else list(self.search.propose(item))
            if not all(0 <= ratio <= 1 for ratio in ratios):
                raise ValueError(
                    f"search={type(self.search).__name__} proposed {ratios}: give mixing ratios in [0, 1]"
                )
            item.finished = not ratios
            rows.append(torch.tensor(ratios, dtype=self._like.dtype))
        padded = pad_sequence(rows, batch_first=True, padding_value=torch.nan)
        return padded.to(self._like.device) if padded.numel() else None

    def end_round(self, ratios: Tensor, scores: Tensor, slopes: Tensor | None = None) -> None:
        """Note scores and slopes ``(b, k)`` of the ratios ``(b, k)`` that were tried."""
        slopes = torch.full_like(ratios, torch.nan) if slopes is None else slopes
        scores = scores.nan_to_num(nan=-torch.inf)
        for item, *columns in zip(self.items, ratios.tolist(), scores.tolist(), slopes.tolist(), strict=True):
            item.round += 1
            for ratio, score, slope in zip(*columns, strict=True):
                if not math.isnan(ratio):
                    item.ratios.append(ratio)
                    item.scores.append(score)
                    item.slopes.append(slope)
                    item.evaluations += item.cost if ratio < 1 else 0

    def end_step(self, chosen: Tensor, score: Tensor) -> None:
        """Note the ratios ``(b,)`` that were chosen, NaN for none, and the scores ``(b,)`` now."""
        for item, ratio, value in zip(self.items, chosen.tolist(), score.tolist(), strict=True):
            item.chosen.append(ratio)
            item.history.append(value)

    @property
    def scores(self) -> Tensor:
        """``(steps + 1, b)``."""
        return self._like.new_tensor([item.history for item in self.items]).T

    @property
    def ratios(self) -> Tensor:
        """``(steps, b)`` mixing ratios chosen; NaN where the estimate was kept."""
        return self._like.new_tensor([item.chosen for item in self.items]).T

    @property
    def evaluations(self) -> Tensor:
        """``(b,)`` separator calls."""
        return torch.tensor([item.evaluations for item in self.items], device=self._like.device)


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

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return the whole grid in the first round."""
        return [] if state.round or (self.keep_best and state.steps_kept) else self.ratios()

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

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return the step's grid in the first round."""
        return [] if state.round else self.ratios(state.step)

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


def at_least_one(name: str, value: int) -> None:
    """Raise a ValueError for a number below 1."""
    if value < 1:
        raise ValueError(f"{name}={value}: at least 1 is needed")


def check_first(first: float) -> None:
    """Raise a ValueError for a first mixing ratio outside [0, 1)."""
    if not 0 <= first < 1:
        raise ValueError(f"first={first}: give a mixing ratio in [0, 1); 1 is the one-step estimate")


def check_width(width: float) -> None:
    """Raise a ValueError for a distance of two mixing ratios outside (0, 0.5]."""
    if not 0 < width <= 0.5:
        raise ValueError(f"width={width}: give a distance of two ratios in (0, 0.5]")
