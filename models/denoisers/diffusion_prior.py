"""A diffusion prior of one kind of source: a network, its noise levels, and what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from encore.models.processes.diffusion import Diffusion


class DiffusionPrior(nn.Module):
    """Estimate a source in a noisy state of it, at any level of its diffusion.

    A state is ``sqrt(abar) x + sqrt(1 - abar) z`` with white noise ``z``, of sources ``x`` in full scale.

    Args:
        network: Maps ``(b, 1, time)``, numbers ``(b,)`` that stand for levels, and labels ``(b,)`` or None to
            ``(b, 1, time)``, such as `encore.models.denoisers.tf_attention_unet.TFAttentionUNet`.
        diffusion: Its noise levels, and how its output becomes an estimate.
        sample_rate: Rate of the audio in Hz.
        source: Name of the source.
        classes: Names of its classes in the order of their labels; empty for one class only.
        limit: Estimates are clamped to ``[-limit, limit]``; None for no limit.
        segment_seconds: Length of what it was trained on; None if nobody knows.

    Raises:
        ValueError: If classes and network do not fit, or a number makes no sense.

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
            raise ValueError(
                f"classes: {len(classes)} are named, but network.classes={known}: make them equal"
            )
        if sample_rate < 1 or (limit is not None and not limit > 0):
            raise ValueError(f"sample_rate={sample_rate}, limit={limit}: give 1 or more, and a limit above 0")
        self.network: Any = network
        self.diffusion = diffusion
        self.sample_rate, self.source, self.limit = int(sample_rate), str(source), limit
        self.segment_seconds = segment_seconds
        self.classes = tuple(str(name) for name in classes)

    def forward(self, state: Tensor, signal: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Estimate the source.

        Args:
            state: ``(b, 1, time)``.
            signal: ``(b,)``, ``abar`` of each level, on any device; None for the noisiest one.
            labels: ``(b,)`` integers; ``len(classes)``, as None, stands for any class.

        Returns:
            ``(b, 1, time)`` in full scale.

        Raises:
            ValueError: If the network was not trained at a level.
        """
        if signal is None:
            signal = self.diffusion.levels().signal[-1:].expand(len(state))
        skip, out, _ = self._weights(state, signal)
        found = skip * state + out * self.predict(state, signal, labels)
        return found if self.limit is None else found.clamp(-self.limit, self.limit)

    def predict(self, state: Tensor, signal: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's own output ``(b, 1, time)``, which training compares with `target`."""
        _, _, into = self._weights(state, signal)
        told = self.diffusion.told(signal).to(state)
        found: Tensor = self.network(into * state, told, labels)
        return found

    def target(self, state: Tensor, signal: Tensor, source: Tensor) -> Tensor:
        """What the network should give for a state of a source, ``(b, 1, time)``."""
        skip, out, _ = self._weights(state, signal)
        return (source - skip * state) / out

    def noised(self, source: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        """States ``(b, 1, time)`` of sources at levels ``(b,)``."""
        share = signal.double().reshape(-1, 1, 1)
        return share.sqrt().to(source) * source + (1 - share).sqrt().to(source) * noise

    def save_memory(self) -> None:
        """Have the network compute activations again for a gradient, instead of keeping them.

        Raises:
            ValueError: If it cannot.
        """
        if not hasattr(self.network, "checkpointing"):
            raise ValueError(f"network={type(self.network).__name__}: it cannot; leave checkpointing=false")
        self.network.checkpointing = True

    def _weights(self, state: Tensor, signal: Tensor) -> tuple[Tensor, ...]:
        # in float64, because 1 - abar is tiny at clean levels
        return tuple(part.reshape(-1, 1, 1).to(state) for part in self.diffusion.weights(signal.double()))
