"""A bridge's data predictor as a separator: network, bridge and the domain of the bridge's states."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from encore.models.denoisers.preconditioning import Preconditioning
from encore.models.processes.bridge import Bridge
from encore.models.separators.contract import AudioNetwork, check_mixture
from encore.models.separators.spectral import WindowedTransform

Domain = Literal["waveform", "compressed"]
"""``"waveform"``, over the mixture's root mean square, where the mean of a straight bridge is linear mixing.
``"compressed"``: the spectrum ``scale |X|^0.5 e^(j phase)`` of the mixture over its peak, for which the
constants of SB, BBED and OUVE were published."""


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


class BridgeSeparator(nn.Module):
    """Separate in one step, ``D(x_0, 1, x_0)``, or serve a sampler of the bridge.

    A sampler calls `encode` for states, `denoise` for estimates of the sources in them, and `decode` for
    waveforms.

    Args:
        network: Estimates the sources, such as `encore.models.denoisers.conditioned_bsrnn.ConditionedBSRNN`.
        bridge: The process; its noise is in units of the domain's states.
        domain: Domain of the states.
        scale: Of the compressed spectrum, for windows scaled to the waveform's level; the default equals the
            published 0.15 for Hann windows of 510 samples without that scaling.
        preconditioning: See `encore.models.denoisers.preconditioning`; None for the network alone.

    Raises:
        ValueError: If the domain is unknown.

    Source: A. Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", 2024 (data prediction
    and domain); docs/methods.md.
    """

    def __init__(
        self,
        network: nn.Module,
        bridge: Bridge,
        domain: Domain = "waveform",
        scale: float = 0.557,
        preconditioning: Preconditioning | None = None,
    ) -> None:
        super().__init__()
        if domain not in get_args(Domain):
            raise ValueError(f"domain={domain!r}: choose {' or '.join(get_args(Domain))}")
        if not isinstance(network, SpectralDenoiser):
            raise ValueError(f"network={type(network).__name__}: give a network of encore.models.denoisers")
        if not scale > 0:
            raise ValueError(f"scale={scale}: give a number above 0")
        self.network: Any = network
        self.bridge, self.domain, self.scale = bridge, domain, scale
        self.preconditioning = preconditioning
        self.sources: tuple[str, ...] = network.sources
        self.sample_rate: int = network.sample_rate
        self.channels: int = network.channels

    def forward(self, mixture: Tensor, ratio: Tensor | None = None, original: Tensor | None = None) -> Tensor:
        """Separate in one step.

        Args:
            mixture: ``(batch, channel, time)``, any level; with the other two, a mix of the mixture and an
                estimate, used as the state of every source.
            ratio: ``(batch,)`` its mixing ratio, used as the time in the bridge; None for 1.
            original: ``(batch, channel, time)`` the mixture itself; None for ``mixture``.

        Returns:
            Estimates ``(batch, source, channel, time)`` in the mixture's unit.

        Raises:
            ValueError: If the shape of the mixture is wrong.
        """
        check_mixture(mixture, self.channels)
        original = mixture if original is None else original
        level = self.level(original)
        t = mixture.new_ones(mixture.shape[0]) if ratio is None else ratio.to(mixture)
        state = self.encode(mixture[:, None].expand(-1, len(self.sources), -1, -1), level)
        return self.estimate(state, t, self.encode(original[:, None], level), level, mixture.shape[-1])

    def level(self, mixture: Tensor) -> Tensor:
        """Return the unit of states, ``(b, 1, 1, 1)``: the mixture's root mean square, or its peak."""
        if self.domain == "waveform":
            return (mixture.square().mean(dim=(1, 2))[:, None, None, None] + 1e-16).sqrt()
        return mixture.abs().amax(dim=(1, 2))[:, None, None, None].clamp_min(1e-8)

    def encode(self, waveforms: Tensor, level: Tensor) -> Tensor:
        """Return the states ``(b, n, c, t)``, or complex ``(b, n, c, x, y)``, of waveforms ``(b, n, c, t)``.

        Args:
            waveforms: The waveforms.
            level: Of their mixtures, from `level`.
        """
        if self.domain == "waveform":
            return waveforms / level
        return self._compress(self.network.analyze(waveforms / level))

    def decode(self, states: Tensor, level: Tensor, time: int) -> Tensor:
        """Invert `encode` to waveforms ``(b, n, c, time)``."""
        if self.domain == "waveform":
            return states * level
        return self._waveforms(self._expand(states), level, time)

    def denoise(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate the sources in a state.

        Args:
            state: ``(b, s, c, ...)``, of all sources.
            t: ``(b,)`` in [0, 1].
            mixture: ``(b, 1, c, ...)``, the mixture's state.

        Returns:
            Estimates, states like ``state``.
        """
        spectra = self._estimate(state, t, mixture)
        if self.domain == "waveform":
            return self.network.synthesize(spectra, state.shape[-1])
        return self._compress(spectra)

    def estimate(self, state: Tensor, t: Tensor, mixture: Tensor, level: Tensor, time: int) -> Tensor:
        """Estimate like `denoise`, but waveforms ``(b, s, c, time)`` at the mixture's level."""
        return self._waveforms(self._estimate(state, t, mixture), level, time)

    def _estimate(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate spectra of the sources in a state, over the level."""
        if self.preconditioning is None:
            return self.network(self._spectra(state), t, self._spectra(mixture))
        weights = self.preconditioning(self.bridge, t)
        skip, out, into = (weight.reshape(-1, *(1 for _ in state.shape[1:])) for weight in weights)
        found = self.network(self._spectra(into * state), t, self._spectra(mixture))
        if self.domain == "waveform":
            skip, out = skip[..., None], out[..., None]
            return skip * self._spectra(state) + out * found
        return self._expand(skip * state + out * self._compress(found))

    def _spectra(self, states: Tensor) -> Tensor:
        return self.network.analyze(states) if self.domain == "waveform" else self._expand(states)

    def _waveforms(self, spectra: Tensor, level: Tensor, time: int) -> Tensor:
        waveforms: Tensor = self.network.synthesize(spectra, time)
        return waveforms * level

    def _compress(self, spectra: Tensor) -> Tensor:
        """Compress to ``scale |X|^0.5 e^(j phase)``, with a finite slope at 0."""
        power = torch.view_as_real(spectra).square().sum(dim=-1)
        return self.scale * spectra * (power + 1e-12) ** -0.25

    def _expand(self, states: Tensor) -> Tensor:
        """Invert `_compress`."""
        return states * states.abs() / self.scale**2
