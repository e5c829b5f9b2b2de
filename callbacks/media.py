"""Log pictures, audio and tables to Weights & Biases where that is a logger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger


def log_to_wandb(
    trainer: Trainer,
    prefix: str,
    *,
    pictures: Mapping[str, Path] | None = None,
    audio: Mapping[str, Mapping[str, Path]] | None = None,
    table: pd.DataFrame | None = None,
) -> None:
    """Log to the trainer's loggers of Weights & Biases, if there are any, under keys ``prefix/<key>``.

    Args:
        trainer: In a fit.
        prefix: Of all keys.
        pictures: Paths by key.
        audio: By key, paths by caption.
        table: Has the key ``scores``.
    """
    step = trainer.global_step
    for logger in trainer.loggers:
        if not isinstance(logger, WandbLogger):
            continue
        if table is not None:
            text = table.astype(str)
            rows = text.values.tolist()
            logger.log_table(f"{prefix}/scores", columns=list(text.columns), data=rows, step=step)
        for key, path in (pictures or {}).items():
            logger.log_image(f"{prefix}/{key}", images=[str(path)], step=step)
        for key, clips in (audio or {}).items():
            paths = [str(path) for path in clips.values()]
            logger.log_audio(f"{prefix}/{key}", audios=paths, step=step, caption=list(clips))
