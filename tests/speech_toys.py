"""Signals that every metric of speech can score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE = 16000


def voices(*shape: int, seconds: float = 1.2, rate: int = RATE) -> Tensor:
    """Harmonics under a syllabic envelope, different in each row; ``(*shape, time)``."""
    time = torch.arange(round(seconds * rate)) / rate
    rows = []
    for row in range(math.prod(shape)):
        phase = 2 * math.pi * torch.cumsum(110 + 20 * row + 25 * torch.sin(math.pi * time), 0) / rate
        harmonics = torch.stack([torch.sin(k * phase) / k for k in range(1, 20)]).sum(0)
        rows.append(0.1 * torch.sin(math.pi * 2.3 * time + row) ** 2 * harmonics)
    return torch.stack(rows).reshape(*shape, -1)


def noise_like(signal: Tensor, level: float = 0.01, seed: int = 0) -> Tensor:
    """White noise of a signal's shape and type."""
    drawn = torch.randn(signal.shape, generator=torch.Generator().manual_seed(seed), dtype=signal.dtype)
    return level * drawn


def noisy(reference: Tensor, level: float = 0.01, seed: int = 0) -> Tensor:
    """A signal in noise."""
    return reference + noise_like(reference, level, seed)
