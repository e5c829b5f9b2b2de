"""Runs of experiment=bridge_comparison side by side: what every way of asking again scores, and costs.

    python benchmarks/bridge_table.py outputs/compare_* [--items 2]

Means over the items that all runs have, at the last step of each way. NFE are calls really made. The
real-time factor is measured here, anew, on the first items of the test data with one thread: seconds of the
whole way, measures that guide it included, over seconds of audio.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from encore.models import load_separator
from encore.reporting.labels import decimals, title
from encore.reporting.scores import column_name, read_scores
from encore.reporting.summary import final_steps, summarise
from encore.reporting.tables import number, to_markdown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--items", type=int, default=2, help="that are timed (default: 2)")
    options = parser.parse_args()
    tables = {run: read_scores(run / "scores.parquet") for run in options.runs}
    common = set.intersection(*(set(table["item"]) for table in tables.values()))
    rows = []
    for run, table in tables.items():
        summary = final_steps(summarise(table[table["item"].isin(common)]))
        factors = real_time_factors(run, options.items)
        for column, group in summary.groupby("column", sort=False):
            if column != "mixture" or not rows:
                name = "" if column == "mixture" else run.name.removeprefix("compare_")
                rows.append({"separator": name, "way": str(column)} | cells(group, factors.get(str(column))))
    print(f"{len(common)} items\n")
    print(to_markdown(pd.DataFrame(rows)))


def cells(group: pd.DataFrame, factor: float | None) -> dict[str, str]:
    """Of one way, from the summary's rows."""
    found = {
        title(row["metric"]): number(row["mean"], decimals(row["metric"])) for _, row in group.iterrows()
    }
    calls = number(float(group["evaluations"].iloc[0]), 1)
    return found | {"NFE": calls, "real-time factor": "" if factor is None else f"{factor:.3f}"}


def real_time_factors(run: Path, items: int) -> dict[str, float]:
    """Seconds per second of audio of one step and every guide of a run, with one thread."""
    torch.set_num_threads(1)
    config: Any = OmegaConf.load(run / "config.yaml")
    separator = load_separator(config.separator)
    data = instantiate(config.data)
    guides = [guide for guide in instantiate(config.evaluation, _convert_="all").guides.values() if guide]
    samples = [data.test_dataloader().dataset[place] for place in range(items)]
    seconds = sum(sample["mixture"].shape[-1] for sample in samples) / separator.sample_rate
    ways: dict[str, Any] = {"one_step": lambda separate, mixture, **_: separate(mixture)}
    ways |= {column_name(guide.name, guide.kind): guide for guide in guides}
    factors = {}
    with torch.no_grad():
        for name, way in ways.items():
            # the first call of anything pays for all that follow
            for repeat in range(2):
                start = time.perf_counter()
                for sample in samples[: None if repeat else 1]:
                    generator = torch.Generator().manual_seed(0)
                    reference = sample["references"][0][None]
                    way(separator, sample["mixture"][None], reference=reference, generator=generator)
                factors[name] = (time.perf_counter() - start) / seconds
    return factors


if __name__ == "__main__":
    main()
