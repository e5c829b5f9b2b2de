"""Means, intervals and paired gains of a score table."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from encore.reporting.scores import KINDS, column_name
from encore.reporting.statistics import statistics

GROUP = ["run", "method", "kind", "metric", "step"]
"""Columns that identify a row of a summary, a mean over items."""

UNGUIDED = ("mixture", "one_step")
"""Kinds of estimates that come before any refinement."""


def pair_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Add each item's mixture and one-step value to every row of the same item.

    Args:
        scores: Score table of one or many runs.

    Returns:
        The table with the columns ``mixture_value``, ``one_step``, ``improvement`` (value minus mixture
        value) and ``gain`` (value minus one-step value) in the metric's unit, NaN where either of the two is
        missing or failed, and ``column`` (see `encore.reporting.scores.column_name`). Infinite values count
        as failed. For ``si_sdr``, ``input_si_sdr`` replaces missing mixture rows. Where a run has no rows of
        kind ``"one_step"``, those of step 0 are copied as such, with one function evaluation.
    """
    table = _with_one_step(scores)
    table["value"] = table["value"].where(np.isfinite(table["value"]))
    keys = ["run", "item", "metric"]
    for kind, name in (("mixture", "mixture_value"), ("one_step", "one_step")):
        # there is one row of this kind at step 0 per item and metric
        own = table[(table["kind"] == kind) & (table["step"] == 0)].drop_duplicates(keys)
        table = table.merge(own[[*keys, "value"]].rename(columns={"value": name}), on=keys, how="left")
    known = (table["metric"] == "si_sdr") & table["mixture_value"].isna()
    table["mixture_value"] = table["mixture_value"].where(~known, table["input_si_sdr"])
    table["improvement"] = table["value"] - table["mixture_value"]
    table["gain"] = table["value"] - table["one_step"]
    table["column"] = [
        column_name(method, kind) for method, kind in zip(table["method"], table["kind"], strict=True)
    ]
    return table


def _with_one_step(scores: pd.DataFrame) -> pd.DataFrame:
    """Add one-step rows from step 0 of the guided ones where they are missing."""
    keys = ["run", "item", "metric"]
    first = guided(scores).query("step == 0").drop_duplicates(keys)
    first = first.assign(kind="one_step", method="none", guide="none", ratio=np.nan)
    first = first.assign(evaluations=1, seconds=np.nan)
    known = pd.MultiIndex.from_frame(scores.loc[scores["kind"] == "one_step", keys])
    first = first[~pd.MultiIndex.from_frame(first[keys]).isin(known)]
    return pd.concat([scores, first], ignore_index=True) if len(first) else scores.copy()


def guided(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of refined estimates."""
    return frame[~frame["kind"].isin(UNGUIDED)]


def summarise(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Average a score table over its items.

    Args:
        scores: Score table of one or many runs.
        seed: Seed of the bootstrap; the intervals do not depend on other rows of the table.

    Returns:
        One row per run, method, kind, metric and step, with

        - ``column``: see `encore.reporting.scores.column_name`; ``guide``: what steered;
        - ``mean``, ``median`` and the 95 % bootstrap interval ``low``, ``high`` of the mean, of the ``count``
          values that did not fail; ``failed`` counts the others;
        - ``improvement``: mean over the mixture's value, paired by item, of ``improvement_count`` items;
        - ``gain``, ``gain_low``, ``gain_high``: mean over the one-step value and its interval, paired by
          item, of ``gain_count`` items in which neither failed (if items failed, ``gain`` differs from the
          difference of the means);
        - ``evaluations``: mean NFE per item; ``seconds``: mean wall time; ``ratio``: mean mixing ratio
          chosen; ``kept``: fraction of the items that kept the previous estimate (NaN at step 0).

        Rows are sorted by run, metric, kind, method and step; runs and metrics keep their order.
    """
    rows = []
    for key, group in pair_scores(scores).groupby(GROUP, sort=False):
        value, gain = (statistics(group[name], seed=seed) for name in ("value", "gain"))
        labels = dict(zip(GROUP, key, strict=True))
        unmoved = labels["step"] == 0 or labels["kind"] in UNGUIDED
        cells = {
            "column": group["column"].iloc[0],
            "guide": group["guide"].iloc[0],
            **asdict(value),
            "improvement": group["improvement"].mean(),
            "improvement_count": group["improvement"].count(),
            "gain": gain.mean,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "gain_count": gain.count,
            "evaluations": group["evaluations"].mean(),
            "seconds": group["seconds"].mean(),
            "ratio": group["ratio"].mean(),
            "kept": np.nan if unmoved else group["ratio"].isna().mean(),
        }
        rows.append(labels | cells)
    by = ["run", "metric", "kind", "method", "step"]
    return pd.DataFrame(rows).sort_values(by, key=rank, kind="stable", ignore_index=True)


def rank(column: pd.Series) -> pd.Series:
    """Return sort keys: runs and metrics in order of appearance, kinds as in `KINDS`."""
    if column.name == "kind":
        return column.map(KINDS.index)
    return pd.Series(pd.factorize(column)[0]) if column.name in ("run", "metric") else column


def final_steps(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a summary at each guide's last step, one per run, guide, kind and metric."""
    last = summary.groupby(["run", "column", "metric"])["step"].transform("max")
    return summary[summary["step"] == last].reset_index(drop=True)


def chosen_ratios(summary: pd.DataFrame) -> pd.DataFrame:
    """Return what each refinement chose over all its steps.

    Args:
        summary: From `summarise`.

    Returns:
        One row per run and ``column``: ``ratio``, the mean mixing ratio over items and steps that chose one
        (NaN if none did), and ``kept``, the fraction of items and steps that kept the estimate.
    """
    steps = summary[summary["kept"].notna()].drop_duplicates(["run", "column", "step"])
    moved = 1 - steps["kept"]
    steps = steps.assign(moved=moved, weighted=(steps["ratio"] * moved).fillna(0))
    means = steps.groupby(["run", "column"], sort=False)[["weighted", "moved", "kept"]].mean()
    return means.assign(ratio=means["weighted"] / means["moved"])[["ratio", "kept"]].reset_index()
