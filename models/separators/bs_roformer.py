"""Band-split RoFormer: attention with rotary positions along time and along bands of the spectrum."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from encore.models.separators.band_split import Bands, bins_per_band
from encore.models.separators.contract import check_description, check_mixture

_BIN = 44100 / 2048
PUBLISHED_BANDS: Bands = (
    (24, 2 * _BIN),
    (12, 4 * _BIN),
    (8, 12 * _BIN),
    (8, 24 * _BIN),
    (8, 48 * _BIN),
    (1, 128 * _BIN),
)
"""The published 62 bands at 44.1 kHz, the last of them the rest, as widths in Hz."""


class BSRoFormer(nn.Module):
    """Separate by band-wise complex masks that transformers along time and along bands predict.

    The spectrum is split into bands that are fixed in Hz up to the Nyquist frequency. Each band, all channels
    together, is normalised and projected to ``dim`` features; then every layer has one transformer along time
    (per band) and one along bands (per frame), and every source has a network per band that gives a complex
    mask. The layers are those of the package ``bs-roformer``, with its names of the weights, without
    hyper-connections; the transforms around them and the call of attention are this project's.

    - *Length.* Behind its end the mixture is padded with zeros to whole hops, and to more than half a window,
      and the estimates are cut back, so every length from one sample up comes out as it went in.
    - *Level.* Nothing is normalised, before or after: each band of each frame is, inside the network, so that
      any level goes through.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio, 1 or 2, separated together.
        dim: Width of the features.
        depth: Number of layers, each of them one transformer along time and one along bands.
        heads: Attention heads.
        dim_head: Width of a head, even, 4 or more.
        bands: ``(how many, width in Hz)`` from 0 Hz up; whatever lies above is one more band.
        window_seconds: Length of the Hann analysis window, made an even number of samples; 2048 at 44.1 kHz
            as published.
        hop_seconds: Hop of the analysis, at most half the window.
        mask_estimator_depth: Linear layers in a mask network.
        dropout: Share of attention weights and features that training drops; published 0.1.
        checkpointing: Whether training keeps only what goes into each layer and computes the layer again for
            the gradients: less memory for about a third more time.

    Raises:
        ValueError: If a value makes no sense, or the package ``bs-roformer`` is missing.

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
        super().__init__()
        check_description(sources, sample_rate, channels)
        if channels > 2:
            raise ValueError(f"channels={channels}: the network takes 1 or 2")
        _check_sizes(dim=dim, depth=depth, heads=heads, mask_estimator_depth=mask_estimator_depth)
        if dim_head < 4 or dim_head % 2:
            raise ValueError(f"dim_head={dim_head}: positions turn pairs of features, give 4, 6, 8, ...")
        window, hop = 2 * round(window_seconds * sample_rate / 2), round(hop_seconds * sample_rate)
        _check_frames(window, hop, window_seconds, hop_seconds)
        self.sources = tuple(str(name) for name in sources)
        self.sample_rate = int(sample_rate)
        self.channels = int(channels)
        self.window_length, self.hop_length = window, hop
        self.checkpointing = checkpointing
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(window), persistent=False)
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
            stft_hop_length=hop,
            mask_estimator_depth=mask_estimator_depth,
            attn_dropout=dropout,
            ff_dropout=dropout,
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
        spectrum = self._transform(mixture)
        masks = self._predict(torch.view_as_real(spectrum))
        # under autocast they may be bfloat16, which has no complex numbers
        masks = torch.view_as_complex(masks.float().contiguous())
        return self._invert(masks * spectrum[:, None], mixture.shape[-1])

    def _transform(self, waveform: Tensor) -> Tensor:
        """``(b, c, time)`` to a complex spectrum ``(b, c, f, frame)``, for any length."""
        length = waveform.shape[-1]
        # the transform mirrors half a window at either end, for which it needs one sample more than that
        hops = -(-max(length, self.window_length // 2 + 1) // self.hop_length)
        spectrum = torch.stft(
            rearrange(F.pad(waveform.float(), (0, hops * self.hop_length - length)), "b c t -> (b c) t"),
            self.window_length,
            self.hop_length,
            window=self.window,
            center=True,
            return_complex=True,
        )
        return rearrange(spectrum, "(b c) f t -> b c f t", c=self.channels)

    def _invert(self, spectrum: Tensor, time: int) -> Tensor:
        """``(b, s, c, f, frame)`` to waveforms ``(b, s, c, time)``."""
        waveform = torch.istft(
            rearrange(spectrum, "b s c f t -> (b s c) f t"),
            self.window_length,
            self.hop_length,
            window=self.window,
            center=True,
            length=time,
        )
        return rearrange(waveform, "(b s c) t -> b s c t", s=len(self.sources), c=self.channels)

    def _predict(self, real: Tensor) -> Tensor:
        """Masks ``(b, s, c, f, frame, 2)`` of a spectrum ``(b, c, f, frame, 2)`` of any level."""
        x = self.network.band_split(rearrange(real, "b c f t r -> b t (f c r)"))
        # what attention adds up in the first layer is mixed into all others
        along_time, along_bands = None, None
        for layer in self.network.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x, *values = checkpoint(_run, layer, x, along_time, along_bands, use_reentrant=False)
            else:
                x, *values = _run(layer, x, along_time, along_bands)
            if along_time is None:
                along_time, along_bands = values
        x = self.network.final_norm(x)
        masks = torch.stack([estimate(x) for estimate in self.network.mask_estimators], dim=1)
        return rearrange(masks, "b s t (f c r) -> b s c f t r", c=self.channels, r=2)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: give 1 or more")


def _check_frames(window: int, hop: int, window_seconds: float, hop_seconds: float) -> None:
    # the package tries its transform on 4096 samples, mirrored by half a window
    if not 2 <= window < 8192:
        raise ValueError(f"window_seconds={window_seconds:g} is {window} samples: give 2 to 8190")
    if not 1 <= hop <= window // 2:
        raise ValueError(
            f"hop_seconds={hop_seconds:g} is {hop} samples: give 1 to {window // 2}, half a window of "
            f"window_seconds={window_seconds:g}"
        )


def _run(
    layer: nn.ModuleList, x: Tensor, time_values: Tensor | None, band_values: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer of ``(b, frame, band, feature)``: that again, and the values of both its attentions."""
    along_time, along_bands = layer
    items = x.shape[0]
    x, time_values = along_time(rearrange(x, "b t k d -> (b k) t d"), value_residual=time_values)
    x, band_values = along_bands(rearrange(x, "(b k) t d -> (b t) k d", b=items), value_residual=band_values)
    return rearrange(x, "(b t) k d -> b t k d", b=items), time_values, band_values


class _Attention(nn.Module):
    """Attention by the fastest kernel that torch has for the inputs at hand."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            queries, keys, values, dropout_p=self.dropout if self.training else 0.0
        )


def _network(**options: Any) -> nn.Module:
    """The package's network, with one transformer along each axis in a layer, and plain residuals."""
    try:
        package = importlib.import_module("bs_roformer")
    except ModuleNotFoundError as error:
        raise ValueError(
            "package bs-roformer is missing: pip install 'encore-separation[separators]'"
        ) from error
    with warnings.catch_warnings():
        # it runs a transform of noise without a window, only to count the bins
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
            # the package picks kernels by a deprecated call that warns, or forms all weights in memory
            part.attend = _Attention(options["attn_dropout"])
    return network
