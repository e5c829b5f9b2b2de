"""Figures of the bridge experiment: error along the path, bounds, ratios over steps, time, gain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from encore.reporting.palette import HUES, MIXTURE_COLOUR, ONE_STEP_COLOUR, styled

PATHS = {
    "separator": ("separator, without the time", HUES[0], "-", "o"),
    "bridge": ("bridge, conditioned on time, in its states", HUES[1], "-", "s"),
    "bridge_mean": ("bridge, without their noise", HUES[2], "--", "s"),
    "linear": ("best linear filter of the item", HUES[3], "-.", "^"),
    "input": ("the input itself", MIXTURE_COLOUR, ":", None),
}

SMALLEST = 1e-4
"""Relative errors below this are not drawn."""


@styled
def path_figure(path: pd.DataFrame) -> Figure:
    """Draw the error along the path from source (0) to mixture (1), median and quartiles over items, in dB.

    ``path`` has the columns ``item, what, ratio, error``, errors over the norm of the reference.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    panel = figure.subplots()
    for what, (label, colour, line, marker) in PATHS.items():
        # the best filter of a clean input has rounding errors only, far below all others
        rows = path[(path["what"] == what) & (path["error"] > SMALLEST)]
        if rows.empty:
            continue
        decibels = 20 * np.log10(rows["error"])
        low, middle, high = (decibels.groupby(rows["ratio"]).quantile(q) for q in (0.25, 0.5, 0.75))
        panel.plot(middle.index, middle, line, marker=marker, color=colour, label=label)
        panel.fill_between(middle.index, low, high, color=colour, alpha=0.12, lw=0)
    panel.set_xlabel("Mixing ratio r, time of the bridge")
    panel.set_ylabel("Error over the source (dB)")
    panel.set_title("Error along the path")
    figure.legend(loc="outside right center")
    return figure


@styled
def bounds_figure(steps: pd.DataFrame) -> Figure:
    """Draw measured values against their bounds; no point may be above the diagonals.

    ``steps`` has the columns of `encore.inference.theory.StepCheck`, a row for every item and step. Two
    panels: the score below the best on a finer grid, and the error of the estimate.
    """
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    grid, signal = figure.subplots(1, 2)
    allowed, missed = steps["best"] - steps["grid_bound"], steps["best"] - steps["score"]
    _against(grid, allowed, missed, steps["step"])
    grid.set_title("Grid: dB below the best of a finer grid")
    grid.set_xlabel("allowed (dB)")
    grid.set_ylabel("measured (dB)")
    taken = steps.dropna(subset="signal_bound")
    _against(signal, taken["signal_bound"], taken["error"], taken["step"])
    signal.set_title("Signal: error over the source")
    signal.set_xlabel("allowed")
    signal.set_ylabel("measured")
    handles, labels = grid.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    return figure


@styled
def ratio_figure(steps: pd.DataFrame, schedules: pd.DataFrame) -> Figure:
    """Draw the mixing ratios that refinement chose over its steps, beside schedules.

    ``steps`` has the columns ``step, ratio``, NaN where an estimate was kept, ``schedules`` the columns
    ``schedule, step, ratio``. Points are items, larger for more items of one ratio; lines are schedules.
    """
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    panel = figure.subplots()
    counts = steps.dropna(subset="ratio").groupby(["step", "ratio"]).size()
    total = steps.groupby("step").size()
    for row in counts.rename("count").reset_index().itertuples():
        area: Any = 400 * row.count / total[row.step]  # type: ignore[operator,index]
        panel.scatter(row.step, row.ratio, s=area, color=HUES[0], alpha=0.6, lw=0)  # type: ignore[arg-type]
    kept = steps["ratio"].isna().groupby(steps["step"]).mean()
    for step, fraction in kept.items():
        panel.annotate(f"{fraction:.0%} kept", (step, 1.06), ha="center", fontsize=8)
    lines: dict[str, pd.Series] = {}
    if not schedules.empty:
        for name, rows in schedules[schedules["step"] > 0].groupby("schedule"):
            lines[f"{name} schedule"] = rows.groupby("step")["ratio"].first()
    for index, (name, line) in enumerate(lines.items()):
        panel.plot(line.index, line, "--D", color=HUES[1 + index], label=name)
    panel.set_xlim(min(total.index) - 0.4, max(total.index) + 0.4)
    panel.set_ylim(-0.08, 1.16)
    panel.set_xticks(sorted(total.index))
    panel.set_xlabel("Refinement step")
    panel.set_ylabel("Mixing ratio r")
    panel.set_title("Chosen mixing ratios (area: fraction of items)")
    if lines:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def time_figure(probe: pd.DataFrame) -> Figure:
    """Draw the time predicted by linear probes of the network and of its input, on held-out items.

    ``probe`` has the columns ``ratio, predicted_layers, predicted_input, explained_layers, explained_input``.
    """
    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color=ONE_STEP_COLOUR, lw=0.8)
    for shift, name, colour in ((-0.01, "layers", HUES[0]), (0.01, "input", HUES[1])):
        group = probe.groupby("ratio")[f"predicted_{name}"]
        mean, deviation = group.mean(), group.std()
        explained = probe[f"explained_{name}"].iloc[0]
        panel.errorbar(
            mean.index + shift, mean, deviation, fmt="o", color=colour, label=f"{name}, R² {explained:.2f}"
        )
    panel.set_xlabel("Mixing ratio r")
    panel.set_ylabel("predicted by a linear probe")
    panel.set_title("Does the separator represent the time?")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def gain_figure(items: pd.DataFrame, columns: list[str]) -> Figure:
    """Draw each item's gain by refinement, ``gain_oracle``, against its predictors, a panel for each."""
    rows = -(-len(columns) // 3)
    figure = Figure(figsize=(8.2, 2.5 * rows + 0.3), layout="constrained")
    panels = list(figure.subplots(rows, 3, squeeze=False).flat)
    for panel, column in zip(panels, columns, strict=False):
        panel.scatter(items[column], items["gain_oracle"], s=14, color=HUES[0], alpha=0.7, lw=0)
        panel.set_xlabel(column)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    for panel in panels[::3]:
        panel.set_ylabel("gain (dB)")
    return figure


def _against(panel: Axes, allowed: pd.Series, measured: pd.Series, step: pd.Series) -> None:
    """Draw points and the diagonal."""
    for index, number in enumerate(sorted(step.unique())):
        own = step == number
        style: Any = {"color": HUES[index % len(HUES)], "label": f"step {number}"}
        panel.scatter(allowed[own], measured[own], s=14, alpha=0.7, lw=0, **style)
    low, high = min(allowed.min(), measured.min()), max(allowed.max(), measured.max())
    panel.plot([low, high], [low, high], color=ONE_STEP_COLOUR, lw=0.8)
