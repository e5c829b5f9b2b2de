"""Limits to any search: ended once it gains too little, or once an item has cost enough calls."""

from __future__ import annotations

import torch
from torch import Tensor

from encore.inference.search import Search, Trace


class _Limited:
    """A search within another one, which proposes less or ends earlier.

    Args:
        search: What proposes the shares, and may finish an item earlier.

    Raises:
        ValueError: If it takes whatever it tries, so that nothing can end it.
    """

    def __init__(self, search: Search) -> None:
        if not search.selects:
            raise ValueError(f"search={type(search).__name__} takes whatever it tries: no limit can end it")
        self.search = search

    @property
    def steps(self) -> int | None:
        """Those of the search within."""
        return self.search.steps

    @property
    def selects(self) -> bool:
        """As the search within: always, or it could not be wrapped."""
        return self.search.selects

    @property
    def wants_slopes(self) -> bool:
        """As the search within."""
        return self.search.wants_slopes

    def propose(self, trace: Trace) -> Tensor:
        """What the search within proposes."""
        return self.search.propose(trace)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """What the search within calls finished."""
        return self.search.finished(trace, kept)


class Stopping(_Limited):
    """Ends an item once a search gains too little, on the guess that it will go on so.

    Args:
        search: What proposes the shares, and may finish an item earlier.
        minimum_gain: Smallest gain of a step that counts, in the unit of the measure, above 0.
        patience: Steps in a row with a smaller gain that end an item, at least 1.
    """

    def __init__(self, search: Search, minimum_gain: float, patience: int = 1) -> None:
        super().__init__(search)
        if not minimum_gain > 0:
            raise ValueError(f"minimum_gain={minimum_gain}: must be above 0, in the unit of the measure")
        if patience < 1:
            raise ValueError(f"patience={patience}: at least 1 step is needed")
        self.minimum_gain = minimum_gain
        self.patience = patience

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Those of the search within, and on a guess the items whose gains were too small."""
        finished = super().finished(trace, kept)
        if trace.step < self.patience:
            return finished
        tried = torch.cat((trace.previous[:, None], trace.scores.nan_to_num(nan=-torch.inf)), dim=1)
        scores = torch.cat((trace.history, tried.amax(1)[None]))
        small = scores.diff(dim=0)[-self.patience :] < self.minimum_gain
        return finished | small.all(0)


class Capped(_Limited):
    """Spends no more than so many separator calls on any item; counted, not estimated.

    Where a round would go beyond, its first shares are tried, as many as are left; a share of 1 is free.

    Args:
        search: What proposes the shares, and may finish an item earlier.
        calls: Most calls of an item, the first one included, at least 1.
    """

    def __init__(self, search: Search, calls: int) -> None:
        super().__init__(search)
        if calls < 1:
            raise ValueError(f"calls={calls}: the one-step estimate alone takes 1")
        self.calls = calls

    def propose(self, trace: Trace) -> Tensor:
        """What the search within proposes, cut off where the calls end."""
        shares = super().propose(trace).to(trace.calls.device)
        left = (self.calls - trace.calls) // trace.share_calls
        asked = (shares < 1) & ~shares.isnan()
        return shares.where(~asked | (asked.cumsum(1) <= left[:, None]), torch.nan)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Those of the search within, and the items that have no call left."""
        return super().finished(trace, kept) | (self.calls - trace.calls < trace.share_calls)
