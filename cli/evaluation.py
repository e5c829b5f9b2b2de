"""Run experiments that train nothing, on the test data of a corpus."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from encore.cli.infer_setup import choose_device
from encore.cli.overrides import UserError
from encore.cli.run_folder import RunFolder
from encore.data.datamodule import SeparationData
from encore.models import load_separator
from encore.models.costs import parameters
from encore.models.types import LoadedSeparator

Row = dict[str, Any]


class Experiment(Protocol):
    """An experiment, built from the node ``evaluation`` of a configuration; a dataclass."""

    items: int | None
    page: str
    """Report file in the run folder."""

    tables: tuple[str, ...]
    """Tables that grow item by item, from which an interrupted run resumes."""

    def run(
        self,
        separator: LoadedSeparator,
        data: SeparationData,
        folder: Path,
        *,
        name: str,
        device: torch.device,
    ) -> None:
        """Do what is not done yet, and write tables, figures and the page."""
        ...


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
    opened: Any = load_separator(config.separator, device=device)
    separator: LoadedSeparator = opened
    config.data.sources = list(separator.sources)
    config.data.sample_rate, config.data.channels = separator.sample_rate, separator.channels
    folder.describe(config)
    folder.update(separator=config.separator, parameters=parameters(opened))
    data: SeparationData = instantiate(config.data)
    experiment: Experiment = instantiate(config.evaluation, _convert_="all")
    # as elsewhere: one batch of everything
    items = 1 if config.trainer.fast_dev_run else experiment.items
    started = time.monotonic()
    replace(experiment, items=items).run(separator, data, folder.path, name=config.name, device=device)  # type: ignore[type-var]
    folder.update(seconds=round(time.monotonic() - started, 1), finished=True)
    print((folder.path / experiment.page).read_text())
    print(f"run folder: {folder.path}")
