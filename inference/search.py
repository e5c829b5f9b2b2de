"""Searches: which blends of mixture and estimate are tried in a refinement step.

A search is stateless: everything it may look at stands in the `Trace`, row by row and item by item,
so no item's result depends on its batch-mates. A step runs in rounds: `Search.propose` is asked again,
with the scores of what was tried, until it proposes nothing more. Grids need one round; searches that look at
the scores can take several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What is known when a round of a step begins.

    Args:
        step: Number of the step, 1 to ``steps``.
        steps: Steps in all.
        ratios: ``(b, n)`` mixture shares tried in the earlier rounds of this step; NaN where none was.
        scores: ``(b, n)`` their scores, higher is better; NaN where not eligible, or without a measure.
        slopes: ``(b, n)`` derivatives of the scores by the share; NaN unless the search wants them.
        chosen: ``(step - 1, b)`` mixture shares chosen in the earlier steps; NaN where the estimate was kept.
        history: ``(step, b)`` scores of the estimates so far, the one-step estimate's first; NaN without
            a measure.
        mixture: ``(b, s, c, t)`` what the shares are shares of: the mixture, for each refined source; in
            state form the previous blends.
        estimate: ``(b, s, c, t)`` the previous estimates, which the rest is.
        calls: ``(b,)`` separator calls that each item has cost so far, the first one and this step's earlier
            rounds included.
        share_calls: Calls that a share below 1 costs: one for each refined source, two with slopes.
        generator: For searches that draw; None if the caller gave none.
    """

    step: int
    steps: int
    ratios: Tensor
    scores: Tensor
    slopes: Tensor
    chosen: Tensor
    history: Tensor
    mixture: Tensor
    estimate: Tensor
    calls: Tensor
    share_calls: int
    generator: Generator | None

    @property
    def previous(self) -> Tensor:
        """``(b,)`` score of the previous estimate; NaN without a measure."""
        return self.history[-1]


class Search(Protocol):
    """Proposes mixture shares for a step, reads the scores, says when an item is finished."""

    @property
    def steps(self) -> int | None:
        """Number of steps, where the search fixes it; None leaves it to the caller."""
        ...

    @property
    def selects(self) -> bool:
        """Whether candidates are compared by a measure; False for schedules, whose one candidate is taken."""
        ...

    @property
    def wants_slopes(self) -> bool:
        """Whether scores come with derivatives by the share; each such candidate counts as two calls."""
        ...

    def propose(self, trace: Trace) -> Tensor:
        """Mixture shares ``(b, k)`` in [0, 1] to try next, NaN for none; ``k`` 0 or all NaN ends the step."""
        ...

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Items ``(b,)`` that no later step can change, given where the previous estimate was ``kept``."""
        ...


class _OneRound:
    """A search whose candidates do not depend on scores: all of them in one round."""

    wants_slopes = False

    def propose(self, trace: Trace) -> Tensor:
        """All shares of this step in the first round, nothing after it."""
        items, tried = trace.ratios.shape
        shares = self.shares(trace.step, trace.steps) if tried == 0 else []
        return torch.tensor(shares, dtype=torch.float32).expand(items, len(shares))

    def shares(self, step: int, steps: int) -> Sequence[float]:
        """Mixture shares of a step, 1 to ``steps``."""
        raise TypeError(f"{type(self).__name__} must define shares()")

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """No item: the next step tries other ratios."""
        return torch.zeros_like(kept)


class GridSearch(_OneRound):
    """The published fixed grid: the same shares 1, 1 - 1/K, .. 1/K in every step.

    Because the set never changes, an item whose previous estimate won is finished: with a deterministic
    separator and measure every later step would repeat this one.

    Args:
        candidates: Number K of ratios, at least 1, the bare estimate not counted.
        include_estimate: Try the bare estimate (share 0) too.

    >>> GridSearch(4, include_estimate=True).shares(1, 20)
    [1.0, 0.75, 0.5, 0.25, 0.0]

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025.
    """

    steps = None
    selects = True

    def __init__(self, candidates: int = 10, include_estimate: bool = False) -> None:
        _at_least_one("candidates", candidates)
        self.candidates = candidates
        self.include_estimate = include_estimate

    def shares(self, step: int, steps: int) -> Sequence[float]:
        """The grid, from the mixture towards the estimate."""
        count = self.candidates
        return [(count - j) / count for j in range(count + int(self.include_estimate))]

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Exactly the items whose previous estimate was kept."""
        return kept


class AnnealedGridSearch(_OneRound):
    """The published annealed grid: at step i = 0 .. T-1 the shares ``(1 - i/T)(1 - j/K)``, j = 0 .. K-1.

    Args:
        candidates: Number K of ratios in each step, at least 1.

    >>> AnnealedGridSearch(2).shares(2, 4)
    [0.75, 0.375]

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025.
    """

    steps = None
    selects = True

    def __init__(self, candidates: int = 10) -> None:
        _at_least_one("candidates", candidates)
        self.candidates = candidates

    def shares(self, step: int, steps: int) -> Sequence[float]:
        """The grid of one step; the mixture itself is among them in the first step only."""
        reach = 1 - (step - 1) / steps
        return [reach * (1 - j / self.candidates) for j in range(self.candidates)]


class FixedSchedule(_OneRound):
    """Progressive inference: one blend a step, without a measure, never keeping the previous estimate.

    Args:
        betas: Share of the *estimate* at each step, as the paper counts; the mixture's share is ``1 - beta``.

    >>> FixedSchedule([0.1, 0.2]).shares(1, 2)
    [0.9]

    Source: Magalini, Manattini and Marri, "Progressive inference for music demixing", 2025.
    """

    selects = False

    def __init__(self, betas: Sequence[float]) -> None:
        self.betas = [float(beta) for beta in betas]
        if not self.betas or not all(0 <= beta <= 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: give at least one estimate share, each in [0, 1]")

    @classmethod
    def linear(cls, steps: int, last: float | None = None) -> FixedSchedule:
        """The paper's ``beta_n = n / N`` for n = 1 .. N - 1, or up to ``last`` if given.

        >>> FixedSchedule.linear(5).betas
        [0.2, 0.4, 0.6, 0.8]
        >>> FixedSchedule.linear(2, last=0.5).betas
        [0.25, 0.5]
        """
        _at_least_one("steps", steps)
        if last is None:
            return cls([n / steps for n in range(1, steps)] or [0.0])
        return cls([last * n / steps for n in range(1, steps + 1)])

    @classmethod
    def linear_state(cls, steps: int) -> FixedSchedule:
        """The blends of `linear` in state form, whose shares are of the previous blend.

        The mixture's share is to go from ``1 - (n - 1) / N`` to ``1 - n / N``, by the ratio of the two.

        >>> [round(beta, 3) for beta in FixedSchedule.linear_state(4).betas]
        [0.25, 0.333, 0.5]
        """
        _at_least_one("steps", steps)
        return cls([1 / (steps - n + 1) for n in range(1, steps)] or [0.0])

    @property
    def steps(self) -> int:
        """One step for each beta."""
        return len(self.betas)

    def shares(self, step: int, steps: int) -> Sequence[float]:
        """The one mixture share of this step."""
        return [1 - self.betas[step - 1]]


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value}: at least 1 is needed")
