"""What the networks of bridges have in common: they work on spectra, and bring their own transform."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class SpectralDenoiser(Protocol):
    """A network that finds the sources in a state of a bridge, told the time and the mixture."""

    sources: tuple[str, ...]
    sample_rate: int
    channels: int

    def analyse(self, waveforms: Tensor) -> Tensor:
        """Waveforms ``(b, n, c, t)`` to complex spectra ``(b, n, c, x, y)`` of unit-scaled windows."""
        ...

    def synthesise(self, spectra: Tensor, time: int) -> Tensor:
        """The inverse: ``(b, n, c, x, y)`` to ``(b, n, c, time)``."""
        ...

    def __call__(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimates of the sources.

        Args:
            state: ``(b, s, c, x, y)``, complex, at the mixture's level.
            t: ``(b,)`` in [0, 1].
            mixture: ``(b, 1, c, x, y)``, complex.

        Returns:
            ``(b, s, c, x, y)``, complex.
        """
        ...
