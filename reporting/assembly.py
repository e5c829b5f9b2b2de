"""Write the report of runs to a folder: tables, figures and pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from encore.reporting.examples import read_examples
from encore.reporting.figures import Looks, guide_looks
from encore.reporting.labels import shown_metrics
from encore.reporting.labels import title as metric_title
from encore.reporting.page import Block, Section, write_pages
from encore.reporting.plots import cost_figure, gain_figure, step_figure, with_cost
from encore.reporting.results import LEGEND, Comparison, comparable, result_table, verdict
from encore.reporting.runs import Run
from encore.reporting.summary import chosen_ratios, final_steps, guided, pair_scores, summarise
from encore.reporting.tables import runs_table

EXAMPLES = ("multi_step", "examples")
"""Folders of examples in run folders, of a training and of an experiment."""


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
        ``scores_summary.csv`` and ``runs.csv``.

    Raises:
        ValueError: If there is no run.
        OSError: If the folder cannot be written.
    """
    if not runs:
        raise ValueError("runs: is empty; give at least one run with scores")
    scores = pd.concat([run.scores for run in runs], ignore_index=True)
    summary = summarise(scores, seed=seed)
    looks = guide_looks(guided(summary)["column"])
    sets = comparable(scores, seed=seed)
    costs = {run.name: run.record.macs_per_second for run in runs}
    sections = [
        _answer(number, own, costs, looks, alone=len(sets) == 1) for number, own in enumerate(sets, 1)
    ]
    if examples := [block for run in runs for block in _examples(run)]:
        sections.append(Section("Listen", examples))
    tables = [Block(table=result_table(own), caption=_members(group)) for group, own in sets]
    sections.append(Section("Results", [Block(text=LEGEND), *tables]))
    sections.append(Section("Details", _details(runs, scores, summary, looks)))
    files = write_pages(Path(out) / "report.html", title, sections)
    for name, table in {"scores_summary": summary, "runs": runs_table(runs)}.items():
        files.append(Path(out) / f"{name}.csv")
        table.to_csv(files[-1], index=False)
    return files


def _members(group: pd.DataFrame) -> str:
    """Name the runs of a set, and count their common items."""
    names, items = group["run"].unique(), group["item"].nunique()
    common = " common" if len(names) > 1 else ""
    return f"{', '.join(names)}: {items}{common} item{'s' if items > 1 else ''}"


def _answer(
    number: int,
    comparison: Comparison,
    costs: dict[str, float | None],
    looks: Looks,
    *,
    alone: bool,
) -> Section:
    """Return the verdict on a set of comparable runs, beside its figure of quality against cost."""
    group, summary = comparison
    blocks = [Block(text="\n\n".join(verdict(comparison, costs)))]
    main = shown_metrics(final_steps(summary))[0]
    points, unit = with_cost(summary[(summary["metric"] == main) & summary["mean"].notna()], costs)
    if len(points) > 1:
        caption = f"{_members(group)}. Lines lead from a model applied once to the same refined, with the "
        caption += "95 % interval of its paired gain."
        if group["run"].nunique() > 1:
            caption += " What is above the black line is better than any model applied once at that cost."
        figure = cost_figure(points, unit, looks=looks)
        blocks.append(Block(figure=figure, name="cost" if alone else f"cost_{number}", caption=caption))
    return Section("" if alone else f"{_members(group)}, not comparable with the others", blocks, leads=True)


def _examples(run: Run) -> list[Block]:
    """Return players and spectrograms of the run's examples; pictures after the first are collapsed."""
    folder = next((own for name in EXAMPLES if (own := run.path.parent / name).is_dir()), run.path.parent)
    blocks = []
    for place, example in enumerate(read_examples(folder)):
        audio = {name: folder / file for name, file in example.audio.items()}
        picture = folder / example.picture
        blocks.append(Block(text=f"{run.name}: {example.gain}", audio=audio))
        caption = "Spectrograms" if place else ""
        blocks.append(Block(figure=picture, name="spectrograms", caption=caption, folded=place > 0))
    return blocks


def _details(runs: Sequence[Run], scores: pd.DataFrame, summary: pd.DataFrame, looks: Looks) -> list[Block]:
    """Return, all collapsed, curves and gains of the metrics of the results, ratios, and records."""
    blocks, paired = [], pair_scores(scores)
    for metric in shown_metrics(final_steps(summary)):
        caption = f"{metric_title(metric)} at every step, and its paired gain over one step"
        curves = step_figure(summary, metric, looks=looks)
        blocks.append(Block(figure=curves, name=f"steps_{metric}", caption=caption, folded=True))
        if (guided(summary)["metric"] == metric).any():
            caption = f"{metric_title(metric)}: gain of every item, against its one-step score"
            items = gain_figure(paired, metric, looks=looks)
            blocks.append(Block(figure=items, name=f"gains_{metric}", caption=caption, folded=True))
    ratios = chosen_ratios(summary)
    ratios["ratio"], ratios["kept"] = (
        ratios["ratio"].map("{:.2f}".format),
        ratios["kept"].map("{:.0%}".format),
    )
    if len(ratios):
        caption = "Mean mixing ratio chosen, and how often the estimate was kept"
        blocks.append(Block(table=ratios, caption=caption, folded=True))
    return [*blocks, Block(table=runs_table(runs), caption="Records of the runs", folded=True)]
