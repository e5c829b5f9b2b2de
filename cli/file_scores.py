"""Score the estimates of one file, or of a chunk of it, with every metric that its rate allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from encore.common.dsp import resample
from encore.inference.evaluation import score_sources
from encore.inference.segments import mean_over_chunks
from encore.metrics import MetricPanel, default_metrics

Scores = list[dict[str, list[float]]]
"""For each source the values of every metric: of the mixture, then of the estimates from step 0 on."""


def score_chunk(
    mixture: Tensor, estimates: Tensor, references: Tensor | None, *, rate: int, score_rate: int
) -> Scores:
    """Return every metric that the rate allows, of a file or a chunk of one.

    Args:
        mixture: ``(channel, time)``.
        estimates: ``(steps + 1, source, channel, time)``.
        references: ``(source, channel, time)``; None for blind metrics only.
        rate: Rate in Hz of all these.
        score_rate: Rate in Hz at which they are scored.

    Returns:
        NaN where something cannot be scored; a source has no metrics where none fits.
    """
    panel = _panel(score_rate, len(mixture), references is not None)
    if panel is None:
        return [{} for _ in range(estimates.shape[1])]
    signals = torch.cat([mixture.expand(1, *estimates.shape[1:]), estimates])
    resampled = partial(resample, from_rate=rate, to_rate=score_rate)
    scores = []
    for index in range(estimates.shape[1]):  # one source at a time bounds the memory
        one = slice(index, index + 1)
        own = None if references is None else references[one]
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

    def mean(index: int, name: str) -> list[float]:
        values = torch.tensor([table[index][name] for table in tables], dtype=torch.float64)
        return [float(value) for value in mean_over_chunks(values, lengths)]

    return [{name: mean(index, name) for name in own} for index, own in enumerate(tables[0])]


def silence_scores(
    sources: int, steps: int, *, sample_rate: int, channels: int, has_references: bool
) -> Scores:
    """Return NaN for every metric of a file, of a rate in Hz, that is silent."""
    panel = _panel(sample_rate, channels, has_references)
    names = () if panel is None else panel.names
    return [dict.fromkeys(names, [math.nan] * (steps + 2)) for _ in range(sources)]


def _panel(sample_rate: int, channels: int, has_references: bool) -> MetricPanel | None:
    """Return the panel of every metric that such audio is scored with by default."""
    names = default_metrics(sample_rate, channels, has_reference=has_references)
    return MetricPanel(names, sample_rate=sample_rate) if names else None
