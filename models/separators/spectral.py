"""What separators that work on spectra share: the transform with its inverse, and a normalisation."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class WindowedTransform(nn.Module):
    """Short-time Fourier transform and its inverse, in float32, with lengths in seconds.

    Args:
        sample_rate: Rate of the audio in Hz.
        window_seconds: Length of the Hann window, made an even number of samples.
        hop_seconds: Hop, at most half the window.

    Raises:
        ValueError: If the window is shorter than four samples, or the hop does not fit.
    """

    def __init__(self, sample_rate: int, window_seconds: float, hop_seconds: float) -> None:
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
        self.bin_width = sample_rate / window
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def bins_below(self, frequency: float) -> int:
        """Number of bins from 0 Hz up to below a frequency, at most all but the Nyquist frequency's.

        Args:
            frequency: In Hz.

        Returns:
            1 to half the window's length.

        Raises:
            ValueError: If no bin is below.
        """
        bins = min(round(frequency / self.bin_width), self.window_length // 2)
        if bins < 1:
            raise ValueError(
                f"highest_frequency={frequency:g} holds no bin: give {self.bin_width:.4g} Hz or more"
            )
        return bins

    def forward(self, waveform: Tensor, multiple: int = 1) -> Tensor:
        """Transform, for any length.

        Args:
            waveform: ``(b, c, time)``; behind its end it is padded with zeros.
            multiple: Of what the number of frames is to be a multiple.

        Returns:
            A complex spectrum ``(b, c, frame, f)``.
        """
        # at least to a whole hop: where only the end of a last window reaches, inversion divides by nearly 0
        padding = -(waveform.shape[-1] + self.hop_length) % (multiple * self.hop_length)
        spectrum = torch.stft(
            rearrange(F.pad(waveform.float(), (0, padding)), "b c t -> (b c) t"),
            self.window_length,
            self.hop_length,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        # frequency last, as it lies in memory: inversion is several times faster that way
        return rearrange(spectrum, "(b c) f t -> b c t f", c=waveform.shape[1])

    def inverse(self, spectrum: Tensor, time: int) -> Tensor:
        """A complex spectrum ``(b, s, c, frame, f)`` to waveforms ``(b, s, c, time)``."""
        flat = rearrange(spectrum, "b s c t f -> (b s c) f t")
        waveform = torch.istft(flat, self.window_length, self.hop_length, window=self.window, center=True)
        # cut here, because torch.export cannot leave the inversion's own length open
        return rearrange(
            waveform[..., :time], "(b s c) t -> b s c t", s=spectrum.shape[1], c=spectrum.shape[2]
        )

    def level(self, waveform: Tensor) -> Tensor:
        """Root mean square ``(b, 1, 1, 1)`` of the bins of a waveform's spectrum; never 0."""
        power = waveform.float().square().mean(dim=(1, 2))[:, None, None, None]
        return (power * self.window.square().sum() + 1e-16).sqrt()


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation of groups of eight channels, all together where their number is no multiple of eight."""
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)
