"""A plain U-Net on magnitude spectrograms that estimates masks of the mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.models.separators.contract import SeparatorNetwork, check_compression, check_sizes
from encore.models.separators.spectral import Film, WindowedTransform, group_norm

Masks = Literal["ratio", "softmax"]
Extension = Literal["average", "zeros"]


class MagnitudeTransform(WindowedTransform):
    """A transform with magnitudes below a frequency, for a `MaskUNet`, and masks of all bins.

    Args:
        compression: Exponent in (0, 1] of the magnitudes.
        **options: As of `WindowedTransform`; the number of magnitudes too becomes a multiple of ``multiple``.

    Raises:
        ValueError: If a value is invalid.
    """

    def __init__(self, compression: float, **options: Any) -> None:
        super().__init__(**options)
        check_compression(compression)
        self.compression = compression

    def magnitudes(self, spectrum: Tensor) -> Tensor:
        """Return compressed magnitudes ``(..., frame, f)`` of a spectrum ``(..., frame, f, 2)``, padded."""
        # the small constant keeps the slope of the root finite where a bin is empty
        power = spectrum[..., : self.bins, :].square().sum(dim=-1) + 1e-8
        return F.pad(power ** (self.compression / 2), (0, -self.bins % self.multiple))

    def extend(self, masks: Tensor) -> Tensor:
        """Extend masks ``(..., frame, f)`` to all bins, by the mean of each frame."""
        above = self.window_length // 2 + 1 - self.bins
        mean = masks.mean(dim=-1, keepdim=True)
        return torch.cat([masks, mean.expand(*mean.shape[:-1], above)], dim=-1)


class SpectrogramUNet(SeparatorNetwork):
    """Separate by magnitude masks that U-Nets of strided 5x5 convolutions predict; the phase stays.

    Every layer down halves bins and frames; every layer up doubles them and is concatenated with the layer
    down of its size. The last layer gives one mask in [0, 1] per source and channel.

    - *Several sources.* Their masks sum to one in every bin: normalized squares of sigmoids, or softmaxes. So
      with ``extension="average"`` the estimates sum to the mixture.
    - *One source.* Its mask is a sigmoid.
    - *Bins.* The input are those below ``highest_frequency``, without the Nyquist bin; the mask above is the
      mean of the frame's mask, or zero.
    - *Length.* The mixture is padded with zeros at its end to frames that can be halved in every layer.
    - *Level.* The input is divided by the mixture's root mean square; silence stays silence.
    - *Normalization.* Groups of eight channels, not batches as published: training takes small batches, and
      mixes of mixture and estimate have other statistics than plain mixtures.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio, separated together.
        filters: Channels of the layers down, one number a layer; the published six by default.
        features: Channels of the last layer up, from which all masks are computed; 1 as published.
        shared: Whether one network gives the masks of all sources; by default each source has its own.
        masks: Masks of several sources: ``"ratio"`` of squares, or ``"softmax"``.
        extension: The mask above ``highest_frequency``: ``"average"`` of the frame's, or ``"zeros"``.
        highest_frequency: Upper end in Hz of the network's input; 1024 bins as published.
        window_seconds: Length of the Hann window; 4096 samples at 44.1 kHz as published.
        hop_seconds: Hop of the analysis, at most half the window.
        compression: Exponent in (0, 1] of the input magnitudes, below 1 emphasizing quiet bins; published 1.
        dropout: Dropout rate of the first three layers up.

    Raises:
        ValueError: If a value is invalid.

    Source: A. Jansson et al., "Singing Voice Separation with Deep U-Net Convolutional Networks", 2017;
    R. Hennequin et al., "Spleeter: a Fast and Efficient Music Source Separation Tool with Pre-trained
    Models", 2020.
    """

    compilable = ("_predict",)

    def __init__(
        self,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 2,
        filters: Sequence[int] = (16, 32, 64, 128, 256, 512),
        features: int = 1,
        shared: bool = False,
        masks: Masks = "ratio",
        extension: Extension = "average",
        highest_frequency: float = 11025.0,
        window_seconds: float = 4096 / 44100,
        hop_seconds: float = 1024 / 44100,
        compression: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        check_sizes(features=features)
        if masks not in get_args(Masks):
            raise ValueError(f"masks={masks!r}: choose 'ratio' or 'softmax'")
        if extension not in get_args(Extension):
            raise ValueError(f"extension={extension!r}: choose 'average' or 'zeros'")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: give a rate of at least 0, below 1")
        self.masks, self.extension = masks, extension
        self.transform = MagnitudeTransform(
            compression,
            sample_rate=sample_rate,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            highest_frequency=highest_frequency,
            multiple=2 ** len(filters),
        )
        networks, outputs = (1, len(self.sources)) if shared else (len(self.sources), 1)
        self.networks = nn.ModuleList(
            MaskUNet(self.channels, outputs * self.channels, filters, features, dropout)
            for _ in range(networks)
        )

    def separate(self, mixture: Tensor) -> Tensor:
        """See `SeparatorNetwork`."""
        spectrum = torch.view_as_real(self.transform(mixture))
        masks = self._predict(spectrum / self.transform.level(mixture)[..., None])
        # real products: torch would first make the masks complex
        estimates = torch.view_as_complex(masks[..., None] * spectrum[:, None])
        return self.transform.inverse(estimates, mixture.shape[-1])

    def _predict(self, spectrum: Tensor) -> Tensor:
        """Predict masks ``(b, s, c, frame, f)`` of a spectrum ``(b, c, frame, f, 2)`` of unit power."""
        magnitudes = self.transform.magnitudes(spectrum)
        logits = torch.cat([network(magnitudes) for network in self.networks], dim=1)
        # under autocast they may be bfloat16, in which masks would not sum to one
        logits = rearrange(
            logits[..., : self.transform.bins].float(), "b (s c) t f -> b s c t f", c=self.channels
        )
        if len(self.sources) == 1:
            masks = logits.sigmoid()
        elif self.masks == "ratio":
            # squares of sigmoids over their sum, without a division by a vanishing sum
            masks = (2 * F.logsigmoid(logits)).softmax(dim=1)
        else:
            masks = logits.softmax(dim=1)
        if self.extension == "zeros":
            return F.pad(masks, (0, spectrum.shape[-2] - masks.shape[-1]))
        return self.transform.extend(masks)


class MaskUNet(nn.Module):
    """A U-Net from magnitudes ``(b, c, frame, f)`` to logits ``(b, outputs, frame, f)``.

    Raises:
        ValueError: If ``filters`` are not positive.

    Attributes:
        film_widths: Channels of the normalized layers, down and then up, which films scale and shift.
    """

    def __init__(
        self, channels: int, outputs: int, filters: Sequence[int], features: int, dropout: float
    ) -> None:
        super().__init__()
        if not filters or min(filters) < 1:
            raise ValueError(f"filters={filters}: give one positive number of channels per layer down")
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 5, stride=2, padding=2)
            for before, after in zip((channels, *filters), filters, strict=False)
        )
        # the innermost layer is not normalized
        self.down_norms = nn.ModuleList(group_norm(width) for width in filters[:-1])
        self.up = nn.ModuleList()
        self.up_norms = nn.ModuleList()
        width = filters[-1]
        upwards = (*filters[-2::-1], features)
        for layer, after in enumerate(upwards):
            self.up.append(nn.ConvTranspose2d(width, after, 5, stride=2, padding=2, output_padding=1))
            drop = nn.Dropout(dropout) if layer < min(3, len(filters) - 1) else nn.Identity()
            self.up_norms.append(nn.Sequential(group_norm(after), drop))
            width = 2 * after
        self.masks = nn.Conv2d(features, outputs, 4, dilation=2, padding=3)
        self.film_widths = [*filters[:-1], *upwards]

    def forward(self, x: Tensor, films: Sequence[Film] | None = None) -> Tensor:
        """Compute logits; ``films`` scale and shift the normalized layers."""
        remaining = iter([None] * len(self.film_widths) if films is None else films)
        skips = []
        for layer, norm in zip(self.down, [*self.down_norms, None], strict=True):
            x = layer(x)
            skips.append(x)
            if norm is not None:
                x = F.leaky_relu(_film(norm(x), next(remaining)), 0.2)
        skips.pop()
        for layer, norm in zip(self.up, self.up_norms, strict=True):
            x = _film(norm(layer(x).relu()), next(remaining))
            if skips:
                x = torch.cat([skips.pop(), x], dim=1)
        logits: Tensor = self.masks(x)
        return logits


def _film(x: Tensor, film: Film | None) -> Tensor:
    """Scale and shift ``(b, c, frame, f)`` by ``(b, c)`` each."""
    if film is None:
        return x
    scale, shift = (part[:, :, None, None] for part in film)
    return x * (1 + scale) + shift
