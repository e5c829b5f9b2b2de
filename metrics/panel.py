"""Several metrics of one batch at once, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from encore.common.dsp import resample
from encore.metrics.blind import DNSMOS_NAMES, DNSMOS_RATE, dnsmos
from encore.metrics.table import TABLE, TableMetric


class MetricPanel:
    """Scores batches with every one of the named metrics.

    Args:
        names: Of `METRIC_NAMES`; repeated ones count once.
        sample_rate: Rate in Hz of the audio.
        workers: See `TableMetric`.

    Raises:
        ValueError: If there are no names, or as of `TableMetric`.

    Example:
        >>> import torch
        >>> panel = MetricPanel(["si_sdr", "snr", "dnsmos_ovrl"], sample_rate=16000)
        >>> reference = torch.sin(torch.arange(1600.0))[None, None]
        >>> {name: round(score.item(), 1) for name, score in panel(0.9 * reference, reference).items()}["snr"]
        20.0
    """

    def __init__(self, names: Sequence[str], *, sample_rate: int, workers: int = 0) -> None:
        if not names:
            raise ValueError("names=[] is empty: give at least one of METRIC_NAMES")
        metrics = [TableMetric(name, sample_rate=sample_rate, workers=workers) for name in names]
        self.metrics = {metric.name: metric for metric in metrics}
        self.names, self.sample_rate, self.workers = tuple(self.metrics), sample_rate, workers

    def __call__(self, estimate: Tensor, reference: Tensor | None = None) -> dict[str, Tensor]:
        """Return for each metric the scores ``(n,)`` of ``(n, c, t)``, see `TableMetric.score`.

        Without references, of the same shape, the oracle metrics are left out.
        """
        estimate, blind_only = estimate.detach(), reference is None
        metrics = {name: m for name, m in self.metrics.items() if not (blind_only and m.needs_reference)}
        scores: dict[str, Tensor] = {}
        # the processes work on their metrics while this one computes the rest
        pooled = [name for name in metrics if self.workers and "workers" in TABLE[name].options]
        with ThreadPoolExecutor(max(1, len(pooled))) as threads:
            pending = {name: threads.submit(metrics[name].score, estimate, reference) for name in pooled}
            if blind := [name for name in metrics if name in DNSMOS_NAMES]:
                speech = resample(estimate, self.sample_rate, DNSMOS_RATE, kernel="hann")
                scores |= {name: value.mean(-1) for name, value in dnsmos(speech, names=blind).items()}
            for name, metric in metrics.items():
                if name not in scores and name not in pending:
                    scores[name] = metric.score(estimate, reference)
            scores |= {name: future.result() for name, future in pending.items()}
        return {name: scores[name] for name in metrics}
