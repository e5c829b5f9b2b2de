"""Hybrid Demucs: a U-Net on the waveform and one on its spectrum with a common bottleneck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchaudio import models as torchaudio_models

from encore.models.levels import InputNormalization
from encore.models.separators.contract import AdaptedSeparator

FFT_LENGTHS = (256, 1024, 2048, 4096, 16384)
"""Lengths at whose hop, a quarter of them, both branches of torchaudio's network have equally many steps."""


class HDemucs(InputNormalization, AdaptedSeparator):
    """Separate by ``torchaudio.models.HDemucs``, at any rate, length and level.

    - *Rate.* The FFT length is the one of `FFT_LENGTHS` nearest to ``window_seconds``: with the default 1024
      at 8 kHz, 2048 at 16 to 24 kHz and 4096 at 32 to 48 kHz.
    - *Length.* The mixture is padded with zeros at its end to whole hops of a quarter of the FFT length.
    - *Level.* Every item is normalized by mean and standard deviation over time of the mean of its channels,
      and the estimates are denormalized with both; silence stays finite.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate of the audio in Hz.
        channels: Channels of the audio, separated together.
        width: Channels of the first layer of the network.
        depth: Layers of encoder and decoder, at least those that reduce the spectrum to one bin: 3, 4, 5, 5
            and 6 for the FFT lengths. The layers beyond run on the merged branches.
        growth: Ratio of the widths of successive layers.
        window_seconds: Length of the analysis window; 4096 samples at 44.1 kHz as published.

    Raises:
        ValueError: If a value is invalid, no FFT length is near the window, or the layers do not fit.

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
        super().__init__(sources, sample_rate, channels)
        fft_length = nearest_fft_length(window_seconds, sample_rate)
        _check_layers(width, depth, growth, fft_length)
        # without whole hops it miscounts the frames of short mixtures
        self.shortest = self.step = fft_length // 4
        self.network: Any = torchaudio_models.HDemucs(
            list(self.sources),
            audio_channels=self.channels,
            channels=width,
            growth=growth,
            nfft=fft_length,
            depth=depth,
        )
        # where the branches merge, the time branch is one convolution; the normalization that the network
        # builds there gets no gradient, which would stop distributed training
        self.network.time_encoder[-1].norm1.requires_grad_(False)

    def separate(self, mixture: Tensor) -> Tensor:
        """See `SeparatorNetwork`."""
        return self.at_own_level(super().separate, mixture)


def nearest_fft_length(window_seconds: float, sample_rate: int) -> int:
    """Return the one of `FFT_LENGTHS` that is nearest to a window, as a ratio.

    >>> [nearest_fft_length(4096 / 44100, rate) for rate in (8000, 16000, 22050, 44100)]
    [1024, 2048, 2048, 4096]

    Raises:
        ValueError: If the two lengths differ by more than a factor of 1.5.
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
    """Check that the network can be built and run, because it fails late or without a message."""
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
        # group normalization and attention, four groups and heads of a quarter of the channels, begin there
        if layer >= 4 and (channels < 16 or channels % 16):
            raise ValueError(
                f"width={width} with growth={growth} gives layer {layer + 1} {channels} channels: "
                "choose them so that from the fifth layer on it is a multiple of 16"
            )
        channels *= growth
