"""Grouped temporal convolutional recurrent network (GTCRN): a speech separator of few operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from encore.models.separators.contract import SeparatorNetwork, check_sizes
from encore.models.separators.spectral import WindowedTransform, as_complex

NARROW_SECONDS = 65 / 16000
"""Bins below this many cycles are kept; those above are merged to bands: 2031 Hz at windows of 32 ms."""


class GTCRN(SeparatorNetwork):
    """Separate by complex masks of bins, below 2 kHz, and of bands on the ERB scale, above.

    Magnitude, real and imaginary part go through two strided convolutions along frequency, three grouped
    convolutions along time with recurrent attention, two layers of grouped recurrences along frequency and
    along time, and mirrored convolutions that also take the encoder's outputs.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz, above 4063.
        channels: Channels of the audio; each is separated on its own, with the same weights.
        features: Width of all layers, a multiple of four; 16 as published.
        bands: Bands above 2 kHz, at most half as many as bins there; 64 as published.
        layers: Layers of recurrences along frequency and time; 2 as published.
        dilations: Frames between the taps of each convolution along time.
        causal: Whether an estimate depends on no later frame, as published. Otherwise convolutions along time
            are centered, recurrences run both ways, and the mixture is brought to a level of 1 first.

    Raises:
        ValueError: If a size does not fit.

    Source: X. Rong et al., "GTCRN: A Speech Enhancement Model Requiring Ultralow Computational Resources",
    ICASSP 2024.
    """

    any_channels = True
    compilable = ("_predict",)

    def __init__(
        self,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 1,
        features: int = 16,
        bands: int = 64,
        layers: int = 2,
        dilations: Sequence[int] = (1, 2, 5),
        causal: bool = True,
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        check_sizes(bands=bands, layers=layers, **{f"dilations[{i}]": d for i, d in enumerate(dilations)})
        if features < 4 or features % 4:
            raise ValueError(f"features={features}: give a multiple of 4")
        self.causal = causal
        self.transform = WindowedTransform(sample_rate, 0.032, 0.016, root=True)
        self.bands = ErbBands(sample_rate, self.transform.window_length, bands)
        width = self.bands.count
        self.widths = [width, (width + 1) // 2, (width + 3) // 4]
        down, up = nn.Conv2d, nn.ConvTranspose2d
        self.down = nn.ModuleList(
            [
                Strided(down(9, features, (1, 5), (1, 2), (0, 2))),
                Strided(down(features, features, (1, 5), (1, 2), (0, 2), groups=2)),
            ]
        )
        self.encoder = nn.ModuleList(TemporalConvolution(features, d, causal) for d in dilations)
        self.recurrences = nn.ModuleList(DualPath(features, self.widths[2], causal) for _ in range(layers))
        self.decoder = nn.ModuleList(TemporalConvolution(features, d, causal) for d in reversed(dilations))
        self.up = nn.ModuleList(
            [
                Strided(up(features, features, (1, 5), (1, 2), (0, 2), groups=2)),
                Strided(up(features, 2 * len(self.sources), (1, 5), (1, 2), (0, 2)), nn.Tanh()),
            ]
        )

    def separate(self, mixture: Tensor) -> Tensor:
        """See `SeparatorNetwork`."""
        spectrum = self.transform(rearrange(mixture, "b c t -> (b c) t"))
        power = spectrum.real.square() + spectrum.imag.square()
        magnitude = (power + 1e-12).sqrt()
        features = torch.stack([magnitude, spectrum.real, spectrum.imag], dim=1)
        if not self.causal:
            # spectra of a signal of level 1 have as many times its power as the window's squares sum to
            features = (
                features * self.transform.gain / (power.mean((1, 2)) + 1e-12).sqrt()[:, None, None, None]
            )
        masks = self.bands.spread(self._predict(self.bands.merge(features)))
        masks = as_complex(rearrange(masks, "b (s two) q f -> b s q f two", two=2))
        estimates = self.transform.inverse(masks * spectrum[:, None], mixture.shape[-1])
        return rearrange(estimates, "(b c) s t -> b s c t", c=mixture.shape[1])

    def _predict(self, x: Tensor) -> Tensor:
        """Map features ``(b, 3, frame, band)`` to masks ``(b, 2 sources, frame, band)`` within -1 and 1."""
        x = neighbours(x)
        skips = []
        for layer in (*self.down, *self.encoder):
            x = layer(x)
            skips.append(x)
        for layer in self.recurrences:
            x = layer(x)
        for layer in self.decoder:
            x = layer(x + skips.pop())
        for layer, width in zip(self.up, (self.widths[1], self.widths[0]), strict=True):
            x = layer(x + skips.pop(), width)
        return x


class ErbBands(nn.Module):
    """Merge the bins above 2 kHz to overlapping triangular bands on the ERB scale, and spread bands to bins.

    Args:
        sample_rate: Rate of the audio in Hz.
        window: Samples of the transform's window.
        bands: Bands above 2 kHz, less where there are less than two bins for each.

    Attributes:
        narrow: Bins that are kept.
        count: Bins kept and bands.
    """

    def __init__(self, sample_rate: int, window: int, bands: int) -> None:
        super().__init__()
        bins, self.narrow = window // 2 + 1, round(NARROW_SECONDS * 16000 * window / (0.032 * sample_rate))
        bands = min(bands, (bins - self.narrow) // 2)
        if bands < 2:
            raise ValueError(f"sample_rate={sample_rate}: give a rate whose half is well above 2031 Hz")
        self.count = self.narrow + bands
        # in NumPy, as networks are also built without weights, on the device "meta"
        low, high = (erb_rate(hz) for hz in (self.narrow * sample_rate / window, sample_rate / 2))
        centres = np.round(hertz(np.linspace(low, high, bands)) * window / sample_rate).astype(int).tolist()
        filters = np.zeros((bands, bins), np.float32)
        for band, (left, right) in enumerate(pairwise(centres)):
            rise = np.linspace(0, 1, right - left + 1)
            filters[band, left : right + 1] = np.maximum(filters[band, left : right + 1], 1 - rise)
            filters[band + 1, left : right + 1] = rise
        self.filters: Tensor
        self.register_buffer("filters", torch.from_numpy(filters[:, self.narrow :]), persistent=False)

    def merge(self, x: Tensor) -> Tensor:
        """Map ``(..., bin)`` to ``(..., count)``."""
        return torch.cat([x[..., : self.narrow], x[..., self.narrow :] @ self.filters.T], dim=-1)

    def spread(self, x: Tensor) -> Tensor:
        """Map ``(..., count)`` to ``(..., bin)``."""
        return torch.cat([x[..., : self.narrow], x[..., self.narrow :] @ self.filters], dim=-1)


def erb_rate(hz: float) -> float:
    """Return the number of equivalent rectangular bandwidths below a frequency."""
    return 21.4 * math.log10(0.00437 * hz + 1)


def hertz(rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert `erb_rate`."""
    return (10 ** (rate / 21.4) - 1) / 0.00437


def neighbours(x: Tensor) -> Tensor:
    """Put each band's lower and upper neighbour beside it: ``(b, c, frame, band)`` to ``(b, 3c, ...)``."""
    return rearrange(F.pad(x, (1, 1)).unfold(-1, 3, 1), "b c q f k -> b (c k) q f")


class Strided(nn.Module):
    """Convolve along frequency with stride two or its transpose, normalize by batch, apply an activation."""

    def __init__(
        self, convolution: nn.Conv2d | nn.ConvTranspose2d, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm2d(convolution.out_channels)
        self.activation = activation or nn.PReLU()

    def forward(self, x: Tensor, width: int | None = None) -> Tensor:
        """Map ``(b, c, frame, band)`` to half the bands, or to twice as many, cut or filled to ``width``."""
        x = self.convolution(x)
        if width is not None:
            x = F.pad(x, (0, width - x.shape[-1]))
        return self.activation(self.norm(x))


class TemporalConvolution(nn.Module):
    """Convolve half of the channels along time, weigh it by recurrent attention, interleave the halves."""

    def __init__(self, features: int, dilation: int, causal: bool) -> None:
        super().__init__()
        half = features // 2
        self.before = (2 * dilation, 0) if causal else (dilation, dilation)
        # convolution of three bands: the published one puts neighbours beside each other first
        self.point1 = nn.Conv2d(half, features, (1, 3), padding=(0, 1))
        self.norm1, self.activation1 = nn.BatchNorm2d(features), nn.PReLU()
        self.depth = nn.Conv2d(features, features, 3, padding=(0, 1), dilation=(dilation, 1), groups=features)
        self.norm2, self.activation2 = nn.BatchNorm2d(features), nn.PReLU()
        self.point2 = nn.Conv2d(features, half, 1)
        self.norm3 = nn.BatchNorm2d(half)
        self.attention = nn.GRU(half, features, batch_first=True, bidirectional=not causal)
        self.weights = nn.Linear(features if causal else 2 * features, half)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, c, frame, band)`` to the same shape."""
        changed, kept = x.chunk(2, dim=1)
        changed = self.activation1(self.norm1(self.point1(changed)))
        changed = F.pad(changed, (0, 0, *self.before))
        changed = self.activation2(self.norm2(self.depth(changed)))
        changed = self.norm3(self.point2(changed))
        power = changed.square().mean(dim=-1)
        attended, _ = self.attention(power.transpose(1, 2))
        weights = self.weights(attended).transpose(1, 2).sigmoid()
        return rearrange([changed * weights[..., None], kept], "g b c q f -> b (c g) q f")


class GroupedRecurrence(nn.Module):
    """Run a recurrence on each half of the features of ``(b, sequence, features)``, and mix them."""

    def __init__(self, features: int, units: int, bidirectional: bool) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            nn.GRU(features // 2, units // 2, batch_first=True, bidirectional=bidirectional) for _ in range(2)
        )
        self.mix = nn.Linear(units * (2 if bidirectional else 1), features)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, sequence, features)`` to the same shape."""
        halves = zip(self.groups, x.chunk(2, dim=-1), strict=True)
        return self.mix(torch.cat([group(half)[0] for group, half in halves], dim=-1))


class DualPath(nn.Module):
    """Grouped recurrences along frequency and then along time, each normalized and with a residual."""

    def __init__(self, features: int, width: int, causal: bool) -> None:
        super().__init__()
        self.across = GroupedRecurrence(features, features // 2, bidirectional=True)
        self.across_norm = nn.LayerNorm([width, features], eps=1e-8)
        self.along = GroupedRecurrence(features, features, bidirectional=not causal)
        self.along_norm = nn.LayerNorm([width, features], eps=1e-8)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, c, frame, band)`` to the same shape."""
        batch = x.shape[0]
        x = rearrange(x, "b c q f -> b q f c")
        across = self.across(rearrange(x, "b q f c -> (b q) f c"))
        x = x + self.across_norm(rearrange(across, "(b q) f c -> b q f c", b=batch))
        along = self.along(rearrange(x, "b q f c -> (b f) q c"))
        x = x + self.along_norm(rearrange(along, "(b f) q c -> b q f c", b=batch))
        return rearrange(x, "b q f c -> b c q f")
