"""Separators, signals and calls that the tests of infer.py share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch

from encore import infer
from encore.models.checkpoint import save_separator
from encore.models.separators.bsrnn import BSRNN

ROOT = Path(infer.__file__).parent
RATE = 16000


def separator_file(
    folder: Path, name: str, sources: tuple[str, ...] = ("speech",), channels: int = 1, rate: int = RATE
) -> str:
    torch.manual_seed(0)
    options = {
        "sources": list(sources),
        "channels": channels,
        "features": 4,
        "layers": 1,
        "sample_rate": rate,
    }
    path = folder / f"{name}.safetensors"
    save_separator(path, BSRNN(**options), {"_target_": "encore.models.separators.bsrnn.BSRNN", **options})
    return str(path)


def signals(frames: int, rate: int, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy ``(time, channel)``."""
    generator = np.random.default_rng(seed)
    time_axis = np.arange(frames)[:, None] / rate
    clean = 0.2 * np.sin(2 * np.pi * (300 + 40 * np.arange(channels)) * time_axis)
    return clean, clean + 0.05 * generator.standard_normal((frames, channels))


def write_pair(
    root: Path, name: str, frames: int = 8000, rate: int = RATE, channels: int = 1, subtype: str = "PCM_16"
) -> None:
    clean, noisy = signals(frames, rate, channels, seed=len(name))
    for folder, samples in (("clean", clean), ("noisy", noisy)):
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype=subtype)


def run(*arguments: object) -> int:
    return infer.main([str(argument) for argument in arguments])


def audio_files(folder: Path) -> list[str]:
    suffixes = {".wav", ".flac", ".ogg", ".mp3", ".aiff"}
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in suffixes)


def oracle(root: Path, separator: str, *, scores: bool = False) -> list[object]:
    options = ["--separator", separator, "--reference", root / "clean", "--guide", "si_sdr"]
    return [
        *(root / "noisy", "-o", root / "out", *options, "--steps", 1, "--candidates", 2),
        *([] if scores else ["--no-scores"]),
    ]
