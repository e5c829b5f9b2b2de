"""A schedule of ratios fitted on items with known scores: what a search must beat at equal calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from encore.inference.execution import BatchSize, Lanes
from encore.inference.refinement import refine
from encore.inference.search import Trace
from encore.metrics.quality import Quality
from encore.models.types import Separator

TENTHS = tuple(tenth / 10 for tenth in range(10))
"""Mixture shares 0, 0.1 .. 0.9."""


def fit_schedule(
    separate: Separator,
    items: Sequence[tuple[Tensor, Tensor | None]],
    quality: Quality,
    *,
    steps: int,
    shares: Sequence[float] = TENTHS,
    source: int = 0,
    keep_previous: bool = True,
    lanes: int = 1,
) -> list[float]:
    """Find, step by step, the one mixture share that is best for all items together.

    Greedy: of the shares tried the one with the highest mean score is taken, every item moves on with
    it, and the next step begins there. An item whose one-step estimate cannot be scored is left out.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``.
        items: Mixtures ``(1, c, t)`` and their references, or None for a blind measure.
        quality: The measure.
        steps: Number of shares to find.
        shares: What is tried.
        source: Index of the source that is refined.
        keep_previous: Fit for `ScheduledSearch`, where an item keeps its estimate if a new one scores
            no higher; else for `FixedSchedule`, where it never does.
        lanes: Items that are worked on at the same time.

    Returns:
        Mixture shares, one a step.

    Raises:
        ValueError: If nothing can be scored, or an argument is out of range.
    """
    if steps < 1 or not shares or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"steps={steps} and shares={list(shares)}: give 1 or more, and shares in [0, 1]")
    fitted: list[float] = []
    sizes = BatchSize()

    def reached(item: tuple[Tensor, Tensor | None]) -> Tensor:
        probe = _Probe(fitted, shares, keep_previous)
        refine(
            separate,
            item[0],
            source=source,
            steps=len(fitted) + 1,
            search=probe,
            quality=quality,
            reference=item[1],
            keep_previous=keep_previous,
            max_batch=sizes,
        )
        return probe.reached

    with Lanes(lanes) as threads:
        for _ in range(steps):
            scores = torch.stack(list(threads.map(reached, items)))
            if scores.isnan().all():
                raise ValueError(f"items: none of the {len(items)} can be scored by '{quality.name}'")
            fitted.append(float(shares[int(scores.nanmean(0).argmax())]))
    return fitted


class _Probe:
    """Goes along a schedule and tries all shares in the step after its end; for one item."""

    steps, selects, wants_slopes = None, True, False

    def __init__(self, schedule: Sequence[float], shares: Sequence[float], keep_previous: bool) -> None:
        self.schedule, self.shares, self.keep_previous = schedule, shares, keep_previous
        self.reached = torch.full((len(shares),), torch.nan)

    def propose(self, trace: Trace) -> Tensor:
        """The step's share, or all of them; nothing in a second round, whose scores are noted."""
        last = trace.step > len(self.schedule)
        if trace.ratios.shape[1] == 0:
            return torch.tensor([self.shares if last else [self.schedule[trace.step - 1]]])
        if last:
            self.reached = trace.scores[0].cpu()
            if self.keep_previous:
                self.reached = self.reached.nan_to_num(nan=-torch.inf).maximum(trace.previous[0].cpu())
        return torch.empty(1, 0)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        """Not before the end."""
        return torch.zeros_like(kept)
