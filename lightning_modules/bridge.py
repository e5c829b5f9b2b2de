"""Training of diffusion bridges by data prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from encore.lightning_modules.separation import Batch, SeparationModule
from encore.models.denoisers.bridge_separator import BridgeSeparator

_SMALLEST_WEIGHT = 1e-4
"""Squares of ``c_out`` below this one, near t = 0, count as this one in the weight of the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where items stand on their bridges: times ``(b,)`` and states ``(b, s, c, ...)``; one of a mixture."""

    t: Tensor
    source: Tensor
    mixture: Tensor
    noise: Tensor
    state: Tensor


class BridgeModule(SeparationModule):
    """Train the data predictor of a bridge: find the sources in states at random times.

    Mixtures are made anew in every step as in `SeparationModule`. Then each item gets a time, uniform
    in ``[first_time, last]`` with the last one at which the bridge is sampled, and the state
    ``a s + b x_0 + c z`` is given to the network with that time and the mixture. Estimates and references are
    compared as waveforms in units of the mixture's level.

    Args:
        separator: The bridge with its network.
        first_time: Smallest time in [0, 1).
        weighted: Weight losses by ``1 / c_out^2`` of the separator's preconditioning, which makes a squared
            loss of the estimate one of the network's own output.
        **options: As of `SeparationModule`; ``mixing.unroll`` has no meaning here.

    Raises:
        ValueError: If an option does not fit.

    Source: A. Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", 2024; L. Zhou et al.,
    "Denoising Diffusion Bridge Models", 2023 (weights).
    """

    separator: BridgeSeparator

    def __init__(
        self,
        separator: BridgeSeparator,
        *,
        first_time: float = 1e-4,
        weighted: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(separator, BridgeSeparator):
            raise ValueError(
                f"model={type(separator).__name__}: module=bridge trains a bridge; choose a model whose "
                "name begins with bridge_, such as model=bridge_bsrnn_tiny"
            )
        super().__init__(separator, **options)
        if self.mixing.unroll:
            raise ValueError(f"mixing.unroll={self.mixing.unroll}: a bridge has no further passes; give 0")
        if not 0 <= first_time < separator.bridge.start:
            raise ValueError(f"first_time={first_time}: give 0 or more, below {separator.bridge.start}")
        if weighted and separator.preconditioning is None:
            raise ValueError("weighted=true: weights come from model.preconditioning, which is null")
        self.first_time, self.weighted = first_time, weighted

    def _batch_loss(self, mixture: Tensor, references: Tensor, generator: Generator) -> Tensor:
        """Mean loss over items, each in a state at a time of its own."""
        drawn = torch.rand(len(mixture), generator=generator, device=generator.device).to(mixture)
        return self._losses_at(self._times(drawn), mixture, references, generator).mean()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the loss at times that go round with the items, and that of the one-step estimates."""
        if "references" not in batch:
            return
        mixture, references = batch["mixture"], batch["references"]
        generator = torch.Generator(device=self.device).manual_seed(batch_index)
        # the golden ratio spreads any number of items evenly
        drawn = mixture.new_full((len(mixture),), (batch_index * 0.618033988749895 + 0.5) % 1)
        loss = self._losses_at(self._times(drawn), mixture, references, generator).mean()
        level = self.separator.level(mixture)
        one_step = self.loss(self.separator(mixture) / level, references / level).mean()
        options: dict[str, Any] = {"batch_size": len(mixture), "on_epoch": True, "sync_dist": True}
        self.log("val/loss", loss, prog_bar=True, **options)
        self.log("val/one_step_loss", one_step, **options)

    def _times(self, drawn: Tensor) -> Tensor:
        """Times of numbers that are uniform in [0, 1)."""
        return self.first_time + (self.separator.bridge.start - self.first_time) * drawn

    def _losses_at(self, t: Tensor, mixture: Tensor, references: Tensor, generator: Generator) -> Tensor:
        """Losses ``(b,)`` of states at times ``t`` ``(b,)``."""
        separator = self.separator
        level = separator.level(mixture)
        source, end = separator.encode(references, level), separator.encode(mixture[:, None], level)
        noise = torch.randn(source.shape, generator=generator, device=generator.device, dtype=source.dtype)
        noise = noise.to(source.device)
        state = separator.bridge.state(t, source, end, noise)
        estimates = separator.estimate(state, t, end, torch.ones_like(level), mixture.shape[-1])
        place = Place(t=t, source=source, mixture=end, noise=noise, state=state)
        losses: Tensor = self.loss(estimates, self._targets(place, references / level))
        if self.weighted and separator.preconditioning is not None:
            _, out, _ = separator.preconditioning(separator.bridge, t)
            losses = losses / out.square().clamp_min(_SMALLEST_WEIGHT)
        return losses

    def _targets(self, place: Place, references: Tensor) -> Tensor:
        """What the network is to find, waveforms ``(b, s, c, time)`` over the mixture's level."""
        return references
