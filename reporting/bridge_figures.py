"""Figures of a separator read as a bridge: error along the path, bounds, ratios over steps, time, gain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from encore.reporting.palette import HUES, MIXTURE_COLOUR, ONE_STEP_COLOUR, styled

PATHS = {
    "separator": ("separator, not told the time", HUES[0], "-", "o"),
    "bridge": ("bridge, told the time, in its states", HUES[1], "-", "s"),
    "bridge_mean": ("bridge, without their noise", HUES[2], "--", "s"),
    "linear": ("best linear filter of the item", HUES[3], "-.", "^"),
    "input": ("the input itself", MIXTURE_COLOUR, ":", None),
}

SMALLEST = 1e-4
"""Relative errors below this one are not drawn."""


@styled
def path_figure(path: pd.DataFrame) -> Figure:
    """Relative error along the path from the source (0) to the mixture (1), median and quartiles over items.

    Args:
        path: Columns ``item, what, ratio, error``, errors over the norm of the reference.

    Returns:
        Curves in dB.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    panel = figure.subplots()
    for what, (label, colour, line, marker) in PATHS.items():
        # the best filter of a clean input errs by rounding alone, which would flatten all else
        rows = path[(path["what"] == what) & (path["error"] > SMALLEST)]
        if rows.empty:
            continue
        decibels = 20 * np.log10(rows["error"])
        low, middle, high = (decibels.groupby(rows["ratio"]).quantile(q) for q in (0.25, 0.5, 0.75))
        panel.plot(middle.index, middle, line, marker=marker, color=colour, label=label)
        panel.fill_between(middle.index, low, high, color=colour, alpha=0.12, lw=0)
    panel.set_xlabel("Mixture's share r, time of the bridge")
    panel.set_ylabel("Error over the source (dB)")
    panel.set_title("Error along the path")
    figure.legend(loc="outside right center")
    return figure


@styled
def bounds_figure(steps: pd.DataFrame) -> Figure:
    """What happened against what the bounds allow: above the diagonals nothing may lie.

    Args:
        steps: Columns of `encore.inference.theory.StepCheck`, a row for every item and step.

    Returns:
        Two panels: how far a score may be below the best on a finer grid, and how large an error may be.
    """
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    grid, signal = figure.subplots(1, 2)
    allowed, missed = steps["best"] - steps["grid_bound"], steps["best"] - steps["score"]
    _against(grid, allowed, missed, steps["step"])
    grid.set_title("Grid: dB below the best of a finer grid")
    grid.set_xlabel("allowed (dB)")
    grid.set_ylabel("really (dB)")
    taken = steps.dropna(subset="signal_bound")
    _against(signal, taken["signal_bound"], taken["error"], taken["step"])
    signal.set_title("Signal: error over the source")
    signal.set_xlabel("allowed")
    signal.set_ylabel("really")
    handles, labels = grid.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    return figure


@styled
def ratio_figure(steps: pd.DataFrame, schedules: pd.DataFrame) -> Figure:
    """The shares that refinement chose over its steps, beside schedules.

    Args:
        steps: Columns ``step, ratio``; NaN where an estimate was kept.
        schedules: Columns ``schedule, step, ratio``; may be empty.

    Returns:
        Points for items, larger where more of them agree; lines for schedules.
    """
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    panel = figure.subplots()
    counts = steps.dropna(subset="ratio").groupby(["step", "ratio"]).size()
    total = steps.groupby("step").size()
    for row in counts.rename("count").reset_index().itertuples():
        area: Any = 400 * row.count / total[row.step]  # type: ignore[operator,index]
        panel.scatter(row.step, row.ratio, s=area, color=HUES[0], alpha=0.6, lw=0)  # type: ignore[arg-type]
    kept = steps["ratio"].isna().groupby(steps["step"]).mean()
    for step, share in kept.items():
        panel.annotate(f"{share:.0%} kept", (step, 1.06), ha="center", fontsize=8)
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
    panel.set_ylabel("Mixture's share r")
    panel.set_title("Chosen shares (area: share of items)")
    if lines:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def time_figure(probe: pd.DataFrame) -> Figure:
    """The time as a linear probe reads it off the network and off its input, for items it was not fitted on.

    Args:
        probe: Columns ``ratio, predicted_layers, predicted_input, explained_layers, explained_input``.

    Returns:
        Mean and deviation of the readings against the time.
    """
    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color=ONE_STEP_COLOUR, lw=0.8)
    for shift, (name, label) in zip((-0.01, 0.01), (("layers", "layers"), ("input", "input")), strict=True):
        colour = HUES[0] if name == "layers" else HUES[1]
        group = probe.groupby("ratio")[f"predicted_{name}"]
        mean, spread = group.mean(), group.std()
        explained = probe[f"explained_{name}"].iloc[0]
        panel.errorbar(
            mean.index + shift, mean, spread, fmt="o", color=colour, label=f"{label}, R² {explained:.2f}"
        )
    panel.set_xlabel("Mixture's share r")
    panel.set_ylabel("read off")
    panel.set_title("Does the separator know the time?")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def gain_figure(items: pd.DataFrame, columns: list[str]) -> Figure:
    """Each item's gain by refinement under the oracle against numbers that are known beforehand.

    Args:
        items: With ``gain_oracle`` and the columns.
        columns: What may tell.

    Returns:
        A panel for each column.
    """
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


def _against(panel: Axes, allowed: pd.Series, really: pd.Series, step: pd.Series) -> None:
    """Points and the diagonal."""
    for index, number in enumerate(sorted(step.unique())):
        own = step == number
        panel.scatter(
            allowed[own],
            really[own],
            s=14,
            color=HUES[index % len(HUES)],
            alpha=0.7,
            lw=0,
            label=f"step {number}",
        )
    low, high = min(allowed.min(), really.min()), max(allowed.max(), really.max())
    panel.plot([low, high], [low, high], color=ONE_STEP_COLOUR, lw=0.8)
