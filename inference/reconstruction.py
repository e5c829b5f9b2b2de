"""Distance of the sum of estimates from the mixture: the loss that guides diffusion priors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from encore.common.dsp import stft


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionLoss:
    """Norms of the difference: of the whole, of short chunks, and of magnitude spectra.

    ``||y - ybar|| + chunks sum_g ||(y - ybar)_g|| + spectral || |STFT ybar| - |STFT y| ||``, none of them
    squared; the channels of an item count together.

    Args:
        time: Weight of the first term, from 0 up; 0 leaves it out.
        chunks: Weight of the second.
        spectral: Weight of the third.
        chunk: Samples of a chunk; the last one is zero-padded.
        window: Length of the periodic Hann window in samples; frames are centred, with zeros outside.
        hop: Samples between frames.

    Raises:
        ValueError: If a number is out of range, or all weights are 0.

    Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025.
    """

    time: float = 1.0
    chunks: float = 0.05
    spectral: float = 0.1
    chunk: int = 125
    window: int = 512
    hop: int = 256

    def __post_init__(self) -> None:
        weights = (self.time, self.chunks, self.spectral)
        if min(weights) < 0 or not any(weights):
            raise ValueError(
                f"time={self.time}, chunks={self.chunks}, spectral={self.spectral}: give 0 or more, and "
                "one above 0"
            )
        if min(self.chunk, self.hop) < 1 or self.window < self.hop:
            raise ValueError(
                f"chunk={self.chunk}, window={self.window}, hop={self.hop}: give 1 or more, and no hop above "
                "the window"
            )

    def __call__(self, estimate: Tensor, mixture: Tensor) -> Tensor:
        """Return the loss ``(b,)`` of estimates and mixtures ``(b, c, t)``.

        Raises:
            ValueError: If the shapes differ.
        """
        if estimate.shape != mixture.shape:
            raise ValueError(
                f"shapes {tuple(estimate.shape)} and {tuple(mixture.shape)} differ: cut both to one"
            )
        difference = mixture - estimate
        total = mixture.new_zeros(len(mixture))
        if self.time:
            total = total + self.time * torch.linalg.vector_norm(difference, dim=(1, 2))
        if self.chunks:
            padded = F.pad(difference, (0, -difference.shape[-1] % self.chunk))
            pieces = rearrange(padded, "b c (g n) -> b g (c n)", n=self.chunk)
            total = total + self.chunks * torch.linalg.vector_norm(pieces, dim=2).sum(dim=1)
        if self.spectral:
            spectra = stft(torch.stack((estimate, mixture)), self.window, self.hop, padding="constant")
            gap = spectra[0].abs() - spectra[1].abs()
            total = total + self.spectral * torch.linalg.vector_norm(gap, dim=(1, 2, 3))
        return total
