"""Demucs in all its kinds: a network, or a bag whose estimates are averaged with weights."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from encore.models.pretrained.demucs_files import find_bag
from encore.models.separators.contract import AdaptedSeparator
from encore.models.wrappers import Standardised

OVERLAP = 0.25
"""Part of a segment that two segments have in common, as in ``demucs.apply.apply_model``."""


def open_demucs(name: str, *, repo: str | None = None) -> nn.Module:
    """Open a Demucs model.

    It is called as ``demucs`` calls it, on a mixture of mean 0 and deviation 1, but without random shifts and
    with gradients. Checkpoints are read without running code from them, which demucs itself does.

    Args:
        name: As of ``demucs -n``: a bag such as ``htdemucs_ft``, or a signature; or the path of a
            ``.th`` or ``.safetensors`` file of one model.
        repo: Folder that holds the models, as ``demucs --repo`` takes it.

    Returns:
        A separator; sources, sampling rate and channels are the model's.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If the name is unknown or cannot be fetched, or a file does not fit.

    Source: S. Rouard et al., "Hybrid transformers for music source separation", 2023.
    """
    bag = find_bag(name, repo)
    # a hybrid's transform reflects one and a half hops, and rounds up to a whole one
    shortest = max(1, *(5 * getattr(model, "hop_length", 0) // 2 for model in bag.models))
    return Standardised(
        AdaptedSeparator(
            bag.sources, bag.samplerate, bag.audio_channels, WeightedMean(bag), shortest=shortest
        )
    )


class WeightedMean(nn.Module):
    """The weighted mean of the estimates of a bag of models.

    Args:
        bag: A ``demucs.apply.BagOfModels``.
    """

    def __init__(self, bag: Any) -> None:
        super().__init__()
        self.models = bag.models
        # a row for each model; the weights of a source add up to one
        weights = torch.tensor(bag.weights, dtype=torch.float64)
        self.register_buffer("weights", (weights / weights.sum(dim=0)).float(), persistent=False)
        self.weights: Tensor

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate ``(batch, channel, time)`` of any time."""
        rows = zip(self.models, self.weights, strict=True)
        parts = [_separate(model, mixture) * row[:, None, None] for model, row in rows]
        total: Tensor = sum(parts[1:], parts[0])
        return total


def _separate(model: Any, mixture: Tensor) -> Tensor:
    """Call one model on a mixture of any length.

    What is longer than a Hybrid Transformer Demucs was trained on goes through it in segments that overlap
    by `OVERLAP`, with triangular weights.
    """
    apply: Any = import_module("demucs.apply")
    length = mixture.shape[-1]
    limit = int(model.segment * model.samplerate) if getattr(model, "use_train_segment", False) else length
    if length <= limit:
        return _separate_chunk(model, apply.TensorChunk(mixture))
    rise = torch.arange(1, limit // 2 + 1, device=mixture.device)
    fall = torch.arange(limit - limit // 2, 0, -1, device=mixture.device)
    window = torch.cat([rise, fall]).to(mixture)
    window = window / window.max()
    total = mixture.new_zeros(len(mixture), len(model.sources), *mixture.shape[1:])
    weight = mixture.new_zeros(length)
    for start in range(0, length, int((1 - OVERLAP) * limit)):
        estimates = _separate_chunk(model, apply.TensorChunk(mixture, start, limit))
        width = estimates.shape[-1]
        total[..., start : start + width] += window[:width] * estimates
        weight[start : start + width] += window[:width]
    return total / weight


def _separate_chunk(model: Any, chunk: Any) -> Tensor:
    """Call one model on a ``TensorChunk``, with as much around it as makes a length that the model takes."""
    valid = model.valid_length(chunk.length) if hasattr(model, "valid_length") else chunk.length
    estimates: Tensor = import_module("demucs.utils").center_trim(model(chunk.padded(valid)), chunk.length)
    return estimates
