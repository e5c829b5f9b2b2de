"""Runs of experiment=progressive_musdb side by side: one step, the best fixed step, adaptive refinement.

    python benchmarks/music_table.py outputs/progressive_unet outputs/progressive_dttnet ...

Only songs that all runs have are counted. The best step of the fixed schedule is the one with the highest
mean, found with the references at hand; gains are over one step, paired by song, with 95 % bootstrap
intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from encore.reporting.scores import read_scores
from encore.reporting.stem_report import stem_summary
from encore.reporting.tables import number, to_markdown


def main() -> None:
    """Print a row for every stem and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--metric", default="si_sdr")
    options = parser.parse_args()
    tables = {run.name: read_scores(run / "scores.parquet") for run in options.runs}
    common = set.intersection(*(set(table["item"]) for table in tables.values()))
    rows = []
    for name, table in tables.items():
        own = table[table["item"].isin(common) & (table["metric"] == options.metric)]
        rows += [
            {"stem": source, "separator": name.removeprefix("progressive_")} | cells(group)
            for source, group in stem_summary(own).groupby("source", sort=False)
        ]
    stems = list(dict.fromkeys(row["stem"] for row in rows))
    print(f"{len(common) // len(stems)} songs, {options.metric}\n")
    print(to_markdown(pd.DataFrame(sorted(rows, key=lambda row: stems.index(row["stem"])))))


def cells(group: pd.DataFrame) -> dict[str, str]:
    """Of one stem and run, from the summary's rows."""
    one_step = group[group["kind"] == "one_step"].iloc[0]
    found = {"one step (over the mixture)": f"{one_step['mean']:.2f} ({one_step['improvement']:+.2f})"}
    later = group[group["step"] > 0]
    fixed, adaptive = (later[later["column"] == name] for name in ("fixed", "si_sdr_oracle"))
    best = fixed.sort_values("gain").iloc[-1]
    found["best fixed step"] = f"{gain(best)} at {best['step']}"
    found["last fixed step"] = gain(fixed.iloc[-1])
    found["adaptive, oracle"] = gain(adaptive.iloc[-1])
    found["NFE"] = number(adaptive.iloc[-1]["evaluations"], 1)
    return found


def gain(row: pd.Series) -> str:
    """Mean gain over one step and its interval."""
    return f"{row['gain']:+.2f} [{row['gain_low']:.2f}, {row['gain_high']:.2f}]"


if __name__ == "__main__":
    main()
