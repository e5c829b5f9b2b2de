"""Fit a schedule of mixing ratios on items with known scores: what a search must beat at equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from encore.common.items import at_items
from encore.inference.execution import WorkerPool
from encore.inference.paths import endpoint
from encore.inference.quality import relative_to
from encore.inference.wrappers import separate_each
from encore.metrics.quality import Quality, scores_of
from encore.models.types import Separator

TENTHS = tuple(tenth / 10 for tenth in range(10))
"""Mixing ratios 0, 0.1 .. 0.9."""


def fit_schedule(
    separate: Separator,
    items: Sequence[tuple[Tensor, Quality]],
    *,
    steps: int,
    ratios: Sequence[float] = TENTHS,
    keep_best: bool = True,
    workers: int = 1,
) -> list[float]:
    """Find, step by step, the one mixing ratio that is best for all items together.

    Greedy: of the ratios tried the one with the highest mean score is taken, every item moves on with it, and
    the next step begins there. An item whose one-step estimate cannot be scored is left out.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``.
        items: Mixtures ``(1, c, t)`` and the quality of their estimates.
        steps: Number of ratios to find.
        ratios: Candidates.
        keep_best: Fit for `FixedListSearch`, where an item keeps its estimate if a new one scores no higher;
            else for `refine_fixed`, where it never does.
        workers: Items that are worked on at the same time.

    Returns:
        Mixing ratios, one a step.

    Raises:
        ValueError: If nothing can be scored, or an argument is out of range.
    """
    if steps < 1 or not ratios or not all(0 <= ratio <= 1 for ratio in ratios):
        raise ValueError(f"steps={steps} and ratios={list(ratios)}: give 1 or more, and ratios in [0, 1]")
    fitted: list[float] = []
    tried = torch.tensor(ratios)
    with WorkerPool(workers) as pool:
        runs = list(pool.map(lambda item: _Run(separate, *item), items))
        for _ in range(steps):
            scores = torch.stack(list(pool.map(lambda run: run.scores(tried, keep_best), runs)))
            if scores.isnan().all():
                raise ValueError(f"items: the quality can score none of the {len(items)}")
            best = scores.nanmean(0).argmax()
            fitted.append(float(ratios[int(best)]))
            move = partial(_Run.move, ratio=tried[best], keep_best=keep_best)
            list(pool.map(move, runs))
    return fitted


class _Run:
    """One item on its way along the schedule."""

    def __init__(self, separate: Separator, mixture: Tensor, quality: Quality) -> None:
        self.separate = separate
        self.estimate = separate(mixture)
        self.mixture = mixture[:, None].expand_as(self.estimate)
        self.quality = relative_to(quality, self.estimate)
        self.score = scores_of(self.quality, self.estimate)

    def scores(self, ratios: Tensor, keep_best: bool) -> Tensor:
        """Return the scores ``(k,)`` that ratios ``(k,)`` lead to."""
        scores = torch.cat([self._candidate(ratio)[1] for ratio in ratios]).cpu()
        if keep_best:
            scores = scores.nan_to_num(nan=-torch.inf).maximum(self.score.cpu())
        return scores.where(~self.score.isnan().cpu(), torch.nan)

    def move(self, ratio: Tensor, keep_best: bool) -> None:
        """Take the candidate of a ratio, or keep the estimate if it is no better."""
        candidate, score = self._candidate(ratio)
        if not keep_best or bool(score > self.score):
            self.estimate, self.score = candidate, score

    def _candidate(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        r = ratio.to(self.mixture).expand(1)
        first = torch.zeros(1, dtype=torch.long, device=self.mixture.device)
        candidate = separate_each(at_items(self.separate, first), endpoint(self.mixture, self.estimate, r), r)
        return candidate, scores_of(self.quality, candidate)
