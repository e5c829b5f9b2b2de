"""A bridge's data predictor as a separator: network, bridge and the domain in which the bridge lives."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from encore.models.denoisers.contract import SpectralDenoiser
from encore.models.denoisers.preconditioning import Preconditioning
from encore.models.processes.bridge import Bridge
from encore.models.separators.contract import check_mixture

Domain = Literal["waveform", "compressed"]
"""``"waveform"``, over the mixture's root mean square: there the mean of a straight bridge is data mixing.
``"compressed"``: the spectrum ``scale |X|^0.5 e^(j phase)`` of the mixture over its peak, which is what the
constants published for SB, BBED and OUVE are for."""


class BridgeSeparator(nn.Module):
    """Separate in one step, ``D(x_0, 1, x_0)``, or give what a sampler of the bridge needs.

    The sampler asks `encode` for states, `denoise` for estimates of the sources in them, and
    `decode` for waveforms; `encore.inference.sample_bridge` does.

    Args:
        network: Finds the sources, such as `encore.models.denoisers.conditioned_bsrnn.ConditionedBSRNN`.
        bridge: The process; its noise is in the unit of the domain's states.
        domain: Where the bridge lives.
        scale: Of the compressed spectrum, of windows scaled to the waveform's level; the default is
            the published 0.15 of Hann windows of 510 samples that are not scaled.
        preconditioning: What the network is not left to find, see `encore.models.denoisers.preconditioning`;
            None for the network alone.

    Raises:
        ValueError: If the domain is unknown.

    Source: A. Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", 2024 (data prediction
    and domain); docs/methods.md.
    """

    takes_shares = True

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

    def forward(self, mixture: Tensor, share: Tensor | None = None, original: Tensor | None = None) -> Tensor:
        """Separate in one step.

        Args:
            mixture: ``(batch, channel, time)``, any level; a blend, if the other two are given, which is then
                the state of every source.
            share: ``(batch,)`` the mixture's share in it, which is then the time in the bridge; None for 1.
            original: ``(batch, channel, time)`` the mixture itself; None for ``mixture``.

        Returns:
            Estimates ``(batch, source, channel, time)`` in the mixture's unit.

        Raises:
            ValueError: If the shape of the mixture is wrong.
        """
        check_mixture(mixture, self.channels)
        original = mixture if original is None else original
        level = self.level(original)
        t = mixture.new_ones(len(mixture)) if share is None else share.to(mixture)
        state = self.encode(mixture[:, None].expand(-1, len(self.sources), -1, -1), level)
        found = self._estimate(state, t, self.encode(original[:, None], level))
        return self._waveforms(found, level, mixture.shape[-1])

    def level(self, mixture: Tensor) -> Tensor:
        """What states are in units of, ``(b, 1, 1, 1)``: the mixture's root mean square, or its peak."""
        if self.domain == "waveform":
            return (mixture.square().mean(dim=(1, 2))[:, None, None, None] + 1e-16).sqrt()
        return mixture.abs().amax(dim=(1, 2))[:, None, None, None].clamp_min(1e-8)

    def encode(self, waveforms: Tensor, level: Tensor) -> Tensor:
        """States of waveforms.

        Args:
            waveforms: ``(b, n, c, t)``.
            level: Of their mixtures, from `level`.

        Returns:
            ``(b, n, c, t)``, or complex ``(b, n, c, x, y)``.
        """
        if self.domain == "waveform":
            return waveforms / level
        return self._compressed(self.network.analyse(waveforms / level))

    def decode(self, states: Tensor, level: Tensor, time: int) -> Tensor:
        """Waveforms ``(b, n, c, time)`` of states, at the level that they had before."""
        if self.domain == "waveform":
            return states * level
        return self._waveforms(self._expanded(states), level, time)

    def denoise(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """The sources in a state.

        Args:
            state: ``(b, s, c, ...)``, of all sources.
            t: ``(b,)`` in [0, 1].
            mixture: ``(b, 1, c, ...)``, the mixture's state.

        Returns:
            Estimates, states like ``state``.
        """
        found = self._estimate(state, t, mixture)
        if self.domain == "waveform":
            return self.network.synthesise(found, state.shape[-1])
        return self._compressed(found)

    def estimate(self, state: Tensor, t: Tensor, mixture: Tensor, level: Tensor, time: int) -> Tensor:
        """As `denoise`, but waveforms ``(b, s, c, time)`` at the mixture's level; for training."""
        return self._waveforms(self._estimate(state, t, mixture), level, time)

    def _estimate(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Spectra of the sources in a state, over the level."""
        if self.preconditioning is None:
            return self.network(self._spectra(state), t, self._spectra(mixture))
        weights = self.preconditioning(self.bridge, t)
        skip, out, into = (weight.reshape(-1, *(1 for _ in state.shape[1:])) for weight in weights)
        found = self.network(self._spectra(into * state), t, self._spectra(mixture))
        if self.domain == "waveform":
            skip, out = skip[..., None], out[..., None]
            return skip * self._spectra(state) + out * found
        return self._expanded(skip * state + out * self._compressed(found))

    def _spectra(self, states: Tensor) -> Tensor:
        return self.network.analyse(states) if self.domain == "waveform" else self._expanded(states)

    def _waveforms(self, spectra: Tensor, level: Tensor, time: int) -> Tensor:
        """Spectra over the level to waveforms at it."""
        waveforms: Tensor = self.network.synthesise(spectra, time)
        return waveforms * level

    def _compressed(self, spectra: Tensor) -> Tensor:
        """``scale |X|^0.5 e^(j phase)``; its slope at 0 is kept finite."""
        power = torch.view_as_real(spectra).square().sum(dim=-1)
        return self.scale * spectra * (power + 1e-12) ** -0.25

    def _expanded(self, states: Tensor) -> Tensor:
        """The inverse of `_compressed`."""
        return states * states.abs() / self.scale**2
