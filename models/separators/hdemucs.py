"""Hybrid Demucs: one U-Net on the waveform and one on its spectrum that meet in the middle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchaudio import models as torchaudio_models

from encore.models.levels import Standardising
from encore.models.separators.contract import check_description, check_mixture

FFT_LENGTHS = (256, 1024, 2048, 4096, 16384)
"""Those at whose hop, a quarter of them, both branches of torchaudio's network have equally many steps."""


class HDemucs(Standardising):
    """Hybrid Demucs as a separator: ``torchaudio.models.HDemucs`` for any rate, length and level.

    Four things are added to the network:

    - *Rate.* The FFT length is the one of `FFT_LENGTHS` that is nearest to ``window_seconds``: with the
      default 1024 at 8 kHz, 2048 at 16 to 24 kHz and 4096 at 32 to 48 kHz.
    - *Length.* Behind its end the normalised mixture is padded with zeros to whole hops of a quarter of the
      FFT length, and the estimates are cut back, so every length from one sample up comes out as it went in.
    - *Level.* Every item is normalised by mean and standard deviation over time of the mean of its channels,
      and the estimates are denormalised with both, as the network's users do.
    - *Silence.* A mixture without any deviation is not divided by zero.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio, separated together.
        width: Channels of the first layer of the network.
        depth: Layers of encoder and decoder: at least those that bring the spectrum down to one bin, which
            are 3, 4, 5, 5 and 6 for the FFT lengths; the layers beyond run on the merged branches.
        growth: How many times wider each layer is than the one before.
        window_seconds: Length of the analysis window in seconds, 4096 samples at 44.1 kHz as published.

    Raises:
        ValueError: If a value makes no sense, no FFT length is near the window, or the layers do not fit.

    Source: A. Défossez, "Hybrid Spectrogram and Waveform Source Separation", 2021.
    """

    def __init__(
        self,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 2,
        width: int = 48,
        depth: int = 6,
        growth: int = 2,
        window_seconds: float = 4096 / 44100,
    ) -> None:
        super().__init__()
        check_description(sources, sample_rate, channels)
        fft_length = nearest_fft_length(window_seconds, sample_rate)
        _check_layers(width, depth, growth, fft_length)
        self.sources = tuple(str(name) for name in sources)
        self.sample_rate = int(sample_rate)
        self.channels = int(channels)
        self.hop_length = fft_length // 4
        self.network: Any = torchaudio_models.HDemucs(
            list(self.sources),
            audio_channels=self.channels,
            channels=width,
            growth=growth,
            nfft=fft_length,
            depth=depth,
        )
        # where the branches meet, the time branch has one convolution only; trainable but without a gradient,
        # the normalisation that the network builds there all the same stops distributed training
        self.network.time_encoder[-1].norm1.requires_grad_(False)

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
        return self.at_own_level(self._of_whole_hops, mixture)

    def _of_whole_hops(self, mixture: Tensor) -> Tensor:
        """Call the network, which loses count of its frames where a short mixture has less than that."""
        length = mixture.shape[-1]
        estimates: Tensor = self.network(F.pad(mixture, (0, -length % self.hop_length)))[..., :length]
        return estimates


def nearest_fft_length(window_seconds: float, sample_rate: int) -> int:
    """The FFT length of the network that is nearest to a window, as a ratio.

    >>> [nearest_fft_length(4096 / 44100, rate) for rate in (8000, 16000, 22050, 44100)]
    [1024, 2048, 2048, 4096]

    Args:
        window_seconds: Length of the window in seconds.
        sample_rate: Rate in Hz.

    Returns:
        One of `FFT_LENGTHS`.

    Raises:
        ValueError: If the nearest is more than half as long again as the window, or the window than it.
    """
    wanted = window_seconds * sample_rate
    if not wanted > 0:
        raise ValueError(f"window_seconds={window_seconds}: give a positive time, such as 0.093")
    nearest = min(FFT_LENGTHS, key=lambda length: abs(math.log(length / wanted)))
    if not 2 / 3 <= nearest / wanted <= 3 / 2:
        known = ", ".join(str(length) for length in FFT_LENGTHS)
        raise ValueError(
            f"window_seconds={window_seconds:g} is {wanted:.0f} samples at {sample_rate} Hz, but FFT lengths "
            f"are {known}: give {nearest / sample_rate:.4g}"
        )
    return nearest


def _check_layers(width: int, depth: int, growth: int, fft_length: int) -> None:
    """Check that the network can be built and run; it fails late, or not in words, where it cannot."""
    bins, needed = fft_length // 2, 1
    while bins > 8:
        bins, needed = bins // 4, needed + 1
    if depth < needed:
        raise ValueError(f"depth={depth} is too small for an FFT of {fft_length}: give {needed} or more")
    if width < 4 or growth < 1:
        raise ValueError(
            f"width={width} with growth={growth}: give a width of 4 or more, a growth of 1 or more"
        )
    channels = width
    for layer in range(depth):
        # group normalisation and attention, four groups and heads of a quarter of the channels, start there
        if layer >= 4 and (channels < 16 or channels % 16):
            raise ValueError(
                f"width={width} with growth={growth} gives layer {layer + 1} {channels} channels: "
                "choose them so that from the fifth layer on it is a multiple of 16"
            )
        channels *= growth
