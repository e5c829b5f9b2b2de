"""Demucs in all its kinds: a network, or a bag whose estimates are averaged with weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encore.models.levels import InputNormalization
from encore.models.pretrained.base import PretrainedSeparator
from encore.models.pretrained.demucs_files import Bag, find_bag

OVERLAP = 0.25
"""Part of a segment that two segments have in common, as in ``demucs.apply.apply_model``."""


def open_demucs(name: str, *, repo: str | None = None) -> nn.Module:
    """Open a Demucs model.

    Checkpoints are read without running code from them, which demucs itself does.

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
    return DemucsSeparator(find_bag(name, repo))


class DemucsSeparator(InputNormalization, PretrainedSeparator):
    """A bag of Demucs models, called as ``demucs`` calls it but without its random shifts.

    The mixture is brought to mean 0 and deviation 1, item by item, and the estimates back. It is padded on
    both sides to the length that a model takes. What is longer than a Hybrid Transformer Demucs was trained
    on goes through it in segments that overlap by a quarter, with triangular weights.

    Args:
        bag: Models of the same sources, rate and channels, and the weight of each model for each source.
    """

    def __init__(self, bag: Bag) -> None:
        first: Any = bag.models[0]
        # a hybrid's transform reflects one and a half hops, and rounds up to a whole one
        shortest = max(5 * getattr(model, "hop_length", 0) // 2 for model in bag.models)
        super().__init__(first.sources, first.samplerate, first.audio_channels, shortest=max(1, shortest))
        self.models = nn.ModuleList(bag.models)
        # a row for each model; the weights of a source add up to one
        weights = torch.tensor(bag.weights, dtype=torch.float64)
        self.register_buffer("weights", (weights / weights.sum(dim=0)).float(), persistent=False)
        self.weights: Tensor

    def estimate(self, mixture: Tensor) -> Tensor:
        """Return the weighted mean of the models' estimates."""
        return self.at_own_level(self._mean, mixture)

    def _mean(self, scaled: Tensor) -> Tensor:
        total: Tensor | None = None
        for model, row in zip(self.models, self.weights, strict=True):
            part = _separate(model, scaled) * row[:, None, None]
            total = part if total is None else total + part
        assert total is not None
        return total


def _separate(model: Any, mixture: Tensor) -> Tensor:
    """Call one model on a mixture of any length."""
    limit = _longest(model)
    length = mixture.shape[-1]
    if limit is None or length <= limit:
        return _separate_whole(model, mixture)
    stride = int((1 - OVERLAP) * limit)
    rise = torch.arange(1, limit // 2 + 1, device=mixture.device)
    fall = torch.arange(limit - limit // 2, 0, -1, device=mixture.device)
    window = torch.cat([rise, fall]).to(mixture)
    window = window / window.max()
    parts, weights = [], []
    for start in range(0, length, stride):
        segment = _crop(mixture, start, min(limit, length - start), limit)
        width = min(limit, length - start)
        estimates = _middle(model(segment), width)
        outside = (start, length - start - width)
        parts.append(F.pad(estimates * window[:width], outside))
        weights.append(F.pad(window[:width], outside))
    return torch.stack(parts).sum(dim=0) / torch.stack(weights).sum(dim=0)


def _longest(model: Any) -> int | None:
    """Return the samples of the longest mixture that a model takes; None for any."""
    if getattr(model, "use_train_segment", False):
        return int(model.segment * model.samplerate)
    return None


def _separate_whole(model: Any, mixture: Tensor) -> Tensor:
    length = mixture.shape[-1]
    valid = model.valid_length(length) if hasattr(model, "valid_length") else length
    return _middle(model(_crop(mixture, 0, length, valid)), length)


def _crop(mixture: Tensor, start: int, width: int, length: int) -> Tensor:
    """Return ``length`` samples around ``width`` ones, zeros outside the mixture."""
    first = start - (length - width) // 2
    last = first + length
    inside = mixture[..., max(0, first) : last]
    return F.pad(inside, (max(0, -first), max(0, last - mixture.shape[-1])))


def _middle(estimates: Tensor, length: int) -> Tensor:
    """Return the middle ``length`` samples."""
    first = (estimates.shape[-1] - length) // 2
    return estimates[..., first : first + length]
