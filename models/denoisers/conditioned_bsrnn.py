"""The band-split recurrent network as a denoiser: told the time, and the mixture beside the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from encore.models.denoisers.time_embedding import TimeFilms
from encore.models.separators.band_split import BandSplitNetwork


class ConditionedBSRNN(BandSplitNetwork):
    """BSRNN that finds sources in the state of a bridge.

    It sees the spectra of every source's state and of the mixture, and of each it gives complex masks:
    ``estimate = mask * state + mask * mixture + residual``. Before training the masks of the mixture are near
    1 and the others near 0. What goes into every recurrence is scaled and shifted by functions of time.

    Each channel is estimated on its own, with the same weights.

    Args:
        sources: Names of the sources.
        embedding: Features of the time's embedding.
        **options: As of `encore.models.separators.bsrnn.BSRNN`.
    """

    compilable = ("_predict",)
    starts = (0.0, 1.0)

    def __init__(self, sources: Sequence[str] = ("speech",), *, embedding: int = 64, **options: Any) -> None:
        super().__init__(sources, **options)
        self.films = TimeFilms([self.features] * (2 * len(self.layers)), embedding)

    def spectra(self, sources: int) -> int:
        """A state of every source, and the mixture."""
        return sources + 1

    def analyse(self, waveforms: Tensor) -> Tensor:
        """``(b, n, c, t)`` to spectra ``(b, n, c, f, frame)`` of the waveforms' level in the mean bin."""
        batch, count, channels, _ = waveforms.shape
        # a Hann window of N samples has a sum of squares of 3 N / 8
        scale = (8 / (3 * self.window_length)) ** 0.5
        spectra = scale * self.transform(rearrange(waveforms, "b n c t -> (b n c) t"))
        return rearrange(spectra, "(b n c) f t -> b n c f t", b=batch, n=count, c=channels)

    def synthesise(self, spectra: Tensor, time: int) -> Tensor:
        """``(b, n, c, f, frame)`` to waveforms ``(b, n, c, time)``."""
        scale = (3 * self.window_length / 8) ** 0.5
        flat = scale * rearrange(spectra, "b n c f t -> b (n c) f t")
        return rearrange(self.inverse(flat, time), "b (n c) t -> b n c t", c=spectra.shape[2])

    def forward(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Find the sources.

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
        # all by the mixture's level: what a state has above it, such as noise, is to be seen
        level = self.level(mixtures[:, 0])[:, None]
        films = self.films(t.repeat_interleave(channels))
        masks, residuals = self.estimate(torch.cat((states, mixtures), dim=1) / level, films)
        estimates = masks[:, :count] * states + masks[:, count:] * mixtures + residuals * level
        return rearrange(estimates, "(b c) s f t -> b s c f t", b=batch)
