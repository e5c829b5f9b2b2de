"""Encoders, recurrences and decoders of band-split networks, with bands fixed in Hz."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from encore.models.separators.contract import AudioNetwork, check_compression
from encore.models.separators.spectral import (
    Film,
    Recurrence,
    WindowedTransform,
    as_complex,
    compress,
    run_layer,
)

Bands = Sequence[tuple[int, float]]
"""``(number, width in Hz)`` from 0 Hz up; the rest above is one more band."""

PUBLISHED_BANDS: Bands = ((20, 200.0), (6, 500.0), (7, 2000.0))


class BandSplitNetwork(AudioNetwork):
    """A network from spectra to complex masks and residuals, recurrent along time and along bands.

    See `encore.models.separators.bsrnn.BSRNN` for the arguments.

    Attributes:
        initial_masks: Real numbers near which the masks are initialized, a group of them, one per source, for
            each: of the last input spectrum, the mixture's, and before it of spectra of every source.
    """

    compilable = ("_predict",)
    initial_masks: tuple[float, ...] = (1.0,)

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
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        check_compression(compression)
        if sample_rate > max_sample_rate:
            raise ValueError(
                f"sample_rate={sample_rate} is above max_sample_rate={max_sample_rate}: raise the latter"
            )
        self.transform = WindowedTransform(sample_rate, window_seconds, window_seconds / 2)
        self.features, self.compression, self.checkpointing = features, compression, checkpointing
        full = bins_per_band(bands, window_seconds, max_sample_rate)
        self.band_bins = used_bands(full, self.transform.window_length // 2 + 1)
        # any fixed number serves all rates; this one gives audio at 16 kHz unit power in the mean bin
        self.level_bins = round(8000 * window_seconds) + 1
        count, groups = len(self.sources), len(self.initial_masks)
        spectra = (groups - 1) * count + 1
        first = [start for start in self.initial_masks for _ in range(count)]
        self.encoders = nn.ModuleList(BandEncoder(bins, features, norm, spectra) for bins in full)
        self.layers = nn.ModuleList(BandLayer(features, norm) for _ in range(layers))
        self.masks = nn.ModuleList(BandDecoder(bins, features, norm, first) for bins in full)
        self.residuals = nn.ModuleList(BandDecoder(bins, features, norm, [0.0] * count) for bins in full)
        # bands above this rate's Nyquist frequency get no gradient, for which distributed training would wait
        for parts in (self.encoders, self.masks, self.residuals):
            parts[len(self.band_bins) :].requires_grad_(False)

    def level(self, spectrum: Tensor) -> Tensor:
        """Return the root mean square ``(b, 1, 1)`` of a spectrum ``(b, frame, f)``; never 0."""
        # summed over frequency, not averaged: the empty bins of a higher rate must not change the level
        power = spectrum.abs().square().sum(dim=2, keepdim=True).mean(dim=1, keepdim=True)
        return (power / self.level_bins + 1e-16).sqrt()

    def estimate(self, spectra: Tensor, films: Sequence[Film] | None = None) -> tuple[Tensor, Tensor]:
        """Estimate masks and residuals from spectra of unit power.

        Args:
            spectra: ``(b, n, frame, f)``, complex.
            films: Scale and shift ``(b, features)`` of every recurrence, two a layer; None for none.

        Returns:
            Complex masks ``(b, groups * s, frame, f)`` and residuals ``(b, s, frame, f)``.
        """
        real = rearrange(torch.view_as_real(spectra), "b n t f r -> b t f (n r)")
        masks, residuals = self._predict(real) if films is None else self._predict(real, films)
        return as_complex(masks).transpose(2, 3), as_complex(residuals).transpose(2, 3)

    def _predict(self, real: Tensor, films: Sequence[Film] | None = None) -> tuple[Tensor, Tensor]:
        """Predict masks and residuals ``(b, s, f, frame, 2)`` of unit-power ``(b, frame, f, 2 n)``."""
        real = compress(rearrange(real, "b t f (n r) -> b t f n r", r=2), self.compression).flatten(-2)
        split = torch.split(real, self.band_bins, dim=2)
        used = len(self.band_bins)
        bands = torch.stack(
            [encode(part) for encode, part in zip(self.encoders[:used], split, strict=True)], dim=1
        )
        for index, layer in enumerate(self.layers):
            own = () if films is None else (films[2 * index : 2 * index + 2],)
            bands = run_layer(layer, bands, *own, checkpointing=self.checkpointing)
        masks, residuals = (
            torch.cat(
                [
                    decode(bands[:, i], bins)
                    for i, (decode, bins) in enumerate(zip(heads[:used], self.band_bins, strict=True))
                ],
                dim=2,
            )
            for heads in (self.masks, self.residuals)
        )
        return masks, residuals


def bins_per_band(bands: Bands, window_seconds: float, max_sample_rate: int) -> list[int]:
    """Return the bins of every band up to ``max_sample_rate / 2``, the last band holding the rest.

    >>> bins_per_band(PUBLISHED_BANDS, 0.02, 48000)[-3:]
    [40, 40, 61]
    """
    total = round(window_seconds * max_sample_rate) // 2 + 1
    widths = [round(width * window_seconds) for count, width in bands for _ in range(count)]
    if min(widths) < 1:
        raise ValueError(
            f"bands={bands} has bands narrower than a bin of {1 / window_seconds:g} Hz: widen them or the"
            " window"
        )
    return used_bands([*widths, total], total)


def used_bands(full: Sequence[int], bins: int) -> list[int]:
    """Return the first bands, ``bins`` bins in all, the last of them cut to fit.

    >>> used_bands([5, 5, 10], 12)
    [5, 5, 2]
    """
    used: list[int] = []
    for width in full:
        if bins <= 0:
            break
        used.append(min(width, bins))
        bins -= width
    return used


class BandNorm(nn.Module):
    """Normalize ``(b, position, feature)`` over positions and features together, or each position alone."""

    def __init__(self, features: int, kind: str) -> None:
        super().__init__()
        if kind not in ("sequence", "position"):
            raise ValueError(f"norm={kind!r}: choose 'sequence' or 'position'")
        self.first = 1 if kind == "sequence" else 2
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(b, position, feature)``."""
        return nn.functional.layer_norm(x, x.shape[self.first :]) * self.weight + self.bias


class BandEncoder(nn.Module):
    """Normalize and project one band ``(b, frame, bin, 2 n)`` of n spectra to ``(b, frame, features)``."""

    def __init__(self, bins: int, features: int, norm: str, spectra: int) -> None:
        super().__init__()
        self.bins = bins
        self.norm = BandNorm(2 * spectra * bins, norm)
        self.projection = nn.Linear(2 * spectra * bins, features)

    def forward(self, part: Tensor) -> Tensor:
        """Encode a band, filled up with zeros where the Nyquist frequency cuts it."""
        part = nn.functional.pad(part, (0, 0, 0, self.bins - part.shape[2]))
        return self.projection(self.norm(rearrange(part, "b t f r -> b t (f r)")))


class BandDecoder(nn.Module):
    """Decode features of one band ``(b, frame, features)`` to ``(b, output, bin, frame, 2)``.

    Outputs are initialized near real numbers: with masks near 1 and residuals near 0 training begins at the
    mixture, not at noise.
    """

    def __init__(self, bins: int, features: int, norm: str, starts: Sequence[float]) -> None:
        super().__init__()
        self.bins, self.outputs = bins, len(starts)
        last = nn.Linear(4 * features, 4 * bins * self.outputs)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
            # the gates start at one half
            values = last.bias[: 2 * bins * self.outputs].view(self.outputs, bins, 2)
            values[..., 0] = 2 * torch.tensor(starts)[:, None]
        self.network = nn.Sequential(
            BandNorm(features, norm), nn.Linear(features, 4 * features), nn.Tanh(), last, nn.GLU(dim=-1)
        )

    def forward(self, features: Tensor, bins: int) -> Tensor:
        """Decode the first ``bins`` bins."""
        out = rearrange(self.network(features), "b t (s f r) -> b s f t r", s=self.outputs, f=self.bins)
        return out[:, :, :bins]


class BandLayer(nn.ModuleList):
    """A recurrence along time, then one along bands, of ``(b, band, frame, features)``."""

    def __init__(self, features: int, norm: str) -> None:
        super().__init__(Recurrence(features, BandNorm(features, norm)) for _ in range(2))

    def forward(self, x: Tensor, films: Sequence[Film] | None = None) -> Tensor:
        """Apply both, each with its film."""
        along_time, along_bands = self
        first, second = (None, None) if films is None else films
        x = along_time(x, first)
        return along_bands(x.transpose(1, 2), second).transpose(1, 2)
