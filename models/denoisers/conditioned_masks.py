"""The U-Net of magnitude masks as a bridge's denoiser, conditioned on time and mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.models.denoisers.time_embedding import TimeFilms
from encore.models.separators.contract import check_description
from encore.models.separators.spectral import WindowedTransform
from encore.models.separators.spectrogram_unet import MaskUNet


class ConditionedMasks(nn.Module):
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
        super().__init__()
        check_description(sources, sample_rate, channels)
        self.sources = tuple(str(name) for name in sources)
        self.sample_rate, self.channels, self.compression = int(sample_rate), int(channels), compression
        self.transform = WindowedTransform(sample_rate, window_seconds, hop_seconds)
        self.bins = self.transform.bins_below(highest_frequency)
        self.multiple = 2 ** len(filters)
        count = len(self.sources)
        self.network = MaskUNet((count + 1) * channels, 2 * count * channels, filters, features, dropout)
        self.films = TimeFilms(self.network.film_widths, embedding)

    def analyze(self, waveforms: Tensor) -> Tensor:
        """Transform ``(b, n, c, t)`` to spectra ``(b, n, c, frame, f)`` at the waveforms' level."""
        return self.transform(waveforms, self.multiple) / self._window_norm()

    def synthesize(self, spectra: Tensor, time: int) -> Tensor:
        """Invert `analyze`: ``(b, n, c, frame, f)`` to waveforms ``(b, n, c, time)``."""
        return self.transform.inverse(spectra * self._window_norm(), time)

    def forward(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate the sources.

        Args:
            state: ``(b, s, c, frame, f)``, complex.
            t: ``(b,)`` in [0, 1].
            mixture: ``(b, 1, c, frame, f)``, complex.

        Returns:
            ``(b, s, c, frame, f)``, complex.
        """
        spectra = torch.view_as_real(torch.cat((state, mixture), dim=1))
        level = torch.view_as_real(mixture).square().sum(-1).mean(dim=(1, 2, 3, 4)).add(1e-16).sqrt()
        spectra = spectra[..., : self.bins, :] / level[:, None, None, None, None, None]
        # the small constant keeps the slope of the root finite where a bin is empty
        power = spectra.square().sum(-1) + 1e-8
        magnitudes = rearrange(power ** (self.compression / 2), "b n c t f -> b (n c) t f")
        magnitudes = F.pad(magnitudes, (0, -self.bins % self.multiple))
        logits = self._predict(magnitudes, self.films(t))[..., : self.bins].float()
        masks = rearrange(logits, "b (m s c) t f -> m b s c t f", m=2, c=self.channels).sigmoid()
        mean = masks.mean(dim=-1, keepdim=True)
        above = mean.expand(*mean.shape[:-1], state.shape[-1] - self.bins)
        of_state, of_mixture = torch.cat((masks, above), dim=-1)
        return of_state * state + of_mixture * mixture

    def _predict(self, magnitudes: Tensor, films: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.network(magnitudes, films)
        return logits

    def _window_norm(self) -> Tensor:
        """Return the root of the squared window's sum: spectra over it are at the waveform's level."""
        return self.transform.window.square().sum().sqrt()
