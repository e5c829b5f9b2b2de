"""Log to TensorBoard: scalars, hyperparameters, pictures, audio and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.image import imread

from encore.common.packages import require
from encore.data.audio import read_audio
from encore.reporting.tables import to_markdown


class TensorBoard(TensorBoardLogger):
    """Write event files to ``tensorboard/`` in the run folder, one more after every resumption.

    Args:
        save_dir: The run folder.

    Raises:
        MissingPackageError: If the package tensorboard is not installed.
    """

    def __init__(self, save_dir: str | Path) -> None:
        require("tensorboard", needed_by="logger=tensorboard", extra="tensorboard")
        super().__init__(save_dir, name="tensorboard", version="", default_hp_metric=False)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Log hyperparameters for the tab that compares runs, which Lightning does only beside a metric."""
        from torch.utils.tensorboard.summary import hparams  # not there without the package

        super().log_hyperparams(params)
        (flat,) = pd.json_normalize(dict(self.hparams), sep="/").to_dict("records")
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in flat.items()}
        for part in hparams(plain, {"val/loss": 0.0}):  # type: ignore[no-untyped-call]
            self.experiment.file_writer.add_summary(part)

    @rank_zero_only
    def log_media(
        self,
        step: int,
        *,
        pictures: Mapping[str, Path],
        audio: Mapping[str, Mapping[str, Path]],
        tables: Mapping[str, pd.DataFrame],
    ) -> None:
        """Log pictures, audio by caption, of which the mean over channels is played, and tables."""
        writer = self.experiment
        for key, path in pictures.items():
            writer.add_image(key, imread(path)[..., :3], step, dataformats="HWC")
        for key, clips in audio.items():
            for caption, path in clips.items():
                waveform, rate = read_audio(path)
                writer.add_audio(f"{key}/{caption}", waveform.mean(0, keepdim=True), step, rate)
        for key, table in tables.items():
            writer.add_text(key, to_markdown(table), step)
