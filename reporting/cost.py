"""Quality at equal cost: a small model refined against a large model applied once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from encore.reporting.labels import decimals, title
from encore.reporting.summary import final_steps, statistics
from encore.reporting.tables import number, quantity

EQUAL_COST_COLUMNS = (
    "metric",
    "run",
    "estimate",
    "evaluations",
    "cost",
    "mean",
    "one_step_run",
    "one_step_cost",
    "one_step_mean",
    "difference",
    "low",
    "high",
    "items",
)
"""Columns of `equal_cost`, in order."""


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
    rows = []
    for metric, group in points.groupby("metric", sort=False):
        once = group[group["kind"] == "one_step"]
        for _, refined in group[group["kind"] != "one_step"].sort_values("cost", kind="stable").iterrows():
            affordable = once[once["cost"] <= (1 + tolerance) * refined["cost"]]
            candidates = [(other, _differences(paired, refined, other)) for _, other in affordable.iterrows()]
            candidates = [(other, values) for other, values in candidates if len(values)]
            if not candidates:
                continue
            other, values = min(candidates, key=lambda candidate: candidate[1].mean())
            found = statistics(values, seed=seed)
            own = [refined[name] for name in ("run", "column", "evaluations", "cost", "mean")]
            opponent = [other["run"], other["cost"], other["mean"]]
            rows.append([metric, *own, *opponent, found.mean, found.low, found.high, found.count])
    return pd.DataFrame(rows, columns=list(EQUAL_COST_COLUMNS))


def _differences(paired: pd.DataFrame, refined: pd.Series, other: pd.Series) -> pd.Series:
    """Return refined minus one-step values of the items that both have."""
    columns = []
    for row in (refined, other):
        keys = ["run", "guide", "kind", "metric", "step"]
        rows = paired[np.logical_and.reduce([paired[key] == row[key] for key in keys])]
        columns.append(rows.set_index("item")["value"])
    return (columns[0] - columns[1]).dropna()


def equal_cost_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Format the table of `equal_cost` as text cells."""
    rows = []
    for _, row in table.iterrows():
        places = decimals(row["metric"])
        low, high = (number(row[name], places, signed=True) for name in ("low", "high"))
        rows.append(
            {
                "metric": title(row["metric"]),
                "refined run": row["run"],
                "estimate": row["estimate"],
                "NFE": quantity(row["evaluations"]),
                "cost": quantity(row["cost"], "MAC/s"),
                "value": number(row["mean"], places),
                "one-step run": row["one_step_run"],
                "its cost": quantity(row["one_step_cost"], "MAC/s"),
                "its value": number(row["one_step_mean"], places),
                "refined minus one step": f"{number(row['difference'], places, signed=True)} [{low}, {high}]",
                "items": str(row["items"]),
            }
        )
    return pd.DataFrame(rows)
