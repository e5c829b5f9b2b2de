"""Means, intervals and paired gains of a score table: what every table and plot of a report shows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from encore.metrics.summary import Summary
from encore.metrics.summary import summarise as summarise_column
from encore.reporting.scores import KINDS, column_name

GROUP = ["run", "guide", "kind", "metric", "step"]
"""What one row of a summary stands for: a mean over items."""

SUMMARY_COLUMNS = (
    *GROUP,
    "column",
    "mean",
    "low",
    "high",
    "median",
    "count",
    "failed",
    "improvement",
    "improvement_count",
    "gain",
    "gain_low",
    "gain_high",
    "gain_count",
    "evaluations",
    "ratio",
    "kept",
)
"""Columns of `summarise`, in order."""


def pair_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Put each item's mixture and one-step value beside every value of the same item.

    Args:
        scores: Score table of one or many runs.

    Returns:
        The table with the columns ``mixture_value``, ``one_step``, ``improvement`` (value minus mixture
        value) and ``gain`` (value minus one-step value) in the metric's unit, NaN where either of the two is
        missing or failed. ``column`` is the guide's name in tables (see
        `encore.reporting.scores.column_name`). Infinite values count as failed. For ``si_sdr`` the column
        ``mixture_db`` stands in for missing mixture rows (it is the same number). Where a run has no rows of
        kind ``"one_step"``, those of step 0 are added as such, with the one separator call that ``y_0 =
        f(x_0)`` takes.
    """
    table = _with_one_step(scores)
    table["value"] = table["value"].where(np.isfinite(table["value"]))
    keys = ["run", "item", "metric"]
    for kind, name in (("mixture", "mixture_value"), ("one_step", "one_step")):
        # A row of its own kind at step 0 is the only one of its item and metric.
        own = table[(table["kind"] == kind) & (table["step"] == 0)].drop_duplicates(keys)
        table = table.merge(own[[*keys, "value"]].rename(columns={"value": name}), on=keys, how="left")
    known = (table["metric"] == "si_sdr") & table["mixture_value"].isna()
    table["mixture_value"] = table["mixture_value"].where(~known, table["mixture_db"])
    table["improvement"] = table["value"] - table["mixture_value"]
    table["gain"] = table["value"] - table["one_step"]
    table["column"] = [
        column_name(guide, kind) for guide, kind in zip(table["guide"], table["kind"], strict=True)
    ]
    return table


def _with_one_step(scores: pd.DataFrame) -> pd.DataFrame:
    """Add the one-step rows that only a guided run's step 0 holds."""
    keys = ["run", "item", "metric"]
    own = scores[scores["kind"] == "one_step"]
    first = scores[(scores["step"] == 0) & ~scores["kind"].isin(["mixture", "one_step"])].drop_duplicates(
        keys
    )
    there = pd.MultiIndex.from_frame(own[keys])
    first = first[~pd.MultiIndex.from_frame(first[keys]).isin(there)]
    first = first.assign(kind="one_step", guide="none", ratio=np.nan, evaluations=1)
    return pd.concat([scores, first], ignore_index=True) if len(first) else scores.copy()


def statistics(values: pd.Series, *, seed: int = 0) -> Summary:
    """Mean, median and bootstrap interval of one column, whatever the order of its rows.

    Args:
        values: One value per item; NaN and infinite ones count as failed.
        seed: Seed of the bootstrap.

    Returns:
        The statistics.
    """
    # Sorted, so that two tables of the same rows in another order report the same interval.
    return summarise_column(np.sort(values.to_numpy(dtype="float64")), seed=seed)


def summarise(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Average a score table over its items.

    Args:
        scores: Score table of one or many runs.
        seed: Seed of the bootstrap; the same seed gives the same intervals, whatever else is in the table.

    Returns:
        One row per run, guide, kind, metric and step, with

        - ``column``: the guide's name in tables (see `encore.reporting.scores.column_name`);
        - ``mean``, ``low``, ``high``, ``median`` of the values that did not fail; ``low`` and ``high`` end
          the 95 % bootstrap interval of the mean; ``count`` of those values, ``failed`` of the others;
        - ``improvement``: mean over the mixture's value, paired by item, of ``improvement_count`` items;
        - ``gain``, ``gain_low``, ``gain_high``: mean over the one-step value and its interval, paired by
          item, of ``gain_count`` items in which neither failed. (So ``gain`` is not the difference of two
          means if items failed.)
        - ``evaluations``: mean separator calls per item; ``ratio``: mean mixture share chosen;
          ``kept``: share of the items that kept the previous estimate (NaN at step 0).

        Rows are sorted by run, metric, kind, guide and step; runs and metrics keep the order in which they
        appear.
    """
    rows = []
    for key, group in pair_scores(scores).groupby(GROUP, sort=False):
        value, gain = (statistics(group[name], seed=seed) for name in ("value", "gain"))
        labels = dict(zip(GROUP, key, strict=True))
        unmoved = labels["step"] == 0 or labels["kind"] in ("mixture", "one_step")
        cells = {
            "column": group["column"].iloc[0],
            "mean": value.mean,
            "low": value.low,
            "high": value.high,
            "median": value.median,
            "count": value.count,
            "failed": value.failed,
            "improvement": group["improvement"].mean(),
            "improvement_count": group["improvement"].count(),
            "gain": gain.mean,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "gain_count": gain.count,
            "evaluations": group["evaluations"].mean(),
            "ratio": group["ratio"].mean(),
            "kept": np.nan if unmoved else group["ratio"].isna().mean(),
        }
        rows.append(labels | cells)
    return _sorted(pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)))


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort a summary: runs and metrics as they came, kinds as `KINDS`."""
    orders = {name: list(dict.fromkeys(frame[name])) for name in ("run", "metric")} | {"kind": list(KINDS)}

    def rank(column: pd.Series) -> pd.Series:
        order = orders.get(str(column.name))
        return column if order is None else column.map(order.index)

    by = ["run", "metric", "kind", "guide", "step"]
    return frame.sort_values(by, key=rank, kind="stable", ignore_index=True)


def final_steps(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a summary at each guide's last step.

    Args:
        summary: From `summarise`.

    Returns:
        One row per run, guide, kind and metric, in the summary's order.
    """
    last = summary.groupby(["run", "column", "metric"])["step"].transform("max")
    return summary[summary["step"] == last].reset_index(drop=True)
