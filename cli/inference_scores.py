"""What ``infer.py`` measures of its outputs, and writes: ``scores.csv`` and ``summary.json``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from encore.cli.prior_method import made_of_priors
from encore.data.audio import resample
from encore.inference.evaluation import score_rows
from encore.inference.segments import mean_over_stretches
from encore.metrics import METRIC_NAMES, MetricPanel, usual_names
from encore.reporting import COLUMNS, final_steps, read_scores, summarise, write_scores
from encore.reporting.labels import decimals, title

if TYPE_CHECKING:
    from encore.cli.file_separation import CheckedJob, FileSeparator, Separation

Scores = list[dict[str, list[float]]]
"""For each source the values of every measure: of the mixture, then of the estimates from step 0 on."""

_FLUSH_SECONDS = 20.0
_STATISTICS = (
    "mean",
    "median",
    "count",
    "failed",
    "improvement",
    "gain",
    "gain_low",
    "gain_high",
    "evaluations",
)


class ScoreBook:
    """Collects the rows of all files, and writes them now and then and at the end.

    Args:
        out: The output folder; rows of other files in a table that is already there are kept.

    Raises:
        ScoreTableError: If there is one and it cannot be read.
    """

    def __init__(self, out: Path) -> None:
        self.path, self.run = out / "scores.csv", out.resolve().name or "infer"
        self._earlier = read_scores(self.path) if self.path.exists() else None
        self._tables: list[pd.DataFrame] = []
        self._written = time.monotonic()

    def rows(self, files: FileSeparator, checked: CheckedJob, separation: Separation) -> pd.DataFrame:
        """The rows of one file that was separated with its trajectory."""
        rows = [
            {"run": self.run, "item": item, **row}
            for index, item in enumerate(_item_names(checked, files.separator.sources))
            for row in _source_rows(files, checked, separation, index)
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def add(self, rows: pd.DataFrame) -> None:
        """Take up the rows of one file; rows of the same items from an earlier run are replaced."""
        if self._earlier is not None:
            self._earlier = self._earlier[~self._earlier["item"].isin(set(rows["item"]))]
        self._tables.append(rows)
        if time.monotonic() - self._written > _FLUSH_SECONDS:
            self.write()

    def table(self) -> pd.DataFrame:
        """All rows so far."""
        tables = self._tables if self._earlier is None else [self._earlier, *self._tables]
        filled = [table for table in tables if len(table)]
        rows = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(COLUMNS))
        return rows.assign(run=self.run)

    def write(self) -> None:
        """Write ``scores.csv`` whole."""
        write_scores(self.path, self.table())
        self._written = time.monotonic()

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Write ``scores.csv`` and ``summary.json``; returns the summary.

        Args:
            **facts: What the summary says besides: files done, faults, seconds.
        """
        self.write()
        table = self.table()
        summary = {"run": self.run, **facts, "final": {}, "steps": []}
        if len(table):
            steps = summarise(table)
            for row in final_steps(steps).to_dict("records"):
                summary["final"].setdefault(row["metric"], {})[row["column"]] = {
                    name: row[name] for name in _STATISTICS
                }
            summary["steps"] = steps.drop(columns="run").to_dict("records")
        text = json.dumps(_without_nan(summary), indent=2, ensure_ascii=True, allow_nan=False)
        self.path.with_name("summary.json").write_text(text + "\n", encoding="utf-8")
        return summary


def headline(summary: dict[str, Any]) -> list[str]:
    """The summary's last steps as lines for the terminal: mixture, one step, refined."""
    lines = []
    for metric, columns in summary["final"].items():
        known = {
            column: own
            for column, own in columns.items()
            if own["mean"] is not None and math.isfinite(own["mean"])
        }
        # means over different files do not compare
        differ = len({own["count"] for own in known.values()}) > 1
        values = [
            f"{column} {own['mean']:.{decimals(metric)}f}" + (f" (of {own['count']})" if differ else "")
            for column, own in known.items()
        ]
        if values:
            lines.append(f"  {title(metric):<14} {'   '.join(values)}")
    return lines


def _item_names(checked: CheckedJob, sources: tuple[str, ...]) -> list[str]:
    name = checked.job.name
    return [name] if len(sources) == 1 else [f"{name}/{source}" for source in sources]


def _source_rows(
    files: FileSeparator, checked: CheckedJob, separation: Separation, index: int
) -> list[dict[str, Any]]:
    """Rows of one source: the mixture, the one-step estimate, and every step of the method."""
    method, numbers = files.method, separation.numbers
    scores = dict(separation.scores[index])
    steps = method.total_steps
    quality = method.quality(files.separator.sample_rate)
    if quality is not None and quality.name not in scores:
        own = [math.nan] * (steps + 1) if numbers is None else numbers.scores[:, 0].tolist()
        scores[quality.name] = [math.nan, *own]
    base = {"mixture_db": scores["si_sdr"][0] if "si_sdr" in scores else math.nan}
    kind = "fixed" if quality is None else quality.kind
    guide = "none" if quality is None else quality.name
    made = made_of_priors(files.separator)
    # what a separator of priors is asked for is one call, what it costs many
    each = 1 if made is None else made.evaluations
    calls = 0 if numbers is None else each * int(numbers.evaluations[0])
    # a joint guide knows no score of the mixture
    mixture = {metric: values[0] for metric, values in scores.items() if metric in METRIC_NAMES}
    one_step = {metric: values[1] for metric, values in scores.items()}
    rows = score_rows(base, mixture, guide="none", kind="mixture", step=0, evaluations=0)
    rows += score_rows(base, one_step, guide="none", kind="one_step", step=0, evaluations=min(calls, each))
    ratios = [math.nan, *([math.nan] * steps if numbers is None else numbers.ratios[:, 0].tolist())]
    for step in range(steps + 1) if steps else ():
        now = {metric: values[step + 1] for metric, values in scores.items()}
        rows += score_rows(
            base, now, guide=guide, kind=kind, step=step, evaluations=calls, ratio=ratios[step]
        )
    return rows


def measure(
    mixture: Tensor, trajectory: Tensor, references: Tensor | None, *, rate: int, score_rate: int
) -> Scores:
    """Every measure that the rate allows, of a file or a stretch of one.

    Args:
        mixture: ``(channel, time)``.
        trajectory: ``(steps + 1, source, channel, time)``.
        references: ``(source, channel, time)``; None for blind measures only.
        rate: Rate in Hz of all these.
        score_rate: Rate in Hz at which they are scored.

    Returns:
        NaN where something cannot be scored; a source has no measures where none fits.
    """
    panel = _panel(score_rate, len(mixture), references is not None)
    if panel is None:
        return [{} for _ in range(trajectory.shape[1])]
    scores = []
    for index, estimates in enumerate(trajectory.unbind(1)):
        distinct, places = _distinct(torch.cat([mixture[None], estimates]))
        reference = None
        if references is not None:
            reference = resample(references[index], rate, score_rate).repeat(len(distinct), 1, 1)
        values = panel(resample(distinct, rate, score_rate), reference)
        scores.append({name: [own[place].item() for place in places] for name, own in values.items()})
    return scores


def mean_scores(tables: Sequence[Scores], lengths: Sequence[int]) -> Scores:
    """Scores of a file from those of its stretches: means weighted by the lengths.

    NaN is left out, so a measure speaks of the stretches that it can score: those that sound and last long
    enough. It is NaN where it can score none. The mean over the stretches of a ratio in dB is not the ratio
    of the whole file.

    Args:
        tables: Scores of each stretch.
        lengths: Their samples.
    """

    def mean(index: int, name: str) -> list[float]:
        values = torch.tensor([table[index][name] for table in tables], dtype=torch.float64)
        return [float(value) for value in mean_over_stretches(values, lengths)]

    return [{name: mean(index, name) for name in own} for index, own in enumerate(tables[0])]


def no_scores(sources: int, steps: int, *, sample_rate: int, channels: int, has_reference: bool) -> Scores:
    """NaN for every measure of a file, of a rate in Hz, that is silent."""
    panel = _panel(sample_rate, channels, has_reference)
    names = () if panel is None else panel.names
    return [dict.fromkeys(names, [math.nan] * (steps + 2)) for _ in range(sources)]


def _distinct(signals: Tensor) -> tuple[Tensor, list[int]]:
    """Signals without immediate repetitions, and where each one is now: a kept estimate is scored once."""
    places, kept = [0], [0]
    for index in range(1, len(signals)):
        if not torch.equal(signals[index], signals[index - 1]):
            kept.append(index)
        places.append(len(kept) - 1)
    return signals[kept], places


def _panel(sample_rate: int, channels: int, has_reference: bool) -> MetricPanel | None:
    """The panel of every measure that such audio is usually scored with."""
    names = usual_names(sample_rate, channels, has_reference=has_reference)
    return MetricPanel(names, sample_rate=sample_rate) if names else None


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
