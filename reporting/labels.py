"""Titles, units and decimal places of metrics."""

from __future__ import annotations

import re

import pandas as pd

TITLES = {
    "si_sdr": ("SI-SDR", "dB"),
    "sdr": ("SDR", "dB"),
    "snr": ("SNR", "dB"),
    "usdr": ("uSDR", "dB"),
    "csdr": ("cSDR", "dB"),
    "pesq": ("PESQ-WB", "MOS-LQO"),
    "pesq_wb": ("PESQ-WB", "MOS-LQO"),
    "pesq_nb": ("PESQ-NB", "MOS-LQO"),
    "stoi": ("STOI", ""),
    "estoi": ("ESTOI", ""),
    "dnsmos_p808": ("DNSMOS P.808", "MOS"),
    "dnsmos_sig": ("DNSMOS SIG", "MOS"),
    "dnsmos_bak": ("DNSMOS BAK", "MOS"),
    "dnsmos_ovrl": ("DNSMOS OVRL", "MOS"),
}
"""Title and unit (empty: none) of the metrics that this project computes."""


def title(metric: str) -> str:
    """Return the title of a metric; an unknown metric keeps its name.

    Example:
        >>> title("si_sdr"), title("my_metric")
        ('SI-SDR', 'my_metric')
    """
    return TITLES.get(metric, (metric, ""))[0]


def axis_label(metric: str) -> str:
    """Return title and unit of a metric for an axis.

    Example:
        >>> axis_label("si_sdr"), axis_label("stoi")
        ('SI-SDR (dB)', 'STOI')
    """
    return title(metric) + unit_suffix(metric)


def unit(metric: str) -> str:
    """Return the unit of a metric; empty without one."""
    return TITLES.get(metric, (metric, ""))[1]


def unit_suffix(metric: str) -> str:
    """Return the unit of a metric in brackets after a space; empty without a unit.

    Example:
        >>> unit_suffix("pesq"), unit_suffix("stoi")
        (' (MOS-LQO)', '')
    """
    return f" ({unit(metric)})" if unit(metric) else ""


def decimals(metric: str) -> int:
    """Return the decimal places of a table: two for decibels, three for other metrics."""
    return 2 if TITLES.get(metric, ("", ""))[1] == "dB" else 3


def is_own_metric(guide: str, metric: str) -> bool:
    """Return whether a guide maximized the metric that it is scored with.

    Args:
        guide: Name of the quality: ``joint_a_b`` maximizes both, ``a_guarded_b`` the first.
        metric: Metric of the score.

    Example:
        >>> is_own_metric("joint_si_sdr_pesq", "pesq"), is_own_metric("joint_si_sdr_pesq", "sdr")
        (True, False)
    """
    alias = {"pesq_wb": "pesq"}
    maximized = {guide}
    if guide.startswith("joint_") or "_guarded_" in guide:
        parts = guide.removeprefix("joint_").split("_guarded_")[0]
        # the longest name first: "si_sdr" is not "sdr"
        names = sorted((re.escape(name) for name in {*TITLES, metric}), key=len, reverse=True)
        maximized |= set(re.findall(f"(?<![a-z0-9])(?:{'|'.join(names)})(?![a-z0-9])", parts))
    return alias.get(metric, metric) in {alias.get(name, name) for name in maximized}


MAIN_METRICS = ("si_sdr", "usdr", "sdr", "dnsmos_ovrl")
"""Metrics in which gains are stated, the first one that has scores."""

IMPLIED = {
    "si_sdr": ("sdr", "snr"),
    "pesq": ("pesq_nb",),
    "estoi": ("stoi",),
    "dnsmos_ovrl": ("dnsmos_p808", "dnsmos_sig", "dnsmos_bak"),
}
"""Metrics that tables of results leave out beside another one, which moves with them."""


def shown_metrics(summary: pd.DataFrame) -> list[str]:
    """Return the metrics of a table of results, the main one first.

    Args:
        summary: From `encore.reporting.summary.summarise`.

    Returns:
        All that have scores of more than one step, without those that another one implies unless a guide
        maximized them; all if none has.
    """
    known = summary[summary["mean"].notna()]
    compared = known.loc[known["kind"] != "one_step", "metric"].unique()
    names = list(compared if len(compared) else summary["metric"].unique())
    implied = {name for whole, parts in IMPLIED.items() if whole in names for name in parts}
    guides = summary["guide"].unique()
    names = [name for name in names if name not in implied or any(is_own_metric(g, name) for g in guides)]
    main = next((name for name in MAIN_METRICS if name in names), names[0])
    return [main, *(name for name in names if name != main)]
