"""Band-split RoFormer: attention with rotary positions along time and along bands of the spectrum."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.packages import require
from encore.models.separators.band_split import Bands, bins_per_band
from encore.models.separators.contract import SeparatorNetwork, check_sizes
from encore.models.separators.spectral import WindowedTransform, as_complex, run_layer

_BIN = 44100 / 2048
PUBLISHED_BANDS: Bands = (
    (24, 2 * _BIN),
    (12, 4 * _BIN),
    (8, 12 * _BIN),
    (8, 24 * _BIN),
    (8, 48 * _BIN),
    (1, 128 * _BIN),
)
"""The published 62 bands at 44.1 kHz, as widths in Hz; the last is the rest."""


class BSRoFormer(SeparatorNetwork):
    """Separate by band-wise complex masks that transformers along time and along bands predict.

    The spectrum is split into bands that are fixed in Hz up to the Nyquist frequency. Each band, all channels
    together, is normalized and projected to ``dim`` features; then every layer has one transformer along time
    (per band) and one along bands (per frame), and every source has a network per band that gives a complex
    mask. The layers are those of the package ``bs-roformer``, with its names of the weights, without
    hyper-connections; the transforms around them and the call of attention are this project's.

    - *Length.* The mixture is padded with zeros at its end to whole hops, and to more than half a window.
    - *Level.* The network normalizes each band of each frame, so the mixture is not normalized.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio, 1 or 2, separated together.
        dim: Width of the features.
        depth: Number of layers, each of them one transformer along time and one along bands.
        heads: Attention heads.
        dim_head: Width of a head, even, 4 or more.
        bands: See `encore.models.separators.band_split.Bands`.
        window_seconds: Length of the Hann window; 2048 samples at 44.1 kHz as published.
        hop_seconds: Hop of the analysis, at most half the window.
        mask_estimator_depth: Linear layers in a mask network.
        dropout: Dropout rate of attention weights and features; published 0.1.
        checkpointing: Whether training keeps only the inputs of the layers and recomputes the activations for
            the gradients: less memory for about a third more time.

    Raises:
        ValueError: If a value is invalid, or the package ``bs-roformer`` is missing.

    Source: W.-T. Lu et al., "Music Source Separation with Band-Split RoPE Transformer", 2023.
    """

    compilable = ("_predict",)

    def __init__(
        self,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 2,
        dim: int = 384,
        depth: int = 12,
        heads: int = 8,
        dim_head: int = 48,
        bands: Bands = PUBLISHED_BANDS,
        window_seconds: float = 2048 / 44100,
        hop_seconds: float = 0.01,
        mask_estimator_depth: int = 2,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(sources, sample_rate, channels)
        if channels > 2:
            raise ValueError(f"channels={channels}: the network takes 1 or 2")
        check_sizes(dim=dim, depth=depth, heads=heads, mask_estimator_depth=mask_estimator_depth)
        if dim_head < 4 or dim_head % 2:
            raise ValueError(f"dim_head={dim_head}: positions rotate pairs of features, give 4, 6, 8, ...")
        self.transform = WindowedTransform(sample_rate, window_seconds, hop_seconds, padding="reflect")
        window = self.transform.window_length
        if window >= 8192:
            # the package tests its transform on 4096 samples, mirrored by half a window
            raise ValueError(f"window_seconds={window_seconds:g} is {window} samples: give at most 8190")
        self.checkpointing = checkpointing
        self.band_bins = bins_per_band(bands, window / sample_rate, sample_rate)
        if len(self.band_bins) < 2:
            raise ValueError(f"bands={bands}: the first holds the whole spectrum, give narrower ones")
        self.network: Any = _network(
            dim=dim,
            depth=depth,
            heads=heads,
            dim_head=dim_head,
            stereo=channels == 2,
            num_stems=len(self.sources),
            freqs_per_bands=tuple(self.band_bins),
            stft_n_fft=window,
            stft_win_length=window,
            stft_hop_length=self.transform.hop_length,
            mask_estimator_depth=mask_estimator_depth,
            attn_dropout=dropout,
            ff_dropout=dropout,
        )

    def separate(self, mixture: Tensor) -> Tensor:
        """See `SeparatorNetwork`."""
        spectrum = self.transform(mixture)
        masks = as_complex(self._predict(torch.view_as_real(spectrum)))
        return self.transform.inverse(masks * spectrum[:, None], mixture.shape[-1])

    def _predict(self, real: Tensor) -> Tensor:
        """Predict masks ``(b, s, c, frame, f, 2)`` of a spectrum ``(b, c, frame, f, 2)`` of any level."""
        x = self.network.band_split(rearrange(real, "b c t f r -> b t (f c r)"))
        # the attention values of the first layer are mixed into all others
        along_time, along_bands = None, None
        for layer in self.network.layers:
            x, *values = run_layer(_run, layer, x, along_time, along_bands, checkpointing=self.checkpointing)
            if along_time is None:
                along_time, along_bands = values
        x = self.network.final_norm(x)
        masks = torch.stack([estimate(x) for estimate in self.network.mask_estimators], dim=1)
        return rearrange(masks, "b s t (f c r) -> b s c t f r", c=self.channels, r=2)


def _run(
    layer: nn.ModuleList, x: Tensor, time_values: Tensor | None, band_values: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply a layer to ``(b, frame, band, feature)``; return that and the values of both its attentions."""
    along_time, along_bands = layer
    items = x.shape[0]
    x, time_values = along_time(rearrange(x, "b t k d -> (b k) t d"), value_residual=time_values)
    x, band_values = along_bands(rearrange(x, "(b k) t d -> (b t) k d", b=items), value_residual=band_values)
    return rearrange(x, "(b t) k d -> b t k d", b=items), time_values, band_values


class _Attention(nn.Module):
    """Attention by the fastest kernel that torch has for its inputs."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            queries, keys, values, dropout_p=self.dropout if self.training else 0.0
        )


def _network(**options: Any) -> nn.Module:
    """Build the package's network, with one transformer along each axis in a layer, and plain residuals."""
    package = require("bs_roformer", needed_by="BSRoFormer", extra="pretrained")
    with warnings.catch_warnings():
        # it transforms noise without a window, only to count the bins
        warnings.filterwarnings("ignore", "A window was not provided", UserWarning)
        network: nn.Module = package.BSRoformer(
            time_transformer_depth=1,
            freq_transformer_depth=1,
            num_residual_streams=1,
            flash_attn=False,
            **options,
        )
    for part in list(network.modules()):
        if hasattr(part, "attend"):
            # the package chooses kernels by a deprecated call that warns, or keeps all weights in memory
            part.attend = _Attention(options["attn_dropout"])
    return network
