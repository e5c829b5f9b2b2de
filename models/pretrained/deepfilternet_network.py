"""The network of DeepFilterNet 3, from waveform to waveform."""

from __future__ import annotations

from itertools import pairwise
from math import expm1, gcd, log1p, pi
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.dsp import istft, stft
from encore.models.separators.spectral import as_complex

SAMPLE_RATE = 48000
HOP, WINDOW = 480, 960
BANDS, FILTERED_BINS, ORDER, LOOKAHEAD = 32, 96, 5, 2
DECAY = 0.99
"""Of the features' running means from one frame to the next: exp(-10 ms / 1 s), rounded as in libDF."""

_CHANNELS, _EMBEDDING, _HIDDEN = 64, 512, 256
_BLOCK = 128


class DeepFilterNet(nn.Module):
    """Gains of 32 bands, and above them in order filters over five frames for the bins below 4.8 kHz."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.erb_dec, self.df_dec = Encoder(), BandDecoder(), FilterDecoder()
        ramp = torch.arange(0.5, HOP) * (0.5 * pi / HOP)
        rise = (0.5 * pi * ramp.sin().square()).sin()
        self.window: Tensor
        self.register_buffer("window", torch.cat([rise, rise.flip(0)]), persistent=False)
        bands = torch.arange(BANDS).repeat_interleave(torch.tensor(band_widths()))
        self.band_of_bin: Tensor
        self.register_buffer("band_of_bin", bands, persistent=False)
        means = F.one_hot(bands, BANDS).float()
        self.band_means: Tensor
        self.register_buffer("band_means", means / means.sum(dim=0), persistent=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Return speech of a mixture, both ``(b, 1, t)``, where t is whole hops."""
        ahead = F.pad(mixture[:, 0], (0, LOOKAHEAD * HOP))
        spectrum = stft(ahead, self.window, HOP, padding="constant").transpose(-2, -1)
        levels, bins = self.features(spectrum)
        embedding, skips, filtered = self.enc(levels, bins)
        # the first frames' estimates are for frames before the input
        gains = self.erb_dec(embedding, skips)[:, LOOKAHEAD:]
        coefficients = as_complex(self.df_dec(embedding, filtered)[:, LOOKAHEAD:])
        frames = F.pad(spectrum[..., :FILTERED_BINS], (0, 0, ORDER - 1 - LOOKAHEAD, 0)).unfold(1, ORDER, 1)
        low = (frames * coefficients).sum(dim=-1)
        high = spectrum[:, :-LOOKAHEAD, FILTERED_BINS:] * gains[..., self.band_of_bin[FILTERED_BINS:]]
        speech = torch.cat([low, high], dim=-1).transpose(-2, -1)
        return istft(speech, self.window, hop=HOP)[:, None]

    def features(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the encoder takes.

        Args:
            spectrum: Complex ``(b, frame, bin)``.

        Returns:
            Levels of bands ``(b, 1, frame, band)`` in 40 dB around their running mean, and real and imaginary
            part of the lowest bins ``(b, 2, frame, bin)`` over the root of their running magnitude.
        """
        # levels must be exact, not those of mixed precision
        with torch.autocast(spectrum.device.type, enabled=False):
            spectrum = spectrum / WINDOW
            power = torch.view_as_real(spectrum).square().sum(dim=-1)
            levels = 10 * (power @ self.band_means + 1e-10).log10()
            levels = (levels - running_mean(levels, levels.new_tensor((-60, -90)))) / 40
            bins = spectrum[..., :FILTERED_BINS]
            # the floor of DeepFilterNet's training: a longer silence would end in a division by 0
            magnitude = running_mean(bins.abs().clamp_min(1e-7), levels.new_tensor((1e-3, 1e-4)))
            return levels[:, None], rearrange(
                torch.view_as_real(bins / magnitude.sqrt()), "b t f r -> b r t f"
            )


class Encoder(nn.Module):
    """Embedding of both features."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, _CHANNELS, 3, padding=(0, 1))
        self.erb_conv0 = nn.Sequential(_past(2), first, nn.ReLU())
        self.erb_conv1, self.erb_conv2 = _separable(stride=2), _separable(stride=2)
        self.erb_conv3 = _separable()
        self.df_conv0 = nn.Sequential(_past(2), *_separable(2, kernel=(3, 3)))
        self.df_conv1 = _separable(stride=2)
        self.df_fc_emb = nn.Sequential(
            GroupedLinear(_CHANNELS * FILTERED_BINS // 2, _EMBEDDING, 32), nn.ReLU()
        )
        self.emb_gru = SqueezedGru(1, 16, _EMBEDDING)

    def forward(self, levels: Tensor, bins: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the embedding ``(b, frame, 512)``, and maps ``(b, 64, frame, f)`` for the decoders."""
        skips = [self.erb_conv0(levels)]
        for layer in (self.erb_conv1, self.erb_conv2, self.erb_conv3):
            skips.append(layer(skips[-1]))
        filtered = self.df_conv0(bins)
        low = self.df_fc_emb(rearrange(self.df_conv1(filtered), "b c t f -> b t (f c)"))
        return self.emb_gru(rearrange(skips[-1], "b c t f -> b t (f c)") + low), skips, filtered


class BandDecoder(nn.Module):
    """Gains of the bands."""

    def __init__(self) -> None:
        super().__init__()
        self.emb_gru = SqueezedGru(2, 16, _EMBEDDING)
        self.conv3p, self.conv2p, self.conv1p, self.conv0p = (_scale() for _ in range(4))
        self.convt3 = _separable()
        self.convt2, self.convt1 = _separable(transposed=True), _separable(transposed=True)
        self.conv0_out = nn.Sequential(nn.Conv2d(_CHANNELS, 1, (1, 3), padding=(0, 1)), nn.Sigmoid())

    def forward(self, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Return gains ``(b, frame, band)`` from 0 to 1."""
        maps = rearrange(self.emb_gru(embedding), "b t (f c) -> b c t f", c=_CHANNELS)
        for skip, scale, layer in (
            (skips[3], self.conv3p, self.convt3),
            (skips[2], self.conv2p, self.convt2),
            (skips[1], self.conv1p, self.convt1),
            (skips[0], self.conv0p, self.conv0_out),
        ):
            maps = layer(scale(skip) + maps)
        return maps[:, 0]


class FilterDecoder(nn.Module):
    """Coefficients of the filters."""

    def __init__(self) -> None:
        super().__init__()
        self.df_convp = nn.Sequential(_past(ORDER - 1), *_separable(_CHANNELS, 2 * ORDER, (ORDER, 1)))
        self.df_gru = SqueezedGru(2, 8, None)
        self.df_skip = GroupedLinear(_EMBEDDING, _HIDDEN, 16)
        self.df_out = nn.Sequential(GroupedLinear(_HIDDEN, FILTERED_BINS * 2 * ORDER, 16), nn.Tanh())

    def forward(self, embedding: Tensor, maps: Tensor) -> Tensor:
        """Return ``(b, frame, bin, tap, 2)``, the oldest frame's tap first."""
        flat = self.df_out(self.df_gru(embedding) + self.df_skip(embedding))
        taps = rearrange(flat, "b t (f o) -> b t f o", f=FILTERED_BINS)
        taps = taps + rearrange(self.df_convp(maps), "b o t f -> b t f o")
        return rearrange(taps, "b t f (o r) -> b t f o r", r=2)


class GroupedLinear(nn.Module):
    """Linear maps of equal parts of the features, without bias."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(groups, inputs // groups, outputs // groups))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, frame, inputs)`` to ``(b, frame, outputs)``."""
        parts = rearrange(x, "b t (g i) -> b t g i", g=len(self.weight))
        return torch.einsum("btgi,gih->btgh", parts, self.weight).flatten(2)


class SqueezedGru(nn.Module):
    """A recurrence between grouped linear layers.

    Args:
        layers: Layers of the recurrence.
        groups: Groups of the linear layers.
        outputs: Features of the last one; None for none.
    """

    def __init__(self, layers: int, groups: int, outputs: int | None) -> None:
        super().__init__()
        self.linear_in = nn.Sequential(GroupedLinear(_EMBEDDING, _HIDDEN, groups), nn.ReLU())
        self.gru = nn.GRU(_HIDDEN, _HIDDEN, layers, batch_first=True)
        self.linear_out = nn.Sequential()
        if outputs is not None:
            self.linear_out.extend([GroupedLinear(_HIDDEN, outputs, groups), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, frame, 512)`` to ``(b, frame, outputs or 256)``."""
        return self.linear_out(self.gru(self.linear_in(x))[0])


def running_mean(values: Tensor, ends: Tensor) -> Tensor:
    """Return the exponential mean ``m[t] = DECAY m[t - 1] + (1 - DECAY) x[t]``.

    Computed by products with triangular matrices of decays: within blocks of frames, then over the blocks.

    Args:
        values: x, ``(b, frame, band)``.
        ends: Means before the first frame of the first and the last band, linear between.
    """
    before = torch.lerp(ends[0], ends[1], torch.linspace(0, 1, values.shape[-1]).to(values))
    frames = values.shape[1]
    padded = F.pad(values, (0, 0, 0, -frames % _BLOCK))
    blocks = rearrange(padded, "b (k t) f -> b k t f", t=_BLOCK)
    within = (1 - DECAY) * (_decays(blocks, _BLOCK, DECAY) @ blocks)
    starts = torch.cat([before.expand(len(values), 1, -1), within[:, :-1, -1]], dim=1)
    starts = _decays(blocks, starts.shape[1], DECAY**_BLOCK) @ starts
    powers = DECAY ** torch.arange(1, _BLOCK + 1).to(values)
    means = within + powers[:, None] * starts[:, :, None]
    return rearrange(means, "b k t f -> b (k t) f")[:, :frames]


def _decays(like: Tensor, size: int, decay: float) -> Tensor:
    steps = torch.arange(size).to(like)
    return (decay ** (steps[:, None] - steps).clamp_min(0)).tril()


def band_widths() -> list[int]:
    """Return the bins of each band: equally wide in equivalent rectangular bandwidths, at least two bins.

    Source: ``erb_fb`` of libDF, https://github.com/Rikorose/DeepFilterNet (MIT or Apache-2.0).
    """
    step = 9.265 * log1p(SAMPLE_RATE / 2 / (24.7 * 9.265)) / BANDS
    edges = [
        round(24.7 * 9.265 * expm1(index * step / 9.265) * WINDOW / SAMPLE_RATE) for index in range(BANDS + 1)
    ]
    widths, taken = [], 0
    for lower, upper in pairwise(edges):
        width = upper - lower - taken
        # what a band takes beyond its own is taken from the next one
        taken = max(2 - width, 0)
        widths.append(max(width, 2))
    # the Nyquist bin
    widths[-1] += 1
    return widths


def _past(frames: int) -> nn.Module:
    return nn.ZeroPad2d((0, 0, frames, 0))


def _separable(
    inputs: int = _CHANNELS,
    outputs: int = _CHANNELS,
    kernel: tuple[int, int] = (1, 3),
    *,
    stride: int = 1,
    transposed: bool = False,
) -> nn.Sequential:
    """Return a convolution of groups and one of single points, which mixes them."""
    sizes: dict[str, Any] = {
        "kernel_size": kernel,
        "padding": (0, kernel[1] // 2),
        "groups": gcd(inputs, outputs),
    }
    first: nn.Module
    if transposed:
        first = nn.ConvTranspose2d(inputs, outputs, stride=(1, 2), output_padding=(0, 1), bias=False, **sizes)
    else:
        first = nn.Conv2d(inputs, outputs, stride=(1, stride), bias=False, **sizes)
    return nn.Sequential(first, nn.Conv2d(outputs, outputs, 1), nn.ReLU())


def _scale() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(_CHANNELS, _CHANNELS, 1, groups=_CHANNELS), nn.ReLU())
