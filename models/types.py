"""The callables of the project: a separator is a function."""

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
    """Return whether all sources differ by their number only, so that they may come in any order.

    >>> interchangeable(["speaker1", "speaker2"]), interchangeable(["speaker1", "noise"])
    (True, False)
    """
    return [len(group) for group in permutation_groups(sources)] == [len(sources)]


Groups = Sequence[Sequence[int]]
"""Positions of sources that come in any order among themselves, group by group."""


def permutation_groups(sources: Sequence[str]) -> Groups:
    """Return the positions of sources that may come in any order among themselves, group by group.

    >>> permutation_groups(["speech1", "sound", "speech2"]), permutation_groups(["vocals", "drums"])
    ([[0, 2]], [])
    """
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(sources):
        if name[-1:].isdigit():
            groups.setdefault(name.rstrip("0123456789"), []).append(place)
    return [group for group in groups.values() if len(group) > 1]
