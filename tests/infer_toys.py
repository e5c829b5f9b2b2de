"""Separators, signals and calls for the tests of infer.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from speech_toys import voices

from encore import infer
from encore.models.checkpoint import save_separator
from encore.models.separators.bsrnn import BSRNN
from encore.reporting import read_scores

ROOT = Path(infer.__file__).parent
RATE = 16000


def separator_file(
    folder: Path, name: str, sources: tuple[str, ...] = ("speech",), channels: int = 1, rate: int = RATE
) -> str:
    torch.manual_seed(0)
    options = {
        "sources": list(sources),
        "channels": channels,
        "sample_rate": rate,
        "features": 4,
        "layers": 1,
    }
    path = folder / f"{name}.safetensors"
    save_separator(path, BSRNN(**options), {"_target_": "encore.models.separators.bsrnn.BSRNN", **options})
    return str(path)


def signals(frames: int, rate: int, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy speech ``(time, channel)``, another voice in each channel."""
    generator = np.random.default_rng(seed)
    clean = voices(channels, seconds=frames / rate, rate=rate).double().numpy().T
    return clean, clean + 0.02 * generator.standard_normal((frames, channels))


def write_pair(
    root: Path, name: str, frames: int = 8000, rate: int = RATE, channels: int = 1, subtype: str = "PCM_16"
) -> None:
    clean, noisy = signals(frames, rate, channels, seed=len(name))
    for folder, samples in (("clean", clean), ("noisy", noisy)):
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype=subtype)


def read(path: Path) -> torch.Tensor:
    """Samples ``(channel, time)``."""
    return torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T)


def run(*arguments: object) -> int:
    return infer.main([str(argument) for argument in arguments])


def audio_files(folder: Path) -> list[str]:
    suffixes = {".wav", ".flac", ".ogg", ".mp3", ".aiff"}
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in suffixes)


def scores(out: Path, name: str = "scores.csv") -> pd.DataFrame:
    return read_scores(out / name)


def one_step(root: Path, separator: str, *inputs: object) -> list[object]:
    """A command that calls the separator once and scores nothing."""
    files = inputs or (root / "noisy",)
    return [*files, "-o", root / "out", "--separator", separator, "--method", "one_step", "--no-scores"]


def oracle(root: Path, separator: str, *, scored: bool = False) -> list[object]:
    """A command of one step with an oracle guide."""
    options = ["--separator", separator, "--reference", root / "clean", "--guide", "si_sdr"]
    command = [root / "noisy", "-o", root / "out", *options, "--steps", 1, "--candidates", 2]
    return command if scored else [*command, "--no-scores"]
