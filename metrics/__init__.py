"""Every measure, once: oracle and blind ones, what steers a loop, and what sums up a table."""

from __future__ import annotations

from encore.metrics.blind import dnsmos
from encore.metrics.external import DOOR_NAMES, is_door
from encore.metrics.measures import METRIC_NAMES, usual_names
from encore.metrics.music import bss_eval, csdr, usdr
from encore.metrics.panel import MetricPanel
from encore.metrics.quality import GuardedQuality, JointQuality, MeasureQuality, Quality, get_quality
from encore.metrics.reference import estoi, pesq, sdr, si_sdr, snr, stoi
from encore.metrics.summary import Summary, summarise, summarise_gain

__all__ = [
    "DOOR_NAMES",
    "METRIC_NAMES",
    "GuardedQuality",
    "JointQuality",
    "MeasureQuality",
    "MetricPanel",
    "Quality",
    "Summary",
    "bss_eval",
    "csdr",
    "dnsmos",
    "estoi",
    "get_quality",
    "is_door",
    "pesq",
    "sdr",
    "si_sdr",
    "snr",
    "stoi",
    "summarise",
    "summarise_gain",
    "usdr",
    "usual_names",
]
