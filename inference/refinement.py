"""Training-free multi-step separation: mix the mixture and the last estimate, separate again, keep the best.

`refine` below is the algorithm as it is published and nothing else. `encore.refine` is the same function in
`encore.inference.fast`, tested to give equal results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encore.inference.local_search import GreedySearch
from encore.inference.paths import Path, endpoint, moves_anchor
from encore.inference.quality import cost_of, relative_to
from encore.inference.search import Progress, Search
from encore.inference.wrappers import separate_each
from encore.metrics.quality import Quality, scores_of
from encore.models.types import Separator


@torch.no_grad()
def refine(
    separate: Separator,
    mixture: Tensor,
    quality: Quality,
    search: Search = GreedySearch(),  # noqa: B008, frozen
    *,
    path: Path = endpoint,
    callback: Callable[[Step], None] | None = None,
) -> Refined:
    """Refine estimates as the paper does; see `encore.inference.fast.refine`, which has the same arguments.

    A quality is needed here, and searches that need slopes are not supported.

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025, algorithm 1.
    """
    one_step = estimates = separate(mixture)  # (b, s, c, t)
    quality = relative_to(quality, one_step)
    one_score = score = scores_of(quality, one_step)  # (b,)
    anchor = mixture[:, None].expand_as(one_step)
    cost = cost_of(quality, search, one_step.shape[1])
    progress = Progress(search, score, evaluations=cost.start, cost=cost.candidate)
    for number in range(1, search.steps + 1):
        progress.begin_step()
        best, best_ratio = estimates, torch.full_like(score, torch.nan)
        best_score = score if search.keep_best else torch.full_like(score, -torch.inf)
        # ratio 1 gives the estimates that the anchor gave before
        known, known_score = (estimates, score) if moves_anchor(path) else (one_step, one_score)
        while (ratios := progress.propose()) is not None:  # (b, k), NaN for none
            scores = []
            for ratio in ratios.unbind(1):
                r = ratio.nan_to_num(1.0)
                candidates = separate_each(separate, path(anchor, estimates, r), r)
                candidates = torch.where(_wide(r == 1), known, candidates)
                value = torch.where(r == 1, known_score, scores_of(quality, candidates))
                scores.append(value.where(~ratio.isnan(), torch.nan))
                # of equal candidates the one nearer to the mixture
                better = (scores[-1] > best_score) | ((scores[-1] == best_score) & (ratio > best_ratio))
                best = torch.where(_wide(better), candidates, best)
                best_score, best_ratio = value.where(better, best_score), ratio.where(better, best_ratio)
            progress.end_round(ratios, torch.stack(scores, 1))
        taken = ~best_ratio.isnan()
        if moves_anchor(path):
            anchor = torch.where(_wide(taken), path(anchor, estimates, best_ratio), anchor)
        estimates, score = best, best_score.where(taken, score)
        progress.end_step(best_ratio, score)
        if callback is not None:
            callback(Step(number, estimates, score, best_ratio, progress.evaluations))
    return Refined(estimates, one_step, progress.scores, progress.ratios, progress.evaluations)


@torch.no_grad()
def refine_fixed(
    separate: Separator,
    mixture: Tensor,
    ratios: Tensor | Sequence[float],
    *,
    path: Path = endpoint,
    callback: Callable[[Step], None] | None = None,
) -> Refined:
    """Refine estimates by a fixed schedule of mixing ratios, without a quality, always taking the candidate.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, item by item.
        mixture: ``(b, c, t)``.
        ratios: ``(steps,)`` mixing ratios in [0, 1], such as of `encore.linear_schedule`.
        path: How mixture and estimate are mixed.
        callback: Called after every step.

    Returns:
        The scores are NaN.

    Raises:
        ValueError: If shapes do not fit, or a ratio is outside [0, 1].

    Source: Magalini, Manattini and Marri, "Progressive inference for music demixing", 2025.
    """
    check_mixture(mixture)
    schedule = check_schedule(ratios).to(mixture.device)
    # a copy: a separator may return the memory of its input
    one_step = estimates = check_estimates(separate(mixture), mixture).clone()
    anchor = mixture[:, None].expand_as(one_step)
    unknown = torch.full((len(mixture),), torch.nan, device=mixture.device)
    calls = (1 + one_step.shape[1] * (schedule < 1).cumsum(0))[:, None].expand(-1, len(mixture))
    for number, ratio in enumerate(schedule, start=1):
        ratio = ratio.expand(len(mixture))
        inputs = path(anchor, estimates, ratio)
        if ratio[0] < 1:
            estimates = separate_each(separate, inputs, ratio)
        elif not moves_anchor(path):
            estimates = one_step
        anchor = inputs if moves_anchor(path) else anchor
        if callback is not None:
            callback(Step(number, estimates, unknown, ratio, calls[number - 1]))
    return Refined(
        estimates,
        one_step,
        unknown.expand(len(schedule) + 1, -1),
        schedule[:, None].expand(-1, len(mixture)),
        calls[-1],
    )


@dataclass(frozen=True, slots=True)
class Refined:
    """The result of a refinement of ``b`` items with ``s`` sources, and its cost.

    Args:
        estimates: ``(b, s, c, t)``, the last estimates.
        one_step: ``(b, s, c, t)``, the separator's first estimates ``y_0``.
        scores: ``(steps + 1, b)`` of the quality, higher is better; never falls where the previous estimate
            competes; NaN without a quality.
        ratios: ``(steps, b)`` mixing ratios chosen; NaN where the previous estimate was kept.
        evaluations: ``(b,)`` separator calls made for each item: their sum is what the separator was given.
    """

    estimates: Tensor
    one_step: Tensor
    scores: Tensor
    ratios: Tensor
    evaluations: Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step, given to the callback.

    Args:
        number: From 1.
        estimates: ``(b, s, c, t)``.
        scores: ``(b,)``.
        ratios: ``(b,)`` chosen; NaN where the previous estimate was kept.
        evaluations: ``(b,)`` separator calls made for each item so far.
    """

    number: int
    estimates: Tensor
    scores: Tensor
    ratios: Tensor
    evaluations: Tensor


class Trajectory:
    """Keep the estimates of all steps: a callback.

    Attributes:
        numbers: Of the steps.
        estimates: ``(b, s, c, t)`` of each of them.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.estimates: list[Tensor] = []

    def __call__(self, step: Step) -> None:
        """Keep the estimates of a step."""
        self.numbers.append(step.number)
        self.estimates.append(step.estimates)


def _wide(items: Tensor) -> Tensor:
    """Return ``(b,)`` as ``(b, 1, 1, 1)``."""
    return items[:, None, None, None]


def check_mixture(mixture: Tensor) -> None:
    """Raise a ValueError for a mixture that is not a non-empty float tensor ``(b, c, t)``."""
    if mixture.ndim != 3 or mixture.numel() == 0:
        raise ValueError(
            f"mixture has shape {tuple(mixture.shape)}: give a non-empty one of (batch, channel, time)"
        )
    if not mixture.is_floating_point():
        raise ValueError(f"mixture has dtype {mixture.dtype}: give floating point samples of full scale 1")


def check_estimates(estimates: Tensor, mixture: Tensor) -> Tensor:
    """Return a separator's output; raise a ValueError if its shape does not fit the mixture."""
    expected = (len(mixture), *mixture.shape[1:])
    if estimates.ndim != 4 or (estimates.shape[0], *estimates.shape[2:]) != expected:
        raise ValueError(
            f"separate returned shape {tuple(estimates.shape)} for mixtures {tuple(mixture.shape)}: it must"
            " map (batch, channel, time) to (batch, source, channel, time) of the same length;"
            " encore.as_separator adapts other layouts"
        )
    return estimates


def check_schedule(ratios: Tensor | Sequence[float]) -> Tensor:
    """Return mixing ratios ``(steps,)``; raise a ValueError if they are no schedule."""
    schedule = torch.as_tensor(ratios, dtype=torch.float32)
    if schedule.ndim != 1 or not len(schedule) or not ((schedule >= 0) & (schedule <= 1)).all():
        raise ValueError(f"ratios={schedule.tolist()}: give at least one mixing ratio, each in [0, 1]")
    return schedule
