"""Log pictures, audio and tables of a multi-step validation to the run folder and Weights & Biases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from lightning.pytorch.loggers import Logger, WandbLogger
from torch import Tensor

from encore.data.audio_writing import write_audio
from encore.reporting.palette import save_png
from encore.reporting.plots import step_figure
from encore.reporting.spectrograms import spectrogram_figure
from encore.reporting.tables import overview_table, to_markdown


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A refined item as an example: waveforms ``(c, t)`` by name."""

    label: str
    item: str
    gain: float
    waveforms: dict[str, Tensor]


def log_media(
    folder: Path,
    loggers: Sequence[Logger],
    step: int,
    summary: pd.DataFrame,
    examples: Sequence[Example],
    sample_rate: int,
) -> None:
    """Write curves, table and examples to ``folder/multi_step`` and log them where a logger can show them.

    Args:
        folder: The run folder.
        loggers: All of the trainer's; those of Weights & Biases get pictures, table and audio too.
        step: Training step.
        summary: From `encore.reporting.summary.summarise`.
        examples: Items that gained least and most.
        sample_rate: Of the examples, in Hz.
    """
    out = folder / "multi_step"
    out.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for metric in summary["metric"].unique():
        path = out / f"score_versus_step_{metric}.png"
        pictures[f"score_versus_step/{metric}"] = save_png(step_figure(summary, metric), path)
    for example in examples:
        stem = _file_name(f"{example.label}_{example.gain:+.3f}_{example.item}")
        title = f"{example.item}: {example.gain:+.3f} ({example.label})"
        figure = spectrogram_figure(example.waveforms, sample_rate, title=title)
        pictures[f"spectrograms/{stem}"] = save_png(figure, out / f"{stem}.png")
        for name, waveform in example.waveforms.items():
            write_audio(out / f"{stem}_{_file_name(name)}.wav", waveform, sample_rate, subtype="FLOAT")
    table = overview_table(summary)
    (out / "scores.md").write_text(to_markdown(table) + "\n")
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _log_to_wandb(logger, step, pictures, table, examples, sample_rate)


def _log_to_wandb(
    logger: WandbLogger,
    step: int,
    pictures: dict[str, Path],
    table: pd.DataFrame,
    examples: Sequence[Example],
    sample_rate: int,
) -> None:
    text = table.astype(str)
    logger.log_table(
        "val/multi_step/scores", columns=list(text.columns), data=text.values.tolist(), step=step
    )
    for name, path in pictures.items():
        logger.log_image(f"val/multi_step/{name}", images=[str(path)], step=step)
    for example in examples:
        key = _file_name(f"{example.label}_{example.item}")
        logger.log_audio(
            f"val/multi_step/audio/{key}",
            audios=[waveform.T.numpy() for waveform in example.waveforms.values()],
            step=step,
            sample_rate=[sample_rate] * len(example.waveforms),
            caption=[f"{name} ({example.gain:+.3f})" for name in example.waveforms],
        )


def _file_name(text: str) -> str:
    """Letters, digits and a few signs only, for file names and log keys alike."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)
