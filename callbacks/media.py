"""Write audio and spectrograms of examples, and log them to Weights & Biases where that is a logger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from encore.data.audio_writing import write_audio
from encore.reporting.figures import save_png
from encore.reporting.spectrograms import spectrogram_figure


def write_example(
    folder: Path, name: str, waveforms: Mapping[str, Tensor], sample_rate: int, *, title: str
) -> tuple[Path, dict[str, Path]]:
    """Write ``<name>.png``, the spectrograms of waveforms, and ``<name>_<waveform>.wav`` for each of them.

    Args:
        folder: Made if there is none.
        name: Of the example.
        waveforms: ``(c, t)`` by name.
        sample_rate: In Hz.
        title: Of the figure.

    Returns:
        The path of the figure, and those of the audio by the waveforms' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    audio = {own: folder / f"{file_name(f'{name}_{own}')}.wav" for own in waveforms}
    for own, path in audio.items():
        write_audio(path, waveforms[own], sample_rate, subtype="FLOAT")
    figure = spectrogram_figure(waveforms, sample_rate, title=title)
    return save_png(figure, folder / f"{file_name(name)}.png"), audio


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


def file_name(text: str) -> str:
    """Keep letters, digits and a few signs only, for file names and log keys alike."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)
