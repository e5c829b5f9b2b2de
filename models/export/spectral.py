"""The band-split network without complex numbers, which ONNX has none of."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
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
        time = mixture.shape[-1]
        spectrum = self._transform(rearrange(mixture, "b c t -> (b c) 1 t"))
        power = spectrum.square().sum(dim=(2, 3), keepdim=True).mean(dim=1, keepdim=True)
        scale = (power / self.separator.level_bins + 1e-16).sqrt()
        masks, residuals = self.separator._predict(spectrum / scale)
        real, imaginary = spectrum.transpose(1, 2)[:, None].unbind(-1)
        mask, other = masks.unbind(-1)
        products = torch.stack((mask * real - other * imaginary, mask * imaginary + other * real), dim=-1)
        waveforms = self._invert(products + residuals * scale[:, None], time)
        return rearrange(waveforms, "(b c) s t -> b s c t", c=mixture.shape[1])

    def _transform(self, waveform: Tensor) -> Tensor:
        """``(b, 1, t)`` to ``(b, frame, f, 2)``."""
        hop = self.separator.transform.hop_length
        # the remainder of a negative number, as in the network itself, is another one in ONNX
        after = hop + (hop - waveform.shape[-1] % hop) % hop
        padded = nn.functional.pad(waveform, (hop, after))
        flat = nn.functional.conv1d(padded, self.analysis, stride=hop)
        return rearrange(flat, "b (r f) t -> b t f r", r=2)

    def _invert(self, spectrum: Tensor, time: int) -> Tensor:
        """``(b, s, f, frame, 2)`` to ``(b, s, t)``."""
        hop = self.separator.transform.hop_length
        flat = rearrange(spectrum, "b s f t r -> (b s) (r f) t")
        waveform = nn.functional.conv_transpose1d(flat, self.synthesis, stride=hop)
        ones = torch.ones_like(flat[:1, :1])
        weight = nn.functional.conv_transpose1d(ones, self.envelope, stride=hop)
        kept = waveform[..., hop : hop + time] / weight[..., hop : hop + time]
        return rearrange(kept, "(b s) 1 t -> b s t", b=spectrum.shape[0])


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
    """Return rows ``(2 * bins, length)`` in float64 of the real Fourier transform and of its inverse."""
    forwards = torch.fft.rfft(torch.eye(length, dtype=torch.float64)).T
    units = torch.eye(len(forwards), dtype=torch.complex128)
    backwards = torch.fft.irfft(torch.cat((units, 1j * units)), length)
    return torch.cat((forwards.real, forwards.imag)), backwards
