"""The published loop written plainly: the control that `encore.inference.refine` is compared with.

One separator call and one score at a time, 1 + T K of each for every item, nothing reused, nothing stopped
early. Kept simple on purpose; it is what ``refine`` must equal and beat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from encore.models.types import Separator


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainResult:
    """What the plain loop found for one item.

    Attributes:
        scores: Of the estimates ``y_0 .. y_T``.
        ratios: Mixture shares chosen, NaN where the previous estimate was kept.
        margins: By how much the best candidate of each step, the previous estimate among them, beat the next
            different one: where it is tiny, rounding may decide otherwise.
    """

    scores: list[float]
    ratios: list[float]
    margins: list[float]


def plain_refinement(
    separate: Separator,
    mixture: Tensor,
    score: Callable[[Tensor], float],
    *,
    steps: int = 20,
    candidates: int = 10,
) -> PlainResult:
    """Refine one item by the fixed grid ``1, 1 - 1/K, .. 1/K``, keeping the previous estimate where it wins.

    Args:
        separate: Maps ``(1, c, t)`` to ``(1, s, c, t)``; the first source is refined.
        mixture: ``(1, c, t)``.
        score: Of an estimate ``(1, c, t)``, higher is better.
        steps: T.
        candidates: K.

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025.
    """
    estimate = separate(mixture)[:, 0]
    scores, ratios, margins = [score(estimate)], [], []
    for _ in range(steps):
        previous, kept = estimate, (scores[-1], float("nan"), estimate)
        tried = [kept]
        for k in range(candidates):
            ratio = 1 - k / candidates
            candidate = separate(ratio * mixture + (1 - ratio) * previous)[:, 0]
            tried.append((score(candidate), ratio, candidate))
        best = max(tried, key=lambda entry: entry[0])
        others = [entry[0] for entry in tried if not torch.equal(entry[2], best[2])]
        margins.append(best[0] - max(others))
        scores.append(best[0])
        ratios.append(best[1])
        estimate = best[2]
    return PlainResult(scores=scores, ratios=ratios, margins=margins)
