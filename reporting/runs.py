"""Runs of a report: a score table and the record of its model."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from encore.reporting.scores import ScoreTableError, read_scores

SCORE_FILES = ("scores.parquet", "scores.csv")
"""Names of score tables in a run folder; the first one found is read."""

RECORD_FILE = "run.json"


class RunError(ValueError):
    """A run cannot be reported; the message names its path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The contents of ``run.json``; None for missing keys."""

    name: str | None = None  # of the run in tables and plots
    model: str | None = None  # architecture in the run's config
    parameters: int | None = None  # trainable
    macs_per_second: float | None = None  # multiply-accumulates of one separator call per second of audio
    sample_rate: int | None = None  # in Hz
    seed: int | None = None
    commit: str | None = None
    training_steps: int | None = None  # of the optimizer
    training_seconds: float | None = None  # wall-clock time


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run: its name in the report, the path of its scores, its record and its score table."""

    name: str
    path: Path
    record: RunRecord
    scores: pd.DataFrame


TEXT_KEYS = ("name", "model", "commit")


def read_record(path: str | Path) -> RunRecord:
    """Read a ``run.json``; a missing file gives an empty record, unknown keys are ignored.

    Raises:
        RunError: If the file is no JSON object, or a number in it is invalid or negative.
    """
    path = Path(path)
    if not path.is_file():
        return RunRecord()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON and UTF-8 errors alike
        raise RunError(f"{path}: is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: must hold one JSON object, not {type(content).__name__}")
    known = {field.name for field in fields(RunRecord)}
    return RunRecord(**{key: _convert(path, key, value) for key, value in content.items() if key in known})


def _convert(path: Path, key: str, value: Any) -> Any:
    """Convert a value of ``run.json`` to its attribute's type."""
    if value is None:
        return None
    if key in TEXT_KEYS:
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise RunError(f"{path}: {key!r} is {value!r}; it must be a number from 0 up, or null")
    return value


def load_all(paths: Sequence[str | Path]) -> tuple[list[Run], list[str]]:
    """Load runs, each path once.

    Args:
        paths: Folders that hold one of `SCORE_FILES` and perhaps ``run.json``, folders with such folders at
            any depth, or score files.

    Returns:
        The runs, named by `distinct_names`, and one line for every path that could not be read. A table of
        several runs gives one each, and the record then belongs to the run that it names.
    """
    runs: list[Run] = []
    errors: list[str] = []
    for path in {path.resolve(): path for given in paths for path in _run_folders(Path(given))}.values():
        try:
            runs.extend(_load(path))
        except (RunError, ScoreTableError) as error:
            errors.append(str(error))
    return distinct_names(runs), errors


def _run_folders(path: Path) -> list[Path]:
    """Return the folders below one without scores that have some; the path itself where there are none."""
    if any((path / name).is_file() for name in SCORE_FILES):
        return [path]
    return sorted({file.parent for name in SCORE_FILES for file in path.rglob(name)}) or [path]


def _load(path: Path) -> list[Run]:
    """Load the runs of one path; raise a `RunError` or a `ScoreTableError`."""
    if not path.exists():
        raise RunError(f"{path}: no such run folder or score file")
    candidates = [path / name for name in SCORE_FILES] if path.is_dir() else [path]
    file = next((each for each in candidates if each.is_file()), None)
    if file is None:
        raise RunError(f"{path}: holds neither {' nor '.join(SCORE_FILES)}; was the run scored?")
    scores = read_scores(file)
    if scores.empty:
        raise RunError(f"{file}: has no row; was the run scored?")
    record = read_record(file.parent / RECORD_FILE)
    tables = {str(name): rows.reset_index(drop=True) for name, rows in scores.groupby("run", sort=False)}
    if len(tables) == 1:
        return [Run(name=record.name or min(tables), path=file, record=record, scores=scores)]
    records = {record.name: record}
    return [
        Run(name=name, path=file, record=records.get(name, RunRecord()), scores=rows)
        for name, rows in tables.items()
    ]


def distinct_names(runs: Sequence[Run]) -> list[Run]:
    """Give runs short and unique names, also in their tables.

    They are called by their models where these are recorded and differ. Else by their names, those of equal
    names by their folders (``night/small``, ``day/small``) or numbers, without the parts between ``_`` and
    ``/`` that all begin or end with.
    """
    names: list[str] = []
    for run in runs:
        equal = [other.path.resolve().parent for other in runs if other.name == run.name]
        name = run.name
        if len(set(equal)) > 1:
            parts = run.path.resolve().parent.relative_to(os.path.commonpath(equal)).parts
            name = "/".join(parts if parts[-1:] == (name,) else (*parts, name))
        numbers = (f"{name} #{number}" for number in itertools.count(2))
        names.append(next(each for each in itertools.chain([name], numbers) if each not in names))
    for short in ([run.record.model or "" for run in runs], _without_common_parts(names)):
        if all(short) and len(set(short)) == len(runs):
            names = short
            break
    named = zip(runs, names, strict=True)
    return [replace(run, name=name, scores=run.scores.assign(run=name)) for run, name in named]


def _without_common_parts(names: Sequence[str]) -> list[str]:
    """Cut off the parts that all names begin or end with, but never a whole name."""
    if len(names) < 2:
        return list(names)
    parts = [re.findall("[^_/]*[_/]*", name)[:-1] for name in names]
    for _ in range(2):  # from the front, and from the back
        while min(map(len, parts)) > 1 and len({own[0].strip("_/") for own in parts}) == 1:
            parts = [own[1:] for own in parts]
        parts = [own[::-1] for own in parts]
    return ["".join(own).strip("_/") for own in parts]
