"""Write the scores of ``infer.py``: ``scores.csv`` and ``summary.json``."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd

from encore.reporting import COLUMNS, final_steps, read_scores, summarise, write_scores
from encore.reporting.labels import decimals, title

_FLUSH_SECONDS = 20.0
_STATISTICS = ["mean", "median", "count", "failed", "evaluations"]
_STATISTICS += ["improvement", "gain", "gain_low", "gain_high"]


class ScoreWriter:
    """Collect the rows of all files, and write them from time to time and at the end.

    Args:
        out: The output folder; rows of other files in a table that is already there are kept.

    Raises:
        ScoreTableError: If there is a table and it cannot be read.
    """

    def __init__(self, out: Path) -> None:
        self.path, self.run = out / "scores.csv", out.resolve().name or "infer"
        self._earlier = read_scores(self.path) if self.path.exists() else None
        self._tables: list[pd.DataFrame] = []
        self._written = time.monotonic()

    def add(self, rows: pd.DataFrame) -> None:
        """Add the rows of one file; rows of the same items from an earlier run are replaced."""
        self._tables.append(rows)
        if self._earlier is not None:
            self._earlier = self._earlier[~self._earlier["item"].isin(set(rows["item"]))]
        if time.monotonic() - self._written > _FLUSH_SECONDS:
            self.write()

    def table(self) -> pd.DataFrame:
        """Return all rows so far."""
        tables = self._tables if self._earlier is None else [self._earlier, *self._tables]
        filled = [table for table in tables if len(table)]
        rows = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(COLUMNS))
        return rows.assign(run=self.run)

    def write(self) -> None:
        """Write ``scores.csv`` whole."""
        write_scores(self.path, self.table())
        self._written = time.monotonic()

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Write ``scores.csv`` and ``summary.json``; return the summary.

        Args:
            **facts: What the summary says besides: files done, faults, seconds.
        """
        self.write()
        table = self.table()
        summary: dict[str, Any] = {"run": self.run, **facts, "final": {}, "steps": []}
        if len(table):
            steps = summarise(table)
            for row in final_steps(steps).to_dict("records"):
                own = {name: row[name] for name in _STATISTICS}
                summary["final"].setdefault(row["metric"], {})[row["column"]] = own
            summary["steps"] = steps.drop(columns="run").to_dict("records")
        text = json.dumps(_without_nan(summary), indent=2, ensure_ascii=True, allow_nan=False)
        self.path.with_name("summary.json").write_text(text + "\n", encoding="utf-8")
        return summary


def headline(summary: dict[str, Any]) -> list[str]:
    """Return the summary's last steps as lines for the terminal: mixture, one step, refined."""
    lines = []
    for metric, columns in summary["final"].items():
        known = {name: own for name, own in columns.items() if math.isfinite(own["mean"])}
        # means over different files do not compare
        differ = len({own["count"] for own in known.values()}) > 1
        values = [
            f"{name} {own['mean']:.{decimals(metric)}f}" + (f" (of {own['count']})" if differ else "")
            for name, own in known.items()
        ]
        if values:
            lines.append(f"  {title(metric):<14} {'   '.join(values)}")
    return lines


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
