"""Quality at equal cost: a small model refined against a large model applied once."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from encore.reporting.labels import decimals, title
from encore.reporting.statistics import statistics
from encore.reporting.summary import final_steps, guided, rank
from encore.reporting.tables import interval_cell, number, quantity


def operating_points(summary: pd.DataFrame, macs_per_second: Mapping[str, float | None]) -> pd.DataFrame:
    """Compute the cost of every run's one-step estimate and every guide's last step.

    Args:
        summary: From `encore.reporting.summary.summarise`.
        macs_per_second: Multiply-accumulates of one function evaluation per second of audio, by run name.

    Returns:
        The summary's rows of those estimates with a column ``cost``: ``macs_per_second`` times the mean NFE
        per item, without the cost of the quality. Runs without a cost are left out.
    """
    points = final_steps(summary[summary["kind"] != "mixture"])
    per_call = points["run"].map({name: macs for name, macs in macs_per_second.items() if macs})
    points["cost"] = per_call.astype("float64") * points["evaluations"]
    return points[points["cost"] > 0].reset_index(drop=True)


def equal_cost(
    paired: pd.DataFrame, points: pd.DataFrame, *, tolerance: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Compare every refined estimate with the strongest one-step estimate of no higher cost.

    Args:
        paired: Score table with failed values as NaN, from `encore.reporting.summary.pair_scores`.
        points: From `operating_points`.
        tolerance: Relative excess cost allowed for the one-step estimate.
        seed: Seed of the bootstrap.

    Returns:
        One row per metric and refined estimate, sorted by metric and cost. ``difference`` is refined minus
        one step, paired over the ``items`` that both runs scored without failure, with its 95 % bootstrap
        interval; the opponent is the one with the smallest difference, among them the run's own one-step
        estimate. Opponents need a common item; a refined estimate without opponents has no row.
    """
    own = ["run", "column", "metric", "step"]
    values = dict(list(paired.set_index("item").groupby(own)["value"]))
    once = points[points["kind"] == "one_step"]
    pairs = guided(points).merge(once, on="metric", suffixes=("", "_once"))
    rows = []
    for _, pair in pairs[pairs["cost_once"] <= (1 + tolerance) * pairs["cost"]].iterrows():
        opponent = values[tuple(pair[name] for name in ("run_once", "column_once", "metric", "step_once"))]
        differences = (values[tuple(pair[own])] - opponent).dropna()
        if len(differences):
            found = statistics(differences, seed=seed)
            row = {name: pair[name] for name in ("metric", "run", "column", "evaluations", "cost", "mean")}
            row |= {f"one_step_{name}": pair[f"{name}_once"] for name in ("run", "cost", "mean")}
            row |= {"difference": found.mean, "low": found.low, "high": found.high, "items": found.count}
            rows.append(row)
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).rename(columns={"column": "estimate"})
    strongest = table.groupby(["metric", "run", "estimate"], sort=False)["difference"].idxmin()
    return table.loc[strongest].sort_values(["metric", "cost"], key=rank, kind="stable", ignore_index=True)


def equal_cost_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Format the table of `equal_cost` as text cells."""
    rows = [
        {
            "metric": title(row["metric"]),
            "refined run": row["run"],
            "estimate": row["estimate"],
            "NFE": quantity(row["evaluations"]),
            "cost": quantity(row["cost"], "MAC/s"),
            "value": number(row["mean"], decimals(row["metric"])),
            "one-step run": row["one_step_run"],
            "its cost": quantity(row["one_step_cost"], "MAC/s"),
            "its value": number(row["one_step_mean"], decimals(row["metric"])),
            "refined minus one step": interval_cell(
                row[["difference", "low", "high"]], decimals(row["metric"])
            ),
            "items": str(row["items"]),
        }
        for _, row in table.iterrows()
    ]
    return pd.DataFrame(rows)
