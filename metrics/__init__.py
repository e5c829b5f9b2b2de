"""Every measure, once: oracle and blind ones, what steers a loop, and what sums up a table."""

from __future__ import annotations

from metrics.blind import dnsmos
from metrics.measures import METRIC_NAMES
from metrics.panel import MetricPanel
from metrics.quality import GuardedQuality, JointQuality, MeasureQuality, Quality, get_quality
from metrics.reference import estoi, pesq, sdr, si_sdr, snr, stoi
from metrics.summary import Summary, summarise, summarise_gain

__all__ = [
    "METRIC_NAMES",
    "GuardedQuality",
    "JointQuality",
    "MeasureQuality",
    "MetricPanel",
    "Quality",
    "Summary",
    "dnsmos",
    "estoi",
    "get_quality",
    "pesq",
    "sdr",
    "si_sdr",
    "snr",
    "stoi",
    "summarise",
    "summarise_gain",
]
