"""Training-free multi-step separation: blend mixture and last estimate, separate again, keep the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from data.mixing import blend as blend_of
from inference.consistency import Consistency, sum_to_mixture
from inference.execution import FORWARD_MODE, BatchSize, Execution, Plan
from inference.permutation import matching_order, reference_order, reorder
from inference.search import Search, Trace
from metrics.quality import Quality
from models.types import Separator

Source = int | Literal["all"]
"""Which source is refined: an index, or all of them together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refinement:
    """What :func:`refine` found and what it cost.

    Args:
        estimate: ``(b, c, t)``, the last estimate; with ``source="all"`` ``(b, s, c, t)``, here and below.
        one_step: ``(b, c, t)``, the separator's first estimate ``y_0``.
        trajectory: ``(steps + 1, b, c, t)`` estimates from ``y_0`` on, or None if not asked for.
        scores: ``(steps + 1, b)`` of the guiding measure, higher is better; never falls where the previous
            estimate is kept; NaN without a measure.
        ratios: ``(steps, b)`` mixture shares chosen, in state form shares of the previous state; NaN where
            the previous estimate was kept.
        evaluations: ``(b,)`` separator calls really made for each item: their sum is what the separator saw.
    """

    estimate: Tensor
    one_step: Tensor
    trajectory: Tensor | None
    scores: Tensor
    ratios: Tensor
    evaluations: Tensor


def refine(
    separate: Separator,
    mixture: Tensor,
    *,
    source: Source = 0,
    steps: int = 20,
    search: Search,
    quality: Quality | None = None,
    reference: Tensor | None = None,
    keep_previous: bool = True,
    blend: Literal["endpoint", "state"] = "endpoint",
    interchangeable: bool = False,
    consistency: Consistency | None = None,
    max_batch: int | BatchSize | None = None,
    lanes: int = 1,
    keep_trajectory: bool = False,
    generator: Generator | None = None,
) -> Refinement:
    """Separate, then separate blends of mixture and estimate, in each step keeping what scores best.

    ``y_0 = f(x_0)``; in step t every proposed share r gives the blend ``x = r x_0 + (1 - r) y_{t-1}`` and the
    candidate ``f(x)``. The best candidate becomes ``y_t`` if it scores strictly higher than ``y_{t-1}``
    (always, if ``keep_previous`` is off). Ties among candidates go to the larger mixture share; a candidate
    whose score is NaN is not eligible; an item whose one-step score is NaN is returned as it is.

    Two facts save calls without changing the result: share 1 gives an estimate whose score is known too
    (``y_0``; in state form ``y_{t-1}``), and an item that its search calls finished leaves the batch.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, item by item.
        mixture: ``(b, c, t)``; never rescaled, clipped or rounded.
        source: Index of the source that is refined; ``"all"`` refines each along its own blends, with one
            ratio and the mean score over sources, at one call per source and candidate.
        steps: Number T of steps; a schedule brings its own and ignores this one.
        search: Proposes the shares.
        quality: The guiding measure; needed by every search that selects.
        reference: ``(b, c, t)``, or ``(b, s, c, t)`` for ``"all"``; needed by oracle measures.
        keep_previous: Let the previous estimate compete; schedules never do.
        blend: ``"endpoint"`` blends with the mixture, ``"state"`` with the previous blend
            (``x_t = r x_{t-1} + (1 - r) y_{t-1}``, which stays if the previous estimate is kept).
        interchangeable: The separator gives its sources in any order, as it does speakers: those of every
            blend are put into the order of the estimates before, and these from the first on into that of
            the reference where there is one. With ``source="all"`` only.
        consistency: Every estimate, the first one too, is moved to where the sources sum to the mixture, see
            :func:`inference.consistency.sum_to_mixture`; None leaves them. With ``source="all"`` only.
        max_batch: Largest number of blends in one separator call; None for all of a round at once; a
            :class:`BatchSize` finds the fastest by timing, and with it whether lanes pay.
        lanes: Parts of a round that are separated and scored at the same time, each in a thread of its own
            that uses one processor core; with 2 or more, ``separate`` and ``quality`` must bear that.
        keep_trajectory: Return the estimates of all steps.
        generator: For searches that draw at random.

    Raises:
        ValueError: If an argument does not fit the others, the separator's output does not fit the mixture,
            or the search proposes what are no shares.

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025; state form and
    accounting: docs/methods.md.
    """
    steps = search.steps if search.steps is not None else steps
    _check_arguments(mixture, steps, search, quality, reference, blend, max_batch)
    if source != "all" and (interchangeable or consistency is not None):
        raise ValueError(
            f"source={source}: interchangeable={interchangeable} and consistency={consistency} are for"
            ' source="all"'
        )
    if interchangeable and search.wants_slopes:
        raise ValueError(f"interchangeable=True: {type(search).__name__} has no slopes; use another search")
    execution = Execution(separate, max_batch=max_batch, lanes=lanes)
    with torch.no_grad(), execution:
        run = _Run(
            execution, mixture, source, search, quality, reference, blend, interchangeable, consistency
        )
        selects = search.selects
        trajectory = [run.estimate.clone()] if keep_trajectory else None
        scores, ratios = [run.score.clone()], torch.empty(0, len(mixture), device=mixture.device)
        active = ~run.score.isnan() if selects else torch.ones_like(run.score, dtype=torch.bool)
        for step in range(1, steps + 1):
            chosen = torch.full_like(run.score, torch.nan)
            items = active.nonzero().squeeze(1)
            if len(items):
                history = torch.stack(scores)[:, items]
                trace = _rounds(run, search, items, step, steps, ratios[:, items], history, generator)
                kept, chosen[items] = run.take_best(items, keep_previous and selects)
                if keep_previous and selects:
                    active[items] = ~search.finished(trace, kept)
            ratios = torch.cat((ratios, chosen[None]))
            scores.append(run.score.clone())
            if trajectory is not None:
                trajectory.append(run.estimate.clone())
    return Refinement(
        estimate=run.shaped(run.estimate),
        one_step=run.shaped(run.one_step),
        trajectory=None if trajectory is None else torch.stack([run.shaped(y) for y in trajectory]),
        scores=torch.stack(scores),
        ratios=ratios,
        evaluations=run.evaluations,
    )


def _rounds(
    run: _Run,
    search: Search,
    items: Tensor,
    step: int,
    steps: int,
    chosen: Tensor,
    history: Tensor,
    generator: Generator | None,
) -> Trace:
    """Try what the search proposes for these items, until it proposes nothing more."""
    ratios = torch.empty(len(items), 0, device=items.device)
    scores = slopes = torch.empty_like(ratios)
    run.begin_step(items)
    everything = len(items) == len(run.score)
    mixture, estimate = (x if everything else x[items] for x in (run.state, run.estimate))
    while True:
        trace = Trace(
            step=step,
            steps=steps,
            ratios=ratios,
            scores=scores,
            slopes=slopes,
            chosen=chosen,
            history=history,
            mixture=mixture,
            estimate=estimate,
            calls=run.evaluations[items],
            share_calls=run.share_calls,
            generator=generator,
        )
        proposed = search.propose(trace).to(items.device)
        if proposed.shape[1] == 0 or proposed.isnan().all():
            return trace
        if len(proposed) != len(items) or ((proposed < 0) | (proposed > 1)).any():
            raise ValueError(
                f"search={type(search).__name__} proposed {proposed.tolist()} for {len(items)} items: it must"
                " give each one a row of shares in [0, 1]"
            )
        new_scores, new_slopes = run.try_ratios(items, proposed)
        ratios = torch.cat((ratios, proposed), dim=1)
        scores, slopes = torch.cat((scores, new_scores), dim=1), torch.cat((slopes, new_slopes), dim=1)


class _Run:
    """The tensors of one refinement: estimates ``(b, s, c, t)`` of the refined sources, and the books."""

    def __init__(
        self,
        execution: Execution,
        mixture: Tensor,
        source: Source,
        search: Search,
        quality: Quality | None,
        reference: Tensor | None,
        form: Literal["endpoint", "state"],
        interchangeable: bool,
        consistency: Consistency | None,
    ) -> None:
        self.execution, self.quality = execution, quality
        self.selects, self.wants_slopes, self.form = search.selects, search.wants_slopes, form
        self.interchangeable, self.consistency = interchangeable, consistency
        self.mixture = mixture
        self.evaluations = torch.zeros(len(mixture), dtype=torch.long, device=mixture.device)
        plan = execution.plan(len(mixture), mixture[0])
        estimates = torch.cat(list(execution.run(lambda part: execution.call(mixture[part], plan), plan)))
        self.evaluations += 1
        self.joint = source == "all"
        count = estimates.shape[1]
        self.sources = list(range(count)) if source == "all" else [source]
        if not all(-count <= index < count for index in self.sources):
            raise ValueError(f"source={source}: the separator has {count} sources, counted from 0")
        self.share_calls = len(self.sources) * (2 if self.wants_slopes else 1)
        first = estimates[:, self.sources]
        if reference is not None and not self.joint:
            reference = reference[:, None]
        if reference is not None and reference.shape != first.shape:
            raise ValueError(
                f"reference has shape {tuple(reference.shape)} where the estimates have "
                f"{tuple(first.shape)} (batch, source, channel, time): cut or stack it to fit"
            )
        if interchangeable and reference is not None:
            first = reorder(first, reference_order(first, reference))
        self.reference = reference
        self.one_step = self._consistent(first, mixture)
        self.estimate = self.one_step.clone()
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
        """Forget the candidates of the last step."""
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
            self.evaluations.index_add_(0, items[rows], torch.full_like(rows, self.share_calls))
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
            estimates = []
            for index, source in enumerate(self.sources):
                blends = blend_of(self.state[items, index], self.estimate[items, index], ratio)
                found = call(blends, plan)
                if self.interchangeable:
                    found = reorder(found, matching_order(found, self.estimate[items]))
                estimates.append(found[:, source])
            stacked = self._consistent(torch.stack(estimates, dim=1), self.mixture[items])
            return self._score(stacked, items), stacked

        if not self.wants_slopes:
            score, estimates = curve(ratio)
            return estimates, score, torch.full_like(score, torch.nan)
        with FORWARD_MODE:
            found: Any = torch.func.jvp(curve, (ratio,), (torch.ones_like(ratio),), has_aux=True)
        score, slope, estimates = found
        return estimates, score, slope

    def _consistent(self, estimates: Tensor, mixture: Tensor) -> Tensor:
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
        if self.quality is None:
            return torch.full((len(items),), torch.nan, device=estimates.device)
        scores = [
            self.quality(
                estimates[:, index],
                reference=None if self.reference is None else self.reference[items, index],
                mixture=self.mixture[items],
                one_step=self.one_step[items, index],
            )
            for index in range(estimates.shape[1])
        ]
        return torch.stack(scores).mean(0).to(estimates.device, torch.float32)


def _check_arguments(
    mixture: Tensor,
    steps: int,
    search: Search,
    quality: Quality | None,
    reference: Tensor | None,
    blend: str,
    max_batch: int | BatchSize | None,
) -> None:
    if mixture.ndim != 3 or mixture.numel() == 0:
        raise ValueError(
            f"mixture has shape {tuple(mixture.shape)}: give a non-empty one of (batch, channel, time)"
        )
    if steps < 0:
        raise ValueError(f"steps={steps}: must be 0 or more")
    if search.selects and quality is None and steps:
        raise ValueError(
            f"quality=None: {type(search).__name__} chooses by a measure; give one, or use FixedSchedule"
        )
    if quality is not None and quality.needs_reference and reference is None:
        raise ValueError(f"reference=None: '{quality.name}' is an oracle measure; give the reference")
    if blend not in ("endpoint", "state"):
        raise ValueError(f"blend={blend!r}: choose 'endpoint' or 'state'")
    if isinstance(max_batch, int) and max_batch < 1:
        raise ValueError(f"max_batch={max_batch}: must be at least 1, or None")
    if search.wants_slopes and quality is not None and not quality.differentiable:
        raise ValueError(
            f"quality='{quality.name}' has no derivative, which {type(search).__name__} wants: use si_sdr,"
            " snr, sdr or a DNSMOS score, or a search without slopes"
        )
