"""Paths: how the mixture and the last estimate are mixed into the next input of the separator.

A path maps ``(anchor, estimate, ratio)``, two signals ``(n, s, c, t)`` and mixing ratios ``(n,)`` in [0, 1],
to inputs ``(n, s, c, t)``, one per refined source. At ratio 1 the input is the anchor: the mixture, or for a
path with ``from_last_input = True`` the input that led to the estimate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from encore.data.mixing import blend

Path = Callable[[Tensor, Tensor, Tensor], Tensor]


def endpoint(mixture: Tensor, estimate: Tensor, ratio: Tensor) -> Tensor:
    """Mix mixture and estimate: ``ratio * mixture + (1 - ratio) * estimate``.

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025.
    """
    return blend(mixture, estimate, ratio)


class _State:
    """Mix the last input and the estimate it led to: ``x_t = ratio * x_{t-1} + (1 - ratio) * y_{t-1}``.

    Where the estimate is kept, the input stays. Derivation: docs/methods.md.
    """

    from_last_input = True

    def __call__(self, last_input: Tensor, estimate: Tensor, ratio: Tensor) -> Tensor:
        return blend(last_input, estimate, ratio)


state: Path = _State()


class NoisyPath:
    """Add the noise of a Brownian bridge to the mix of mixture and estimate.

    Its deviation is ``scale * sqrt(ratio * (1 - ratio))`` times the mixture's RMS: none at either end. The
    noise is drawn once from the seed, the same for every item, step and candidate, each source with its own,
    so that the input stays a function of its arguments.

    Args:
        scale: In units of the mixture's RMS over channels and time, 0 or more.
        seed: Of the noise.

    Raises:
        ValueError: If the scale is negative.
    """

    def __init__(self, scale: float, seed: int = 0) -> None:
        if scale < 0:
            raise ValueError(f"noise={scale}: must be 0 or more, in units of the mixture's RMS")
        self.scale, self.seed = scale, seed

    def __call__(self, mixture: Tensor, estimate: Tensor, ratio: Tensor) -> Tensor:
        """Mix ``(n, s, c, t)`` and add the noise."""
        generator = Generator().manual_seed(self.seed)
        noise = torch.randn(mixture.shape[1:], generator=generator).to(mixture)
        level = mixture.square().mean(dim=(-1, -2), keepdim=True).sqrt()
        deviation = self.scale * (ratio * (1 - ratio)).sqrt()[:, None, None, None] * level
        return blend(mixture, estimate, ratio) + deviation * noise


def moves_anchor(path: Path) -> bool:
    """Return whether a path mixes with the last input instead of the mixture."""
    return bool(getattr(path, "from_last_input", False))
