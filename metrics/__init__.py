"""Every metric, once, as a function and by its name, and the qualities that steer refinement."""

from __future__ import annotations

from encore.metrics.blind import dnsmos
from encore.metrics.combined import guarded, joint
from encore.metrics.music import bss_eval, csdr, usdr
from encore.metrics.panel import MetricPanel
from encore.metrics.quality import Metric, Quality, oracle
from encore.metrics.reference import estoi, pesq, sdr, si_sdr, snr, stoi
from encore.metrics.table import (
    EXTERNAL_METRICS,
    METRIC_NAMES,
    SELF_CONSISTENCY_METRICS,
    default_metrics,
    get_metric,
)

__all__ = [
    "EXTERNAL_METRICS",
    "METRIC_NAMES",
    "SELF_CONSISTENCY_METRICS",
    "Metric",
    "MetricPanel",
    "Quality",
    "bss_eval",
    "csdr",
    "default_metrics",
    "dnsmos",
    "estoi",
    "get_metric",
    "guarded",
    "joint",
    "oracle",
    "pesq",
    "sdr",
    "si_sdr",
    "snr",
    "stoi",
    "usdr",
]
