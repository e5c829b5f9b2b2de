"""Run experiments that train nothing, on the test data of a corpus."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from encore.cli.infer_setup import choose_device
from encore.cli.overrides import UserError
from encore.cli.run_folder import RunFolder
from encore.cli.run_record import costs_of
from encore.data.datamodule import SeparationData
from encore.inference import WorkerPool
from encore.inference.execution import default_workers, in_time
from encore.models import load_separator
from encore.models.types import LoadedSeparator

Row = dict[str, Any]
Rows = Mapping[str, Sequence[Row]]
"""New rows of tables, by the names of the tables."""

Plan = tuple[Sequence[Any], Callable[[Any], Rows], Callable[[Path], str]]
"""The jobs that tables lack, what makes the rows of one, and what writes the report and returns its text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What an experiment measures.

    Attributes:
        separator: On its device.
        data: Its test samples have ``mixture`` (c, t), ``references`` (s, c, t) in the order of the
            separator's sources, and ``name``.
        device: The separator's.
        name: Of the run, for tables and report.
        workers: Jobs at the same time.
    """

    separator: LoadedSeparator
    data: SeparationData
    device: torch.device
    name: str
    workers: int

    @property
    def samples(self) -> Any:
        """The test samples."""
        return self.data.test_dataloader().dataset


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """An experiment on test items, built from the node ``evaluation`` of a configuration.

    Args:
        items: Test items, evenly spaced; None for all.
        workers: Jobs that are worked on at the same time, each with one processor core; None for one per core
            on a CPU, and 1 on a GPU.
        max_seconds: Wall time after which no further item is begun; None for no limit.
        seed: Of all draws, the same for every item.
    """

    items: int | None = None
    workers: int | None = None
    max_seconds: float | None = None
    seed: int = 0

    tables: ClassVar[tuple[str, ...]]
    """Tables that grow job by job, from which an interrupted run resumes."""

    @abstractmethod
    def plan(self, subject: Subject, tables: Mapping[str, Table]) -> Plan:
        """Return what is left to do, what does it, and what then writes the page into a folder.

        Raises:
            UserError: If options do not fit the separator.
        """

    def run(self, subject: Subject, folder: Path) -> str:
        """Do what ``folder`` has no rows of yet, write tables and report, and return its text."""
        tables = {table: Table(folder / table) for table in self.tables}
        jobs, work, report = self.plan(subject, tables)
        with WorkerPool(subject.workers) as pool:
            timely = in_time(jobs, self.max_seconds, "items")
            for rows in tqdm(pool.map(work, timely), total=len(jobs), desc="items", unit="item"):
                for table, own in rows.items():
                    tables[table].add(own)
        return report(folder)


class Table:
    """A Parquet file that grows item by item and is complete at any time.

    Args:
        path: The file; its rows are taken up if it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frame = pd.read_parquet(path) if path.exists() else pd.DataFrame()

    @property
    def items(self) -> set[str]:
        """Names of the items that have rows."""
        return set() if self.frame.empty else set(self.frame["item"])

    def keep(self, items: set[str]) -> None:
        """Drop the rows of all other items; written with the next rows."""
        if not self.frame.empty:
            self.frame = self.frame[self.frame["item"].isin(items)]

    def add(self, rows: Sequence[Row]) -> None:
        """Take up more rows, if there are any, and write all of them."""
        if not rows:
            return
        self.frame = pd.concat([self.frame, pd.DataFrame(rows)], ignore_index=True)
        partial_file = self.path.with_name(f".{self.path.name}.partial")
        self.frame.to_parquet(partial_file, index=False)
        partial_file.replace(self.path)


def evaluate(config: DictConfig, folder: RunFolder) -> None:
    """Run the evaluation that a configuration describes, on its test data, as the separator wants them.

    Args:
        config: With ``evaluation``, ``separator`` and ``data``, whose rate, channels and sources become those
            of the separator.
        folder: Of the run; a run that was cut off goes on.

    Raises:
        ValueError: If something does not fit.
    """
    if config.separator is None:
        raise UserError("separator is not set: give separator=..., what infer.py --separator takes")
    tables = get_class(config.evaluation._target_).tables  # type: ignore[attr-defined]
    if config.ckpt is None and any((folder.path / name).exists() for name in tables):
        raise UserError(f"{folder.path} already holds a run: go on (ckpt=last) or give another name=...")
    device = choose_device("cpu" if config.trainer.accelerator == "cpu" else "auto")
    separator = load_separator(config.separator, device=device)
    config.data.sources = list(separator.sources)
    config.data.sample_rate, config.data.channels = separator.sample_rate, separator.channels
    folder.describe(config)
    folder.update(separator=config.separator, model=type(separator).__name__, **costs_of(separator))
    experiment: Experiment = instantiate(config.evaluation, _convert_="all")
    if config.trainer.fast_dev_run:  # as elsewhere: one batch of everything
        experiment = replace(experiment, items=1)
    subject = Subject(
        separator=separator,
        data=instantiate(config.data),
        device=device,
        name=config.name,
        workers=experiment.workers or default_workers(device),
    )
    started = time.monotonic()
    text = experiment.run(subject, folder.path)
    folder.update(seconds=round(time.monotonic() - started, 1), finished=True)
    print(text)
    print(f"run folder: {folder.path}")
