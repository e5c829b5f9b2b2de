"""The callables that the whole project is built from: a separator is a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

Separator = Callable[[Tensor], Tensor]
"""Mixture ``(batch, channel, time)`` to estimates ``(batch, source, channel, time)``, in its unit."""

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""State ``(batch, ...)`` and time or noise level ``(batch,)`` to the clean estimate, the state's shape."""


@runtime_checkable
class LoadedSeparator(Protocol):
    """A separator that also says what it separates: what :func:`models.load_separator` returns."""

    sources: tuple[str, ...]
    """Names of the estimated sources, in the order of the estimates' source axis."""

    sample_rate: int
    """Rate in Hz that mixture and estimates have."""

    channels: int
    """Channels that the mixture must have and that every estimate has."""

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(batch, channel, time)`` into ``(batch, source, channel, time)``."""
        ...
