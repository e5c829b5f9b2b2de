"""Tables of a report: data frames for CSV, and text cells for Markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
import pandas as pd

from encore.reporting.labels import decimals, is_own_metric
from encore.reporting.runs import Run
from encore.reporting.summary import UNGUIDED

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


def interval_cell(values: Iterable[float], places: int) -> str:
    """Format a difference and the ends of its interval.

    Example:
        >>> interval_cell((1.2, 0.94, 1.471), 2), interval_cell([float("nan")] * 3, 2)
        ('+1.20 [+0.94, +1.47]', '-')
    """
    middle, low, high = (number(value, places, signed=True) for value in values)
    return NO_VALUE if middle == NO_VALUE else f"{middle} [{low}, {high}]"


def gain_cell(row: pd.Series) -> str:
    """Format the paired gain over one step of a summary row."""
    return interval_cell(row[["gain", "gain_low", "gain_high"]], decimals(row["metric"]))


def value_cell(row: pd.Series, beside: Literal["improvement", "gain"] = "improvement") -> str:
    """Format the mean of a summary row with what it is above the mixture, or above one step.

    Such as ``11.71 (+6.89) †``, the dagger where the guide maximized the metric.
    """
    places = decimals(row["metric"])
    text = number(row["mean"], places)
    without = ("mixture",) if beside == "improvement" else UNGUIDED
    if row["kind"] not in without and text != NO_VALUE:
        text += f" ({number(row[beside], places, signed=True)})"
        text += " †" if is_own_metric(row["guide"], row["metric"]) else ""
    return text + (f" [{row['failed']} failed]" if row["failed"] else "")


def pivot(
    frame: pd.DataFrame, rows: Sequence[str], columns: str, cell: Callable[[pd.Series], str]
) -> pd.DataFrame:
    """Arrange text cells in a table, the values of each key in their order of appearance.

    Args:
        frame: A summary, one row per cell.
        rows: Columns of the summary that name a row of the table; they become its first columns.
        columns: Column of the summary that names a column of the table.
        cell: Formats a row of the summary.

    Returns:
        Text; `NO_VALUE` where there is no cell.
    """
    cells = frame.assign(cell=[cell(row) for _, row in frame.iterrows()])
    table = cells.pivot_table("cell", list(rows), columns, aggfunc="first", sort=False)
    return table.reset_index().rename_axis(columns=None).fillna(NO_VALUE).astype(str)


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Format the records of the runs, one row each; missing values are `NOT_RECORDED`."""
    rows = []
    for run in runs:
        cells = {key: _record_cell(key, value) for key, value in asdict(run.record).items()}
        items = str(run.scores["item"].nunique())
        rows.append({"run": run.name, "items": items, "folder": str(run.path.parent)} | cells)
    return pd.DataFrame(rows)


def _record_cell(key: str, value: float | str | None) -> str:
    """Format one value of a run's record."""
    if value is None:
        return NOT_RECORDED
    if isinstance(value, str):
        return value[:12] if key == "commit" else value
    units = {"macs_per_second": "MAC/s", "sample_rate": "Hz"}
    if key == "training_seconds":
        return f"{value / 3600:.2f} h" if value >= 3600 else f"{value / 60:.1f} min"
    return str(value) if key in ("seed", "training_steps") else quantity(value, units.get(key, ""))


def to_markdown(table: pd.DataFrame) -> str:
    """Format a data frame as a Markdown table that also reads well as plain text.

    The first column and one of names, ``estimate``, are left-aligned, the others right-aligned.
    """
    header = [_escape(name) for name in table.columns]
    lines = [header, *([_escape(cell) for cell in row] for row in table.itertuples(index=False))]
    left = [place == 0 or name == "estimate" for place, name in enumerate(header)]
    widths = [max(4, *map(len, column)) for column in zip(*lines, strict=True)]
    columns = list(zip(left, widths, strict=True))
    rule = [
        ":" + "-" * (width - 1) if own else "-" * (width - 1) + ":"
        for own, width in zip(left, widths, strict=True)
    ]
    texts = []
    for line in (lines[0], rule, *lines[1:]):
        placed = zip(line, columns, strict=True)
        cells = [cell.ljust(width) if own else cell.rjust(width) for cell, (own, width) in placed]
        texts.append(f"| {' | '.join(cells)} |\n")
    return "".join(texts)


def _escape(cell: object) -> str:
    """Escape characters that would end a cell or its line."""
    return str(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
