"""Metrics by name: the table's, self-consistency metrics, and those of other projects."""

from __future__ import annotations

from encore.metrics.external import EXTERNAL_METRICS, is_external, open_metric
from encore.metrics.quality import Metric
from encore.metrics.self_consistency import SELF_CONSISTENCY_METRICS, SelfConsistencyMetric
from encore.metrics.table import ALIASES, METRIC_NAMES, TableMetric, unknown_metric


def get_metric(name: str, *, sample_rate: int, workers: int = 0) -> Metric:
    """Return a metric by its name.

    Args:
        name: One of `METRIC_NAMES`, `SELF_CONSISTENCY_METRICS` or `EXTERNAL_METRICS`, or a file of your own,
            such as ``"onnx:mos.onnx?sample_rate=16000"``; see `encore.metrics.external.open_metric`.
        sample_rate: Rate in Hz of the audio that it scores.
        workers: See `TableMetric`; other metrics ignore it.

    Raises:
        FileNotFoundError: If the metric's file does not exist.
        ValueError: If there is no such metric, or it cannot be used here.

    Example:
        >>> metric = get_metric("si_sdr", sample_rate=16000)
        >>> metric.name, metric.kind, metric.scale
        ('si_sdr', 'oracle', 1.0)
    """
    if name in METRIC_NAMES or name in ALIASES:
        return TableMetric(name, sample_rate=sample_rate, workers=workers)
    if name in SELF_CONSISTENCY_METRICS:
        return SelfConsistencyMetric(name, sample_rate=sample_rate)
    if is_external(name):
        return open_metric(name, sample_rate=sample_rate)
    raise ValueError(unknown_metric(name, (*METRIC_NAMES, *SELF_CONSISTENCY_METRICS, *EXTERNAL_METRICS)))
