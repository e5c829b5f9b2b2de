"""What spectral networks share: their transform, compression, normalization and recurrences."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from encore.common.dsp import Padding, istft, stft


class WindowedTransform(nn.Module):
    """Short-time Fourier transform and its inverse, in float32, with lengths in seconds.

    Args:
        sample_rate: Rate of the audio in Hz.
        window_seconds: Length of the Hann window, rounded to an even number of samples.
        hop_seconds: Hop, at most half the window.
        padding: See `encore.common.dsp.Padding`.
        multiple: The number of frames becomes a multiple of this.
        highest_frequency: Upper end in Hz of a network's input; None for all bins.
        root: Whether the window is the square root of the Hann window.

    Attributes:
        bins: Number of bins from 0 Hz up to below the highest frequency, without the Nyquist bin.

    Raises:
        ValueError: If the window is shorter than four samples, the hop does not fit, or no bin is below.
    """

    def __init__(
        self,
        sample_rate: int,
        window_seconds: float,
        hop_seconds: float,
        padding: Padding = "constant",
        multiple: int = 1,
        highest_frequency: float | None = None,
        root: bool = False,
    ) -> None:
        super().__init__()
        window, hop = 2 * round(window_seconds * sample_rate / 2), round(hop_seconds * sample_rate)
        if window < 4:
            raise ValueError(
                f"window_seconds={window_seconds:g} is {window} samples: give {4 / sample_rate:.3g} or more"
            )
        if not 1 <= hop <= window // 2:
            raise ValueError(
                f"hop_seconds={hop_seconds:g} is {hop} samples: give 1 to {window // 2}, half a window of "
                f"window_seconds={window_seconds:g}"
            )
        self.window_length, self.hop_length = window, hop
        self.padding, self.multiple = padding, multiple
        self.bins = window // 2 + 1
        if highest_frequency is not None:
            self.bins = min(round(highest_frequency * window / sample_rate), window // 2)
        if self.bins < 1:
            raise ValueError(
                f"highest_frequency={highest_frequency:g} holds no bin: give {sample_rate / window:.4g} Hz "
                "or more"
            )
        self.window: Tensor
        taper = torch.hann_window(window)
        self.register_buffer("window", taper.sqrt() if root else taper, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Transform ``(..., time)`` of any length, padded with zeros at its end, to ``(..., frame, f)``."""
        time = waveform.shape[-1]
        # mirroring half a window takes one sample more than that
        length = max(time, self.window_length // 2 + 1) if self.padding == "reflect" else time
        # at least to a whole hop: where only the last window's tail reaches, inversion divides by nearly 0
        padding = length - time + -(length + self.hop_length) % (self.multiple * self.hop_length)
        padded = F.pad(waveform.float(), (0, padding))
        # frequency last, as it is in memory: inversion is several times faster that way
        return stft(padded, self.window, self.hop_length, padding=self.padding).transpose(-2, -1)

    def inverse(self, spectrum: Tensor, time: int) -> Tensor:
        """Invert a complex spectrum ``(..., frame, f)`` to waveforms ``(..., time)``."""
        waveform = istft(spectrum.transpose(-2, -1), self.window, hop=self.hop_length)
        # cut here, because torch.export cannot leave the inversion's own length open
        return waveform[..., :time]

    @property
    def gain(self) -> Tensor:
        """The root of the squared window's sum: spectra over it are at the waveform's level."""
        return self.window.square().sum().sqrt()

    def level(self, waveform: Tensor) -> Tensor:
        """Return the root mean square ``(b, 1, 1, 1)`` of the bins of a waveform's spectrum; never 0."""
        power = waveform.float().square().mean(dim=(1, 2))[:, None, None, None]
        return (power * self.window.square().sum() + 1e-16).sqrt()


def as_complex(real: Tensor) -> Tensor:
    """Return ``(..., 2)`` as complex numbers; under autocast it may be bfloat16, which has none."""
    return torch.view_as_complex(real.float().contiguous())


def compress(real: Tensor, exponent: float) -> Tensor:
    """Raise the magnitudes of complex numbers ``(..., 2)`` to a power, with a finite slope at 0."""
    if exponent == 1:
        return real
    power = real.square().sum(dim=-1, keepdim=True)
    return real * (power + 1e-6) ** ((exponent - 1) / 2)


def run_layer(layer: Any, *inputs: Any, checkpointing: bool) -> Any:
    """Call a layer, which with checkpointing keeps its inputs only and is computed again for gradients."""
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a normalization of groups of eight channels; of all of them if they are no multiple of eight."""
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)


Film = tuple[Tensor, Tensor]
"""Scale, added to 1, and shift ``(batch, features)`` of the input of a layer."""


class Recurrence(nn.Module):
    """Residual bidirectional LSTM along the last axis but one of ``(b, other, sequence, features)``.

    Args:
        features: Width N of the features; the LSTM has 2N units per direction.
        norm: Normalizes its input ``(b, sequence, features)``.
    """

    def __init__(self, features: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.rnn = nn.LSTM(features, 2 * features, batch_first=True, bidirectional=True)
        self.projection = nn.Linear(4 * features, features)

    def forward(self, x: Tensor, film: Film | None = None) -> Tensor:
        """Map ``(b, other, sequence, features)`` to the same shape."""
        flat = self.norm(rearrange(x, "b o q n -> (b o) q n"))
        if film is not None:
            scale, shift = (part.repeat_interleave(x.shape[1], dim=0)[:, None] for part in film)
            flat = flat * (1 + scale) + shift
        out, _ = self.rnn(flat)
        return x + rearrange(self.projection(out), "(b o) q n -> b o q n", b=x.shape[0])
