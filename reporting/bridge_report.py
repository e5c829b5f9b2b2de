"""The report of the bridge experiment: tables and figures of a separator read as a bridge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from encore.reporting.figures import (
    HUES,
    MIXTURE_COLOUR,
    ONE_STEP_COLOUR,
    curves,
    legend_below,
    panels,
    styled,
)
from encore.reporting.page import Block, Section, write_pages
from encore.reporting.statistics import statistics
from encore.reporting.tables import NO_VALUE, interval_cell, number

TOLERANCE = 1e-3
"""Tolerance of bounds, in dB and in relative error: estimates of other batches differ by rounding."""

SMALLEST = 1e-4
"""Relative errors below this are not drawn."""

PATHS = {
    "separator": "separator, without the time",
    "bridge": "bridge, conditioned on time, in its states",
    "bridge_mean": "bridge, without their noise",
    "linear": "best linear filter of the item",
    "input": "the input itself",
}
"""Labels of the maps along the path."""

LOOKS: dict[str, dict[str, Any]] = {
    name: {"label": label, "color": colour, "linestyle": line, "marker": marker}
    for (name, label), colour, line, marker in zip(
        PATHS.items(),
        (*HUES[:4], MIXTURE_COLOUR),
        ("-", "-", "--", "-.", ":"),
        ("o", "s", "s", "^", ""),
        strict=True,
    )
}

PREDICTORS = {
    "delta": "delta, f(s) against s",
    "secant": "secant of f from s to the mixture",
    "worst_clean": "worst direction at s",
    "worst_mixture": "worst direction at the mixture",
    "worst_estimate": "worst direction at the estimate",
    "noise": "noise over the source",
    "one_step": "one-step SNR",
    "disjointness": "disjointness (blind)",
    "fixed_point": "fixed point (blind)",
    "remix_agreement": "remix agreement (blind)",
}
"""Possible predictors of the gain by refinement of an item; the last three need no reference."""


def write_bridge_report(folder: str | Path, tables: Mapping[str, pd.DataFrame], *, name: str) -> list[Path]:
    """Write ``bridge.md``, ``bridge.html`` and their figures into a run folder.

    Args:
        folder: An existing folder.
        tables: By the file names of `encore.cli.theory_experiment.TheoryExperiment`; may be empty.
        name: Name of the run.

    Returns:
        The pages and the pictures.
    """
    found = {file.removeprefix("bridge_").removesuffix(".parquet"): frame for file, frame in tables.items()}
    path, steps, items, probe = (found[key] for key in ("path", "steps", "items", "probe"))
    sections = []
    if not path.empty:
        blocks = [
            Block(table=path_table(path)),
            Block(figure=path_figure(path), name="path", caption="Error along the path"),
        ]
        sections.append(Section("Along the path", blocks))
    if not steps.empty:
        sections += [_bounds(steps, items), _ratios(steps, items, found["schedules"])]
    if not probe.empty:
        text = (
            "On held-out items a linear probe of the layers explains "
            f"{probe['explained_layers'].iloc[0]:.2f} of the variance of the time, one of the input's band "
            f"levels {probe['explained_input'].iloc[0]:.2f}."
        )
        sections.append(Section("Time", [Block(text=text, figure=time_figure(probe), name="time")]))
    if not items.empty and "delta" in items:
        sections.append(_items(items))
    return write_pages(Path(folder) / "bridge.html", f"{name} as a bridge", sections)


def path_table(path: pd.DataFrame) -> pd.DataFrame:
    """Return the median relative error in dB by mixing ratio, a row for each map."""
    median = path.groupby(["what", "ratio"])["error"].median().unstack()
    table = median.reindex([what for what in PATHS if what in median.index])
    cells = table.map(lambda error: number(20 * np.log10(error), 1) if error > 0 else NO_VALUE)
    cells = cells.rename(columns="{:g}".format, index=PATHS)
    return cells.rename_axis(index="error over the source (dB) at r", columns=None).reset_index()


def bounds_table(steps: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Count how often each bound held, and measure how tight it is."""
    start = items.set_index("item")["one_step"]
    scores = steps.sort_values("step").groupby("item")["score"]
    falls = pd.Series(
        {item: max(-np.diff([start[item], *own]).min(), 0.0) for item, own in scores}, dtype=float
    )
    slack, allowed = steps["score"] - steps["grid_bound"], steps["best"] - steps["grid_bound"]
    missed = steps["best"] - steps["score"]
    taken = steps.dropna(subset="signal_bound")
    ratio = taken["signal_bound"] / taken["error"]
    rows = [
        (
            "monotone: the measured score never falls",
            falls <= TOLERANCE,
            f"largest fall {falls.max():.1e} dB",
        ),
        (
            "grid: dB below the best of a finer grid",
            slack >= -TOLERANCE,
            f"median {missed.median():.3f} dB of {allowed.median():.2f} allowed",
        ),
        (
            "signal: error over the source",
            taken["error"] - taken["signal_bound"] <= TOLERANCE * taken["signal_bound"],
            f"bound over error: median {ratio.median():.2f}, at most {ratio.max():.2f}",
        ),
    ]
    if "eps" in items:
        blind = items.dropna(subset="eps")
        twice, fall = 2 * blind["eps"], -blind["worst_fall"]
        note = f"largest fall {fall.max():.2f} dB; 2 eps: median {twice.median():.2f} dB"
        rows.append(
            ("monotone under a blind guide: true fall at most 2 eps", fall <= twice + TOLERANCE, note)
        )
    cells = [(bound, str(len(held)), str(int(held.sum())), note) for bound, held, note in rows]
    return pd.DataFrame(cells, columns=["bound", "checked", "held", "how tight"])


def predictor_table(items: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlations of the predictors with the gain by refinement, over items."""
    rows = []
    for column in _predictors(items):
        cells = {"predictor": PREDICTORS[column], "median": number(float(items[column].median()), 3)}
        for gain, head in (("gain_oracle", "oracle guide"), ("gain_blind", "blind guide")):
            if gain in items:
                cells[f"correlation with the gain, {head}"] = correlation(items[column], items[gain])
        rows.append(cells)
    return pd.DataFrame(rows)


def _predictors(items: pd.DataFrame) -> list[str]:
    """Return the predictors that were measured."""
    return [name for name in PREDICTORS if name in items and items[name].notna().any()]


def correlation(x: pd.Series, y: pd.Series, *, draws: int = 500, seed: int = 0) -> str:
    """Format Spearman's correlation with its 95 % bootstrap interval over rows."""
    both = pd.DataFrame({"x": x, "y": y}).dropna()
    if len(both) < 3 or both["x"].nunique() < 2 or both["y"].nunique() < 2:
        return ""
    ranks = both.rank().to_numpy()
    indices = np.random.default_rng(seed).integers(len(ranks), size=(draws, len(ranks)))
    # a draw of one item only has no correlation
    drawn = [
        np.corrcoef(rankdata(ranks[own], axis=0).T)[0, 1] for own in indices if np.ptp(ranks[own], 0).all()
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return interval_cell((np.corrcoef(ranks.T)[0, 1], low, high), 2)


def schedules_table(items: pd.DataFrame, schedules: pd.DataFrame) -> pd.DataFrame:
    """Return the gains at the last step of the search and of schedules."""
    rows = [{"method": "search, oracle guide", "ratios": "", "gain (dB)": _mean(items["gain_oracle"])}]
    for name, own in schedules.groupby("schedule", sort=False):
        ratios = own[own["step"] > 0].groupby("step")["ratio"].first()
        last = own.loc[own["step"] == schedules["step"].max(), "gain"]
        cells = {"method": f"{name} schedule", "ratios": ", ".join(f"{ratio:g}" for ratio in ratios.round(3))}
        rows.append(cells | {"gain (dB)": _mean(last)})
    return pd.DataFrame(rows)


@styled
def path_figure(path: pd.DataFrame) -> Figure:
    """Draw the error along the path from source (0) to mixture (1), median and quartiles over items, in dB.

    ``path`` has the columns ``item, what, ratio, error``, errors over the norm of the reference.
    """
    # the best filter of a clean input has rounding errors only, far below all others
    shown = path[path["error"] > SMALLEST]
    quartiles = (20 * np.log10(shown["error"])).groupby([shown["what"], shown["ratio"]])
    table = quartiles.quantile([0.25, 0.5, 0.75]).unstack().reset_index()
    xlabel, ylabels = "Mixing ratio r, time of the bridge", ["Error over the source (dB)"]
    figure, ((panel,),) = panels(["Error along the path"], xlabel=xlabel, ylabels=ylabels, size=(5.8, 3.1))
    curves(panel, table, "ratio", 0.5, "what", LOOKS, band=(0.25, 0.75))
    figure.legend(loc="outside right center")
    return figure


@styled
def bounds_figure(steps: pd.DataFrame) -> Figure:
    """Draw measured values against their bounds; no point may be above the diagonals.

    ``steps`` has the columns of `encore.inference.theory.StepCheck`, a row for every item and step. Two
    panels: the score below the best on a finer grid, and the error of the estimate.
    """
    titles = ["Grid: dB below the best of a finer grid", "Signal: error over the source"]
    figure, ((grid,), (signal,)) = panels(titles, columns=2, size=(3.8, 3.1))
    _against(grid, steps["best"] - steps["grid_bound"], steps["best"] - steps["score"], steps["step"])
    grid.set(xlabel="allowed (dB)", ylabel="measured (dB)")
    taken = steps.dropna(subset="signal_bound")
    _against(signal, taken["signal_bound"], taken["error"], taken["step"])
    signal.set(xlabel="allowed", ylabel="measured")
    legend_below(figure, columns=6)
    return figure


def _against(panel: Axes, allowed: pd.Series, measured: pd.Series, step: pd.Series) -> None:
    """Draw points and the diagonal."""
    for index, value in enumerate(sorted(step.unique())):
        own, colour = step == value, HUES[index % len(HUES)]
        label = f"step {value}"
        panel.scatter(allowed[own], measured[own], s=14, color=colour, alpha=0.7, lw=0, label=label)
    ends = [min(allowed.min(), measured.min()), max(allowed.max(), measured.max())]
    panel.plot(ends, ends, color=ONE_STEP_COLOUR, lw=0.8)


@styled
def ratio_figure(steps: pd.DataFrame, schedules: pd.DataFrame) -> Figure:
    """Draw the mixing ratios that refinement chose over its steps, beside schedules.

    ``steps`` has the columns ``step, ratio``, NaN where an estimate was kept, ``schedules`` the columns
    ``schedule, step, ratio``. Points are items, larger for more items of one ratio; lines are schedules.
    """
    title, xlabel = "Chosen mixing ratios (area: fraction of items)", "Refinement step"
    figure, ((panel,),) = panels([title], xlabel=xlabel, ylabels=["Mixing ratio r"], size=(4.6, 2.9))
    total = steps.groupby("step").size()
    counts = steps.dropna(subset="ratio").groupby(["step", "ratio"]).size().reset_index(name="count")
    area = 400 * counts["count"] / counts["step"].map(total)
    panel.scatter(counts["step"], counts["ratio"], s=area, color=HUES[0], alpha=0.6, lw=0)
    for step, kept in steps["ratio"].isna().groupby(steps["step"]).mean().items():
        panel.annotate(f"{kept:.0%} kept", (step, 1.06), ha="center", fontsize=8)
    if not schedules.empty:
        lines = schedules[schedules["step"] > 0].groupby(["schedule", "step"])["ratio"].first().reset_index()
        looks = {
            name: {"color": colour, "linestyle": "--", "marker": "D", "label": f"{name} schedule"}
            for name, colour in zip(lines["schedule"].unique(), HUES[1:], strict=False)
        }
        curves(panel, lines, "step", "ratio", "schedule", looks)
        legend_below(figure, columns=2)
    panel.set_xlim(min(total.index) - 0.4, max(total.index) + 0.4)
    panel.set_ylim(-0.08, 1.16)
    panel.set_xticks(sorted(total.index))
    return figure


@styled
def time_figure(probe: pd.DataFrame) -> Figure:
    """Draw the time predicted by linear probes of the network and of its input, on held-out items.

    ``probe`` has the columns ``ratio, predicted_layers, predicted_input, explained_layers, explained_input``.
    """
    title, ylabels = "Does the separator represent the time?", ["predicted by a linear probe"]
    figure, ((panel,),) = panels([title], xlabel="Mixing ratio r", ylabels=ylabels, size=(4.2, 3.1))
    panel.plot([0, 1], [0, 1], color=ONE_STEP_COLOUR, lw=0.8)
    for shift, name, colour in ((-0.01, "layers", HUES[0]), (0.01, "input", HUES[1])):
        found = probe.groupby("ratio")[f"predicted_{name}"].agg(["mean", "std"])
        label = f"{name}, R² {probe[f'explained_{name}'].iloc[0]:.2f}"
        at = found.index + shift
        panel.errorbar(at, found["mean"], found["std"], fmt="o", color=colour, label=label)
    legend_below(figure, columns=2)
    return figure


@styled
def gain_figure(items: pd.DataFrame, columns: list[str]) -> Figure:
    """Draw each item's gain by refinement, ``gain_oracle``, against its predictors, a panel for each."""
    figure, found = panels(columns, ylabels=["gain (dB)"], columns=3, size=(2.6, 2.5))
    for column, (panel,) in zip(columns, found, strict=True):
        panel.scatter(items[column], items["gain_oracle"], s=14, color=HUES[0], alpha=0.7, lw=0)
    return figure


def _bounds(steps: pd.DataFrame, items: pd.DataFrame) -> Section:
    note = (
        "Constants are measured for the inputs of the bounds, on a grid ten times as fine. So the bounds "
        "must hold for every item and step; how tight they are is the result."
    )
    caption = "Measured values against bounds; no point may be above the diagonals"
    blocks = [
        Block(text=note, table=bounds_table(steps, items)),
        Block(figure=bounds_figure(steps), name="bounds", caption=caption),
    ]
    return Section("Bounds", blocks)


def _ratios(steps: pd.DataFrame, items: pd.DataFrame, schedules: pd.DataFrame) -> Section:
    caption = "Mixing ratios that refinement chose"
    blocks = [Block(figure=ratio_figure(steps, schedules), name="ratios", caption=caption)]
    if not schedules.empty:
        note = "Test items; the fitted schedule was found on validation items and needs no guide."
        blocks.append(Block(text=note, table=schedules_table(items, schedules)))
    return Section("Ratios and schedules", blocks)


def _items(items: pd.DataFrame) -> Section:
    count, gain = int(items["delta"].notna().sum()), _mean(items["gain_oracle"])
    note = f"{count} items; mean gain with an oracle guide {gain} dB."
    blocks = [Block(text=note, table=predictor_table(items))]
    if columns := _predictors(items):
        caption = "Gain with an oracle guide against its predictors"
        blocks.append(Block(figure=gain_figure(items, columns), name="gains", caption=caption))
    return Section("Will refinement help?", blocks)


def _mean(values: pd.Series) -> str:
    return interval_cell(statistics(values).interval, 2)
