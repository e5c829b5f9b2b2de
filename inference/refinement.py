"""Training-free multi-step separation: blend mixture and last estimate, separate again, keep the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from encore.inference.consistency import Consistency
from encore.inference.execution import BatchSize, Execution
from encore.inference.refinement_run import PostFilter, RefinementRun, Source
from encore.inference.search import Search, Trace
from encore.metrics.quality import Quality
from encore.models.types import Groups, Separator


@dataclass(frozen=True, kw_only=True, slots=True)
class Refinement:
    """What `refine` found and what it cost.

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
    interchangeable: bool | Groups = False,
    consistency: Consistency | None = None,
    post_filter: PostFilter | None = None,
    noise: float = 0.0,
    standardise: bool = False,
    tell_share: bool = False,
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
        interchangeable: The separator gives its sources in any order, as it does speakers, or those of each
            group among themselves (`encore.models.types.exchangeable`): those of every blend are put into the
            order of the estimates before, and these from the first on into that of the reference where there
            is one. With ``source="all"`` only.
        consistency: Every estimate, the first one too, is moved to where the sources sum to the mixture, see
            `encore.inference.consistency.sum_to_mixture`; None leaves them. With ``source="all"`` only.
        post_filter: Applied to every estimate, the first one too, with what it was separated from, such as
            `encore.inference.Wiener`.
        noise: White noise in every blend, in units of the mixture's level (RMS) at a Brownian bridge's
            deviation, see `encore.inference.refinement_run.Noise`; the same for all candidates of a step.
            Items never finish early then. In endpoint form only; needs the generator.
        standardise: Every blend is brought to mean 0 and deviation 1 by the numbers of the *mixture*, and the
            estimates back: for separators that want such input and leave it to their caller, see
            `encore.models.levels.unstandardised`.
        tell_share: Blends are separated by ``separate(blend, share, mixture)`` with shares ``(n,)``: for the
            data predictor of a bridge, whose time the share is. In endpoint form, without ``standardise``.
        max_batch: Largest number of blends in one separator call; None for all of a round at once; a
            `BatchSize` finds the fastest by timing, and with it whether lanes pay.
        lanes: Parts of a round that are separated and scored at the same time, each in a thread of its own
            that uses one processor core; with 2 or more, ``separate`` and ``quality`` must bear that.
        keep_trajectory: Return the estimates of all steps.
        generator: For searches that draw at random, and for noise.

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
    if noise < 0 or (noise and (blend == "state" or search.wants_slopes)):
        raise ValueError(f"noise={noise}: give 0 or more; above 0 in endpoint form, without slopes")
    if tell_share and (blend == "state" or standardise or not hasattr(separate, "takes_shares")):
        raise ValueError(
            "tell_share=True: is for the endpoint form, without standardise, and for separators that take "
            "shares, such as a bridge"
        )
    if interchangeable and quality is not None and quality.separator_calls:
        raise ValueError(
            f"interchangeable=True: '{quality.name}' asks for a source by its place; use another"
        )
    if interchangeable and search.wants_slopes:
        raise ValueError(f"interchangeable=True: {type(search).__name__} has no slopes; use another search")
    execution = Execution(separate, max_batch=max_batch, lanes=lanes)
    with torch.no_grad(), execution:
        run = RefinementRun(
            execution,
            mixture,
            source=source,
            search=search,
            quality=quality,
            reference=reference,
            form=blend,
            interchangeable=interchangeable,
            consistency=consistency,
            post_filter=post_filter,
            noise=noise,
            standardise=standardise,
            tell_share=tell_share,
            generator=generator,
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
                # noise that is drawn anew may still find something better
                if keep_previous and selects and not noise:
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
    run: RefinementRun,
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
