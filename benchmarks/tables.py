"""Pivot the score tables of several runs into one Markdown table, over the items that all of them have.

    python benchmarks/tables.py outputs/compare_* --rows run column --cells mean calls
    python benchmarks/tables.py outputs/results/path_* --cells gain best
    python benchmarks/tables.py outputs/progressive_* --rows source run --metrics si_sdr --cells best calls
    python benchmarks/tables.py outputs/results/speech_denoiser --rows column step --cells mean

Keys are the run, the column (``one_step``, a guide or a schedule), the metric, the source, of runs that score
sources by themselves, and the step: those in ``--rows`` name the rows, the others the columns. Cells are the
``mean`` of the last step (for one step always) with the improvement over the mixture, its ``gain`` over one
step, paired by item, with the 95 % bootstrap interval, that of the ``best`` step, and separator ``calls``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from shared import command_line

from encore.reporting.labels import title
from encore.reporting.scores import read_scores
from encore.reporting.stem_report import stem_summary
from encore.reporting.tables import gain_cell, number, pivot, to_markdown, value_cell

KEYS = ("source", "run", "column", "metric", "step")


def load(options: argparse.Namespace) -> pd.DataFrame:
    """Return the summary of all runs over the items that all of them have, sorted by the rows."""
    frames = [read_scores(run / "scores.parquet").assign(run=run.name) for run in options.runs]
    common = set.intersection(*(set(frame["item"]) for frame in frames))
    print(f"{len(common)} items\n")
    scores = pd.concat(frames, ignore_index=True)
    scores = scores[scores["item"].isin(common) & scores["metric"].isin(options.metrics or scores["metric"])]
    summary = stem_summary(scores if "source" in scores else scores.assign(source=""))
    columns = options.columns or set(summary["column"]) - {"mixture"}
    summary = summary[summary["column"].isin(columns)]
    return summary.sort_values(options.rows, key=lambda column: pd.factorize(column)[0], kind="stable")


def table_of(summary: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """Return the table."""
    keys = [key for key in KEYS if key != "step" or key in options.rows]
    beside = [key for key in keys if key not in options.rows and summary[key].nunique() > 1]
    found = []
    for values, group in summary.groupby(keys, sort=False):
        named = dict(zip(keys, map(str, values), strict=True))
        for head, text in cells(group, options.cells).items():
            names = [title(named[key]) for key in beside if key != "metric" or head != "NFE"]
            heading = ", ".join(filter(None, [*names, head])) or "value"
            found.append(named | {"heading": heading, "text": text})
    return pivot(pd.DataFrame(found), options.rows, "heading", lambda row: str(row["text"]))


def cells(group: pd.DataFrame, wanted: list[str]) -> dict[str, str]:
    """Return headings and texts of the steps of one source, run, column and metric."""
    last, later = group.iloc[-1], group[group["step"] > 0]
    if later.empty:
        return {"": value_cell(last)}
    best = later.loc[later["gain"].fillna(float("-inf")).idxmax()]
    texts = {
        "mean": ("", value_cell(last)),
        "gain": ("gain", gain_cell(last)),
        "best": ("best gain", f"{gain_cell(best)} at {best['step']}"),
        "calls": ("NFE", number(last["evaluations"], 1)),
    }
    return dict(texts[name] for name in wanted)


def main() -> None:
    """Print the table."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path)
    add("--rows", nargs="+", choices=KEYS, default=["run"])
    add("--cells", nargs="+", choices=["mean", "gain", "best", "calls"], default=["gain"])
    add("--metrics", nargs="+", help="all by default")
    add("--columns", nargs="+", help="such as one_step fixed si_sdr_oracle; all but the mixture by default")
    options = parser.parse_args()
    print(to_markdown(table_of(load(options), options)))


if __name__ == "__main__":
    main()
