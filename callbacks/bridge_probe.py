"""Probe of a separator in training as a bridge's data predictor: error along the path, delta, secant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import LightningModule, Trainer
from torch import Generator

from encore.callbacks.media import log_media
from encore.callbacks.validation_items import ValidationCallback, of_all_processes, validation_items
from encore.inference.theory import norms, path_rows, secant
from encore.models.denoisers.bridge_separator import BridgeSeparator
from encore.reporting.bridge_report import path_figure
from encore.reporting.figures import save_png

TENTHS = tuple(tenth / 10 for tenth in range(11))


class BridgeProbe(ValidationCallback):
    """Measure the constants on which refinement depends, on validation items while a separator is trained.

    Logs medians over items: ``val/bridge/delta`` (the change of clean sources, over them),
    ``val/bridge/secant`` (from the source to its mixture), and the error along the path in dB,
    ``val/bridge/error_r<percent>`` for each mixing ratio, and ``conditioned_error_r<percent>`` of a bridge
    that is conditioned on the time. Writes ``bridge_path.parquet`` and ``bridge_path.png`` to the run folder;
    logs the figure to Weights & Biases and TensorBoard too.

    Args:
        every_n_epochs: Epochs between measurements; 0 measures only when training ends.
        items: Validation items, evenly spaced; None for all. Those without references are left out.
        ratios: Mixing ratios in [0, 1].
        source: Name of the source; None for the first.
        seed: Of the noise in a bridge's states.
    """

    def __init__(
        self,
        *,
        every_n_epochs: int = 0,
        items: int | None = 8,
        ratios: Sequence[float] = TENTHS,
        source: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, items)
        if not ratios or not all(0 <= ratio <= 1 for ratio in ratios):
            raise ValueError(f"ratios={list(ratios)}: give at least one, each in [0, 1]")
        self.ratios, self.source, self.seed = ratios, source, seed

    @torch.no_grad()
    def measure(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Measure this process's items, gather and write all rows, and return the values to log."""
        separator: Any = module.separator
        if self.source is not None and self.source not in separator.sources:
            raise ValueError(f"source={self.source}: the separator has {', '.join(separator.sources)}")
        source = 0 if self.source is None else list(separator.sources).index(self.source)
        rows: list[dict[str, Any]] = []
        for item in validation_items(trainer, self.items, "bridge probe"):
            if "references" in item.sample:
                rows += self._rows(separator, item.sample, source, module.device)
        frame = pd.DataFrame([row for part in of_all_processes(rows) for row in part])
        if frame.empty:
            raise ValueError(
                "no validation item has a reference that is not silent: give data.valid, or bridge_probe=null"
            )
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            frame.to_parquet(folder / "bridge_path.parquet", index=False)
            figure = save_png(path_figure(frame[frame["what"] != "constant"]), folder / "bridge_path.png")
            log_media(trainer, "val/bridge", pictures={"path": figure})
        return _values(frame)

    def _rows(
        self, separator: Any, sample: dict[str, Any], source: int, device: torch.device
    ) -> list[dict[str, Any]]:
        """Return the errors along the path and the constants of one item; none of a silent one."""
        mixture, reference = sample["mixture"].to(device), sample["references"][:, source].to(device)
        if not bool(norms(reference) > 0):
            return []

        def f(x: torch.Tensor) -> torch.Tensor:
            estimates: torch.Tensor = separator(x)
            return estimates[:, source]

        item = sample["names"][0]
        bridge = separator if isinstance(separator, BridgeSeparator) else None
        generator = Generator().manual_seed(self.seed)
        path: dict[str, Any] = {"bridge": bridge, "source": source, "generator": generator}
        rows = [{"item": item} | row for row in path_rows(f, reference, mixture, self.ratios, **path)]
        delta = norms(f(reference) - reference) / norms(reference)
        for name, value in (("delta", delta), ("secant", secant(f, mixture, reference))):
            rows.append({"item": item, "what": "constant", "name": name, "error": float(value)})
        return rows


def _values(frame: pd.DataFrame) -> dict[str, float]:
    """Return medians over items by log key."""
    values: dict[str, float] = {}
    constants = frame[frame["what"] == "constant"]
    for name, own in constants.groupby("name"):
        values[f"val/bridge/{name}"] = float(own["error"].median())
    for what, prefix in (("separator", "error"), ("bridge", "conditioned_error")):
        for ratio, own in frame[frame["what"] == what].groupby("ratio"):
            decibels = 20 * np.log10(max(float(own["error"].median()), 1e-15))
            values[f"val/bridge/{prefix}_r{round(100 * float(ratio))}"] = decibels  # type: ignore[arg-type]
    return values
