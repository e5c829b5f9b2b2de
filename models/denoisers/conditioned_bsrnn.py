"""The band-split recurrent network as a denoiser: told the time, and the mixture beside the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from models.denoisers.time_embedding import TimeFilms
from models.separators.band_split import PUBLISHED_BANDS, Bands, BandSplitNetwork


class ConditionedBSRNN(BandSplitNetwork):
    """BSRNN that finds sources in the state of a bridge.

    It sees the spectra of every source's state and of the mixture, and of each it gives complex masks:
    ``estimate = mask * state + mask * mixture + residual``. Before training the masks of the mixture are near
    1 and the others near 0. What goes into every recurrence is scaled and shifted by functions of time.

    Args:
        sources: Names of the sources.
        sample_rate: Rate of the audio in Hz, at most ``max_sample_rate``.
        channels: Channels of the audio; each is estimated on its own, with the same weights.
        features: As in :class:`models.separators.bsrnn.BSRNN`, like all that follow but the last.
        layers: See there.
        bands: See there.
        window_seconds: See there.
        max_sample_rate: See there.
        compression: See there.
        norm: See there.
        checkpointing: See there.
        embedding: Features of the time's embedding.
    """

    compilable = ("_predict",)

    def __init__(
        self,
        sources: Sequence[str] = ("speech",),
        sample_rate: int = 16000,
        channels: int = 1,
        features: int = 128,
        layers: int = 6,
        bands: Bands = PUBLISHED_BANDS,
        window_seconds: float = 0.02,
        max_sample_rate: int = 48000,
        compression: float = 1.0,
        norm: Literal["sequence", "position"] = "sequence",
        checkpointing: bool = False,
        embedding: int = 64,
    ) -> None:
        super().__init__(
            sources,
            sample_rate,
            channels,
            features,
            layers,
            bands,
            window_seconds,
            max_sample_rate,
            compression,
            norm,
            checkpointing,
            spectra=len(sources) + 1,
            starts=(0.0, 1.0),
        )
        self.films = TimeFilms([features] * (2 * layers), embedding)

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
