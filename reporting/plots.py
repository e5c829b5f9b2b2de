"""Figures of scores: over steps, over items, over cost, and along the chain of a diffusion.

They take a summary (`encore.reporting.summary.summarise`), paired scores (`pair_scores` there) or points
(`encore.reporting.cost.operating_points`), and looks from `encore.reporting.figures.guide_looks`, by default
made for the figure. A ``ValueError`` names what has no scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

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


@styled
def ratio_figure(summary: pd.DataFrame, *, looks: Looks | None = None) -> Figure:
    """Draw the mixing ratio that guides chose at every step, and the fraction of items that kept theirs.

    A panel per run: above, the mean mixing ratio of the items that accepted a new estimate at a step; below,
    the fraction of items that kept the previous one.
    """
    steps = guided(summary).query("step > 0")
    # the ratios are the same for every metric of an item
    steps = steps.drop_duplicates(["run", "column", "step"]).assign(percent=100 * steps["kept"])
    if steps.empty:
        raise ValueError("summary: no guide has a refinement step; score a refinement first")
    looks = guide_looks(steps["column"]) if looks is None else looks
    runs = list(steps["run"].unique())
    ylabels = ("Mixing ratio chosen", "Items that kept the\nprevious estimate (%)")
    figure, pairs = panels(
        runs, xlabel="Refinement step", ylabels=ylabels, heights=(1.0, 1.0), columns=4, same_axes=True
    )
    for run, (upper, lower) in zip(runs, pairs, strict=True):
        curves(upper, steps[steps["run"] == run], "step", "ratio", "column", looks)
        curves(lower, steps[steps["run"] == run], "step", "percent", "column", looks)
        upper.set_ylim(-0.03, 1.03)
        lower.set_ylim(-3, 103)
        lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    figure.suptitle("Mixing ratios chosen at every step", fontsize=11)
    legend_below(figure)
    return figure


@styled
def scale_figure(points: pd.DataFrame, *, looks: Looks | None = None) -> Figure:
    """Draw metrics against cost, a panel per metric: refined small models beside larger models.

    Open diamonds are models applied once, joined in black; lines lead from there to the same model refined,
    up by its paired gain, because a guide may have refined fewer items. Metrics without scores of a guide are
    left out, unless there is no other.
    """
    if points.empty:
        raise ValueError("points: no run has a cost; record macs_per_second in run.json")
    refined = guided(points)
    looks = guide_looks(refined["column"]) if looks is None else looks
    metrics = (points if refined.empty else refined)["metric"].unique()
    columns = 2 if len(metrics) == 4 else 3
    figure, grid = panels(
        [title(metric) for metric in metrics],
        xlabel="Cost (MAC per second of audio)",
        columns=columns,
        size=(3.3, 2.9),
    )
    for metric, (panel,) in zip(metrics, grid, strict=True):
        _scale_panel(panel, points[points["metric"] == metric], looks)
        panel.set_ylabel(axis_label(metric))
    figure.suptitle("Quality against cost: models applied once (joined in black) and refined", fontsize=11)
    legend_below(figure)
    return figure


def _scale_panel(panel: Axes, group: pd.DataFrame, looks: Looks) -> None:
    """Draw the points of one metric on a logarithmic cost axis."""
    once = group[group["kind"] == "one_step"].sort_values("cost")
    diamond: dict[str, Any] = {"marker": "D", "markerfacecolor": "white", "linewidth": 1.0, "zorder": 3}
    panel.plot(once["cost"], once["mean"], color=ONE_STEP_COLOUR, label="one_step", **diamond)
    refined = guided(group).merge(once[["run", "cost", "mean"]], on="run", suffixes=("", "_once"))
    for _, row in refined.iterrows():
        cost, value = [row["cost_once"], row["cost"]], [row["mean_once"], row["mean_once"] + row["gain"]]
        panel.plot(cost, value, label=row["column"], markevery=[-1], linewidth=1.2, **looks[row["column"]])
    for _, row in once.iterrows():
        # refined points are to the right: the free corner is the upper left one
        position: dict[str, Any] = {"xytext": (-5, 4), "textcoords": "offset points", "ha": "right"}
        panel.annotate(row["run"], (row["cost"], row["mean"]), fontsize=8, **position)
    panel.set_xscale("log")
    panel.margins(x=0.12, y=0.12)
    low, high = panel.get_xlim()
    panel.set_xlim(low / 4, high)  # space for the names left of the points
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
    panel.xaxis.set_minor_formatter(NullFormatter())


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
