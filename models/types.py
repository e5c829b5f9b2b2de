"""The callables that the whole project is built from: a separator is a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

Separator = Callable[[Tensor], Tensor]
"""Mixture ``(batch, channel, time)`` to estimates ``(batch, source, channel, time)``, in its unit."""

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""State ``(batch, ...)`` and time or noise level ``(batch,)`` to the clean estimate, the state's shape."""


@runtime_checkable
class LoadedSeparator(Protocol):
    """A separator that also says what it separates: what `encore.models.load_separator` returns."""

    sources: tuple[str, ...]
    """Names of the estimated sources, in the order of the estimates' source axis."""

    sample_rate: int
    """Rate in Hz that mixture and estimates have."""

    channels: int
    """Channels that the mixture must have and that every estimate has."""

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(batch, channel, time)`` into ``(batch, source, channel, time)``."""
        ...


def interchangeable(sources: Sequence[str]) -> bool:
    """Whether sources differ by their number only, so that a separator may give them in any order.

    >>> interchangeable(["speaker1", "speaker2"]), interchangeable(["speaker1", "noise"])
    (True, False)
    """
    return [len(group) for group in exchangeable(sources)] == [len(sources)]


Groups = Sequence[Sequence[int]]
"""Places of sources that come in any order among themselves, group by group."""


def exchangeable(sources: Sequence[str]) -> Groups:
    """Places of the sources that may come in any order among themselves, group by group.

    >>> exchangeable(["speech1", "sound", "speech2"]), exchangeable(["vocals", "drums"])
    ([[0, 2]], [])
    """
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(sources):
        if name[-1:].isdigit():
            groups.setdefault(name.rstrip("0123456789"), []).append(place)
    return [group for group in groups.values() if len(group) > 1]
