"""Score tables for the tests of reports and figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from encore.reporting import write_scores

NAN = float("nan")


def row(item: str, value: float, kind: str = "one_step", **cells) -> dict:
    """One row of a score table; ``cells`` override."""
    base = {"run": "a", "item": item, "input_si_sdr": NAN, "step": 0, "kind": kind, "guide": "none"}
    measured = {"metric": "pesq", "value": value, "ratio": NAN, "evaluations": int(kind != "mixture")}
    guide = cells.get("guide", "none")
    method = "fixed" if kind == "fixed" and guide == "none" else guide
    return base | {"method": method} | measured | {"seconds": NAN} | cells


def oracle(item: str, value: float, step: int, **cells) -> dict:
    return row(item, value, "oracle", **{"guide": "si_sdr", "step": step, "evaluations": 7} | cells)


def tiny_rows() -> list[dict]:
    """Means that can be computed by hand: item z fails once refined, item y has no mixture score."""
    rows = [row("x", 1.0, "mixture"), row("y", NAN, "mixture"), row("z", 2.0, "mixture")]
    rows += [row("x", 2.0), row("y", 3.0), row("z", 7.0)]
    rows += [oracle("x", 2.5, 1, ratio=0.5), oracle("y", 4.5, 1), oracle("z", NAN, 1, ratio=0.1)]
    return rows


def table(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def random_scores(
    run: str, seed: int, *, items: int = 8, steps: int = 2, metrics: tuple[str, ...] = ("si_sdr", "stoi")
) -> pd.DataFrame:
    """One step and an oracle, a blind and a fixed guide on the same items, each step adding about 0.3."""
    rng = np.random.default_rng(seed)
    rows = []
    for metric in metrics:
        for index in range(items):
            same = {"run": run, "metric": metric, "input_si_sdr": 1.0}
            item, once = f"item{index}", rng.normal(10, 2)
            rows += [row(item, once - 5, "mixture", **same), row(item, once, **same)]
            for guide, kind in (("si_sdr", "oracle"), ("dnsmos_ovrl", "blind"), ("none", "fixed")):
                for step in range(1, steps + 1):
                    cells = same | {"guide": guide, "step": step, "ratio": 0.2, "evaluations": 9}
                    rows.append(row(item, once + step * rng.normal(0.3, 0.1), kind, **cells))
    return table(rows)


def two_models() -> tuple[pd.DataFrame, dict[str, float | None]]:
    """A small model refined (cost 70) and a large one applied once (cost 72), item by item."""
    rows = []
    for item, values in {"x": (2.0, 4.0, 5.0), "y": (3.0, 6.0, 5.5), "z": (4.0, NAN, 9.0)}.items():
        rows += [row(item, values[0], run="small"), oracle(item, values[1], 1, run="small")]
        rows.append(row(item, values[2], run="large"))
    return table(rows), {"small": 10.0, "large": 72.0}


def save_run(folder: Path, scores: pd.DataFrame, *, suffix: str = "parquet", **record) -> Path:
    """Write a run folder; without ``run.json`` if there is no record."""
    write_scores(folder / f"scores.{suffix}", scores)
    if record:
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def cell(summary: pd.DataFrame, column: str, step: int) -> pd.Series:
    found = summary[(summary["column"] == column) & (summary["step"] == step)]
    assert len(found) == 1
    return found.iloc[0]
