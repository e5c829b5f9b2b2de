"""Training-free multi-step separation: blend mixture and last estimate, separate again, keep the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from data.mixing import blend as blend_of
from inference.search import Search, Trace
from metrics.quality import Quality
from models.types import Separator


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
    source: int | Literal["all"] = 0,
    steps: int = 20,
    search: Search,
    quality: Quality | None = None,
    reference: Tensor | None = None,
    keep_previous: bool = True,
    blend: Literal["endpoint", "state"] = "endpoint",
    max_batch: int | None = None,
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
        max_batch: Largest number of blends in one separator call; None for all of a step at once.
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
    with torch.no_grad():
        run = _Run(separate, mixture, source, search.selects, quality, reference, blend, max_batch)
        selects = search.selects
        trajectory = [run.estimate.clone()] if keep_trajectory else None
        scores, ratios = [run.score.clone()], torch.empty(0, len(mixture), device=mixture.device)
        active = ~run.score.isnan() if selects else torch.ones_like(run.score, dtype=torch.bool)
        for step in range(1, steps + 1):
            chosen = torch.full_like(run.score, torch.nan)
            items = active.nonzero().squeeze(1)
            if len(items):
                trace = _rounds(run, search, items, step, steps, ratios[:, items], generator)
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
    generator: Generator | None,
) -> Trace:
    """Try what the search proposes for these items, until it proposes nothing more."""
    ratios = torch.empty(len(items), 0, device=items.device)
    scores = torch.empty_like(ratios)
    run.begin_step(items)
    while True:
        trace = Trace(
            step=step,
            steps=steps,
            ratios=ratios,
            scores=scores,
            chosen=chosen,
            previous=run.score[items],
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
        ratios = torch.cat((ratios, proposed), dim=1)
        scores = torch.cat((scores, run.try_ratios(items, proposed)), dim=1)


class _Run:
    """The tensors of one refinement: estimates ``(b, s, c, t)`` of the refined sources, and the books."""

    def __init__(
        self,
        separate: Separator,
        mixture: Tensor,
        source: int | Literal["all"],
        selects: bool,
        quality: Quality | None,
        reference: Tensor | None,
        form: Literal["endpoint", "state"],
        max_batch: int | None,
    ) -> None:
        self.separate, self.quality, self.max_batch = separate, quality, max_batch
        self.selects, self.form = selects, form
        self.mixture = mixture
        self.evaluations = torch.zeros(len(mixture), dtype=torch.long, device=mixture.device)
        estimates = torch.cat([self._call(part) for part in _parts(mixture, max_batch)])
        self.evaluations += 1
        self.joint = source == "all"
        count = estimates.shape[1]
        self.sources = list(range(count)) if source == "all" else [source]
        if not all(-count <= index < count for index in self.sources):
            raise ValueError(f"source={source}: the separator has {count} sources, counted from 0")
        self.one_step = estimates[:, self.sources]
        if reference is not None and not self.joint:
            reference = reference[:, None]
        if reference is not None and reference.shape != self.one_step.shape:
            raise ValueError(
                f"reference has shape {tuple(reference.shape)} where the estimates have "
                f"{tuple(self.one_step.shape)} (batch, source, channel, time): cut or stack it to fit"
            )
        self.reference = reference
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

    def try_ratios(self, items: Tensor, ratios: Tensor) -> Tensor:
        """Separate and score the blends of ``items`` ``(n,)`` at ``ratios`` ``(n, k)``; scores ``(n, k)``."""
        scores = torch.full_like(ratios, torch.nan)
        rows, columns = (~ratios.isnan()).nonzero(as_tuple=True)
        for part in _parts(torch.arange(len(rows), device=rows.device), self.max_batch):
            row, column = rows[part], columns[part]
            ratio = ratios[row, column]
            estimates, score = self._separate_blends(items[row], ratio)
            scores[row, column] = score
            self._remember(row, ratio, score, estimates)
        return scores

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

    def _separate_blends(self, items: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates ``(n, s, c, t)`` and their scores ``(n,)``; at ratio 1 both are known without a call."""
        # the state's own estimate: f(x_0) = y_0, and in state form f(x_{t-1}) = y_{t-1}
        endpoint = self.form == "endpoint"
        estimates = (self.one_step if endpoint else self.estimate)[items]
        # scored again in another batch, it might round to more than it was and win over itself
        scores = (self.one_step_score if endpoint else self.score)[items]
        new = ratio < 1
        if new.any():
            asked = items[new]
            for index, source in enumerate(self.sources):
                blends = blend_of(self.state[asked, index], self.estimate[asked, index], ratio[new])
                estimates[new, index] = self._call(blends)[:, source]
            self.evaluations.index_add_(0, asked, torch.full_like(asked, len(self.sources)))
            scores[new] = self._score(estimates[new], asked)
        return estimates, scores

    def _remember(self, row: Tensor, ratio: Tensor, score: Tensor, estimates: Tensor) -> None:
        """Keep the best candidate of each row: higher score first, then larger mixture share."""
        for index in range(len(row)):
            at, share, value = row[index], ratio[index], score[index]
            better = (
                self.best_ratio[at].isnan()
                | (value > self.best_score[at])
                | ((value == self.best_score[at]) & (share > self.best_ratio[at]))
            )
            if better and not (self.selects and value.isnan()):
                self.best_score[at], self.best_ratio[at], self.best[at] = value, share, estimates[index]

    def _call(self, mixtures: Tensor) -> Tensor:
        """One separator call, checked."""
        estimates = self.separate(mixtures)
        expected = (len(mixtures), *mixtures.shape[1:])
        if estimates.ndim != 4 or (estimates.shape[0], *estimates.shape[2:]) != expected:
            raise ValueError(
                f"separate returned shape {tuple(estimates.shape)} for mixtures {tuple(mixtures.shape)}: it"
                " must map (batch, channel, time) to (batch, source, channel, time) of the same length"
            )
        return estimates

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


def _parts(items: Tensor, max_batch: int | None) -> tuple[Tensor, ...]:
    """``items`` in parts of at most ``max_batch`` along the first axis."""
    return torch.split(items, max_batch) if max_batch is not None and len(items) else (items,)


def _check_arguments(
    mixture: Tensor,
    steps: int,
    search: Search,
    quality: Quality | None,
    reference: Tensor | None,
    blend: str,
    max_batch: int | None,
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
    if max_batch is not None and max_batch < 1:
        raise ValueError(f"max_batch={max_batch}: must be at least 1, or None")
