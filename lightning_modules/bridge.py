"""Training of diffusion bridges by data prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from encore.lightning_modules.separation import Batch, SeparationModule
from encore.models.denoisers.bridge_separator import BridgeSeparator

_SMALLEST_WEIGHT = 1e-4
"""Floor of ``c_out^2``, which vanishes near t = 0, in the weight of the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeState:
    """Items on their bridges: times ``(b,)`` and states ``(b, s, c, ...)``, with one state of the mixture."""

    t: Tensor
    source: Tensor
    mixture: Tensor
    noise: Tensor
    state: Tensor


class BridgeModule(SeparationModule):
    """Train the data predictor of a bridge: estimate the sources from states at random times.

    Mixtures are augmented in every step as in `SeparationModule`. Each item gets a time, uniform from
    ``t_min`` to the one at which sampling starts; the input is the state ``a s + b x_0 + c z``, conditioned
    on time and mixture. Estimates and references are compared as waveforms in units of the mixture's level.

    Args:
        separator: The bridge with its network.
        t_min: Smallest time in [0, 1).
        weighted: Weight losses by ``1 / c_out^2`` of the separator's preconditioning, which makes a squared
            loss of the estimate one of the network's own output.
        **options: As of `SeparationModule`, with ``mixing.unroll=0``.

    Raises:
        ValueError: If an option is invalid.

    Source: A. Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", 2024; L. Zhou et al.,
    "Denoising Diffusion Bridge Models", 2023 (weights).
    """

    separator: BridgeSeparator

    def __init__(
        self,
        separator: BridgeSeparator,
        *,
        t_min: float = 1e-4,
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
        if not 0 <= t_min < separator.bridge.start:
            raise ValueError(f"t_min={t_min}: give 0 or more, below {separator.bridge.start}")
        if weighted and separator.preconditioning is None:
            raise ValueError("weighted=true: weights come from model.preconditioning, which is null")
        self.t_min, self.weighted = t_min, weighted

    def _batch_loss(self, mixture: Tensor, references: Tensor, generator: Generator) -> Tensor:
        """Return the mean loss over items, each at a random time."""
        drawn = torch.rand(len(mixture), generator=generator, device=generator.device).to(mixture)
        return self._losses_at(self._times(drawn), mixture, references, generator).mean()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the loss at times that depend on the item's number, and that of the one-step estimates."""
        if "references" not in batch:
            return
        mixture, references = batch["mixture"], batch["references"]
        generator = torch.Generator(device=self.device).manual_seed(batch_index)
        # multiples of the golden ratio are evenly distributed for any number of items
        drawn = mixture.new_full((len(mixture),), (batch_index * 0.618033988749895 + 0.5) % 1)
        loss = self._losses_at(self._times(drawn), mixture, references, generator).mean()
        level = self.separator.level(mixture)
        one_step = self.loss(self.separator(mixture) / level, references / level).mean()
        self.log_validation({"val/loss": loss, "val/one_step_loss": one_step}, len(mixture))

    def _times(self, drawn: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to times."""
        return self.t_min + (self.separator.bridge.start - self.t_min) * drawn

    def _losses_at(self, t: Tensor, mixture: Tensor, references: Tensor, generator: Generator) -> Tensor:
        """Return losses ``(b,)`` of states at times ``t`` ``(b,)``."""
        separator = self.separator
        level = separator.level(mixture)
        source, end = separator.encode(references, level), separator.encode(mixture[:, None], level)
        noise = torch.randn(source.shape, generator=generator, device=generator.device, dtype=source.dtype)
        noise = noise.to(source.device)
        state = separator.bridge.state(t, source, end, noise)
        estimates = separator.estimate(state, t, end, torch.ones_like(level), mixture.shape[-1])
        point = BridgeState(t=t, source=source, mixture=end, noise=noise, state=state)
        losses: Tensor = self.loss(estimates, self._targets(point, references / level))
        if self.weighted and separator.preconditioning is not None:
            _, out, _ = separator.preconditioning(separator.bridge, t)
            losses = losses / out.square().clamp_min(_SMALLEST_WEIGHT)
        return losses

    def _targets(self, point: BridgeState, references: Tensor) -> Tensor:
        """Return the targets, waveforms ``(b, s, c, time)`` over the mixture's level."""
        return references
