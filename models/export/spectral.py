"""The band-split network without complex numbers, which ONNX has none of."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from encore.models.separators.bsrnn import BSRNN


class RealValuedBSRNN(nn.Module):
    """A `BSRNN` from waveform to waveform, its transforms written as convolutions.

    The same estimates up to rounding; slower than with a fast Fourier transform.

    Args:
        separator: Whose weights it uses.
    """

    def __init__(self, separator: BSRNN) -> None:
        super().__init__()
        self.separator = separator
        window = separator.transform.window.double().cpu()
        forwards, backwards = _fourier_filters(len(window))
        self.analysis: Tensor
        self.synthesis: Tensor
        self.envelope: Tensor
        self.register_buffer("analysis", (forwards * window).float()[:, None])
        self.register_buffer("synthesis", (backwards * window).float()[:, None])
        self.register_buffer("envelope", window.square().float()[None, None])

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate ``(b, c, t)`` into ``(b, s, c, t)``."""
        batch, channels, time = mixture.shape
        spectrum = self._transform(mixture.reshape(batch * channels, 1, time))
        power = spectrum.square().sum(dim=(2, 3), keepdim=True).mean(dim=1, keepdim=True)
        scale = (power / self.separator.level_bins + 1e-16).sqrt()
        masks, residuals = self.separator._predict(spectrum / scale)
        real, imaginary = spectrum.transpose(1, 2)[:, None].unbind(-1)
        mask_real, mask_imaginary = masks.unbind(-1)
        products = torch.stack(
            (
                mask_real * real - mask_imaginary * imaginary,
                mask_real * imaginary + mask_imaginary * real,
            ),
            dim=-1,
        )
        waveforms = self._invert(products + residuals * scale[:, None], time)
        sources = len(self.separator.sources)
        return waveforms.reshape(batch, channels, sources, time).transpose(1, 2)

    def _transform(self, waveform: Tensor) -> Tensor:
        """``(b, 1, t)`` to ``(b, frame, f, 2)``."""
        hop = self.separator.transform.hop_length
        # the remainder of a negative number, as in the network itself, is another one in ONNX
        after = hop + (hop - waveform.shape[-1] % hop) % hop
        padded = nn.functional.pad(waveform, (hop, after))
        flat = nn.functional.conv1d(padded, self.analysis, stride=hop)
        return flat.reshape(flat.shape[0], 2, -1, flat.shape[-1]).permute(0, 3, 2, 1)

    def _invert(self, spectrum: Tensor, time: int) -> Tensor:
        """``(b, s, f, frame, 2)`` to ``(b, s, t)``."""
        hop = self.separator.transform.hop_length
        batch, sources, _, frames, _ = spectrum.shape
        flat = spectrum.permute(0, 1, 4, 2, 3).reshape(batch * sources, -1, frames)
        waveform = nn.functional.conv_transpose1d(flat, self.synthesis, stride=hop)
        ones = torch.ones_like(flat[:1, :1])
        weight = nn.functional.conv_transpose1d(ones, self.envelope, stride=hop)
        kept = waveform[..., hop : hop + time] / weight[..., hop : hop + time]
        return kept.reshape(batch, sources, time)


def transform_parameters(separator: BSRNN) -> dict[str, Any]:
    """What another program must know to put its own transforms around the network."""
    return {
        "window": "hann, periodic",
        "window_length": separator.transform.window_length,
        "hop_length": separator.transform.hop_length,
        "fft_length": separator.transform.window_length,
        "centre": "zeros of half a window on both sides, after zeros at the end up to a whole hop",
        "compression": separator.compression,
        "compression_inside": True,
        "scale": f"sqrt(mean over frames of the power summed over bins / {separator.level_bins} + 1e-16)",
        "input": "(batch, frame, bin, real and imaginary) of the spectrum divided by its scale",
        "output": "mask and residual, (batch, source, bin, frame, real and imaginary)",
        "estimate": "mask * spectrum + residual * scale, complex",
    }


def _fourier_filters(length: int) -> tuple[Tensor, Tensor]:
    """Rows ``(2 * bins, length)`` in float64 of the real Fourier transform and of its inverse."""
    angles = 2 * math.pi / length * torch.outer(torch.arange(length // 2 + 1), torch.arange(length)).double()
    forwards = torch.cat((angles.cos(), -angles.sin()))
    # every bin stands for its mirror image too, but for the first and the last
    times = torch.full((length // 2 + 1, 1), 2.0, dtype=torch.float64)
    times[0] = times[-1] = 1.0
    return forwards, forwards * torch.cat((times, times)) / length
