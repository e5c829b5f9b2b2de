"""The U-Net of magnitude masks as a bridge's denoiser, conditioned on time and mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from encore.models.denoisers.bridge_separator import SpectralDenoiser
from encore.models.denoisers.time_embedding import TimeFilms
from encore.models.separators.spectrogram_unet import MagnitudeTransform, MaskUNet


class ConditionedMasks(SpectralDenoiser):
    """A U-Net that estimates the sources in the state of a bridge by magnitude masks of state and mixture.

    From the magnitudes of every source's state and of the mixture it computes for each source one mask in
    [0, 1] of its state and one of the mixture: ``estimate = mask * state + mask * mixture``, each with its
    own phase. Above ``highest_frequency`` a mask is the mean of the frame's. The layers are those of
    `encore.models.separators.spectrogram_unet.SpectrogramUNet`, scaled and shifted by functions of time.

    Args:
        sources: Names of the sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio, estimated together.
        filters: Channels of the layers down.
        features: Channels of the last layer up.
        highest_frequency: Upper end in Hz of the network's input.
        window_seconds: Length of the Hann window.
        hop_seconds: Hop of the analysis, at most half the window.
        compression: Exponent in (0, 1] of the input magnitudes.
        dropout: Dropout rate of the first three layers up.
        embedding: Features of the time's embedding.

    Raises:
        ValueError: If a value is invalid.
    """

    compilable = ("_predict",)
    transform: MagnitudeTransform

    def __init__(
        self,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 1,
        filters: Sequence[int] = (8, 16, 32, 48, 64, 96),
        features: int = 8,
        highest_frequency: float = 11025.0,
        window_seconds: float = 0.064,
        hop_seconds: float = 0.016,
        compression: float = 0.5,
        dropout: float = 0.0,
        embedding: int = 64,
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        self.transform = MagnitudeTransform(
            compression,
            sample_rate=sample_rate,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            highest_frequency=highest_frequency,
            multiple=2 ** len(filters),
        )
        count = len(self.sources)
        self.network = MaskUNet((count + 1) * channels, 2 * count * channels, filters, features, dropout)
        self.films = TimeFilms(self.network.film_widths, embedding)

    def forward(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate the sources, see `SpectralDenoiser`, in spectra ``(b, n, c, frame, f)``."""
        spectra = torch.view_as_real(torch.cat((state, mixture), dim=1))
        level = torch.view_as_real(mixture).square().sum(-1).mean(dim=(1, 2, 3, 4)).add(1e-16).sqrt()
        magnitudes = self.transform.magnitudes(spectra / level[:, None, None, None, None, None])
        magnitudes = rearrange(magnitudes, "b n c t f -> b (n c) t f")
        logits = self._predict(magnitudes, self.films(t))[..., : self.transform.bins].float()
        masks = rearrange(logits, "b (m s c) t f -> m b s c t f", m=2, c=self.channels).sigmoid()
        of_state, of_mixture = self.transform.extend(masks)
        return of_state * state + of_mixture * mixture

    def _predict(self, magnitudes: Tensor, films: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.network(magnitudes, films)
        return logits
