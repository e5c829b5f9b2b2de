"""Figures of scores: over steps, over items, and over cost.

They take a summary (`encore.reporting.summary.summarise`), paired scores (`pair_scores` there) or points
(`encore.reporting.cost.operating_points`), and looks from `encore.reporting.palette.guide_looks`, by default
made for the figure. A ``ValueError`` names what has no scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from encore.reporting.labels import axis_label, title, unit_suffix
from encore.reporting.palette import MIXTURE_COLOUR, ONE_STEP_COLOUR, Look, guide_looks, styled
from encore.reporting.scores import KINDS
from encore.reporting.summary import final_steps
from encore.reporting.tables import quantity

PANELS_PER_ROW = 4
UNGUIDED = ("mixture", "one_step")


def _guides(frame: pd.DataFrame) -> list[str]:
    """Return the columns of the guides in a summary or paired table: fixed, then blind, then oracle ones."""
    guided = frame[~frame["kind"].isin(UNGUIDED)].drop_duplicates("column")
    ranked = sorted(
        zip(guided["kind"], guided["column"], strict=True), key=lambda row: (KINDS.index(row[0]), row[1])
    )
    return [column for _, column in ranked]


def _rows(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of one metric; raise if there are none."""
    rows = frame[frame["metric"] == metric]
    if rows.empty:
        known = ", ".join(dict.fromkeys(frame["metric"])) or "none"
        raise ValueError(f"metric: {metric!r} has no scores; there are {known}")
    return rows


def _looks(frame: pd.DataFrame, looks: Mapping[str, Look] | None) -> Mapping[str, Look]:
    """Return the given looks, or looks for this figure alone."""
    return guide_looks(_guides(frame)) if looks is None else looks


def bottom_legend(figure: Figure, axes: list[Axes], columns: int | None = None) -> None:
    """Draw one legend for all panels, every name once; in as many columns as fit if None."""
    entries: dict[Any, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    # names of usual length are 1.7 inches wide
    fitting = max(1, min(len(entries), int(figure.get_figwidth() / 1.7)))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns or fitting)


def _panels(
    runs: list[str], heights: tuple[float, float]
) -> tuple[Figure, list[Axes], list[tuple[Axes, Axes]]]:
    """Create an upper and a lower panel for every run, in bands of `PANELS_PER_ROW`, with shared axes."""
    bands = -(-len(runs) // PANELS_PER_ROW)
    width = -(-len(runs) // bands)
    size = (max(2.7 * width + 0.6, 5.2), 1.85 * sum(heights) * bands + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(2 * bands, width, squeeze=False, sharex=True, height_ratios=heights * bands)
    for row, panels in enumerate(grid):
        for column, panel in enumerate(panels):
            if row > 1 or column:
                panel.sharey(grid[row % 2, 0])
            panel.tick_params(labelleft=column == 0, labelbottom=row % 2 == 1)
            panel.set_visible(row // 2 * width + column < len(runs))
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    pairs = [
        (grid[2 * (i // width), i % width], grid[2 * (i // width) + 1, i % width]) for i in range(len(runs))
    ]
    for (upper, lower), run in zip(pairs, runs, strict=True):
        upper.set_title(run)
        lower.set_xlabel("Refinement step")
    return figure, list(grid[:, 0]), pairs


def _label_rows(first: list[Axes], upper: str, lower: str) -> None:
    """Label the vertical axis of every row."""
    for row, panel in enumerate(first):
        panel.set_ylabel(lower if row % 2 else upper)


@styled
def step_figure(summary: pd.DataFrame, metric: str, *, looks: Mapping[str, Look] | None = None) -> Figure:
    """Draw a metric at every refinement step, one panel per run, one line per guide.

    The upper panels show the mean with its 95 % interval beside one step and mixture, the lower ones the gain
    over one step, whose interval is narrower because it is paired by item.
    """
    rows = _rows(summary, metric)
    looks = _looks(summary, looks)
    runs = list(dict.fromkeys(rows["run"]))
    figure, first, pairs = _panels(runs, (1.5, 1.0))
    for (upper, lower), run in zip(pairs, runs, strict=True):
        group = rows[rows["run"] == run]
        _value_panel(upper, group, looks)
        _gain_panel(lower, group, looks)
    _label_rows(first, axis_label(metric), f"Gain over one\nstep{unit_suffix(metric)}")
    figure.suptitle(f"{title(metric)} over refinement steps (mean and 95 % interval)", fontsize=11)
    bottom_legend(figure, [panel for pair in pairs for panel in pair])
    return figure


@styled
def ratio_figure(summary: pd.DataFrame, *, looks: Mapping[str, Look] | None = None) -> Figure:
    """Draw the mixing ratio that guides chose at every step, and the fraction of items that kept theirs.

    A panel per run: above, the mean mixing ratio of the items that accepted a new estimate at a step; below,
    the fraction of items that kept the previous one.
    """
    steps = summary[~summary["kind"].isin(UNGUIDED) & (summary["step"] > 0)]
    # the ratios are the same for every metric of an item
    steps = steps.drop_duplicates(["run", "column", "step"])
    if steps.empty:
        raise ValueError("summary: no guide has a refinement step; score a refinement first")
    looks = _looks(summary, looks)
    runs = list(dict.fromkeys(steps["run"]))
    figure, first, pairs = _panels(runs, (1.0, 1.0))
    for (upper, lower), run in zip(pairs, runs, strict=True):
        for column in _guides(group := steps[steps["run"] == run]):
            own, look = group[group["column"] == column], looks[column]
            style = _style(look)
            upper.plot(own["step"], own["ratio"], label=column, **style)
            lower.plot(own["step"], 100 * own["kept"], label=column, **style)
        upper.set_ylim(-0.03, 1.03)
        lower.set_ylim(-3, 103)
    _label_rows(first, "Mixing ratio chosen", "Items that kept the\nprevious estimate (%)")
    figure.suptitle("Mixing ratios chosen at every step", fontsize=11)
    bottom_legend(figure, [panel for pair in pairs for panel in pair])
    return figure


def _value_panel(panel: Axes, group: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """Draw the means of one run over its steps."""
    for kind, colour, line in (("mixture", MIXTURE_COLOUR, ":"), ("one_step", ONE_STEP_COLOUR, (0, (4, 3)))):
        for _, row in group[group["kind"] == kind].iterrows():
            panel.axhline(row["mean"], color=colour, linestyle=line, linewidth=1.2, label=kind)
    for column in _guides(group):
        _line(panel, group, column, looks[column], ("mean", "low", "high"))


def _gain_panel(panel: Axes, group: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """Draw the paired gains of one run over its steps."""
    panel.axhline(0, color=ONE_STEP_COLOUR, linestyle=(0, (4, 3)), linewidth=1.2)
    for column in _guides(group):
        _line(panel, group, column, looks[column], ("gain", "gain_low", "gain_high"))


def _line(panel: Axes, group: pd.DataFrame, column: str, look: Look, names: tuple[str, str, str]) -> None:
    """Draw one guide's line and band, from the one-step estimate on."""
    steps = group[group["column"] == column]
    if not (steps["step"] == 0).any():
        start = group[group["kind"] == "one_step"]
        steps = pd.concat([start, steps])
    x = steps["step"].to_numpy()
    middle, low, high = (steps[name].to_numpy(dtype="float64") for name in names)
    panel.plot(x, middle, label=column, markevery=max(1, len(x) // 10), **_style(look))
    panel.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)


def _style(look: Look) -> dict[str, Any]:
    return {"color": look.colour, "linestyle": look.line, "marker": look.marker}


@styled
def scale_figure(points: pd.DataFrame, *, looks: Mapping[str, Look] | None = None) -> Figure:
    """Draw metrics against cost, a panel per metric: refined small models beside larger models.

    Open diamonds are models applied once, joined in black; lines lead from there to the same model refined,
    up by its paired gain, because a guide may have refined fewer items. Metrics without scores of a guide are
    left out, unless there is no other.
    """
    if points.empty:
        raise ValueError("points: no run has a cost; record macs_per_second in run.json")
    looks = _looks(points, looks)
    refined = points[points["kind"] != "one_step"]
    metrics = list(dict.fromkeys((points if refined.empty else refined)["metric"]))
    width = {1: 1, 2: 2, 4: 2}.get(len(metrics), 3)
    height = -(-len(metrics) // width)
    figure = Figure(figsize=(max(3.3 * width, 5.2), 2.9 * height + 0.7), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False)
    for index, panel in enumerate(grid.flat):
        if index >= len(metrics):
            panel.set_visible(False)
            continue
        _scale_panel(panel, points[points["metric"] == metrics[index]], looks)
        panel.set_title(title(metrics[index]))
        panel.set_ylabel(axis_label(metrics[index]))
        panel.set_xlabel("Cost (MAC per second of audio)")
    figure.suptitle("Quality against cost: models applied once (joined in black) and refined", fontsize=11)
    bottom_legend(figure, list(grid.flat))
    return figure


def _scale_panel(panel: Axes, group: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """Draw the points of one metric on a logarithmic cost axis."""
    once = group[group["kind"] == "one_step"].sort_values("cost")
    diamond: dict[str, Any] = {"marker": "D", "markerfacecolor": "white", "linewidth": 1.0, "zorder": 3}
    panel.plot(once["cost"], once["mean"], color=ONE_STEP_COLOUR, label="one_step", **diamond)
    for _, row in group[group["kind"] != "one_step"].iterrows():
        look = looks[row["column"]]
        style: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "linewidth": 1.2}
        for _, start in once[once["run"] == row["run"]].iterrows():
            cost, value = [start["cost"], row["cost"]], [start["mean"], start["mean"] + row["gain"]]
            panel.plot(cost, value, label=row["column"], marker=look.marker, markevery=[-1], **style)
    for _, row in once.iterrows():
        # refined points are to the right: the free corner is the upper left one
        position: dict[str, Any] = {"xytext": (-5, 4), "textcoords": "offset points", "ha": "right"}
        panel.annotate(row["run"], (row["cost"], row["mean"]), fontsize=8, **position)
    panel.set_xscale("log")
    panel.margins(x=0.12, y=0.12)
    low, high = panel.get_xlim()
    panel.set_xlim(low / 4, high)  # room for the names left of the points
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
    panel.xaxis.set_minor_formatter(NullFormatter())


@styled
def gain_figure(paired: pd.DataFrame, metric: str, *, looks: Mapping[str, Look] | None = None) -> Figure:
    """Draw the gain of every item at the last step against its one-step score, with histograms.

    A row per run: a scatter plot (one point per item and guide), and the gains' histogram on the same axis,
    whose legend counts the items that got better and worse.
    """
    looks = _looks(paired, looks)
    rows = _rows(paired, metric)
    rows = final_steps(rows[~rows["kind"].isin(UNGUIDED)])
    if rows.empty:
        raise ValueError(f"paired: no guide has scores of {metric!r}; score a refinement first")
    runs = list(dict.fromkeys(rows["run"]))
    figure = Figure(figsize=(7.2, 2.9 * len(runs) + 0.5), layout="constrained")
    grid = figure.subplots(len(runs), 2, squeeze=False, width_ratios=[1.7, 1], sharey="row", sharex="col")
    for (scatter, histogram), run in zip(grid, runs, strict=True):
        group = rows[rows["run"] == run]
        gains = group["gain"].dropna()
        edges = np.histogram_bin_edges(gains, bins=24) if len(gains) else np.linspace(-1, 1, 25)
        for column in _guides(group):
            items, look = group[group["column"] == column].dropna(subset=["gain"]), looks[column]
            style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "label": column}
            scatter.scatter(items["one_step"], items["gain"], s=16, alpha=0.55, linewidths=0, **style)
            better, worse = (items["gain"] > 0).sum(), (items["gain"] < 0).sum()
            label = f"{better} of {len(items)} better, {worse} worse"
            shape = {"orientation": "horizontal", "histtype": "step", "linestyle": look.line}
            histogram.hist(items["gain"], edges, color=look.colour, label=label, linewidth=1.4, **shape)
        for panel in (scatter, histogram):
            panel.axhline(0, color=ONE_STEP_COLOUR, linewidth=0.9)
            panel.legend(loc="best", fontsize=7.5)
        scatter.set_title(run)
        scatter.set_ylabel(f"Gain in {axis_label(metric)}")
    grid[-1, 0].set_xlabel(f"One-step {axis_label(metric)}")
    grid[-1, 1].set_xlabel("Items")
    figure.suptitle(f"{title(metric)}: gain of every item over its one-step estimate", fontsize=11)
    return figure
