"""Audio of any number of channels through a separator that takes a fixed number."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from encore.models.types import LoadedSeparator, Separator


def match_channels(separator: LoadedSeparator, channels: int) -> Separator:
    """Let a separator take audio of ``channels`` channels.

    A mono separator separates every channel on its own; a separator of more channels gets a mono mixture in
    all of them, and its estimates are averaged over them. What is returned stays one function of the whole
    item, so that a refinement chooses one ratio for all channels.

    Args:
        separator: Says in ``channels`` what it takes.
        channels: Channels of the audio, at least 1.

    Returns:
        A function from ``(batch, channels, time)`` to ``(batch, source, channels, time)``.

    Raises:
        ValueError: If the audio has several channels and the separator another number of them.
    """
    if channels == separator.channels:
        return separator
    if separator.channels == 1:

        def each_channel(mixture: Tensor) -> Tensor:
            estimates = separator(rearrange(mixture, "b c t -> (b c) 1 t"))
            return rearrange(estimates, "(b c) s 1 t -> b s c t", c=channels)

        return each_channel
    if channels == 1:

        def duplicated(mixture: Tensor) -> Tensor:
            return separator(mixture.expand(-1, separator.channels, -1)).mean(dim=2, keepdim=True)

        return duplicated
    raise ValueError(
        f"channels={channels}: the separator takes {separator.channels}; give audio of {separator.channels} "
        "or 1 channels, or a mono separator, which separates every channel"
    )
