"""Speech of the sample of recordings, and noise."""

from __future__ import annotations

import math
from functools import cache
from itertools import chain, zip_longest

import torch
from torch import Tensor

from encore.data.recording_sources import Recording, by_group, find_recordings, read_at

RATE = 16000


@cache
def spoken() -> list[Recording]:
    """The recordings of speech, of all voices in turn."""
    voices = by_group(recording for recording in find_recordings() if recording.kind == "speech").values()
    return [recording for recording in chain(*zip_longest(*voices)) if recording]


@cache
def voice(number: int, rate: int) -> Tensor:
    """One recording ``(time,)`` from its first sound on, RMS 0.05."""
    samples = read_at(spoken()[number], rate)
    samples = samples[int((samples.abs() > 0.1 * samples.abs().max()).nonzero()[0]) :]
    return 0.05 * samples / samples.square().mean().sqrt()


def voices(*shape: int, seconds: float = 1.2, rate: int = RATE) -> Tensor:
    """Recorded speech, repeated to a length, another recording in each row; ``(*shape, time)``."""
    frames = round(seconds * rate)
    rows = [voice(row, rate) for row in range(math.prod(shape))]
    rows = [row.repeat(1 + frames // len(row))[:frames] for row in rows]
    return torch.stack(rows).reshape(*shape, -1)


def noise_like(signal: Tensor, level: float = 0.01, seed: int = 0) -> Tensor:
    """White noise of a signal's shape and type."""
    drawn = torch.randn(signal.shape, generator=torch.Generator().manual_seed(seed), dtype=signal.dtype)
    return level * drawn


def noisy(reference: Tensor, level: float = 0.01, seed: int = 0) -> Tensor:
    """A signal in noise."""
    return reference + noise_like(reference, level, seed)
