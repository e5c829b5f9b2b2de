"""Log pictures, audio and tables to the loggers that can show them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger

from encore.callbacks.tensorboard import TensorBoard


def log_media(
    trainer: Trainer,
    prefix: str,
    *,
    pictures: Mapping[str, Path] | None = None,
    audio: Mapping[str, Mapping[str, Path]] | None = None,
    table: pd.DataFrame | None = None,
) -> None:
    """Log to Weights & Biases and TensorBoard, where they are loggers, under keys ``prefix/<key>``.

    Args:
        trainer: In a fit.
        prefix: Of all keys.
        pictures: Paths by key.
        audio: By key, paths by caption.
        table: Has the key ``scores``.
    """
    step = trainer.global_step
    shown = {f"{prefix}/{key}": path for key, path in (pictures or {}).items()}
    sounds = {f"{prefix}/{key}": clips for key, clips in (audio or {}).items()}
    tables = {} if table is None else {f"{prefix}/scores": table}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoard):
            logger.log_media(step, pictures=shown, audio=sounds, tables=tables)
        if not isinstance(logger, WandbLogger):
            continue
        for key, frame in tables.items():
            text = frame.astype(str)
            logger.log_table(key, columns=list(text.columns), data=text.values.tolist(), step=step)
        for key, path in shown.items():
            logger.log_image(key, images=[str(path)], step=step)
        for key, clips in sounds.items():
            paths = [str(path) for path in clips.values()]
            logger.log_audio(key, audios=paths, step=step, caption=list(clips))
