"""How far a sum of sources is from the mixture: the loss that guides diffusion priors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionLoss:
    """Norms of the difference: of the whole, of short chunks, and of the magnitudes' spectra.

    ``||y - ybar|| + chunks sum_g ||(y - ybar)_g|| + spectral || |STFT ybar| - |STFT y| ||``, none of them
    squared; the channels of an item count together.

    Args:
        time: Weight of the first, from 0 up; 0 leaves it out.
        chunks: Of the second.
        spectral: Of the third.
        chunk: Samples of a chunk; the last is filled up with zeros.
        window: Length of the periodic Hann window in samples; frames are centred, with zeros outside.
        hop: Samples between frames.

    Raises:
        ValueError: If a number is out of range, or nothing is left.

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
        """``(b, c, t)`` twice to ``(b,)``, lower is better.

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
            gap = self._magnitudes(estimate) - self._magnitudes(mixture)
            total = total + self.spectral * torch.linalg.vector_norm(gap, dim=(1, 2, 3))
        return total

    def _magnitudes(self, waveform: Tensor) -> Tensor:
        """``(b, c, t)`` to ``(b, c, f, frame)``."""
        window = torch.hann_window(self.window, device=waveform.device, dtype=waveform.dtype)
        spectrum = torch.stft(
            rearrange(waveform, "b c t -> (b c) t"),
            self.window,
            self.hop,
            window=window,
            pad_mode="constant",
            return_complex=True,
        )
        return rearrange(spectrum.abs(), "(b c) f t -> b c f t", b=len(waveform))
