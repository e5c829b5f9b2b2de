"""Write the report of runs to a folder: tables, figures and pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from encore.reporting.cost import equal_cost, equal_cost_cells, operating_points
from encore.reporting.figures import Looks, guide_looks
from encore.reporting.labels import title as metric_title
from encore.reporting.page import Block, Section, write_pages
from encore.reporting.plots import gain_figure, ratio_figure, scale_figure, step_figure
from encore.reporting.results import LEGEND, comparable, result_table, verdict
from encore.reporting.runs import Run
from encore.reporting.summary import guided, pair_scores, summarise
from encore.reporting.tables import runs_table, step_table


def write_report(
    runs: Sequence[Run], out: str | Path, *, title: str = "Separation report", seed: int = 0
) -> list[Path]:
    """Compare runs and write the report into a folder.

    Args:
        runs: Runs with distinct names, from `encore.reporting.runs.load_all`; at least one.
        out: Folder to write; created if needed, existing files are replaced.
        title: Heading of the pages.
        seed: Seed of the bootstrap.

    Returns:
        The files, pages first: ``report.html`` (self-contained), ``report.md``, the figures as PNG,
        ``scores_summary.csv``, ``runs.csv`` and, with known costs, ``equal_cost.csv``.

    Raises:
        ValueError: If there is no run.
        OSError: If the folder cannot be written.
    """
    if not runs:
        raise ValueError("runs: is empty; give at least one run with scores")
    scores = pd.concat([run.scores for run in runs], ignore_index=True)
    summary, paired = summarise(scores, seed=seed), pair_scores(scores)
    points = operating_points(summary, {run.name: run.record.macs_per_second for run in runs})
    costs = equal_cost(paired, points, seed=seed)
    looks = guide_looks(guided(summary)["column"])
    sections = [_results(runs, scores, seed), _cost_section(runs, points, costs, looks)]
    sections += [_metric_section(summary, paired, metric, looks) for metric in summary["metric"].unique()]
    if (guided(summary)["step"] > 0).any():
        caption = "Mean mixing ratio that the guides chose, and items that kept their estimate."
        chosen = Block(figure=ratio_figure(summary, looks=looks), name="ratios", caption=caption)
        sections.append(Section("Chosen ratios", [chosen]))
    files = write_pages(Path(out) / "report.html", title, sections)
    frames = {"scores_summary": summary, "runs": runs_table(runs)}
    for name, table in (frames if costs.empty else frames | {"equal_cost": costs}).items():
        files.append(Path(out) / f"{name}.csv")
        table.to_csv(files[-1], index=False)
    return files


def _results(runs: Sequence[Run], scores: pd.DataFrame, seed: int) -> Section:
    """Return verdict and table of every set of runs that share items, and the records of the runs."""
    costs = {run.name: run.record.macs_per_second for run in runs}
    blocks = []
    for group in comparable(scores):
        blocks += [
            Block(text="\n\n".join(verdict(group, costs))),
            Block(table=result_table(summarise(group, seed=seed)), caption=LEGEND),
        ]
    blocks.append(Block(table=runs_table(runs), caption="The runs, from their run.json."))
    return Section("Results", blocks)


def _cost_section(runs: Sequence[Run], points: pd.DataFrame, costs: pd.DataFrame, looks: Looks) -> Section:
    """Return the comparison at equal cost; runs without a cost are named."""
    blocks = []
    if unknown := [run.name for run in runs if not run.record.macs_per_second]:
        text = f"Not shown here, because run.json does not record macs_per_second: {', '.join(unknown)}."
        blocks.append(Block(text=text))
    if not points.empty:
        about = (
            "Cost is multiply-accumulates per second of audio: of one function evaluation, times NFE. Each "
            "refined estimate is compared with the strongest one-step estimate of any run that costs at most "
            "10 % more; the difference is paired by item, positive where refinement is better, with its 95 % "
            "interval."
        )
        caption = (
            "Open diamonds: models applied once. Lines lead to the same model refined, up by its "
            "paired gain (a guide may have refined fewer items)."
        )
        figure = scale_figure(points, looks=looks)
        blocks += [Block(text=about), Block(figure=figure, name="cost", caption=caption)]
    if not costs.empty:
        caption = "Refined against one step, at equal cost."
        blocks.append(Block(table=equal_cost_cells(costs), caption=caption))
    return Section("Equal cost", blocks)


def _metric_section(summary: pd.DataFrame, paired: pd.DataFrame, metric: str, looks: Looks) -> Section:
    """Return the section of one metric: last steps, curves, items, every step."""
    name = metric_title(metric)
    about = f"{name} at every step: above the mean, below the paired gain over one step, with 95 % intervals."
    curves = step_figure(summary, metric, looks=looks)
    blocks = [
        Block(figure=curves, name=f"steps_{metric}", caption=about),
    ]
    if (guided(summary)["metric"] == metric).any():
        caption = f"Gain in {name} of every item at the last step, against the item's one-step score."
        items = gain_figure(paired, metric, looks=looks)
        blocks.append(Block(figure=items, name=f"gains_{metric}", caption=caption))
        blocks.append(Block(table=step_table(summary, metric), caption=f"{name} at every step", folded=True))
    return Section(name, blocks)
