"""Score the estimates of a file, chunk by chunk, with every metric that its rate allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from encore.common.dsp import resample
from encore.inference.evaluation import score_sources
from encore.inference.segments import Chunk, mean_over_chunks
from encore.metrics import MetricPanel, default_metrics

Scores = list[dict[str, list[float]]]
"""For each source the values of every metric: of the mixture, then of the estimates from step 0 on."""


class ChunkScorer:
    """Score chunks of files; thread-safe.

    Args:
        sample_rate: Rate in Hz of the chunks.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._panels: dict[tuple[int, int, bool], MetricPanel | None] = {}

    def __call__(self, chunk: Chunk, active: Tensor, score_rate: int) -> Scores:
        """Return every metric that the rate allows.

        Args:
            chunk: Of one item, with the estimates of all steps; blind metrics only if without references.
            active: ``(channel,)``, which of its channels are scored.
            score_rate: Rate in Hz at which they are scored.

        Returns:
            NaN where something cannot be scored, as without a channel; a source has no metrics where none
            fits.
        """
        channels = int(active.sum())
        panel = self._panel(score_rate, channels or len(active), chunk.references is not None)
        mixture, estimates = chunk.mixture[0, active], chunk.waveforms[:, 0][:, :, active]
        sources = range(estimates.shape[1])
        if panel is None or not channels:
            names = () if panel is None else panel.names
            return [dict.fromkeys(names, [math.nan] * (1 + len(estimates))) for _ in sources]
        signals = torch.cat([mixture.expand(1, *estimates.shape[1:]), estimates])
        resampled = partial(resample, from_rate=self.sample_rate, to_rate=score_rate)
        scores = []
        for index in sources:  # one source at a time bounds the memory
            one = slice(index, index + 1)
            own = None if chunk.references is None else chunk.references[0, one][:, active]
            values = score_sources(panel, signals[:, one], own, resampled)
            scores.append({name: value[:, 0].tolist() for name, value in values.items()})
        return scores

    def _panel(self, score_rate: int, channels: int, has_references: bool) -> MetricPanel | None:
        """Return the panel of every metric that such audio is scored with by default, built once."""
        key = (score_rate, channels, has_references)
        if key not in self._panels:
            names = default_metrics(score_rate, channels, has_reference=has_references)
            self._panels[key] = MetricPanel(names, sample_rate=score_rate) if names else None
        return self._panels[key]


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
