"""Figures of scores: over steps, over items, over cost, and along the chain of a diffusion.

They take a summary (`encore.reporting.summary.summarise`), paired scores (`pair_scores` there) or points
(`with_cost`), and looks from `encore.reporting.figures.guide_looks`, by default made for the figure. A
``ValueError`` names what has no scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from encore.reporting.figures import (
    HUES,
    MIXTURE_COLOUR,
    ONE_STEP_COLOUR,
    Looks,
    curves,
    guide_looks,
    legend_below,
    panels,
    styled,
)
from encore.reporting.labels import axis_label, title, unit_suffix
from encore.reporting.summary import final_steps, guided
from encore.reporting.tables import quantity

BASELINES: dict[str, dict[str, Any]] = {
    "mixture": {"color": MIXTURE_COLOUR, "linestyle": ":", "linewidth": 1.2},
    "one_step": {"color": ONE_STEP_COLOUR, "linestyle": (0, (4, 3)), "linewidth": 1.2},
}
"""Styles of the horizontal lines that guides are compared with."""

LEADER: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 7}
"""Style of the line from a point to a name that found no place beside it."""


def _rows(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of one metric; raise if there are none."""
    rows = frame[frame["metric"] == metric]
    if rows.empty:
        known = ", ".join(frame["metric"].unique()) or "none"
        raise ValueError(f"metric: {metric!r} has no scores; there are {known}")
    return rows


@styled
def step_figure(summary: pd.DataFrame, metric: str, *, looks: Looks | None = None) -> Figure:
    """Draw a metric at every refinement step, one panel per run, one line per guide.

    The upper panels show the mean with its 95 % interval beside one step and mixture, the lower ones the gain
    over one step, whose interval is narrower because it is paired by item.
    """
    rows = _rows(summary, metric)
    steps = guided(rows)
    looks = guide_looks(steps["column"]) if looks is None else looks
    # lines begin at the one-step estimate, at that of the same items where it was scored
    starts = rows[rows["kind"] == "one_step"].drop(columns="column")
    starts = starts.merge(steps[["run", "column"]].drop_duplicates(), on="run")
    steps = pd.concat([starts, steps]).drop_duplicates(["run", "column", "step"], keep="last")
    steps = steps.sort_values("step", kind="stable")
    runs = list(rows["run"].unique())
    ylabels = (axis_label(metric), f"Gain over one\nstep{unit_suffix(metric)}")
    figure, pairs = panels(
        runs, xlabel="Refinement step", ylabels=ylabels, heights=(1.5, 1.0), columns=4, same_axes=True
    )
    for run, (upper, lower) in zip(runs, pairs, strict=True):
        for _, row in rows[(rows["run"] == run) & rows["kind"].isin(list(BASELINES))].iterrows():
            upper.axhline(row["mean"], label=row["kind"], **BASELINES[row["kind"]])
        lower.axhline(0, **BASELINES["one_step"])
        own = steps[steps["run"] == run]
        curves(upper, own, "step", "mean", "column", looks, band=("low", "high"))
        curves(lower, own, "step", "gain", "column", looks, band=("gain_low", "gain_high"))
        lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    figure.suptitle(f"{title(metric)} over refinement steps (mean and 95 % interval)", fontsize=11)
    legend_below(figure)
    return figure


def with_cost(summary: pd.DataFrame, macs_per_second: Mapping[str, float | None]) -> tuple[pd.DataFrame, str]:
    """Add the cost of one step and of every guide's last step.

    Args:
        summary: From `encore.reporting.summary.summarise`.
        macs_per_second: Multiply-accumulates of one separator call per second of audio, by run name.

    Returns:
        The summary's rows of these estimates with a column ``cost``, and what it states: multiply-accumulates
        of all calls per second of audio, without those of the guide; where a run has none, seconds per item;
        where these are not known either, separator calls.
    """
    points = final_steps(summary[summary["kind"] != "mixture"])
    macs = points["run"].map(macs_per_second).astype("float64")
    costs = {
        "Cost (MAC per second of audio)": macs * points["evaluations"],
        "Time per item (s)": points["seconds"],
        "Separator calls": points["evaluations"].clip(lower=1),
    }
    name = next(name for name, cost in costs.items() if (cost > 0).all())
    return points.assign(cost=costs[name]), name


@styled
def cost_figure(points: pd.DataFrame, xlabel: str, *, looks: Looks | None = None) -> Figure:
    """Draw the quality of comparable runs against cost, models applied once beside refined ones.

    Diamonds are models applied once, and the black line is the best of them at no more than a cost. Coloured
    lines lead from a diamond to the same model refined, up by its paired gain with its 95 % interval.

    Args:
        points: Rows of one metric, of runs that share their items, from `with_cost`.
        xlabel: What the cost states.
        looks: Of the guides.
    """
    refined = guided(points)
    looks = guide_looks(refined["column"]) if looks is None else looks
    size = 12  # still legible where the figure is half as wide, on a phone
    with mpl.rc_context({"axes.labelsize": size, "legend.fontsize": size}):
        ylabels = [axis_label(points["metric"].iloc[0])]
        figure, ((panel,),) = panels([""], xlabel=xlabel, ylabels=ylabels, size=(5.6, 4.4))
        once = points[points["kind"] == "one_step"].sort_values("cost")
        if len(once) > 1:
            best = once[once["mean"] == once["mean"].cummax()]
            edges = np.repeat([*best["cost"], points["cost"].max()], 2)[1:-1]
            line: dict[str, Any] = {"color": ONE_STEP_COLOUR, "linewidth": 1.2}
            panel.plot(edges, np.repeat(best["mean"], 2), label="best one step up to this cost", **line)
        diamond: dict[str, Any] = {
            "color": ONE_STEP_COLOUR,
            "markerfacecolor": "white",
            "markersize": 7,
            "zorder": 3,
        }
        panel.plot(once["cost"], once["mean"], "D", label="one step", **diamond)
        pairs = refined.merge(once[["run", "cost", "mean"]], on="run", suffixes=("", "_once"))
        for _, row in pairs.iterrows():
            look, cost = looks[row["column"]], [row["cost_once"], row["cost"]]
            value, low, high = row["mean_once"] + row[["gain", "gain_low", "gain_high"]]
            panel.plot(cost, [row["mean_once"], value], label=row["column"], markevery=[-1], **look)
            panel.plot(2 * cost[1:], [low, high], "_-", color=look["color"], linewidth=1.2, markersize=7)
        _cost_axis(panel)
        panel.tick_params(labelsize=size)
        legend_below(figure, columns=2)
        figure.draw_without_rendering()  # places the panel, so that names know their pixels
        _label(panel, once[["run", "cost", "mean"]], size)
    return figure


def _cost_axis(panel: Axes) -> None:
    """Make the horizontal axis logarithmic, with few and round numbers."""
    panel.set_xscale("log")
    panel.margins(x=0.2, y=0.15)
    low, high = panel.get_xlim()
    decades = np.log10(high / low)
    panel.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,))
    )
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _label(panel: Axes, points: pd.DataFrame, size: float) -> None:
    """Write names beside points: each at the nearest place that no other name, point or line needs."""
    paths = [line.get_transform().transform_path(line.get_path()) for line in panel.lines]
    busy = np.concatenate([path.interpolated(20).vertices for path in paths])
    taken: list[Bbox] = []
    inside, pixels = panel.get_window_extent(), panel.figure.dpi / 72
    sides = ((-1, 1), (1, 1), (-1, -1), (1, -1), (0, 1), (0, -1))
    for name, x, y in points.itertuples(index=False):
        text = panel.annotate(name, (x, y), (0, 0), textcoords="offset points", ha="center", fontsize=size)
        text.set(va="center", in_layout=False)
        extent, middle = Text.get_window_extent(text).padded(3), panel.transData.transform((x, y))
        width, height = extent.width, extent.height
        for gap, side in itertools.product((3, 15, 30, 50, 75, 105), sides):
            offset = np.array(side) * (np.array([width, height]) / 2 + gap * pixels)
            left, bottom = map(float, middle + offset - [width / 2, height / 2])
            box = Bbox.from_bounds(left, bottom, width, height)
            free = not (box.count_contains(busy) or box.count_overlaps(taken))
            if free and all(inside.contains(*corner) for corner in (box.min, box.max)):
                break
        at: tuple[float, float] = tuple(offset / pixels)
        text.set_position(at)
        if gap > 3:
            panel.annotate("", (x, y), at, textcoords="offset points", arrowprops=LEADER)
        taken.append(box)


@styled
def gain_figure(paired: pd.DataFrame, metric: str, *, looks: Looks | None = None) -> Figure:
    """Draw the gain of every item at the last step against its one-step score, with histograms.

    A row per run: a scatter plot (one point per item and guide), and the gains' histogram on the same axis,
    whose legend counts the items that got better and worse.
    """
    rows = final_steps(guided(_rows(paired, metric)))
    if rows.empty:
        raise ValueError(f"paired: no guide has scores of {metric!r}; score a refinement first")
    looks = guide_looks(rows["column"]) if looks is None else looks
    runs = rows["run"].unique()
    figure = Figure(figsize=(7.2, 2.9 * len(runs) + 0.5), layout="constrained")
    grid = figure.subplots(len(runs), 2, squeeze=False, width_ratios=[1.7, 1], sharey="row", sharex="col")
    for run, (scatter, histogram) in zip(runs, grid, strict=True):
        group = rows[rows["run"] == run]
        edges = np.histogram_bin_edges(group["gain"].dropna(), bins=24)
        for column in (name for name in looks if name in set(group["column"])):
            items, look = group[group["column"] == column].dropna(subset="gain"), looks[column]
            colour, style = look["color"], {"marker": look["marker"], "alpha": 0.55, "linewidths": 0}
            scatter.scatter(items["one_step"], items["gain"], s=16, color=colour, label=column, **style)
            better, worse = (items["gain"] > 0).sum(), (items["gain"] < 0).sum()
            label = f"{better} of {len(items)} better, {worse} worse"
            shape = {"orientation": "horizontal", "histtype": "step", "linestyle": look["linestyle"]}
            histogram.hist(items["gain"], edges, color=colour, label=label, linewidth=1.4, **shape)
        for panel in (scatter, histogram):
            panel.axhline(0, color=ONE_STEP_COLOUR, linewidth=0.9)
            panel.legend(loc="best", fontsize=7.5)
        scatter.set_title(run)
        scatter.set_ylabel(f"Gain in {axis_label(metric)}")
    grid[-1, 0].set_xlabel(f"One-step {axis_label(metric)}")
    grid[-1, 1].set_xlabel("Items")
    figure.suptitle(f"{title(metric)}: gain of every item over its one-step estimate", fontsize=11)
    return figure


@styled
def solver_traces_figure(traces: pd.DataFrame) -> Figure:
    """Draw the residual of the mixture and the conflicts of guidance with the priors by noise level.

    Args:
        traces: Columns ``variant, mixture, alpha_bar, residual, conflict``: a row for every level with its
            ``abar``, ``conflict`` a fraction in [0, 1], NaN for solvers without a gradient.

    Returns:
        Two panels side by side, from the noisiest level to the cleanest; means over the mixtures, of the
        conflicts over nine levels too. Residuals below 0.01 are not shown.
    """
    variants = list(traces["variant"].unique())
    dashes = ("-", "--", ":", "-.")
    looks: Looks = {
        name: {"color": HUES[n % len(HUES)], "linestyle": dashes[n // len(HUES) % 4], "linewidth": 1.3}
        for n, name in enumerate(variants)
    }
    means = traces.groupby(["variant", "alpha_bar"], as_index=False)[["residual", "conflict"]].mean()
    smoothed = means.groupby("variant")["conflict"].rolling(9, center=True, min_periods=1).mean()
    means = means.assign(
        conflict=smoothed.droplevel(0), sigma=((1 - means["alpha_bar"]) / means["alpha_bar"]) ** 0.5
    )
    titles = ("Residual of the mixture", "Steps in conflict")
    figure, ((residual,), (conflict,)) = panels(
        titles, xlabel="Deviation of the noise", columns=2, size=(4.5, 3.3)
    )
    curves(residual, means, "sigma", "residual", "variant", looks)
    curves(conflict, means, "sigma", "conflict", "variant", looks)
    for panel in (residual, conflict):
        panel.set_xscale("log")
        panel.invert_xaxis()
    residual.set(yscale="log", ylabel="Residual over the mixture")
    residual.set_ylim(bottom=0.01)
    conflict.set(ylim=(-0.02, 1.02), ylabel="Fraction of sources and mixtures")
    handles, labels = residual.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    return figure
