"""Score the estimates of a file, chunk by chunk, with every metric that its rate allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from encore.common.dsp import resample
from encore.inference.evaluation import score_rows, score_sources
from encore.inference.segments import Chunk, ChunkStatistics, mean_over_chunks
from encore.metrics import METRIC_NAMES, Metric, MetricPanel, default_metrics
from encore.reporting import COLUMNS

Scores = list[dict[str, list[float]]]
"""For each source the values of every metric: of the mixture, then of the estimates from step 0 on."""


def score_chunk(chunk: Chunk, active: Tensor, sample_rate: int, score_rate: int) -> Scores:
    """Return every metric that the rate allows.

    Args:
        chunk: Of one item, with the estimates of all steps; blind metrics only if without references.
        active: ``(channel,)``, which of its channels are scored.
        sample_rate: Rate in Hz of the chunk.
        score_rate: Rate in Hz at which it is scored.

    Returns:
        NaN where something cannot be scored, as without a channel; a source has no metrics where none fits.
    """
    channels = int(active.sum())
    names = default_metrics(score_rate, channels or len(active), has_reference=chunk.references is not None)
    mixture, estimates = chunk.mixture[0, active], chunk.waveforms[:, 0][:, :, active]
    sources = range(estimates.shape[1])
    if not names or not channels:
        return [dict.fromkeys(names, [math.nan] * (1 + len(estimates))) for _ in sources]
    panel = MetricPanel(names, sample_rate=score_rate)
    signals = torch.cat([mixture.expand(1, *estimates.shape[1:]), estimates])
    resampled = partial(resample, from_rate=sample_rate, to_rate=score_rate)
    scores = []
    for index in sources:  # one source at a time bounds the memory
        one = slice(index, index + 1)
        own = None if chunk.references is None else chunk.references[0, one][:, active]
        values = score_sources(panel, signals[:, one], own, resampled)
        scores.append({name: value[:, 0].tolist() for name, value in values.items()})
    return scores


def mean_of_chunks(tables: Sequence[Scores], lengths: Sequence[int]) -> Scores:
    """Return the scores of a file from those of its chunks: means weighted by the lengths.

    NaN is left out, so a metric speaks of the chunks that it can score: those that sound and last long
    enough. It is NaN where it can score none. The mean over the chunks of a ratio in dB is not the ratio of
    the whole file.

    Args:
        tables: Scores of each chunk.
        lengths: Their samples.
    """
    found: Scores = []
    for own in zip(*tables, strict=True):
        counts = {name: len(scores) for table in own for name, scores in table.items()}
        means = {}
        for name, count in counts.items():
            # a chunk in which a channel is silent may have fewer metrics
            rows = [table.get(name, [math.nan] * count) for table in own]
            means[name] = mean_over_chunks(torch.tensor(rows, dtype=torch.float64), lengths).tolist()
        found.append(means)
    return found


def score_table(
    name: str,
    sources: Sequence[str],
    scores: Scores,
    statistics: ChunkStatistics,
    metric: Metric | None,
    *,
    evaluations: int = 1,
) -> pd.DataFrame:
    """Return the rows of a file: for each source the mixture, one step, and every step of the method.

    Args:
        name: Of the file.
        sources: Names of the sources.
        scores: Of the file.
        statistics: Guiding scores, ratios and calls.
        metric: What steered; None for a schedule or no step.
        evaluations: Network evaluations of a call.
    """
    refinement: dict[str, Any] = {"method": "fixed", "kind": "fixed"}
    if metric is not None:
        refinement = {"method": metric.name, "kind": metric.kind, "guide": metric.name}
    calls, ratios = evaluations * int(statistics.evaluations[0]), statistics.ratios[:, 0].tolist()
    rows: list[dict[str, Any]] = []
    for source, own in zip(sources, scores, strict=True):
        if metric is not None and metric.name not in own:
            own = {**own, metric.name: [math.nan, *statistics.scores[:, 0].tolist()]}
        item = name if len(sources) == 1 else f"{name}/{source}"
        base = {"item": item, "input_si_sdr": own["si_sdr"][0] if "si_sdr" in own else math.nan}
        # a joint guide has no score of the mixture
        mixture = {metric: values[0] for metric, values in own.items() if metric in METRIC_NAMES}
        by_step = {
            step: {metric: values[step + 1] for metric, values in own.items()}
            for step in range(len(ratios) + 1)
        }
        rows += score_rows(base, {0: mixture}, kind="mixture")
        cost: dict[str, Any] = {"evaluations": calls, "seconds": statistics.seconds}
        # of a refinement the time of its first step is not known
        seconds = math.nan if ratios else statistics.seconds
        once: dict[str, Any] = {"evaluations": min(calls, evaluations), "seconds": seconds}
        rows += score_rows(base, {0: by_step[0]}, kind="one_step", **once)
        if ratios:
            rows += score_rows(base, by_step, **refinement, ratios=ratios, **cost)
    return pd.DataFrame(rows, columns=list(COLUMNS))
