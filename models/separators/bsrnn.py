"""Band-split recurrent network (BSRNN), in every published size and at any sampling rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Bands = Sequence[tuple[int, float]]
"""``(how many, width in Hz)`` from 0 Hz up; whatever lies above the last one is one more band."""

PUBLISHED_BANDS: Bands = ((20, 200.0), (6, 500.0), (7, 2000.0))


class BSRNN(nn.Module):
    """Separate by band-wise complex masks that recurrent layers along time and along bands predict.

    The spectrum is split into bands that are fixed in Hz. Each band is normalised and projected to
    ``features``; then every layer runs one bidirectional LSTM along time (per band) and one along bands (per
    frame), each with normalisation, projection and a residual; per-band decoders give a complex mask and a
    complex residual for every source: ``estimate = mask * mixture + residual``.

    All bands up to ``max_sample_rate`` have weights, and audio of a lower rate uses the lower ones only, a
    band that is cut by the Nyquist frequency being filled up with zeros. So the parameters do not depend on
    the sampling rate, and one set of weights runs at any of them.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz, at most ``max_sample_rate``.
        channels: Channels of the audio; each is separated on its own, with the same weights.
        features: Width N of the band features; the LSTMs have 2N units per direction.
        layers: Number of layers, each of them one time and one band recurrence.
        bands: The band layout below ``max_sample_rate / 2``.
        window_seconds: Length of the Hann analysis window, made an even number of samples; its hop is half.
        max_sample_rate: The highest rate that the weights serve, in Hz.
        compression: Exponent in (0, 1] of the magnitudes that the network looks at; 1 as published. Below 1
            quiet bands are easier to see.
        norm: ``"sequence"`` normalises over all positions of a sequence together, as published: how loud a
            band is in one frame against the others is seen. ``"position"`` normalises each by itself.
        checkpointing: Whether training keeps only what goes into each layer and computes the layer again for
            the gradients: less memory for about a third more time.

    Raises:
        ValueError: If ``sample_rate`` is above ``max_sample_rate``, or a band is narrower than a bin.

    Source: Y. Luo and J. Yu, "Music Source Separation with Band-Split RNN", 2023; J. Yu et al., "Efficient
    Monaural Speech Enhancement with Universal Sample Rate Band-Split RNN", 2023 (rate independence).
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
    ) -> None:
        super().__init__()
        if sample_rate > max_sample_rate:
            raise ValueError(
                f"sample_rate={sample_rate} is above max_sample_rate={max_sample_rate}: raise the latter"
            )
        self.sources = tuple(sources)
        self.sample_rate = int(sample_rate)
        self.channels = int(channels)
        window = 2 * round(window_seconds * sample_rate / 2)
        self.window_length, self.hop_length = window, window // 2
        self.compression = compression
        self.checkpointing = checkpointing
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(window), persistent=False)

        full = bins_per_band(bands, window_seconds, max_sample_rate)
        self.band_bins = used_bands(full, window // 2 + 1)
        # any fixed number serves all rates; with this one, audio at 16 kHz has unit power in the mean bin
        self.level_bins = round(8000 * window_seconds) + 1
        self.encoders = nn.ModuleList(_BandEncoder(bins, features, norm) for bins in full)
        self.layers = nn.ModuleList(_Layer(features, norm) for _ in range(layers))
        self.masks = nn.ModuleList(
            _BandDecoder(bins, features, len(self.sources), norm, start=1.0) for bins in full
        )
        self.residuals = nn.ModuleList(
            _BandDecoder(bins, features, len(self.sources), norm, start=0.0) for bins in full
        )
        # bands above this rate's Nyquist frequency never get a gradient: distributed training waits for those
        for parts in (self.encoders, self.masks, self.residuals):
            parts[len(self.band_bins) :].requires_grad_(False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate.

        Args:
            mixture: ``(batch, channel, time)`` at ``sample_rate``, any level and any length.

        Returns:
            ``(batch, source, channel, time)`` in the mixture's unit and length.
        """
        batch, channels, time = mixture.shape
        spectrum = self._transform(rearrange(mixture, "b c t -> (b c) t"))
        # summed over frequency, not averaged: the empty bins of a higher rate must not change the level
        power = spectrum.abs().square().sum(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        scale = (power / self.level_bins + 1e-16).sqrt()
        masks, residuals = self._estimate(spectrum / scale)
        estimates = masks * spectrum[:, None] + residuals * scale[:, None]
        waveforms = self._invert(estimates, time)
        return rearrange(waveforms, "(b c) s t -> b s c t", b=batch, c=channels)

    def _transform(self, waveform: Tensor) -> Tensor:
        """``(b, time)`` to a complex spectrum ``(b, f, frame)``, for any length."""
        # up to a whole hop: where only the end of a last window reaches, the inversion divides by nearly 0
        padded = nn.functional.pad(waveform.float(), (0, -waveform.shape[-1] % self.hop_length))
        return torch.stft(
            padded,
            self.window_length,
            self.hop_length,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )

    def _invert(self, spectrum: Tensor, time: int) -> Tensor:
        """``(b, s, f, frame)`` to waveforms ``(b, s, time)``."""
        flat = rearrange(spectrum, "b s f t -> (b s) f t")
        waveform = torch.istft(flat, self.window_length, self.hop_length, window=self.window, center=True)
        # cut here, because torch.export cannot leave the inversion's own length open
        return rearrange(waveform[..., :time], "(b s) t -> b s t", b=spectrum.shape[0])

    def _estimate(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Masks and residuals ``(b, s, f, frame)``, complex, of a unit-power spectrum ``(b, f, frame)``."""
        masks, residuals = self._predict(rearrange(torch.view_as_real(spectrum), "b f t r -> b t f r"))
        # under autocast they may be bfloat16, which has no complex numbers
        masks, residuals = masks.float().contiguous(), residuals.float().contiguous()
        return torch.view_as_complex(masks), torch.view_as_complex(residuals)

    def _predict(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Masks and residuals ``(b, s, f, frame, 2)`` of a unit-power spectrum ``(b, frame, f, 2)``."""
        if self.compression != 1:
            power = real.square().sum(dim=-1, keepdim=True)
            real = real * (power + 1e-6) ** ((self.compression - 1) / 2)
        parts = torch.split(real, self.band_bins, dim=2)
        used = len(self.band_bins)
        bands = torch.stack(
            [encode(part) for encode, part in zip(self.encoders[:used], parts, strict=True)], dim=1
        )
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                bands = checkpoint(layer, bands, use_reentrant=False)
            else:
                bands = layer(bands)
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
    """Frequency bins of every band up to ``max_sample_rate / 2``, the rest being the last band.

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
    """The first bands that hold ``bins`` bins, the last of them cut to fit.

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


class _Norm(nn.Module):
    """Normalise ``(b, position, feature)`` over positions and features together, or each position alone."""

    def __init__(self, features: int, kind: str) -> None:
        super().__init__()
        if kind not in ("sequence", "position"):
            raise ValueError(f"norm={kind!r}: choose 'sequence' or 'position'")
        self.first = 1 if kind == "sequence" else 2
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[self.first :]) * self.weight + self.bias


class _BandEncoder(nn.Module):
    """Normalise and project one band ``(b, frame, bin, 2)`` to ``(b, frame, features)``."""

    def __init__(self, bins: int, features: int, norm: str) -> None:
        super().__init__()
        self.bins = bins
        self.norm = _Norm(2 * bins, norm)
        self.projection = nn.Linear(2 * bins, features)

    def forward(self, part: Tensor) -> Tensor:
        part = nn.functional.pad(part, (0, 0, 0, self.bins - part.shape[2]))
        return self.projection(self.norm(rearrange(part, "b t f r -> b t (f r)")))


class _BandDecoder(nn.Module):
    """Features of one band ``(b, frame, features)`` to ``(b, source, bin, frame, 2)``.

    It starts out near the real number ``start``: with masks near 1 and residuals near 0 training begins at
    the mixture itself, not at noise.
    """

    def __init__(self, bins: int, features: int, sources: int, norm: str, start: float) -> None:
        super().__init__()
        self.bins, self.sources = bins, sources
        last = nn.Linear(4 * features, 4 * bins * sources)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
            # the gates start at one half
            last.bias[: 2 * bins * sources : 2] = 2 * start
        self.network = nn.Sequential(
            _Norm(features, norm), nn.Linear(features, 4 * features), nn.Tanh(), last, nn.GLU(dim=-1)
        )

    def forward(self, features: Tensor, bins: int) -> Tensor:
        out = rearrange(self.network(features), "b t (s f r) -> b s f t r", s=self.sources, f=self.bins)
        return out[:, :, :bins]


class _Layer(nn.ModuleList):
    """A recurrence along time, then one along bands, of ``(b, band, frame, features)``."""

    def __init__(self, features: int, norm: str) -> None:
        super().__init__((_Recurrence(features, norm), _Recurrence(features, norm)))

    def forward(self, x: Tensor) -> Tensor:
        along_time, along_bands = self
        x = along_time(x)
        return along_bands(x.transpose(1, 2)).transpose(1, 2)


class _Recurrence(nn.Module):
    """Residual bidirectional LSTM along the last axis but one of ``(b, other, sequence, features)``."""

    def __init__(self, features: int, norm: str) -> None:
        super().__init__()
        self.norm = _Norm(features, norm)
        self.rnn = nn.LSTM(features, 2 * features, batch_first=True, bidirectional=True)
        self.projection = nn.Linear(4 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.norm(rearrange(x, "b o q n -> (b o) q n"))
        out, _ = self.rnn(flat)
        return x + rearrange(self.projection(out), "(b o) q n -> b o q n", b=x.shape[0])
