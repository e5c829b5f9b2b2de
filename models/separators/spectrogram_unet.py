"""The plain U-Net on magnitudes that gives masks of the mixture, and the transform around such networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.models.separators.contract import check_description, check_mixture
from encore.models.separators.spectral import WindowedTransform, group_norm

Masks = Literal["ratio", "softmax"]
Extension = Literal["average", "zeros"]


class SpectrogramUNet(nn.Module):
    """Separate by masks of magnitudes that U-Nets of strided 5x5 convolutions predict; the phase stays.

    Every layer down halves bins and frames, every layer up doubles them and sees the layer down of its size
    beside it. The last layer gives one mask in [0, 1] per channel of a source.

    - *Several sources.* Their masks share every bin out: they are squares of sigmoids over the sum of these,
      or softmaxes, and sum to one. So with ``extension="average"`` the estimates sum to the mixture.
    - *One source.* Its mask is a sigmoid.
    - *Bins.* The network sees those below ``highest_frequency``, never the one at the Nyquist frequency; the
      mask of the others is the mean of the frame's mask, or zero.
    - *Length.* Behind its end the mixture is padded with zeros, to as many frames as can be halved in every
      layer, and the estimates are cut back: every length from one sample up comes out as it went in.
    - *Level.* The network sees magnitudes over the mixture's root mean square, masks have no unit: any level
      goes through, and silence stays silence.
    - *Normalisation.* Groups of eight channels, not batches as published: training takes small batches, and
      hears blends with estimates beside plain mixtures, whose statistics are others.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio, separated together.
        filters: Channels of the layers down, one number a layer; the published six by default.
        features: Channels of the last layer up, of which all masks are made; 1 as published.
        shared: Whether one network gives the masks of all sources; by default each source has its own.
        masks: How several sources share a bin: ``"ratio"`` of squares, or ``"softmax"``.
        extension: The mask above ``highest_frequency``: ``"average"`` of the frame's, or ``"zeros"``.
        highest_frequency: Upper end in Hz of what the network sees; 1024 bins as published.
        window_seconds: Length of the Hann analysis window, made an even number of samples; 4096 at 44.1 kHz
            as published.
        hop_seconds: Hop of the analysis, at most half the window.
        compression: Exponent in (0, 1] of the magnitudes that the network sees; 1 as published. Below 1 quiet
            bins are easier to see.
        dropout: Share of channels' values that the first three layers up drop in training.

    Raises:
        ValueError: If a value makes no sense.

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
        super().__init__()
        check_description(sources, sample_rate, channels)
        if not filters or min(filters) < 1:
            raise ValueError(f"filters={filters}: give one positive number of channels per layer down")
        if features < 1:
            raise ValueError(f"features={features}: give 1 or more")
        if masks not in get_args(Masks):
            raise ValueError(f"masks={masks!r}: choose 'ratio' or 'softmax'")
        if extension not in get_args(Extension):
            raise ValueError(f"extension={extension!r}: choose 'average' or 'zeros'")
        if not 0 < compression <= 1:
            raise ValueError(f"compression={compression}: give an exponent above 0, at most 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: give a share of at least 0, below 1")
        self.sources = tuple(str(name) for name in sources)
        self.sample_rate = int(sample_rate)
        self.channels = int(channels)
        self.shared, self.masks, self.extension, self.compression = shared, masks, extension, compression
        self.transform = WindowedTransform(sample_rate, window_seconds, hop_seconds)
        self.bins = self.transform.bins_below(highest_frequency)
        self.multiple = 2 ** len(filters)
        networks, outputs = (1, len(self.sources)) if shared else (len(self.sources), 1)
        self.networks = nn.ModuleList(
            MaskUNet(self.channels, outputs * self.channels, filters, features, dropout)
            for _ in range(networks)
        )

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate a mixture.

        Args:
            mixture: ``(batch, channel, time)``, any level, any time from one sample up.

        Returns:
            Estimates ``(batch, source, channel, time)``, in the mixture's unit.

        Raises:
            ValueError: If the shape of the mixture is wrong.
        """
        check_mixture(mixture, self.channels)
        spectrum = torch.view_as_real(self.transform(mixture, self.multiple))
        masks = self._predict(spectrum / self.transform.level(mixture)[..., None])
        # real products: torch would first make the masks complex
        estimates = torch.view_as_complex(masks[..., None] * spectrum[:, None])
        return self.transform.inverse(estimates, mixture.shape[-1])

    def _predict(self, spectrum: Tensor) -> Tensor:
        """Masks ``(b, s, c, frame, f)`` of a spectrum ``(b, c, frame, f, 2)`` of unit power."""
        # the small constant keeps the slope of the root finite where a bin is empty
        power = spectrum[..., : self.bins, :].square().sum(dim=-1) + 1e-8
        seen = F.pad(power ** (self.compression / 2), (0, -self.bins % self.multiple))
        logits = torch.cat([network(seen) for network in self.networks], dim=1)
        # under autocast they may be bfloat16, in which masks would not sum to one
        logits = rearrange(logits[..., : self.bins].float(), "b (s c) t f -> b s c t f", c=self.channels)
        if len(self.sources) == 1:
            masks = logits.sigmoid()
        elif self.masks == "ratio":
            # squares of sigmoids over their sum, without dividing by what may vanish
            masks = (2 * F.logsigmoid(logits)).softmax(dim=1)
        else:
            masks = logits.softmax(dim=1)
        above = spectrum.shape[-2] - self.bins
        if self.extension == "zeros":
            return F.pad(masks, (0, above))
        mean = masks.mean(dim=-1, keepdim=True)
        return torch.cat([masks, mean.expand(-1, -1, -1, -1, above)], dim=-1)


class MaskUNet(nn.Module):
    """Magnitudes ``(b, c, frame, f)`` to logits ``(b, outputs, frame, f)``.

    Attributes:
        film_widths: Channels of the normalised layers, down and then up, which films scale and shift.
    """

    def __init__(
        self, channels: int, outputs: int, filters: Sequence[int], features: int, dropout: float
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 5, stride=2, padding=2)
            for before, after in zip((channels, *filters), filters, strict=False)
        )
        # nothing follows the innermost layer but the way up, which takes it as it is
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

    def forward(self, x: Tensor, films: Sequence[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Logits, with the normalised layers scaled and shifted where ``films`` are given."""
        left = iter([None] * len(self.film_widths) if films is None else films)
        skips = []
        for layer, norm in zip(self.down, [*self.down_norms, None], strict=True):
            x = layer(x)
            skips.append(x)
            if norm is not None:
                x = F.leaky_relu(_filmed(norm(x), next(left)), 0.2)
        skips.pop()
        for layer, norm in zip(self.up, self.up_norms, strict=True):
            x = _filmed(norm(layer(x).relu()), next(left))
            if skips:
                x = torch.cat([skips.pop(), x], dim=1)
        logits: Tensor = self.masks(x)
        return logits


def _filmed(x: Tensor, film: tuple[Tensor, Tensor] | None) -> Tensor:
    """``(b, c, frame, f)`` scaled and shifted by ``(b, c)`` each."""
    if film is None:
        return x
    scale, shift = (part[:, :, None, None] for part in film)
    return x * (1 + scale) + shift
