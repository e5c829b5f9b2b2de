"""Write the report of runs to a folder: tables, figures and pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from encore.reporting.cost import equal_cost, equal_cost_cells, operating_points
from encore.reporting.labels import title as metric_title
from encore.reporting.page import Block, Section, write_pages
from encore.reporting.palette import Look, guide_looks, save_png
from encore.reporting.plots import gain_figure, ratio_figure, scale_figure, step_figure
from encore.reporting.runs import Run
from encore.reporting.summary import pair_scores, summarise
from encore.reporting.tables import comparison_frame, comparison_table, overview_table, runs_table, step_table

READING = (
    "Values are means over items, higher is better; in brackets the improvement over the unprocessed "
    "mixture. NFE is the number of function evaluations (separator calls) per item of the whole refinement, "
    "as counted, without the cost of the guide. A gain is the mean difference to the same model's one-step "
    "estimate, paired by item, with its 95 % bootstrap interval.\n\n"
    "An oracle guide uses the reference: it is an upper bound, not available to a user. A blind guide uses "
    "only audio, a fixed schedule no guide at all. A dagger (†) marks a guide scored by the metric that it "
    "maximizes: judge it by the other columns. An item whose metric failed is left out of that mean and "
    "counted as failed."
)


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
        ``scores_summary.csv``, ``comparison.csv``, ``runs.csv`` and, with known costs, ``equal_cost.csv``.

    Raises:
        ValueError: If there is no run.
        OSError: If the folder cannot be written.
    """
    if not runs:
        raise ValueError("runs: is empty; give at least one run with scores")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    scores = pd.concat([run.scores for run in runs], ignore_index=True)
    summary, paired = summarise(scores, seed=seed), pair_scores(scores)
    looks = guide_looks(summary.loc[~summary["kind"].isin(["mixture", "one_step"]), "column"])
    frames = {"scores_summary": summary, "comparison": comparison_frame(summary), "runs": runs_table(runs)}

    cost, frame = _cost_section(runs, summary, paired, looks, out, seed=seed)
    if frame is not None:
        frames["equal_cost"] = frame
    metrics = list(dict.fromkeys(summary["metric"]))
    own = [_metric_section(summary, paired, metric, looks, out) for metric in metrics]
    sections = [_overview(runs, summary), cost, *own]
    if (summary.loc[summary["column"].isin(list(looks)), "step"] > 0).any():
        caption = "Mean mixing ratio that the guides chose, and items that kept their estimate."
        chosen = _picture(ratio_figure(summary, looks=looks), out, "ratios", caption)
        sections.append(Section(title="Chosen ratios", blocks=[chosen]))

    files = write_pages(out / "report.html", title, sections)
    for name, table in frames.items():
        files.append(out / f"{name}.csv")
        table.to_csv(files[-1], index=False)
    return files


def _picture(figure: Figure, out: Path, name: str, caption: str) -> Block:
    """Save a figure and return its block."""
    file = re.sub(r"[^A-Za-z0-9_-]", "_", name) + ".png"
    return Block(picture=save_png(figure, out / file), caption=caption)


def _overview(runs: Sequence[Run], summary: pd.DataFrame) -> Section:
    """Return a table of every system and metric, an explanation, and the records of the runs."""
    return Section(
        title="Overview",
        blocks=[
            Block(text=READING),
            Block(table=overview_table(summary), caption="One step and every guide's last step."),
            Block(text=_items_note(runs)),
            Block(table=runs_table(runs), caption="The runs, from their run.json."),
        ],
    )


def _items_note(runs: Sequence[Run]) -> str:
    """Return whether means of different runs are comparable, in words."""
    items = [set(run.scores["item"]) for run in runs]
    shared = set.intersection(*items)
    if any(own != shared for own in items):
        return (
            f"Caution: the runs were scored on different items ({len(shared)} are common to all). Means of "
            "different runs are not comparable; only the equal-cost table pairs them by item."
        )
    if len(runs) == 1:
        return f"The run was scored on {len(shared)} items."
    return f"All {len(runs)} runs were scored on the same {len(shared)} items."


def _cost_section(
    runs: Sequence[Run],
    summary: pd.DataFrame,
    paired: pd.DataFrame,
    looks: Mapping[str, Look],
    out: Path,
    *,
    seed: int,
) -> tuple[Section, pd.DataFrame | None]:
    """Return the comparison at equal cost, and its table as numbers; runs without a cost are named."""
    costs = {run.name: run.record.macs_per_second for run in runs}
    unknown = [name for name, cost in costs.items() if not cost]
    blocks = []
    if unknown:
        names = ", ".join(unknown)
        blocks.append(
            Block(text=f"Not shown here, because run.json does not record macs_per_second: {names}.")
        )
    points = operating_points(summary, costs)
    frame = None
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
        frame = equal_cost(paired, points, seed=seed)
        blocks.append(Block(text=about))
        blocks.append(_picture(scale_figure(points, looks=looks), out, "cost", caption))
        if not frame.empty:
            blocks.append(
                Block(table=equal_cost_cells(frame), caption="Refined against one step, at equal cost.")
            )
    return Section(title="Equal cost", blocks=blocks), frame


def _metric_section(
    summary: pd.DataFrame, paired: pd.DataFrame, metric: str, looks: Mapping[str, Look], out: Path
) -> Section:
    """Return the section of one metric: last steps, curves, items, every step."""
    name = metric_title(metric)
    table = comparison_table(summary, metric)
    blocks = [Block(table=table, caption=f"{name}: one step, and every guide's last step.")]
    about = f"{name} at every step: above the mean, below the paired gain over one step, with 95 % intervals."
    blocks.append(_picture(step_figure(summary, metric, looks=looks), out, f"steps_{metric}", about))
    if summary.loc[summary["metric"] == metric, "column"].isin(list(looks)).any():
        caption = f"Gain in {name} of every item at the last step, against the item's one-step score."
        blocks.append(_picture(gain_figure(paired, metric, looks=looks), out, f"gains_{metric}", caption))
        blocks.append(Block(table=step_table(summary, metric), caption=f"{name} at every step", folded=True))
    return Section(title=name, blocks=blocks)
