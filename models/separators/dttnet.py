"""DTTNet: a U-Net of time-frequency blocks on complex spectra with a recurrent bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.models.separators.contract import SeparatorNetwork, check_compression, check_sizes
from encore.models.separators.spectral import (
    Recurrence,
    WindowedTransform,
    as_complex,
    compress,
    group_norm,
)

Output = Literal["spectrum", "mask"]


class DTTNet(SeparatorNetwork):
    """Separate by complex spectra, or complex masks, that a dual-path TFC-TDF U-Net predicts.

    Real and imaginary parts of all channels' spectra are the channels of an image of frames by bins. On each
    of ``scales`` the image has half the frames and bins of the one before, and ``growth`` more channels;
    every block convolves over both axes (TFC) and maps whole frames by a bottleneck along frequency (TDF).
    At the smallest scale, recurrences run along time and along frequency in turn; on the way up, each scale
    is multiplied by its counterpart on the way down.

    - *Bins.* The input are those below ``highest_frequency``, without the Nyquist bin; estimates are zero
      above.
    - *Length.* The mixture is padded with zeros at its end to as many frames as the scales need.
    - *Level.* Every item's spectrum is divided by its root mean square, by which estimates are multiplied.
    - *Normalization.* Groups of eight channels, not batches as published: training takes small batches, and
      mixes of mixture and estimate have other statistics than plain mixtures.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio, separated together.
        growth: Channels of the first scale, and of each further one in addition.
        scales: Number of image sizes; 3 as published, halved twice.
        convolutions: 3x3 convolutions in either half of a block.
        bottleneck_factor: Bins per unit of the bottleneck along frequency.
        layers: Pairs of recurrences, along time and then along frequency.
        heads: Groups of channels in the recurrences, with shared weights.
        subbands: Subbands of the frequency axis that are stacked as channels: about that many times faster;
            1 as published.
        highest_frequency: Upper end in Hz of the network's input; 2048 bins as published.
        window_seconds: Length of the Hann window; 6144 samples at 44.1 kHz as published.
        hop_seconds: Hop of the analysis, at most half the window.
        output: Network output: the estimates' ``"spectrum"``, as published, or a complex ``"mask"``,
            initialized near one over the number of sources.
        compression: Exponent in (0, 1] of the input magnitudes, below 1 emphasizing quiet bins; published 1.

    Raises:
        ValueError: If a value is invalid.

    Source: J. Chen, S. Vekkot and P. Shukla, "Music Source Separation Based on a Lightweight Deep Learning
    Framework (DTTNet: Dual-Path TFC-TDF UNet)", 2024; subbands as in M. Kim et al., "Sound Demixing Challenge
    2023 Music Demixing Track Technical Report: TFC-TDF-UNet v3", 2023.
    """

    compilable = ("_predict",)

    def __init__(
        self,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 2,
        growth: int = 32,
        scales: int = 3,
        convolutions: int = 3,
        bottleneck_factor: int = 8,
        layers: int = 4,
        heads: int = 2,
        subbands: int = 1,
        highest_frequency: float = 14700.0,
        window_seconds: float = 6144 / 44100,
        hop_seconds: float = 1024 / 44100,
        output: Output = "spectrum",
        compression: float = 1.0,
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        check_sizes(scales=scales, convolutions=convolutions, bottleneck_factor=bottleneck_factor)
        check_sizes(layers=layers, heads=heads, subbands=subbands)
        check_compression(compression)
        if growth < 4:
            raise ValueError(f"growth={growth}: give 4 or more")
        if growth * scales % heads or growth * scales == heads:
            raise ValueError(
                f"heads={heads} cannot split {growth * scales} channels, growth times scales, into two or "
                "more for each: give a divisor below that"
            )
        if output not in get_args(Output):
            raise ValueError(f"output={output!r}: choose 'spectrum' or 'mask'")
        self.subbands, self.output, self.compression = subbands, output, compression
        halved = 2 ** (scales - 1)
        self.transform = WindowedTransform(
            sample_rate, window_seconds, hop_seconds, multiple=halved, highest_frequency=highest_frequency
        )
        self.bin_multiple = subbands * halved

        bins = -(-self.transform.bins // self.bin_multiple) * halved
        image = 2 * self.channels * subbands
        widths = [growth * (scale + 1) for scale in range(scales)]
        blocks = [
            _TimeFrequencyBlock(width, bins // 2**scale, convolutions, bottleneck_factor)
            for scale, width in enumerate(widths)
        ]
        self.first = _normed(nn.Conv2d(image, growth, 1), growth)
        self.encoders = nn.ModuleList(blocks[:-1])
        self.down = nn.ModuleList(
            _normed(nn.Conv2d(width, width + growth, 2, stride=2), width + growth) for width in widths[:-1]
        )
        self.middle = blocks[-1]
        self.dual_path = _DualPath(widths[-1], layers, heads)
        self.up = nn.ModuleList(
            _normed(nn.ConvTranspose2d(width + growth, width, 2, stride=2), width)
            for width in reversed(widths[:-1])
        )
        self.decoders = nn.ModuleList(
            _TimeFrequencyBlock(widths[scale], bins // 2**scale, convolutions, bottleneck_factor)
            for scale in reversed(range(scales - 1))
        )
        self.last = nn.Conv2d(growth, image * len(self.sources), 1)
        if output == "mask":
            self._start_at_equal_parts()

    @torch.no_grad()
    def _start_at_equal_parts(self) -> None:
        """Initialize masks so that training begins near equal parts of the mixture, not at noise."""
        assert self.last.bias is not None
        self.last.weight.mul_(0.1)
        self.last.bias.zero_()
        # the real parts
        self.last.bias[::2] = 1 / len(self.sources)

    def separate(self, mixture: Tensor) -> Tensor:
        """See `SeparatorNetwork`."""
        spectrum = self.transform(mixture)
        level = self.transform.level(mixture)
        low = spectrum[..., : self.transform.bins]
        predicted = as_complex(self._predict(torch.view_as_real(low / level)))
        estimates = predicted * (low if self.output == "mask" else level)[:, None]
        above = spectrum.shape[-1] - self.transform.bins
        return self.transform.inverse(F.pad(estimates, (0, above)), mixture.shape[-1])

    def _predict(self, real: Tensor) -> Tensor:
        """Predict spectra or masks ``(b, s, c, frame, f, 2)`` of unit-power ``(b, c, frame, f, 2)``."""
        real = rearrange(compress(real, self.compression), "b c t f r -> b c r t f")
        x = F.pad(real, (0, -self.transform.bins % self.bin_multiple))
        # contiguous, else torch.export guards on the strides that the convolution queries
        x = self.first(rearrange(x, "b c r t (k f) -> b (k c r) t f", k=self.subbands).contiguous())
        skips = []
        for encode, halve in zip(self.encoders, self.down, strict=True):
            x = encode(x)
            skips.append(x)
            x = halve(x)
        x = self.dual_path(self.middle(x))
        for double, decode in zip(self.up, self.decoders, strict=True):
            x = decode(double(x) * skips.pop())
        x = rearrange(
            self.last(x), "b (s k c r) t f -> b s c t (k f) r", k=self.subbands, c=self.channels, r=2
        )
        return x[..., : self.transform.bins, :]


def _normed(layer: nn.Module, channels: int) -> nn.Sequential:
    """Append normalization and rectification to a layer."""
    return nn.Sequential(layer, group_norm(channels), nn.ReLU(inplace=True))


class _TimeFrequencyBlock(nn.Module):
    """Residual block of ``(b, c, frame, f)``: convolutions, a map along frequency, convolutions."""

    def __init__(self, channels: int, bins: int, convolutions: int, factor: int) -> None:
        super().__init__()
        units = max(bins // factor, 1)
        self.before = _convolutions(channels, convolutions)
        self.along_frequency = nn.Sequential(
            _normed(nn.Linear(bins, units, bias=False), channels),
            _normed(nn.Linear(units, bins, bias=False), channels),
        )
        self.after = _convolutions(channels, convolutions)
        self.shortcut = _convolutions(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        y = self.after(y + self.along_frequency(y))
        return y + self.shortcut(x)


def _convolutions(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(
        *(_normed(nn.Conv2d(channels, channels, 3, padding=1), channels) for _ in range(number))
    )


class _DualPath(nn.Module):
    """Recurrences along time and along frequency of ``(b, c, frame, f)``, in heads with shared weights."""

    def __init__(self, channels: int, layers: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        features = channels // heads
        groups = features // 16 if features % 16 == 0 else 1
        self.recurrences = nn.ModuleList(
            Recurrence(features, _SequenceNorm(groups, features)) for _ in range(2 * layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        items = rearrange(x, "b (h n) t f -> (b h) f t n", h=self.heads)
        for recurrence in self.recurrences:
            # alternately: time and frequency are swapped after each
            items = recurrence(items).transpose(1, 2)
        return rearrange(items, "(b h) f t n -> b (h n) t f", h=self.heads)


class _SequenceNorm(nn.GroupNorm):
    """Group normalization of ``(b, sequence, features)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)
