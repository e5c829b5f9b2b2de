"""Figures by stem: bars of one step, gains over steps, curves of the oracle predictor.

They take summaries of `encore.reporting.stem_report`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from encore.reporting.labels import axis_label, title, unit_suffix
from encore.reporting.palette import HUES, MIXTURE_COLOUR, ONE_STEP_COLOUR, guide_looks, styled
from encore.reporting.plots import UNGUIDED, bottom_legend
from encore.reporting.published_progressive import BETAS, FIXED_SCHEDULE, ORACLE_PREDICTOR

_PUBLISHED: dict[str, Any] = {"color": MIXTURE_COLOUR, "linestyle": ":", "label": "published (HDemucs)"}


@styled
def one_step_bars(summary: pd.DataFrame, metric: str) -> Figure:
    """Draw one-step scores by stem, with 95 % intervals, beside the mixture's and the published ones."""
    rows = summary[summary["metric"] == metric]
    stems = list(dict.fromkeys(rows["source"]))
    series = {kind: rows[rows["kind"] == kind].set_index("source") for kind in ("mixture", "one_step")}
    published = [FIXED_SCHEDULE[stem][0] if stem in FIXED_SCHEDULE else np.nan for stem in stems]
    bars: list[tuple[str, str, list[float] | None]] = [
        ("mixture", MIXTURE_COLOUR, None),
        ("one_step", HUES[0], None),
    ]
    if metric == "si_sdr":
        bars.append(("published", HUES[4], published))
    figure = Figure(figsize=(1.2 + 1.5 * len(stems), 3.2), layout="constrained")
    panel = figure.subplots()
    centers, width = np.arange(len(stems)), 0.8 / len(bars)
    for index, (name, colour, values) in enumerate(bars):
        at = centers + (index - (len(bars) - 1) / 2) * width
        label = {"one_step": "one step", "published": "published (HDemucs)"}.get(name, name)
        if values is not None:
            panel.bar(at, values, width, color=colour, label=label)
            continue
        own = series[name].reindex(stems)
        errors = np.abs(own[["low", "high"]].to_numpy().T - own["mean"].to_numpy())
        panel.bar(at, own["mean"], width, color=colour, label=label, yerr=errors, ecolor=ONE_STEP_COLOUR)
    panel.axhline(0, color=ONE_STEP_COLOUR, linewidth=0.8)
    panel.set_xticks(centers, stems)
    panel.set_ylabel(axis_label(metric))
    panel.grid(axis="x", visible=False)
    panel.set_title(f"{title(metric)} of one step (mean and 95 % interval)")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def schedule_curves(summary: pd.DataFrame, metric: str) -> Figure:
    """Draw the gain of every guide over one step, by stem, with the published fixed schedule for SI-SDR.

    A panel per stem: mean gain and its 95 % interval, paired by song, over the steps.
    """
    rows = summary[summary["metric"] == metric]
    guided = rows[~rows["kind"].isin(UNGUIDED)]
    looks = guide_looks(guided["column"])
    stems = list(dict.fromkeys(rows["source"]))
    figure, panels = _panels(stems, "Step")
    for panel, stem in zip(panels, stems, strict=True):
        one_step = rows[(rows["source"] == stem) & (rows["kind"] == "one_step")]["mean"].iloc[0]
        panel.set_title(f"{stem} (one step {one_step:.2f} dB)")
        panel.axhline(0, color=ONE_STEP_COLOUR, linewidth=0.8)
        for column, group in guided[guided["source"] == stem].groupby("column", sort=False):
            look = looks[str(column)]
            panel.plot(
                group["step"], group["gain"], look.line, color=look.colour, marker=look.marker, label=column
            )
            panel.fill_between(
                group["step"], group["gain_low"], group["gain_high"], color=look.colour, alpha=0.12, lw=0
            )
        if metric == "si_sdr" and stem in FIXED_SCHEDULE:
            values = np.array(FIXED_SCHEDULE[stem])
            panel.plot(range(len(values)), values - values[0], **_PUBLISHED)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    for panel in panels[::2]:
        panel.set_ylabel(f"{title(metric)} gain{unit_suffix(metric)}")
    bottom_legend(figure, panels, columns=3)
    return figure


@styled
def predictor_curves(curves: pd.DataFrame) -> Figure:
    """Draw the SI-SDR of every stem over remixes that attenuate all stems but the target, a panel per target.

    Solid are the remixes of the paper's text, dashed those of its code, for the target.
    """
    targets = list(dict.fromkeys(curves["target"]))
    figure, panels = _panels(targets, "Accompaniment removed (beta)")
    colours = dict(zip(dict.fromkeys(curves["source"]), HUES, strict=False))
    for panel, target in zip(panels, targets, strict=True):
        panel.set_title(f"target: {target}")
        own = curves[curves["target"] == target]
        for (form, source), group in own.groupby(["form", "source"], sort=False):
            if form == "intended":
                width = 2.4 if source == target else 1.2
                panel.plot(group["beta"], group["mean"], "-o", color=colours[source], lw=width, label=source)
            elif source == target:
                label = f"{source}, remixes of the published code"
                panel.plot(group["beta"], group["mean"], "--", color=colours[source], label=label)
        if target in ORACLE_PREDICTOR:
            panel.plot(BETAS, ORACLE_PREDICTOR[target], **_PUBLISHED)
    for panel in panels[::2]:
        panel.set_ylabel(axis_label("si_sdr"))
    bottom_legend(figure, panels, columns=3)
    return figure


def _panels(names: list[str], label: str) -> tuple[Figure, list[Axes]]:
    """Create two panels per row, each with its own vertical axis."""
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(8.2, 2.7 * rows + 0.9), layout="constrained")
    panels = list(figure.subplots(rows, 2, squeeze=False).flat)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    for panel in panels[: len(names)][-2:]:
        panel.set_xlabel(label)
    return figure, panels[: len(names)]
