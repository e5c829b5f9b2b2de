"""Compare methods and models on the items that they share: the table of results, and its answer in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from encore.reporting.labels import decimals, is_own_metric, shown_metrics, title, unit, unit_suffix
from encore.reporting.statistics import statistics
from encore.reporting.summary import UNGUIDED, final_steps, guided, pair_scores, summarise
from encore.reporting.tables import gain_cell, interval_cell, number, quantity, to_markdown, value_cell

LEGEND = (
    "Means over items; in brackets and first the gain over one step, paired by item, with its 95 % interval. "
    "An oracle guide uses the references; a dagger (†) marks the metric that the guide maximizes."
)
"""Explanation of a table of results."""


class Comparison(NamedTuple):
    """A score table of runs that share items, restricted to these, and its summary."""

    scores: pd.DataFrame
    summary: pd.DataFrame


def comparable(scores: pd.DataFrame, *, seed: int = 0) -> list[Comparison]:
    """Divide a score table into tables whose rows all hold the same items, and summarise them.

    Args:
        scores: Score table of one or many runs.
        seed: Seed of the bootstrap.

    Returns:
        Runs that share items together, in order of appearance, each table restricted to the items that all
        methods of all its runs have.
    """
    groups: list[tuple[set[str], list[str]]] = []
    for run, own in scores.groupby("run", sort=False):
        methods = [set(rows["item"]) for _, rows in own.groupby(["method", "kind"])]
        items = set.intersection(*methods) or set.union(*methods)
        place = next((n for n, (known, _) in enumerate(groups) if known & items), None)
        if place is None:
            groups.append((items, [str(run)]))
        else:
            known, runs = groups[place]
            groups[place] = (known & items, [*runs, str(run)])
    parts = [scores[scores["run"].isin(runs) & scores["item"].isin(items)] for items, runs in groups]
    return [Comparison(part, summarise(part, seed=seed)) for part in parts]


def result_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Format the results of comparable runs.

    Args:
        summary: Of a `Comparison`.

    Returns:
        Text cells, a row for the mixture, one step, and every method at its last step, of every model. First
        the gain over one step in the main metric, paired by item, with its 95 % interval and the number of
        items; then the mean of every metric of `shown_metrics`, in brackets its paired gain, with a dagger
        where the guide maximized it; separator calls and seconds per item.
    """
    last = final_steps(summary)
    metrics = shown_metrics(last)
    rows = []
    for (run, column), own in last.groupby(["run", "column"], sort=False):
        by_metric = {row["metric"]: row for _, row in own.iterrows()}
        first = own.iloc[0]
        main = by_metric.get(metrics[0])
        cells = {"model": "" if column == "mixture" else str(run), "estimate": str(column)}
        refined = first["kind"] not in UNGUIDED
        counted = "gain_count" if refined else "count"
        cells[f"gain, {title(metrics[0])}{unit_suffix(metrics[0])}"] = (
            gain_cell(main) if refined and main is not None else "-"
        )
        cells["items"] = "-" if main is None else str(int(main[counted]))
        for metric in metrics:
            cells[title(metric)] = value_cell(by_metric[metric], "gain") if metric in by_metric else "-"
        cells["calls"] = "-" if column == "mixture" else quantity(first["evaluations"])
        cells["seconds"] = quantity(first["seconds"])
        rows.append(cells)
    table = pd.DataFrame(rows)
    # mixtures at one rate have one score; with one model its name says nothing
    table = table[(table["estimate"] != "mixture") | ~table.duplicated()]
    table = table.sort_values("estimate", key=lambda column: column != "mixture", kind="stable")
    return table.drop(columns="model") if summary["run"].nunique() == 1 else table


def results_text(
    comparisons: Sequence[Comparison], macs_per_second: Mapping[str, float | None] | None = None
) -> str:
    """Return the verdict and the table of every set of comparable runs, as Markdown.

    Args:
        comparisons: From `comparable`.
        macs_per_second: See `verdict`.
    """
    parts = []
    for own in comparisons:
        parts += [*verdict(own, macs_per_second), to_markdown(result_table(own.summary)), LEGEND]
    return "\n\n".join(parts) + "\n"


def verdict(comparison: Comparison, macs_per_second: Mapping[str, float | None] | None = None) -> list[str]:
    """Say in words whether refinement helps, on which metrics, at what cost, and what another model does.

    Args:
        comparison: One of those of `comparable`.
        macs_per_second: Multiply-accumulates of one separator call per second of audio, by run.

    Returns:
        At most three sentences, each its answer, a colon and the numbers: the best method without references,
        the best with them, and the best model applied once beside the best estimate of another one.
    """
    last = final_steps(comparison.summary)
    main = shown_metrics(last)[0]
    own = guided(last)
    own = own[(own["metric"] == main) & own["gain"].notna()]
    usable, oracle = own[own["kind"] != "oracle"], own[own["kind"] == "oracle"]
    sentences = []
    if own.empty:
        sentences.append("Whether refinement helps is open: only single steps were scored.")
    if len(usable):
        best = _largest(usable, "gain")
        sentences.append(f"Without references {_judgement(best)}: {_gain_text(last, best)}.")
    if len(oracle):
        best = _largest(oracle, "gain")
        sentences.append(
            f"Guided by the references, an upper bound that no user has, {_judgement(best)}: "
            f"{_gain_text(last, best)}."
        )
    return [*sentences, _other_model(comparison.scores, last, main, macs_per_second or {})]


def _judgement(row: pd.Series) -> str:
    if row["gain_low"] > 0:
        return "refinement helps"
    if row["gain_high"] < 0:
        return "refinement does harm"
    return "no gain by refinement is shown"


def _gain_text(last: pd.DataFrame, best: pd.Series) -> str:
    """Return the gain of one method in words: metric, interval, calls, time, items, the other metrics."""
    main, run = best["metric"], best["run"]
    name = best["column"] if last["run"].nunique() == 1 else f"{run} by {best['column']}"
    plural = "s" if best["evaluations"] != 1 else ""
    text = f"{name} {gain_cell(best)} {_named(main)} over one step"
    text += f" for {quantity(best['evaluations'])} call{plural}"
    once = last[(last["run"] == run) & (last["kind"] == "one_step")]["seconds"].mean()
    if once > 0 and best["seconds"] > 0:
        text += f" and {quantity(best['seconds'] / once)} times the time"
    text += f", {int(best['gain_count'])} items"
    same = last[(last["run"] == run) & (last["column"] == best["column"]) & (last["metric"] != main)]
    changed = same[(same["gain_low"] > 0) | (same["gain_high"] < 0)]
    changed = changed[changed["metric"].isin(shown_metrics(last))]
    if is_own_metric(best["guide"], main):
        text += " (it maximizes this metric)"
    for word, rows in (("better", changed[changed["gain"] > 0]), ("worse", changed[changed["gain"] < 0])):
        parts = [
            f"{title(row['metric'])} {number(row['gain'], decimals(row['metric']), signed=True)}"
            + (" (what it maximizes)" if is_own_metric(row["guide"], row["metric"]) else "")
            for _, row in rows.iterrows()
        ]
        text += f"; {word}: {', '.join(parts)}" if parts else ""
    return text


def _other_model(
    scores: pd.DataFrame, last: pd.DataFrame, main: str, macs: Mapping[str, float | None]
) -> str:
    """Compare the best model applied once with the best estimate that another one reaches."""
    rows = last[(last["metric"] == main) & last["mean"].notna()]
    once = rows[rows["kind"] == "one_step"]
    if len(once) < 2:
        return "Whether a larger model would gain more is open: no other one was scored on these items."
    model = _largest(once, "mean")
    others = rows[~rows["kind"].isin(["mixture", "oracle"]) & (rows["run"] != model["run"])]
    other = _largest(others, "mean")
    key = ["run", "column", "metric", "step"]
    values = pair_scores(scores).set_index([*key, "item"])["value"].sort_index()
    found = statistics((values[tuple(model[key])] - values[tuple(other[key])]).dropna())
    costs = [macs.get(row["run"]) or np.nan for row in (model, other)]
    size = "larger" if costs[0] > costs[1] else "smaller" if costs[0] < costs[1] else "different"
    answer = "better" if found.low > 0 else "worse" if found.high < 0 else "not clearly better or worse"
    text = f"A {size} model applied once is {answer}: {model['run']} "
    text += f"{interval_cell(found.interval, decimals(main))} {_named(main)} over {other['run']} "
    text += "applied once" if other["kind"] == "one_step" else f"by {other['column']}"
    total = costs[0] / (costs[1] * other["evaluations"])
    return text + (f", at {quantity(total)} times its cost" if total > 0 else "") + f", {found.count} items."


def _named(metric: str) -> str:
    """Return unit and title, to follow a number."""
    return f"{unit(metric)} {title(metric)}".strip()


def _largest(rows: pd.DataFrame, column: str) -> pd.Series:
    return rows.sort_values(column, kind="stable").iloc[-1]
