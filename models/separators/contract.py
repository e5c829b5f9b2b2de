"""What every adapter of another project's network checks: what it is told to be, and what it is given."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def check_description(sources: Sequence[str], sample_rate: int, channels: int) -> None:
    """Check what a separator is told to be.

    Args:
        sources: Names of the estimated sources.
        sample_rate: Rate in Hz.
        channels: Number of audio channels.

    Raises:
        ValueError: If the names are none, not different or one string, or a number is not positive.
    """
    if isinstance(sources, str) or not sources or len(set(sources)) != len(sources):
        raise ValueError(f"sources={sources!r}: give a list of different names, such as ['speech']")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate={sample_rate}: give a positive rate in Hz, such as 16000")
    if channels < 1:
        raise ValueError(f"channels={channels}: give the number of channels, 1 or more")


def check_mixture(mixture: Tensor, channels: int) -> None:
    """Check the shape of what a separator is given.

    Args:
        mixture: What should be ``(batch, channel, time)``.
        channels: Number of audio channels that the separator takes.

    Raises:
        ValueError: If the mixture has another shape, or no sample.
    """
    if mixture.ndim != 3 or mixture.shape[1] != channels or mixture.shape[2] == 0:
        raise ValueError(
            f"mixture has shape {tuple(mixture.shape)}: give (batch, channel, time) "
            f"with {channels} channel(s) and at least one sample"
        )
