"""The most that a search can cost, found by leading it on with scores that mean nothing."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Generator, Tensor

from encore.inference import Search, Trace, refine
from encore.metrics import Quality

_ITEMS = 128


def most_shares(search: Search, steps: int) -> int:
    """Calls for one source beyond the first if no step ends early: in each step the most that scores led to.

    Args:
        search: Of any kind.
        steps: Steps, for searches that do not bring their own.
    """
    endless = _Endless(search)
    guided = search.selects and steps > 0
    # a schedule is the same whatever the scores
    items = torch.arange(_ITEMS if guided else 1, dtype=torch.float32)[:, None, None]
    refine(
        lambda x: x[:, None],
        torch.zeros(len(items), 1, 2),
        steps=steps,
        search=endless,
        quality=_MadeUp() if guided else None,
        reference=items.expand(-1, 1, 2),
        generator=Generator().manual_seed(0),
    )
    return endless.most.total()


class _Endless:
    """A search that never finishes an item, and knows the most that each step has asked for."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.steps, self.selects, self.wants_slopes = search.steps, search.selects, search.wants_slopes
        self.most: Counter[int] = Counter()

    def propose(self, trace: Trace) -> Tensor:
        """What the search within proposes."""
        shares = self.search.propose(trace)
        asked = torch.cat((trace.ratios, shares), dim=1) < 1
        self.most[trace.step] = max(self.most[trace.step], trace.share_calls * int(asked.sum(1).max()))
        return shares

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Nothing."""
        return torch.zeros_like(kept)


class _MadeUp(Quality):
    """Scores without a meaning, better or worse than the best one so far, for a search to meet all cases."""

    name, needs_reference, sample_rate, differentiable = "made_up", True, 1, True

    def __init__(self) -> None:
        self.best, self.generator = torch.zeros(_ITEMS), Generator().manual_seed(0)

    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """``(n,)``; the references are the numbers of the items."""
        assert reference is not None
        item = reference[:, 0, 0].long()
        scores = self.best[item] + torch.rand(len(item), generator=self.generator) - 0.5
        self.best = self.best.scatter_reduce(0, item, scores, "amax")
        return scores + 0 * estimate.sum((1, 2))
