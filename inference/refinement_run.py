"""The tensors of one refinement and the books on them: what was tried, what it scored, what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock, local
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from encore.data.mixing import blend as blend_of
from encore.inference.consistency import Consistency, sum_to_mixture
from encore.inference.execution import FORWARD_MODE, Execution, Plan
from encore.inference.permutation import matching_order, reference_order, reorder
from encore.inference.search import Search
from encore.metrics.quality import Quality
from encore.models.levels import at_level, standardised
from encore.models.types import Groups

Source = int | Literal["all"]
"""Which source is refined: an index, or all of them together."""

PostFilter = Callable[[Tensor, Tensor], Tensor]
"""Estimates and what each was separated from, both ``(n, s, c, t)``, to better estimates."""


class RefinementRun:
    """The tensors of one refinement: estimates ``(b, s, c, t)`` of the refined sources, and the books."""

    def __init__(
        self,
        execution: Execution,
        mixture: Tensor,
        *,
        source: Source,
        search: Search,
        quality: Quality | None,
        reference: Tensor | None,
        form: Literal["endpoint", "state"],
        interchangeable: bool | Groups,
        consistency: Consistency | None,
        post_filter: PostFilter | None,
        noise: float,
        standardise: bool,
        tell_share: bool,
        generator: Generator | None,
    ) -> None:
        self.execution = execution
        self.tell_share = tell_share
        self.selects, self.wants_slopes, self.form = search.selects, search.wants_slopes, form
        self.consistency, self.post_filter = consistency, post_filter
        self.mixture = mixture
        _, self.mean, self.deviation = standardised(mixture)
        self.standardise = standardise
        self.evaluations = torch.zeros(len(mixture), dtype=torch.long, device=mixture.device)
        plan = execution.plan(len(mixture), mixture[0])
        estimates = torch.cat(
            list(execution.run(lambda part: self._separate(execution.call, mixture[part], part, plan), plan))
        )
        self.evaluations += 1
        self.joint = source == "all"
        count = estimates.shape[1]
        self.sources = list(range(count)) if source == "all" else [source]
        if not all(-count <= index < count for index in self.sources):
            raise ValueError(f"source={source}: the separator has {count} sources, counted from 0")
        self._qualities = [] if quality is None else [self._bound(quality, index) for index in self.sources]
        self._own_calls = len(self.sources) * (2 if self.wants_slopes else 1)
        asked = 0 if quality is None else quality.separator_calls
        self.share_calls = self._own_calls + len(self.sources) * asked
        self._counting = Lock()
        self._scored = local()
        first = estimates[:, self.sources]
        if reference is not None and not self.joint:
            reference = reference[:, None]
        if reference is not None and reference.shape != first.shape:
            raise ValueError(
                f"reference has shape {tuple(reference.shape)} where the estimates have "
                f"{tuple(first.shape)} (batch, source, channel, time): cut or stack it to fit"
            )
        self.interchangeable = interchangeable
        if self.interchangeable and reference is not None:
            first = reorder(first, reference_order(first, reference, self.interchangeable))
        self.reference = reference
        self.one_step = self._mended(first, mixture[:, None].expand_as(first), mixture)
        self.estimate = self.one_step.clone()
        self.noise = Noise(noise, mixture, len(self.sources), generator) if noise else None
        # what each source's estimate is blended with: the mixture, or in state form the last blend
        self.state = mixture[:, None].expand_as(self.one_step)
        if form == "state":
            self.state = self.state.clone()
        self.one_step_score = self._score(self.one_step, torch.arange(len(mixture), device=mixture.device))
        self.score = self.one_step_score.clone()

    def shaped(self, estimates: Tensor) -> Tensor:
        """``(b, s, c, t)``, without the source axis where one source is refined."""
        return estimates if self.joint else estimates[:, 0]

    def begin_step(self, items: Tensor) -> None:
        """Forget the candidates of the last step, and draw the noise of this one."""
        if self.noise is not None:
            self.noise.draw()
        self.best_score = torch.full((len(items),), torch.nan, device=items.device)
        self.best_ratio = torch.full_like(self.best_score, torch.nan)
        self.best = self.estimate[items].clone()

    def try_ratios(self, items: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor]:
        """Separate and score the blends of ``items`` ``(n,)`` at ``ratios`` ``(n, k)``: scores and slopes."""
        scores, slopes = torch.full_like(ratios, torch.nan), torch.full_like(ratios, torch.nan)
        rows, columns = (~ratios.isnan()).nonzero(as_tuple=True)
        # a share of 1 costs no call, so the parts are cut without it
        known = ratios[rows, columns] == 1
        free, asked = known.nonzero().squeeze(1), (~known).nonzero().squeeze(1)
        if len(free):
            row, column = rows[free], columns[free]
            estimates, score = self._at_the_start(items[row])
            scores[row, column] = score
            self._remember(row, ratios[row, column], score, estimates)
        if len(asked):
            rows, columns = rows[asked], columns[asked]
            plan = self.execution.plan(len(asked), self.mixture[0])

            def work(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                return self._separate_blends(items[rows[part]], ratios[rows[part], columns[part]], plan)

            results = self.execution.run(work, plan)
            for part, (estimates, score, slope) in zip(plan.parts, results, strict=True):
                row, place = rows[part], (rows[part], columns[part])
                scores[place], slopes[place] = score, slope
                self._remember(row, ratios[place], score, estimates)
            with self._counting:
                self.evaluations.index_add_(0, items[rows], torch.full_like(rows, self._own_calls))
        return scores, slopes

    def take_best(self, items: Tensor, keep_previous: bool) -> tuple[Tensor, Tensor]:
        """Let the best candidates replace the estimates; returns where not, and the ratios, each ``(n,)``."""
        eligible = ~self.best_ratio.isnan()
        taken = eligible & (self.best_score > self.score[items]) if keep_previous else eligible
        moved = items[taken]
        if self.form == "state":
            share = self.best_ratio[taken]
            self.state[moved] = blend_of(self.state[moved], self.estimate[moved], share)
        self.estimate[moved] = self.best[taken]
        self.score[moved] = self.best_score[taken]
        return ~taken, torch.where(taken, self.best_ratio, torch.nan)

    def _at_the_start(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates ``(n, s, c, t)`` and scores ``(n,)`` at share 1: ``y_0``, in state form ``y_{t-1}``."""
        # scored again in another batch, one might round to more than it was and win over itself
        if self.form == "endpoint":
            return self.one_step[items], self.one_step_score[items]
        return self.estimate[items], self.score[items]

    def _separate_blends(self, items: Tensor, ratio: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates ``(n, s, c, t)`` at shares below 1, their scores and slopes ``(n,)``."""
        call = self.execution.unfused_call if self.wants_slopes else self.execution.call

        def curve(ratio: Tensor) -> tuple[Tensor, Tensor]:
            estimates, inputs = [], []
            for index, source in enumerate(self.sources):
                blends = blend_of(self.state[items, index], self.estimate[items, index], ratio)
                if self.noise is not None:
                    blends = blends + self.noise(index, items, ratio)
                told = (ratio, self.mixture[items]) if self.tell_share else ()
                found = self._separate(call, blends, items, plan, told)
                if self.interchangeable:
                    found = reorder(found, matching_order(found, self.estimate[items], self.interchangeable))
                estimates.append(found[:, source])
                inputs.append(blends)
            stacked = torch.stack(estimates, dim=1)
            stacked = self._mended(stacked, torch.stack(inputs, dim=1), self.mixture[items])
            return self._score(stacked, items), stacked

        if not self.wants_slopes:
            score, estimates = curve(ratio)
            return estimates, score, torch.full_like(score, torch.nan)
        with FORWARD_MODE:
            found: Any = torch.func.jvp(curve, (ratio,), (torch.ones_like(ratio),), has_aux=True)
        score, slope, estimates = found
        return estimates, score, slope

    def _separate(
        self,
        call: Callable[..., Tensor],
        inputs: Tensor,
        items: Tensor,
        plan: Plan,
        told: Sequence[Tensor] = (),
    ) -> Tensor:
        """Estimates ``(n, s, c, t)`` of all sources in ``inputs`` ``(n, c, t)`` that belong to ``items``."""
        if not self.standardise:
            return call(inputs, plan, told)
        return at_level(lambda scaled: call(scaled, plan), inputs, self.mean[items], self.deviation[items])

    def _bound(self, quality: Quality, source: int) -> Quality:
        """The measure, with the separator at hand if it asks one about the estimates of a source."""

        def ask(inputs: Tensor, mixture: Tensor) -> Tensor:
            self._count(mixture)
            separate = self.execution.separate
            if not self.standardise:
                return separate(inputs)[:, source]
            _, mean, deviation = standardised(mixture)
            return at_level(separate, inputs, mean, deviation)[:, source]

        return quality.bound_to(ask)

    def _count(self, mixture: Tensor) -> None:
        """Count a call on an input each of the items that are being scored, or, of some of them, on those."""
        items = self._scored.items
        if len(items) != len(mixture):
            same = (mixture[:, None] == self.mixture[items][None]).flatten(2).all(-1)
            items = items[same.int().argmax(1)]
        with self._counting:
            self.evaluations.index_add_(0, items, torch.ones_like(items))

    def _mended(self, estimates: Tensor, inputs: Tensor, mixture: Tensor) -> Tensor:
        """Estimates ``(n, s, c, t)`` after the filter, if any, and the sum to the mixture, if asked for."""
        if self.post_filter is not None:
            estimates = self.post_filter(estimates, inputs)
        if self.consistency is None:
            return estimates
        return sum_to_mixture(estimates, mixture, self.consistency)

    def _remember(self, row: Tensor, ratio: Tensor, score: Tensor, estimates: Tensor) -> None:
        """Keep the best candidate of each row: higher score first, then larger mixture share."""
        value = score.nan_to_num(nan=-torch.inf)
        if self.selects:
            able = ~score.isnan()
            row, ratio, score, value, estimates = (x[able] for x in (row, ratio, score, value, estimates))
        if not len(row):
            return
        # sorted by row, then score, then share, the last one of each row is its best
        order = torch.arange(len(row), device=row.device)
        for key in (ratio, value, row):
            order = order[key[order].argsort(stable=True)]
        last = torch.cat((row[order].diff() != 0, row.new_ones(1, dtype=torch.bool)))
        best = order[last]
        at, ratio, score, value = row[best], ratio[best], score[best], value[best]
        held, share = self.best_score[at], self.best_ratio[at]
        better = share.isnan() | (value > held) | ((value == held) & (ratio > share))
        at, best = at[better], best[better]
        self.best_score[at], self.best_ratio[at] = score[better], ratio[better]
        self.best[at] = estimates[best]

    def _score(self, estimates: Tensor, items: Tensor) -> Tensor:
        """Mean score over sources ``(n,)`` of estimates ``(n, s, c, t)`` that belong to ``items``."""
        if not self._qualities:
            return torch.full((len(items),), torch.nan, device=estimates.device)
        self._scored.items = items
        scores = [
            quality(
                estimates[:, index],
                reference=None if self.reference is None else self.reference[items, index],
                mixture=self.mixture[items],
                one_step=self.one_step[items, index],
            )
            for index, quality in enumerate(self._qualities)
        ]
        return torch.stack(scores).mean(0).to(estimates.device, torch.float32)


class Noise:
    """White noise for the blends of one refinement, new in every step and the same for all its candidates.

    Its deviation is that of a Brownian bridge between estimate and mixture, ``g sqrt(r (1 - r))`` at mixture
    share r: none at either end. All items have the same noise, scaled to their own levels, so that none
    depends on the others.

    Args:
        scale: g, in units of an item's level (RMS over channels and time).
        mixture: ``(b, c, t)``.
        sources: How many are refined; each has noise of its own.
        generator: Of the draws.
    """

    def __init__(self, scale: float, mixture: Tensor, sources: int, generator: Generator | None) -> None:
        if generator is None:
            raise ValueError(f"generator=None: noise={scale} is drawn from it, give a torch.Generator")
        self._scale = scale * mixture.square().mean(dim=(1, 2), keepdim=True).sqrt()
        self._shape = (sources, *mixture.shape[1:])
        self._generator, self._drawn = generator, mixture.new_zeros(())

    def draw(self) -> None:
        """Draw it anew, in the generator's own memory."""
        drawn = torch.randn(self._shape, generator=self._generator, device=self._generator.device)
        self._drawn = drawn.to(self._scale)

    def __call__(self, index: int, items: Tensor, ratio: Tensor) -> Tensor:
        """The noise ``(n, c, t)`` of a source for ``items`` at mixture shares ``ratio``, both ``(n,)``."""
        deviation = (ratio * (1 - ratio)).sqrt()[:, None, None] * self._scale[items]
        return deviation * self._drawn[index]
