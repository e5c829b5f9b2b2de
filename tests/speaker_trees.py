"""Small corpora of speakers on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
KINDS = ("mix_clean", "mix_both", "mix_single", "s1", "s2", "noise")
MIXTURES = ("103-1-1_26-2-2", "26-1-1_587-3-3")


def audio(file: Path, frames: int = 80, hertz: float = 1000.0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, 0.1 * np.sin(2 * np.pi * hertz * np.arange(frames) / RATE), RATE)
    return file


def tree(base: Path, folders: Iterable[str], names: Iterable[str], frames: int = 80) -> None:
    """The same names in every folder."""
    for folder in folders:
        for name in names:
            audio(base / folder / f"{name}.wav", frames)


def libri2mix(root: Path, frames: int = 80) -> None:
    """Two training mixtures, and one in each other subset, in LibriMix's layout, without tables."""
    base = root / "Libri2Mix" / "wav8k" / "min"
    tree(base / "train-100", KINDS, MIXTURES, frames)
    for subset, name in (("train-360", "9-1-1_8-1-1"), ("dev", "7-1-1_6-1-1"), ("test", "5-1-1_4-1-1")):
        tree(base / subset, KINDS, [name], frames)
