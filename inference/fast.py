"""The refinement loop of `encore.inference.refinement`, with the same results in less time.

The candidates of a round go through the separator in one batch, or in parts of the size and on the number of
threads that `encore.batched` says; a ratio of 1 costs no call; items that try nothing leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encore.common.items import at_items
from encore.inference.execution import batched, forward_mode
from encore.inference.local_search import GreedySearch
from encore.inference.paths import Path, endpoint, moves_anchor
from encore.inference.quality import (
    cost_of,
    relative_to,
    resolve_quality,
    resolve_search,
)
from encore.inference.refinement import Refined, Step, check_estimates, check_mixture
from encore.inference.search import Progress, Search
from encore.inference.wrappers import separate_each
from encore.metrics.quality import Metric, Quality, for_items, scores_of
from encore.models.types import Separator


@torch.no_grad()
def refine(
    separate: Separator,
    mixture: Tensor,
    quality: Quality | Metric | str | None = None,
    search: Search | str = GreedySearch(),  # noqa: B008, frozen
    *,
    path: Path = endpoint,
    callback: Callable[[Step], None] | None = None,
) -> Refined:
    """Separate mixes of mixture and estimate in each step, and keep the best candidate.

    ``y_0 = f(x_0)``; in step t every proposed ratio r gives the input ``x = r x_0 + (1 - r) y_{t-1}`` and the
    candidate ``f(x)``. The best candidate becomes ``y_t`` if it scores strictly higher than ``y_{t-1}``. Of
    equal candidates the one with the larger ratio is taken; a candidate whose score is NaN is not eligible;
    an item whose one-step score is NaN is returned as it is. A separator of several sources refines them
    together: each is mixed back by itself, with one ratio, at one call per source and candidate.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, item by item; see `encore.inference.wrappers` for
            what changes it, and `encore.batched` for batch sizes and threads.
        mixture: ``(b, c, t)``, floating point; never rescaled, clipped or rounded.
        quality: Maps estimates ``(b, s, c, t)`` of the whole batch to scores ``(b,)``, higher is better; a
            blind metric or its name; `encore.oracle(metric, references)` for an oracle, which like everything
            with ``at(items)`` is called with the items at hand only. None for DNSMOS OVRL.
        search: Proposes the ratios; or its name, see `encore.inference.quality.SEARCHES`.
        path: How mixture, estimate and ratio become the separator's input.
        callback: Called after every step; `encore.Trajectory()` keeps the estimates of all.

    Raises:
        ValueError: If an argument does not fit the others, or the separator's output not the mixture.

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025; docs/methods.md.

    >>> references = torch.tensor([[[[1.0, 0.0, 2.0, 1.0]]]])
    >>> shrink = lambda mixture: 0.5 * mixture[:, None]
    >>> closeness = lambda estimates: -(estimates - 0.25 * references).abs().sum((1, 2, 3))
    >>> result = refine(shrink, references[:, 0], closeness, "grid")
    >>> [round(float(score), 1) for score in result.scores[[0, -1], 0]], result.evaluations
    ([-1.0, -0.0], tensor([28]))
    """
    check_mixture(mixture)
    search = resolve_search(search)
    execution = separate if isinstance(separate, batched) else batched(separate)
    one_step = estimates = check_estimates(execution(mixture), mixture)
    steering = relative_to(resolve_quality(quality, search, execution.separate, mixture), one_step)
    cost = cost_of(steering, search, one_step.shape[1])
    run = _Run(execution, for_items(steering, one_step), path, mixture, one_step)
    score = run.one_score
    progress = Progress(search, score, evaluations=cost.start, cost=cost.candidate)
    for number in range(1, search.steps + 1):
        progress.begin_step()
        best = _Best(estimates, score, keep=search.keep_best)
        while (ratios := progress.propose()) is not None:
            progress.end_round(ratios, *run.round(ratios, estimates, score, best, search.needs_gradient))
        run.move_anchor(estimates, best.ratio)
        estimates, score = best.estimates, best.score
        progress.end_step(best.ratio, score)
        if callback is not None:
            callback(Step(number, estimates, score, best.ratio, progress.evaluations))
    return Refined(estimates, one_step, progress.scores, progress.ratios, progress.evaluations)


class _Run:
    """The separator, the quality and the anchors of one refinement."""

    def __init__(
        self, execution: batched, quality: Quality, path: Path, mixture: Tensor, one_step: Tensor
    ) -> None:
        self.execution, self.quality, self.path, self.one_step = execution, quality, path, one_step
        # what each source's estimate is mixed with: the mixture, or the last input
        self.anchor = mixture[:, None].expand_as(one_step)
        self.moves = moves_anchor(path)

        def score(part: Tensor) -> Tensor:
            return scores_of(at_items(quality, part), one_step[part])

        parts = execution.in_parts(score, len(mixture), mixture[0], calls=0)
        self.one_score = torch.cat([found for _, found in parts])

    def round(
        self, ratios: Tensor, estimates: Tensor, score: Tensor, best: _Best, gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Separate and score the candidates of ratios ``(b, k)``; return scores and slopes ``(b, k)``."""
        scores, slopes = torch.full_like(ratios, torch.nan), torch.full_like(ratios, torch.nan)
        items, columns = (ratios == 1).nonzero(as_tuple=True)
        # scored again in another batch, they might round to more than they were and win over themselves
        known, known_score = (estimates, score) if self.moves else (self.one_step, self.one_score)
        scores[items, columns] = known_score[items]
        best.update(items, ratios[items, columns], known_score[items], known[items])
        items, columns = (ratios < 1).nonzero(as_tuple=True)

        def work(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rows = items[part]
            return self._candidates(rows, ratios[rows, columns[part]], estimates, gradient)

        if len(items):
            parts = self.execution.in_parts(work, len(items), estimates[0, 0], calls=estimates.shape[1])
            for part, (candidates, value, slope) in parts:
                at = (items[part], columns[part])
                scores[at], slopes[at] = value, slope
                best.update(items[part], ratios[at], value, candidates)
        return scores, slopes

    def move_anchor(self, estimates: Tensor, chosen: Tensor) -> None:
        """Let the inputs of the chosen ratios ``(b,)`` become the anchors, if the path mixes with them."""
        if self.moves:
            taken = (~chosen.isnan()).nonzero().squeeze(1)
            self.anchor = self.anchor.clone()
            self.anchor[taken] = self.path(self.anchor[taken], estimates[taken], chosen[taken])

    def _candidates(
        self, items: Tensor, ratio: Tensor, estimates: Tensor, gradient: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return candidates ``(n, s, c, t)`` at ratios below 1, their scores and slopes ``(n,)``."""
        separate, quality = at_items(self.execution.separate, items), at_items(self.quality, items)

        def curve(ratio: Tensor) -> tuple[Tensor, Tensor]:
            inputs = self.path(self.anchor[items], estimates[items], ratio)
            candidates = separate_each(separate, inputs, ratio)
            return scores_of(quality, candidates), candidates

        if not gradient:
            score, candidates = curve(ratio)
            return candidates, score, torch.full_like(score, torch.nan)
        with forward_mode():
            found: Any = torch.func.jvp(curve, (ratio,), (torch.ones_like(ratio),), has_aux=True)
        score, slope, candidates = found
        return candidates, score, slope


class _Best:
    """The best candidate of every item in a step.

    Args:
        estimates: ``(b, s, c, t)``, the estimates so far.
        score: ``(b,)``.
        keep: Whether they compete.
    """

    def __init__(self, estimates: Tensor, score: Tensor, *, keep: bool) -> None:
        self.estimates, self._before = estimates, score
        self._scores = score.tolist() if keep else [-torch.inf] * len(score)
        self._ratios = [torch.nan] * len(score)
        self._own = False

    def update(self, items: Tensor, ratio: Tensor, score: Tensor, candidates: Tensor) -> None:
        """Take candidates ``(n, s, c, t)`` that are better: a higher score, or an equal one nearer to 1."""
        rows = zip(items.tolist(), ratio.tolist(), score.tolist(), strict=True)
        for index, (item, r, value) in enumerate(rows):
            before = self._scores[item]
            if value > before or (value == before and r > self._ratios[item]):
                if not self._own:  # the estimates before may be in a trajectory
                    self.estimates, self._own = self.estimates.clone(), True
                self.estimates[item] = candidates[index]
                self._scores[item], self._ratios[item] = value, r

    @property
    def ratio(self) -> Tensor:
        """``(b,)`` ratios of the best candidates; NaN where none was taken."""
        return self._before.new_tensor(self._ratios)

    @property
    def score(self) -> Tensor:
        """``(b,)`` scores of the estimates now."""
        return self._before.new_tensor(self._scores).where(~self.ratio.isnan(), self._before)
