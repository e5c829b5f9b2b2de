"""The interface of the networks of bridges: they estimate spectra and hold their own transform."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class SpectralDenoiser(Protocol):
    """A network that estimates the sources in a state of a bridge, conditioned on time and mixture."""

    sources: tuple[str, ...]
    sample_rate: int
    channels: int

    def analyze(self, waveforms: Tensor) -> Tensor:
        """Transform ``(b, n, c, t)`` to complex spectra ``(b, n, c, x, y)`` of unit-scaled windows."""
        ...

    def synthesize(self, spectra: Tensor, time: int) -> Tensor:
        """Invert `analyze`: ``(b, n, c, x, y)`` to ``(b, n, c, time)``."""
        ...

    def __call__(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate the sources.

        Args:
            state: ``(b, s, c, x, y)``, complex, at the mixture's level.
            t: ``(b,)`` in [0, 1].
            mixture: ``(b, 1, c, x, y)``, complex.

        Returns:
            ``(b, s, c, x, y)``, complex.
        """
        ...
