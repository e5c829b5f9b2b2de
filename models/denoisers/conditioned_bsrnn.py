"""The band-split recurrent network as a bridge's denoiser, conditioned on time and mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from encore.models.denoisers.bridge_separator import SpectralDenoiser
from encore.models.denoisers.time_embedding import TimeFilms
from encore.models.separators.band_split import BandSplitNetwork


class ConditionedBSRNN(BandSplitNetwork, SpectralDenoiser):
    """BSRNN that estimates the sources in the state of a bridge.

    From the spectra of every source's state and of the mixture it computes complex masks of each:
    ``estimate = mask * state + mask * mixture + residual``. Before training the masks of the mixture are near
    1 and the others near 0. The input of every recurrence is scaled and shifted by functions of time. Each
    channel is estimated on its own, with the same weights.

    Args:
        sources: Names of the sources.
        embedding: Features of the time's embedding.
        **options: As of `encore.models.separators.bsrnn.BSRNN`.
    """

    initial_masks = (0.0, 1.0)

    def __init__(self, sources: Sequence[str] = ("speech",), *, embedding: int = 64, **options: Any) -> None:
        super().__init__(sources, **options)
        self.films = TimeFilms([self.features] * (2 * len(self.layers)), embedding)

    def analyze(self, waveforms: Tensor) -> Tensor:
        """Transform ``(b, n, c, t)`` to ``(b, n, c, f, frame)``, at the waveforms' level in the mean bin."""
        return super().analyze(waveforms).transpose(-2, -1)

    def synthesize(self, spectra: Tensor, time: int) -> Tensor:
        """Invert `analyze`: ``(b, n, c, f, frame)`` to waveforms ``(b, n, c, time)``."""
        return super().synthesize(spectra.transpose(-2, -1), time)

    def forward(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate the sources, see `SpectralDenoiser`, in spectra ``(b, n, c, f, frame)``."""
        batch, count, channels = state.shape[:3]
        states = rearrange(state, "b s c f t -> (b c) s t f")
        mixtures = rearrange(mixture, "b 1 c f t -> (b c) 1 t f")
        # all by the mixture's level, which keeps the excess level of a state, such as noise
        level = self.level(mixtures[:, 0])[:, None]
        films = self.films(t.repeat_interleave(channels))
        masks, residuals = self.estimate(torch.cat((states, mixtures), dim=1) / level, films)
        estimates = masks[:, :count] * states + masks[:, count:] * mixtures + residuals * level
        return rearrange(estimates, "(b c) s t f -> b s c f t", b=batch)
