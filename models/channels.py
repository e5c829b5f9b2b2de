"""Adapt a separator of a fixed number of channels to audio of another number."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from encore.models.types import LoadedSeparator, Separator


def match_channels(separator: LoadedSeparator, channels: int) -> Separator:
    """Wrap a separator so that it accepts audio of ``channels`` channels.

    A mono separator separates every channel on its own; a separator of more channels gets a mono mixture in
    all of them, and its estimates are averaged over them. The result is one function of the whole item, so
    that a refinement chooses one mixing ratio for all channels.

    Args:
        separator: Accepts its attribute ``channels`` of channels.
        channels: Channels of the audio, at least 1.

    Returns:
        A separator from ``(batch, channels, time)`` to ``(batch, source, channels, time)``.

    Raises:
        ValueError: If the audio has several channels and the separator another number of them.
    """
    if channels == separator.channels:
        return separator
    if separator.channels == 1 or channels == 1:
        return _MatchedChannels(separator, channels)
    raise ValueError(
        f"channels={channels}: the separator takes {separator.channels}; give audio of {separator.channels} "
        "or 1 channels, or a mono separator, which separates every channel"
    )


class _MatchedChannels:
    """A separator of mono audio by channel, or of several channels for mono audio."""

    def __init__(self, separator: LoadedSeparator, channels: int) -> None:
        self.separator, self.channels = separator, channels
        self.sources, self.sample_rate = separator.sources, separator.sample_rate

    def __call__(self, mixture: Tensor) -> Tensor:
        if self.channels == 1:
            several = mixture.expand(-1, self.separator.channels, -1)
            return self.separator(several).mean(dim=2, keepdim=True)
        estimates = self.separator(rearrange(mixture, "b c t -> (b c) 1 t"))
        return rearrange(estimates, "(b c) s 1 t -> b s c t", c=self.channels)
