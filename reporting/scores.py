"""The score table: one row per item, guide, step and metric, as Parquet or CSV.

The multi-step callback and ``infer.py`` write it, ``report.py`` and notebooks read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

KINDS = ("mixture", "one_step", "fixed", "blind", "oracle")
"""Kinds of estimates by what steered them, in the order of tables."""

COLUMNS = {
    "run": "str",
    "item": "str",
    "input_si_sdr": "float64",
    "step": "int64",
    "method": "str",
    "kind": "str",
    "guide": "str",
    "metric": "str",
    "value": "float64",
    "ratio": "float64",
    "evaluations": "int64",
    "seconds": "float64",
}
"""Columns and their types, in file order.

``input_si_sdr`` is the SI-SDR of the mixture in dB (NaN without a reference); ``step`` 0 the one-step
estimate; ``method`` the name of the refinement, ``"none"`` of mixture and one step; ``guide`` the quality
that steered, ``"none"`` without one; ``value`` the metric, higher is better, NaN where it failed; ``ratio``
the mixing ratio chosen at that step (NaN at step 0 and where the previous estimate was kept); ``evaluations``
the function evaluations (NFE) of the whole refinement of the item; ``seconds`` its wall time, guide included
(NaN where it was not measured).
"""

TEXT, NUMBERS = ([name for name, own in COLUMNS.items() if own == kind] for kind in ("str", "float64"))

KEY = ("run", "item", "method", "kind", "metric", "step")
"""Columns that identify a row."""


class ScoreTableError(ValueError):
    """A score table is invalid; the message names the file, the fault and the remedy."""


def column_name(method: str, kind: str) -> str:
    """Return the name of a method in tables, plots and log keys; with a guide it says oracle or blind.

    Args:
        method: Its name in the configuration, for example ``"si_sdr"``.
        kind: One of `KINDS`.

    Example:
        >>> column_name("si_sdr", "oracle"), column_name("shifts", "fixed"), column_name("none", "one_step")
        ('si_sdr_oracle', 'shifts', 'one_step')
    """
    if kind in ("mixture", "one_step"):
        return kind
    return method if kind == "fixed" or method.endswith(f"_{kind}") else f"{method}_{kind}"


def validate_scores(scores: pd.DataFrame, *, origin: str = "scores") -> pd.DataFrame:
    """Check a score table and give every column its dtype.

    Args:
        scores: Table with at least `COLUMNS`; further columns are kept, after them.
        origin: Name of the table in error messages, such as a file name.

    Returns:
        A new table with the columns in order, the dtypes of `COLUMNS` and a new index.

    Raises:
        ScoreTableError: If a column is missing, a cell has the wrong type, a kind is unknown, a step or an
            evaluation count is negative, or two rows have the same `KEY`.
    """
    missing = [name for name in COLUMNS if name not in scores.columns]
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise ScoreTableError(
            f"{origin}: column {names} is missing; a score table has the columns {', '.join(COLUMNS)}"
        )
    extra = [name for name in scores.columns if name not in COLUMNS]
    table = scores[[*COLUMNS, *extra]].reset_index(drop=True)
    for name, kind in COLUMNS.items():
        table[name] = _column(table[name], kind, origin)
    unknown = sorted(set(table["kind"]) - set(KINDS))
    if unknown:
        raise ScoreTableError(f"{origin}: kind {unknown[0]!r} is unknown; use one of {', '.join(KINDS)}")
    twice = table[table.duplicated(list(KEY))]
    for _, row in twice.head(1).iterrows():
        raise ScoreTableError(
            f"{origin}: item {row['item']!r} has two rows for {row['metric']}, "
            f"{column_name(row['method'], row['kind'])}, step {row['step']} of run {row['run']!r}; "
            "give every source and seed its own item or run name"
        )
    return table


def _column(column: pd.Series, kind: str, origin: str) -> pd.Series:
    """Cast a column to its type; the error names the column."""
    name = f"{origin}: column {column.name!r}"
    if kind == "str":
        if column.isna().any():
            raise ScoreTableError(f"{name} has an empty cell; write 'none' for no guide")
        return column.astype("str")
    try:
        numbers = pd.Series(pd.to_numeric(column)).astype("float64")
    except (ValueError, TypeError) as error:
        raise ScoreTableError(f"{name} must hold numbers ({str(error).splitlines()[0]})") from error
    # a cast alone would cut 1.5 to 1
    wrong = numbers[(numbers % 1 != 0) | (numbers < 0)]
    if kind == "int64" and len(wrong):
        raise ScoreTableError(f"{name} has {wrong.iloc[0]}; it counts 0, 1, 2 and so on")
    return numbers.astype("int64") if kind == "int64" else numbers


def write_scores(path: str | Path, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> Path:
    """Check rows and write them as a score table.

    Args:
        path: ``.parquet`` or ``.csv`` file; parent folders are created, an existing file is replaced.
        rows: A table, or mappings from column name to cell.

    Raises:
        ScoreTableError: If the rows are no score table or the file name has another suffix.
    """
    path = _checked_suffix(Path(path))
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if table.empty and not len(table.columns):
        table = pd.DataFrame(columns=list(COLUMNS))
    table = validate_scores(table, origin=path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    # so that neither a reader nor a killed job ever leaves half a table
    partial = path.with_name(f".{path.name}.partial")
    write = table.to_parquet if path.suffix == ".parquet" else table.to_csv
    write(partial, index=False)
    partial.replace(path)
    return path


def _checked_suffix(path: Path) -> Path:
    """Return the path; raise if its suffix is none of a score table."""
    if path.suffix not in (".parquet", ".csv"):
        raise ScoreTableError(f"{path}: a score table ends in .parquet or .csv, not {path.suffix!r}")
    return path


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a score table, a ``.parquet`` or ``.csv`` file, by `validate_scores`.

    Raises:
        ScoreTableError: If it is missing, unreadable or no score table.
    """
    path = _checked_suffix(Path(path))
    if not path.is_file():
        raise ScoreTableError(f"{path}: no such file; train.py and infer.py write score tables")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            # only numbers may be empty: "NA" and "null" are names of items
            empty = {name: ["", "nan", "NaN", "NA"] for name in NUMBERS}
            table = pd.read_csv(
                path, keep_default_na=False, na_values=empty, dtype=dict.fromkeys(TEXT, "str")
            )
    except (OSError, ValueError) as error:  # pyarrow's and pandas' parser errors are ValueErrors
        raise ScoreTableError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    return validate_scores(table, origin=str(path))
