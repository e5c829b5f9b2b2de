"""Tables of a report: data frames for CSV, and text cells for Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pandas as pd

from encore.reporting.labels import decimals, is_own_metric, title
from encore.reporting.runs import Run, RunRecord
from encore.reporting.summary import chosen_ratios, final_steps

NOT_RECORDED = "not recorded"
NO_VALUE = "-"


def number(value: float, places: int, *, signed: bool = False) -> str:
    """Format a number, or a dash for NaN; a negative number that rounds to zero has no minus.

    Args:
        value: Any float.
        places: Decimal places.
        signed: Whether to write a plus.

    Example:
        >>> number(1.234, 2, signed=True), number(float("nan"), 2), number(-0.001, 2)
        ('+1.23', '-', '0.00')
    """
    if not np.isfinite(value):
        return NO_VALUE
    rounded = round(float(value), places) + 0.0
    return f"{rounded:+.{places}f}" if signed and rounded else f"{rounded:.{places}f}"


def quantity(value: float, unit: str = "") -> str:
    """Format a count or cost with a decimal prefix.

    Example:
        >>> quantity(371_000), quantity(16.9e6), quantity(2.5e9, "MAC/s"), quantity(12)
        ('371 k', '16.9 M', '2.5 GMAC/s', '12')
    """
    if not np.isfinite(value):
        return NO_VALUE
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def value_cell(row: pd.Series, *, evaluations: bool = True) -> str:
    """Format value, improvement over the mixture and NFE of a summary row: ``11.71 (+6.89) · 41 NFE``."""
    places = decimals(row["metric"])
    text = number(row["mean"], places)
    if row["kind"] != "mixture":
        text += f" ({number(row['improvement'], places, signed=True)})"
        if evaluations:
            text += f" · {quantity(row['evaluations'])} NFE"
        if is_own_metric(row["guide"], row["metric"]):
            text += " †"
    return text + (f" [{row['failed']} failed]" if row["failed"] else "")


def gain_cell(row: pd.Series) -> str:
    """Format the paired gain over one step with its interval: ``+1.20 [+0.94, +1.47]``."""
    places = decimals(row["metric"])
    mean, low, high = (number(row[name], places, signed=True) for name in ("gain", "gain_low", "gain_high"))
    return NO_VALUE if mean == NO_VALUE else f"{mean} [{low}, {high}]"


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Format the records of the runs, one row each; missing values are `NOT_RECORDED`."""
    rows = []
    for run in runs:
        record: dict[str, str] = {"run": run.name, "items": str(run.scores["item"].nunique())}
        for field in fields(RunRecord):
            value = getattr(run.record, field.name)
            if field.name != "name":
                record[field.name] = NOT_RECORDED if value is None else _record_cell(field.name, value)
        rows.append(record)
    return pd.DataFrame(rows)


def _record_cell(key: str, value: float | str) -> str:
    """Format one value of a run's record."""
    if isinstance(value, str):
        return value[:12] if key == "commit" else value
    units = {"macs_per_second": "MAC/s", "sample_rate": "Hz"}
    if key == "training_seconds":
        return f"{value / 3600:.2f} h" if value >= 3600 else f"{value / 60:.1f} min"
    return str(value) if key in ("seed", "training_steps") else quantity(value, units.get(key, ""))


def overview_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Format systems by metrics, the table of a paper, from `encore.reporting.summary.summarise`.

    Returns:
        A row per run and system (the mixture, one step, then every guide at its last step) with its NFE, the
        mean mixing ratio that it chose and the percentage of steps that kept the estimate; a column per
        metric with the mean and, in brackets, the improvement over the mixture.
    """
    last, chosen = final_steps(summary), chosen_ratios(summary)
    ratios = dict(zip(zip(chosen["run"], chosen["column"], strict=True), chosen["ratio"], strict=True))
    fractions = dict(zip(ratios, chosen["kept"], strict=True))
    rows = []
    for (run, column), group in last.groupby(["run", "column"], sort=False):
        head = group.iloc[0]
        cells = {
            "run": run,
            "estimate": column,
            "steps": str(head["step"]),
            "NFE": quantity(head["evaluations"]),
        }
        if (run, column) in ratios:
            kept = fractions[run, column]
            cells |= {"ratio": number(ratios[run, column], 2), "kept": f"{kept:.0%}"}
        cells |= {title(row["metric"]): value_cell(row, evaluations=False) for _, row in group.iterrows()}
        rows.append((column, cells))
    metrics = [title(name) for name in dict.fromkeys(summary["metric"])]
    order = {name: rank for rank, name in enumerate(dict.fromkeys(last["column"]))}
    runs = {name: rank for rank, name in enumerate(dict.fromkeys(last["run"]))}
    rows.sort(key=lambda row: (runs[row[1]["run"]], order[row[0]]))
    return pd.DataFrame(
        [cells for _, cells in rows], columns=["run", "estimate", "steps", "NFE", "ratio", "kept", *metrics]
    ).fillna(NO_VALUE)


def comparison_frame(summary: pd.DataFrame) -> pd.DataFrame:
    """Compare one step with every guide's last step, as numbers for a CSV file, from a summary.

    Returns:
        A row per metric, run and guide with ``mixture``, ``one_step``, ``one_step_improvement``,
        ``one_step_evaluations``; ``value``, ``improvement``, ``evaluations`` of the guide's last ``step``;
        ``gain``, ``gain_low``, ``gain_high`` over one step, paired over ``gain_count`` items; and the
        ``failed`` items.
    """
    last = final_steps(summary)
    keys = ["metric", "run"]
    mixture = last[last["kind"] == "mixture"][[*keys, "mean"]].rename(columns={"mean": "mixture"})
    once = last[last["kind"] == "one_step"][[*keys, "mean", "improvement", "evaluations"]]
    once = once.rename(
        columns={
            "mean": "one_step",
            "improvement": "one_step_improvement",
            "evaluations": "one_step_evaluations",
        }
    )
    columns = ["column", "step", "mean", "improvement", "evaluations"]
    gains = ["gain", "gain_low", "gain_high", "gain_count", "failed"]
    guided = last[~last["kind"].isin(["mixture", "one_step"])][[*keys, *columns, *gains]]
    table = guided.merge(mixture, on=keys, how="left").merge(once, on=keys, how="left")
    beside = ["mixture", "one_step", "one_step_improvement", "one_step_evaluations"]
    table = table[[*keys, "column", "step", *beside, "mean", "improvement", "evaluations", *gains]]
    return table.rename(columns={"column": "guide", "mean": "value"})


def comparison_table(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Compare one step with every guide's last step, for one metric of the summary.

    Returns:
        Text cells, a row per run: the mixture, one step, then two columns per guide: its value (with
        improvement over the mixture and NFE) and its paired gain over one step with the bootstrap interval.
    """
    rows = final_steps(summary[summary["metric"] == metric])
    guides = [name for name in dict.fromkeys(rows["column"]) if name not in ("mixture", "one_step")]
    table: dict[str, dict[str, str]] = {}
    for _, row in rows.iterrows():
        cells = table.setdefault(row["run"], {"run": row["run"]})
        cells[row["column"]] = value_cell(row)
        if row["column"] in guides:
            cells[f"gain {row['column']}"] = gain_cell(row)
    paired = [name for guide in guides for name in (guide, f"gain {guide}")]
    return pd.DataFrame(list(table.values()), columns=["run", "mixture", "one_step", *paired]).fillna(
        NO_VALUE
    )


def step_table(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Compare one step with every step of every guide, for one metric of the summary.

    Returns:
        Text cells, a row per run and refinement step from 1 on. NFE is that of the whole refinement, also at
        early steps.
    """
    rows = summary[summary["metric"] == metric]
    guides = [name for name in dict.fromkeys(rows["column"]) if name not in ("mixture", "one_step")]
    table = []
    for run, group in rows.groupby("run", sort=False):
        first = group[group["column"] == "one_step"]
        one_step = value_cell(first.iloc[0]) if len(first) else NO_VALUE
        steps = group[group["column"].isin(guides) & (group["step"] > 0)]
        for step, cells in steps.groupby("step"):
            values = {row["column"]: value_cell(row) for _, row in cells.iterrows()}
            table.append({"run": run, "step": str(step), "one_step": one_step, **values})
    return pd.DataFrame(table, columns=["run", "step", "one_step", *guides]).fillna(NO_VALUE)


def to_markdown(table: pd.DataFrame) -> str:
    """Format a data frame as a Markdown table, the first column left-aligned, the others right-aligned."""
    header = [_escape(name) for name in table.columns]
    lines = [header, [":---", *["---:"] * (len(header) - 1)]]
    lines += [[_escape(cell) for cell in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escape(cell: object) -> str:
    """Escape characters that would end a cell or its line."""
    return str(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
