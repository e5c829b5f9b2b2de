"""Limits to any search: stop once it gains too little, or once an item has cost enough calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from encore.inference.search import Search, SearchState, at_least_one


@dataclass(frozen=True)
class _Limited(Search):
    """A search around another one, with its steps."""

    search: Search
    steps: int = field(default=0, init=False)
    keep_best: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        for name in ("steps", "keep_best"):
            object.__setattr__(self, name, getattr(self.search, name))

    @property
    def needs_gradient(self) -> bool:  # type: ignore[override]
        """Whether the inner search needs slopes."""
        return self.search.needs_gradient

    def max_candidates(self) -> int:
        """Return the most candidates of the inner search."""
        return self.search.max_candidates()


@dataclass(frozen=True)
class EarlyStopping(_Limited):
    """End an item once a search gains too little, on the guess that it will go on so.

    Args:
        search: Proposes the ratios, and may end an item earlier.
        minimum_gain: Smallest gain of a step that counts, in the unit of the quality, above 0.
        patience: Steps in a row with a smaller gain that end an item, at least 1.
    """

    minimum_gain: float
    patience: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.minimum_gain > 0:
            raise ValueError(f"minimum_gain={self.minimum_gain}: must be above 0, in the unit of the quality")
        at_least_one("patience", self.patience)

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return the inner search's proposal, none for an item that gained too little."""
        gains = [after - before for before, after in pairwise(state.history)]
        small = [gain < self.minimum_gain for gain in gains[-self.patience :]]
        return [] if len(small) == self.patience and all(small) else self.search.propose(state)


@dataclass(frozen=True)
class MaxEvaluations(_Limited):
    """Spend no more than a number of separator calls on any item; counted, not estimated.

    Where a round would go beyond, its first ratios are tried, as many as are left; a ratio of 1 is free.

    Args:
        search: Proposes the ratios, and may end an item earlier.
        evaluations: Most calls of an item, the first one included, at least 1.
    """

    evaluations: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluations < 1:
            raise ValueError(f"evaluations={self.evaluations}: the one-step estimate alone takes 1")

    def propose(self, state: SearchState) -> Sequence[float]:
        """Return the inner search's proposal, cut off where the calls end."""
        left = (self.evaluations - state.evaluations) // state.cost
        if left < 1:  # a step that can afford no call could only choose ratio 1, which was tried before
            return []
        ratios = self.search.propose(state)
        calls = accumulate(ratio < 1 for ratio in ratios)
        return [ratio for ratio, call in zip(ratios, calls, strict=True) if ratio == 1 or call <= left]
