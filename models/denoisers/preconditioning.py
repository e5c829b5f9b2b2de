"""Preconditioning of a bridge's data predictor, ``D = c_skip x_t + c_out F(c_in x_t)``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from encore.models.processes.bridge import Bridge, VarianceExploding

Weights = tuple[Tensor, Tensor, Tensor]
"""``c_skip``, ``c_out`` and ``c_in``."""


class Preconditioning(ABC):
    """Weights of state and network as functions of time."""

    @abstractmethod
    def __call__(self, bridge: Bridge, t: Tensor) -> Weights:
        """Return ``c_skip``, ``c_out`` and ``c_in`` at times ``t`` in [0, 1], each of its shape."""


class LinearEstimate(Preconditioning):
    """Add the best linear estimate of the source from the state; the network has inputs of unit variance.

    With ``A = a^2 S + b^2 M + 2 a b C + c^2``: ``c_in = A^(-1/2)``, ``c_skip = (a S + b C) / A`` and
    ``c_out = sqrt((b^2 (S M - C^2) + S c^2) / A)``, the deviation of what the linear estimate misses.

    Args:
        source: S, the variance of the clean source's states, above 0.
        mixture: M, that of the mixture's states, above 0.
        covariance: C, of the two, with ``C^2 <= S M``.

    Raises:
        ValueError: If these are no variances and covariance.

    Source: L. Zhou et al., "Denoising Diffusion Bridge Models", 2023, section 4.
    """

    def __init__(self, source: float = 0.75, mixture: float = 1.0, covariance: float = 0.75) -> None:
        if not (source > 0 and mixture > 0 and covariance**2 <= source * mixture):
            raise ValueError(
                f"source={source}, mixture={mixture}, covariance={covariance}: variances are above 0, and "
                "the square of their covariance is at most their product"
            )
        self.source, self.mixture, self.covariance = float(source), float(mixture), float(covariance)

    def __call__(self, bridge: Bridge, t: Tensor) -> Weights:
        """See the class."""
        a, b, c = bridge.coefficients(t)
        own, cross = self.source, self.covariance
        total = a.square() * own + b.square() * self.mixture + 2 * a * b * cross + c.square()
        rest = b.square() * (own * self.mixture - cross**2) + own * c.square()
        return (a * own + b * cross) / total, (rest / total).sqrt(), total.rsqrt()


class NoisePrediction(Preconditioning):
    """Let the network predict ``(x_t - s) / sqrt(v_t)``, as in I2SB: ``D = x_t - sqrt(v_t) F(x_t)``.

    Source: G.-H. Liu et al., "I2SB: Image-to-Image Schroedinger Bridge", 2023.
    """

    def __call__(self, bridge: Bridge, t: Tensor) -> Weights:
        """See the class.

        Raises:
            ValueError: If the bridge is not one of exploding variance.
        """
        if not isinstance(bridge, VarianceExploding):
            raise ValueError(
                f"preconditioning=NoisePrediction: {type(bridge).__name__} has no variance v_t; use a bridge "
                "with one, such as I2SB"
            )
        one = torch.ones_like(t)
        return one, -bridge.variance(t.double()).sqrt().to(t), one
