"""A diffusion prior of one kind of source: a network, its noise levels and its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from encore.models.processes.diffusion import Diffusion


class DiffusionPrior(nn.Module):
    """Estimate a source in a noisy state of it, at any level of its diffusion.

    A state is ``sqrt(abar) x + sqrt(1 - abar) z`` with white noise ``z`` and the source ``x`` in full scale.

    Args:
        network: Maps ``(b, 1, time)``, conditioned on numbers ``(b,)`` that stand for levels and labels
            ``(b,)`` or None, to ``(b, 1, time)``, such as
            `encore.models.denoisers.tf_attention_unet.TFAttentionUNet`.
        diffusion: Its noise levels and preconditioning.
        sample_rate: Rate of the audio in Hz.
        source: Name of the source.
        classes: Names of its classes in the order of their labels; empty without classes.
        limit: Estimates are clamped to ``[-limit, limit]``; None for no limit.
        segment_seconds: Length of the training segments; None if unknown.

    Raises:
        ValueError: If classes and network do not match, or a number is invalid.

    Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025.
    """

    channels = 1

    def __init__(
        self,
        network: nn.Module,
        diffusion: Diffusion,
        sample_rate: int,
        source: str = "source",
        classes: Sequence[str] = (),
        limit: float | None = 1.0,
        segment_seconds: float | None = None,
    ) -> None:
        super().__init__()
        known = getattr(network, "classes", 0)
        if known != len(classes):
            raise ValueError(f"classes has {len(classes)} names, network.classes={known}: make them equal")
        if sample_rate < 1 or (limit is not None and not limit > 0):
            raise ValueError(f"sample_rate={sample_rate}, limit={limit}: give 1 or more, and a limit above 0")
        self.network: Any = network
        self.diffusion = diffusion
        self.sample_rate, self.source, self.limit = int(sample_rate), str(source), limit
        self.segment_seconds = segment_seconds
        self.classes = tuple(str(name) for name in classes)

    def forward(self, state: Tensor, alpha_bar: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Estimate the source.

        Args:
            state: ``(b, 1, time)``.
            alpha_bar: ``(b,)`` of each level, on any device; None for the noisiest level.
            labels: ``(b,)`` integers; ``len(classes)``, like None, stands for any class.

        Returns:
            ``(b, 1, time)`` in full scale.

        Raises:
            ValueError: If the network was not trained at a level.
        """
        if alpha_bar is None:
            alpha_bar = self.diffusion.levels().alpha_bar[-1:].expand(len(state))
        skip, out, _ = self._weights(state, alpha_bar)
        estimate = skip * state + out * self.predict(state, alpha_bar, labels)
        return estimate if self.limit is None else estimate.clamp(-self.limit, self.limit)

    def predict(self, state: Tensor, alpha_bar: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the network's output ``(b, 1, time)``, which training compares with `target`."""
        _, _, into = self._weights(state, alpha_bar)
        output: Tensor = self.network(into * state, self.diffusion.condition(alpha_bar).to(state), labels)
        return output

    def target(self, state: Tensor, alpha_bar: Tensor, source: Tensor) -> Tensor:
        """Return the ideal output of the network for a state of a source, ``(b, 1, time)``."""
        skip, out, _ = self._weights(state, alpha_bar)
        return (source - skip * state) / out

    def add_noise(self, source: Tensor, alpha_bar: Tensor, noise: Tensor) -> Tensor:
        """Return states ``(b, 1, time)`` of sources at levels ``(b,)``."""
        level = alpha_bar.double().reshape(-1, 1, 1)
        return level.sqrt().to(source) * source + (1 - level).sqrt().to(source) * noise

    def enable_checkpointing(self) -> None:
        """Let the network recompute activations for a gradient instead of keeping them.

        Raises:
            ValueError: If it does not support that.
        """
        if not hasattr(self.network, "checkpointing"):
            raise ValueError(
                f"network={type(self.network).__name__} has no checkpointing: leave checkpointing=false"
            )
        self.network.checkpointing = True

    def _weights(self, state: Tensor, alpha_bar: Tensor) -> tuple[Tensor, ...]:
        # in float64, because 1 - abar is tiny at clean levels
        return tuple(part.reshape(-1, 1, 1).to(state) for part in self.diffusion.weights(alpha_bar.double()))
