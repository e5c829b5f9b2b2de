"""What is known beforehand against what refinement then gains, over all separators that were measured.

    python benchmarks/will_it_help.py outputs/theory_*

Runs of experiment=bridge_theory. Spearman's correlation with the gain under the oracle (and, if there was
one, a blind guide) over all items of all runs, with its 95 % bootstrap interval; of the items' ranks within
their runs; and the medians of each run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from encore.reporting.bridge_report import PREDICTORS, correlation
from encore.reporting.tables import number, to_markdown

GAINS = {"gain_oracle": "oracle", "gain_blind": "blind"}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    items = pd.concat(
        [pd.read_parquet(run / "bridge_items.parquet").assign(run=run.name) for run in options.runs],
        ignore_index=True,
    )
    columns = [name for name in PREDICTORS if name in items and items[name].notna().any()]
    gains = [name for name in GAINS if name in items and items[name].notna().any()]
    ranks = items.groupby("run")[[*columns, *gains]].rank()
    rows = []
    for column in columns:
        cells = {"known beforehand": PREDICTORS[column]}
        for gain in gains:
            cells[f"{GAINS[gain]}, all items"] = correlation(items[column], items[gain])
            cells[f"{GAINS[gain]}, within a separator"] = correlation(ranks[column], ranks[gain])
        rows.append(cells)
    print(f"{len(items)} items of {len(options.runs)} separators\n")
    print(to_markdown(pd.DataFrame(rows)))
    middle = items.groupby("run", sort=False)[[*columns, *gains]].median()
    middle[gains] = items.groupby("run", sort=False)[gains].mean()
    shown = middle.map(lambda value: number(value, 3)).reset_index()
    print("Medians of the items, gains as means:\n")
    print(to_markdown(shown))


if __name__ == "__main__":
    main()
