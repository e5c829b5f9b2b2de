"""Score items as they are, separated once, and refined by any number of methods."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from encore.inference.bridge_separation import BridgeSampler
from encore.inference.options import RefineOptions
from encore.inference.refinement import Refined, Trajectory
from encore.inference.search import GridSearch
from encore.metrics.panel import MetricPanel
from encore.metrics.reference import si_sdr
from encore.models.types import LoadedSeparator

RefinementMethod = RefineOptions | BridgeSampler
"""A method that goes on from the one-step estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Rows of the score table of some items, and the refinements they describe, by name of the method."""

    rows: list[dict[str, Any]]
    refined: dict[str, Refined]


def evaluate(
    separator: LoadedSeparator,
    mixture: Tensor,
    methods: Mapping[str, RefinementMethod],
    panel: MetricPanel,
    *,
    run: str,
    items: Sequence[str],
    references: Tensor | None = None,
    generator: Generator | None = None,
    at_once: int = 1,
) -> Evaluation:
    """Refine items of one length by every method, and score every step with every metric of the panel.

    Args:
        separator: All its sources are refined together, and scores are means over them.
        mixture: ``(b, c, t)``.
        methods: By their names in the table; one that needs references is left out where there are none.
        panel: Scores estimates with all metrics.
        run: Name of the run, for the table.
        items: Names of the items, for the table.
        references: ``(b, s, c, t)`` in the order of the separator's sources, or None.
        generator: For methods that draw.
        at_once: Evaluations that run at the same time.

    Returns:
        Rows for the mixture, the one-step estimate and every step of every method, and the refinements.
    """
    options: dict[str, Any] = {"references": references, "generator": generator, "at_once": at_once}
    used = {n: own for n, own in methods.items() if references is not None or own.kind != "oracle"}
    steps = {n: Trajectory() for n in used}
    # one step is the separator as it is
    first, once_seconds = _timed(RefineOptions(search=GridSearch(1, steps=0)), separator, mixture, **options)
    timed = {n: _timed(own, separator, mixture, callback=steps[n], **options) for n, own in used.items()}
    rows: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        own_mixture = mixture[place].expand_as(first.one_step[place])
        own_references = None if references is None else references[place]
        signals = [own_mixture, first.one_step[place]]
        for n, (found, _) in timed.items():
            signals += [estimates[place] for estimates in (found.one_step, *steps[n].estimates)]
        by_metric = score_sources(panel, torch.stack(signals), own_references)
        means = {name: scores.mean(1).tolist() for name, scores in by_metric.items()}
        scores = iter({name: own[n] for name, own in means.items()} for n in range(len(signals)))
        before = math.nan if own_references is None else float(si_sdr(own_mixture, own_references).mean())
        base = {"run": run, "item": item, "input_si_sdr": before}
        rows += score_rows(base, {0: next(scores)}, kind="mixture")
        rows += score_rows(base, {0: next(scores)}, kind="one_step", evaluations=1, seconds=once_seconds)
        for n, (found, seconds) in timed.items():
            rows += score_rows(
                base,
                dict(zip((0, *steps[n].numbers), scores, strict=False)),
                method=n,
                kind=used[n].kind,
                guide=used[n].guide_name,
                ratios=found.ratios[:, place].tolist(),
                evaluations=int(found.evaluations[place]),
                seconds=seconds,
            )
    return Evaluation(rows=rows, refined={n: found for n, (found, _) in timed.items()})


def _timed(
    method: RefinementMethod, separator: LoadedSeparator, mixture: Tensor, **options: Any
) -> tuple[Refined, float]:
    """Refine, and return the result and the wall time of one item in seconds."""
    started = time.monotonic()
    refined = method(separator, mixture, **options)
    if mixture.is_cuda:
        torch.cuda.synchronize(mixture.device)
    return refined, (time.monotonic() - started) / len(mixture)


@torch.no_grad()
def example_waveforms(
    separator: LoadedSeparator,
    mixture: Tensor,
    method: RefinementMethod,
    *,
    references: Tensor | None = None,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    """Refine one item ``(1, c, t)`` and return its signals ``(c, t)`` on the CPU, by name.

    Returns:
        ``mixture``, and ``one step``, ``refined`` and, if it is given, ``reference`` of every source, whose
        name follows where there are several.
    """
    refined = method(separator, mixture, references=references, generator=generator)
    parts = {"one step": refined.one_step[0], "refined": refined.estimates[0]}
    if references is not None:
        parts["reference"] = references[0]
    signals = {"mixture": mixture[0].cpu()}
    for name, part in parts.items():
        several = len(separator.sources) > 1
        names = [f"{name} {source}" if several else name for source in separator.sources]
        signals |= dict(zip(names, part.cpu(), strict=True))
    return signals


def score_sources(
    panel: MetricPanel,
    signals: Tensor,
    references: Tensor | None,
    resampled: Callable[[Tensor], Tensor] = lambda waveform: waveform,
) -> dict[str, Tensor]:
    """Score every source of signals of one item, equal signals once.

    Args:
        panel: The metrics.
        signals: ``(n, s, c, t)``.
        references: ``(s, c, t)``; without, only blind metrics score.
        resampled: Brings waveforms to the panel's sampling rate.

    Returns:
        ``(n, s)`` by metric; NaN where something cannot be scored.
    """
    different, places = distinct(signals)
    count, sources = different.shape[:2]
    whole = None
    if references is not None:
        own = resampled(references)
        whole = own.expand(count, *own.shape).flatten(0, 1)
    values = panel(resampled(different.flatten(0, 1)), whole)
    return {name: own.reshape(count, sources)[places] for name, own in values.items()}


def distinct(signals: Tensor) -> tuple[Tensor, list[int]]:
    """Return the signals ``(n, ...)`` without repetitions, and the position of each one among them.

    A kept estimate and a finished item repeat; each signal is scored once.
    """
    kept: list[int] = []
    places: list[int] = []
    for index, signal in enumerate(signals):
        same = next((k for k, known in enumerate(kept) if torch.equal(signals[known], signal)), len(kept))
        if same == len(kept):
            kept.append(index)
        places.append(same)
    return signals[kept], places


def score_rows(
    base: Mapping[str, Any],
    scores: Mapping[int, Mapping[str, float]],
    *,
    kind: str,
    method: str = "none",
    guide: str = "none",
    ratios: Sequence[float] = (),
    evaluations: int = 0,
    seconds: float = math.nan,
) -> list[dict[str, Any]]:
    """Return the rows of the score table for the estimates of one item, a row per step and metric.

    Args:
        base: The columns ``run``, ``item`` and ``input_si_sdr``.
        scores: Values by metric, by number of the step; 0 for the mixture and for the one-step estimate.
        kind: ``"mixture"``, ``"one_step"``, ``"fixed"``, ``"blind"`` or ``"oracle"``.
        method: Name of the refinement, or ``"none"``.
        guide: Quality that steered, or ``"none"``.
        ratios: Mixing ratios chosen at the steps from 1 on, NaN where none was.
        evaluations: Separator calls of the whole refinement.
        seconds: Its wall time.
    """
    chosen = [math.nan, *ratios]
    return [
        {**base, "step": step, "method": method, "kind": kind, "guide": guide}
        | {"metric": metric, "value": value, "ratio": chosen[step]}
        | {"evaluations": evaluations, "seconds": seconds}
        for step, own in scores.items()
        for metric, value in own.items()
    ]
