"""The interface of the networks of bridges: they estimate spectra and hold their own transform."""

from __future__ import annotations

from torch import Tensor

from encore.models.separators.contract import AudioNetwork
from encore.models.separators.spectral import WindowedTransform


class SpectralDenoiser(AudioNetwork):
    """A network that estimates the sources in a state of a bridge, conditioned on time and mixture."""

    transform: WindowedTransform

    def analyze(self, waveforms: Tensor) -> Tensor:
        """Transform ``(b, n, c, t)`` to complex spectra ``(b, n, c, x, y)``, at the waveforms' level."""
        return self.transform(waveforms) / self.transform.gain

    def synthesize(self, spectra: Tensor, time: int) -> Tensor:
        """Invert `analyze`: ``(b, n, c, x, y)`` to ``(b, n, c, time)``."""
        return self.transform.inverse(spectra * self.transform.gain, time)

    def forward(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate the sources.

        Args:
            state: ``(b, s, c, x, y)``, complex, at the mixture's level.
            t: ``(b,)`` in [0, 1].
            mixture: ``(b, 1, c, x, y)``, complex.

        Returns:
            ``(b, s, c, x, y)``, complex.
        """
        raise NotImplementedError
