"""The band-split recurrent network as a bridge's denoiser, conditioned on time and mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from encore.models.denoisers.time_embedding import TimeFilms
from encore.models.separators.band_split import BandSplitNetwork


class ConditionedBSRNN(BandSplitNetwork):
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
        # a Hann window of N samples has a sum of squares of 3 N / 8
        self.window_norm = (3 * self.window_length / 8) ** 0.5

    def spectra(self, sources: int) -> int:
        """Return the number of input spectra: a state of every source, and the mixture."""
        return sources + 1

    def analyze(self, waveforms: Tensor) -> Tensor:
        """Transform ``(b, n, c, t)`` to ``(b, n, c, f, frame)``, at the waveforms' level in the mean bin."""
        return self.transform(waveforms) / self.window_norm

    def synthesize(self, spectra: Tensor, time: int) -> Tensor:
        """Invert `analyze`: ``(b, n, c, f, frame)`` to waveforms ``(b, n, c, time)``."""
        return self.inverse(self.window_norm * spectra, time)

    def forward(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate the sources.

        Args:
            state: ``(b, s, c, f, frame)``, complex.
            t: ``(b,)`` in [0, 1].
            mixture: ``(b, 1, c, f, frame)``, complex.

        Returns:
            ``(b, s, c, f, frame)``, complex.
        """
        batch, count, channels = state.shape[:3]
        states = rearrange(state, "b s c f t -> (b c) s f t")
        mixtures = rearrange(mixture, "b 1 c f t -> (b c) 1 f t")
        # all by the mixture's level, which keeps the excess level of a state, such as noise
        level = self.level(mixtures[:, 0])[:, None]
        films = self.films(t.repeat_interleave(channels))
        masks, residuals = self.estimate(torch.cat((states, mixtures), dim=1) / level, films)
        estimates = masks[:, :count] * states + masks[:, count:] * mixtures + residuals * level
        return rearrange(estimates, "(b c) s f t -> b s c f t", b=batch)
