"""Embeddings of times, noise levels and classes that condition networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeFilms(nn.Module):
    """An embedding of times in [0, 1] as a scale and a shift for every layer (FiLM), all 0 before training.

    Args:
        widths: Features of every layer.
        size: Features of the embedding, even.
        highest: Highest frequency of its sinusoids in cycles from t = 0 to 1; the lowest is a quarter.

    Source: E. Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", 2018.
    """

    def __init__(self, widths: list[int], size: int = 64, highest: float = 64.0) -> None:
        super().__init__()
        if size < 2 or size % 2:
            raise ValueError(f"size={size}: give an even number of features from 2 up")
        self.widths = widths
        self.frequencies: Tensor
        frequencies = torch.logspace(math.log2(0.25), math.log2(highest), size // 2, base=2.0)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.network = nn.Sequential(
            nn.Linear(size, 2 * size), nn.SiLU(), nn.Linear(2 * size, size), nn.SiLU()
        )
        self.heads = nn.ModuleList(nn.Linear(size, 2 * width) for width in widths)
        for head in self.heads:
            assert isinstance(head, nn.Linear)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, t: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Map times ``(b,)`` to a scale, added to 1, and a shift ``(b, width)`` for every layer."""
        angles = 2 * math.pi * t[:, None] * self.frequencies
        embedding = self.network(torch.cat((angles.sin(), angles.cos()), dim=1))
        parts = (head(embedding).chunk(2, dim=1) for head in self.heads)
        return [(scale, shift) for scale, shift in parts]


class LevelEmbedding(nn.Module):
    """An embedding of numbers that stand for noise levels, and of classes, as one vector.

    Args:
        sinusoids: Features of the number, even; frequencies fall from 1 to 1/10000.
        size: Features of the vector.
        classes: Number of classes; one more stands for any of them. 0 for none.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
    """

    def __init__(self, sinusoids: int, size: int, classes: int = 0) -> None:
        super().__init__()
        half = sinusoids // 2
        self.frequencies: Tensor
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.network = nn.Sequential(nn.Linear(2 * half, size), nn.SiLU(), nn.Linear(size, size))
        self.classes = nn.Embedding(classes + 1, size) if classes else None

    def forward(self, levels: Tensor, labels: Tensor | None) -> Tensor:
        """Map numbers ``(b,)`` and labels ``(b,)``, None for any class, to ``(b, size)``."""
        angles = levels.float()[:, None] * self.frequencies
        embedding: Tensor = self.network(torch.cat((angles.cos(), angles.sin()), dim=1))
        if self.classes is None:
            return embedding
        if labels is None:
            labels = torch.full_like(levels, self.classes.num_embeddings - 1)
        of_class: Tensor = self.classes(labels.long())
        return embedding + of_class
