"""Guidance of ancestral sampling by the mixture: one rule per class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from encore.inference.consistency import sum_to_mixture
from encore.inference.reconstruction import ReconstructionLoss
from encore.models.processes.diffusion import NoiseStep

FLOOR, SHARPNESS, STRENGTH = 0.002, 1000.0, 0.09
"""Published constants of the hybrid schedule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidanceUpdate:
    """The change of a step by guidance; None where there is none.

    Attributes:
        estimates: ``(b, k, c, t)``, replace those of the priors.
        move: ``(b, k, c, t)``, added to the next states.
        gradient: ``(b, k, c, t)`` of the loss.
        loss: ``(b,)``.
    """

    estimates: Tensor | None = None
    move: Tensor | None = None
    gradient: Tensor | None = None
    loss: Tensor | None = None


class Guidance(Protocol):
    """How a mixture guides a step.

    Attributes:
        differentiates: Whether the states must require gradients.
    """

    differentiates: ClassVar[bool]

    def __call__(self, step: NoiseStep, states: Tensor, estimates: Tensor, mixture: Tensor) -> GuidanceUpdate:
        """Return the change of a step.

        Args:
            step: From this level to the next cleaner one.
            states: ``(b, k, c, t)``, requiring gradients where the guidance differentiates.
            estimates: ``(b, k, c, t)``, of the clean sources in these states.
            mixture: ``(b, c, t)``.
        """
        ...


class Unguided:
    """No guidance: samples of the priors, independent of the mixture."""

    differentiates: ClassVar[bool] = False

    def __call__(self, step: NoiseStep, states: Tensor, estimates: Tensor, mixture: Tensor) -> GuidanceUpdate:
        """Return no change."""
        return GuidanceUpdate()


@dataclass(frozen=True, kw_only=True, slots=True)
class LossGuidance:
    """Step down the gradient of a reconstruction loss, through the priors.

    With ``normalise="source"`` the step of every source has the length ``sqrt(L) N`` with its L samples and
    the schedule's value N at the level: ``x - sqrt(L) N g / ||g||``. ``"joint"`` keeps the proportions of the
    sources' gradients, with ``sqrt(K L) N`` as the length of all together. ``"none"`` is ``x - N g``.

    In a shortened chain a step has the sum of N over the steps that it replaces, so that guidance can move
    the sources as far as in the full chain; ``shortened="own"`` uses the N of its own levels, which is half
    as far with a fourth of the levels.

    Args:
        schedule: Step to N: `constant`, `proportional` or `hybrid`.
        normalise: See above.
        shortened: See above.
        loss: Sum of the estimates and mixture, ``(b, c, t)`` each, to ``(b,)``.

    Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025;
    H. Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", 2022; L. Yang et al.,
    "Guidance with Spherical Gaussian Constraint for Conditional Diffusion", 2024.
    """

    schedule: Callable[[NoiseStep], float]
    normalise: Literal["source", "joint", "none"] = "source"
    shortened: Literal["summed", "own"] = "summed"
    loss: Callable[[Tensor, Tensor], Tensor] = field(default_factory=ReconstructionLoss)

    differentiates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.normalise not in ("source", "joint", "none"):
            raise ValueError(f"normalise={self.normalise!r}: choose source, joint or none")
        if self.shortened not in ("summed", "own"):
            raise ValueError(f"shortened={self.shortened!r}: choose summed or own")

    def __call__(self, step: NoiseStep, states: Tensor, estimates: Tensor, mixture: Tensor) -> GuidanceUpdate:
        """Return the step down the gradient."""
        loss = self.loss(estimates.sum(dim=1), mixture)
        # the sum over items: each is only in its own term
        (gradient,) = torch.autograd.grad(loss.sum(), states)
        steps = step.substeps if self.shortened == "summed" else [step]
        move = -self._step(gradient, sum(map(self.schedule, steps)))
        return GuidanceUpdate(move=move, gradient=gradient, loss=loss.detach())

    def _step(self, gradient: Tensor, length: float) -> Tensor:
        if self.normalise == "none":
            return length * gradient
        axes = (2, 3) if self.normalise == "source" else (1, 2, 3)
        norm = torch.linalg.vector_norm(gradient, dim=axes, keepdim=True)
        count = math.prod(gradient.shape[axis] for axis in axes)
        # no direction where the loss is flat
        direction = torch.where(norm > 0, gradient / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0)
        return count**0.5 * length * direction


def constant(strength: float = 1.5) -> Callable[[NoiseStep], float]:
    """Return the constant schedule of diffusion posterior sampling; for ``normalise="none"``."""
    return lambda step: strength


def proportional(strength: float = STRENGTH) -> Callable[[NoiseStep], float]:
    """Return ``strength sqrt(betatilde)``, in proportion to the noise of the step; 0 in the last one."""
    return lambda step: strength * step.variance**0.5


def hybrid(
    strength: float = STRENGTH, floor: float = FLOOR, sharpness: float = SHARPNESS
) -> Callable[[NoiseStep], float]:
    """Return ``ln(e^(c strength sqrt(betatilde)) + e^(c floor)) / c``, the smooth maximum of noise and floor.

    Args:
        strength: See above.
        floor: From 0 up.
        sharpness: c, above 0.

    >>> from encore.models.processes.diffusion import DiscreteDiffusion
    >>> levels = DiscreteDiffusion().levels()
    >>> [round(64000**0.5 * hybrid()(levels.step(t)), 3) for t in (199, 99, 9, 0)]
    [3.215, 2.26, 0.764, 0.538]
    """
    if floor < 0 or not sharpness > 0:
        raise ValueError(f"floor={floor}, sharpness={sharpness}: give 0 or more, and a number above 0")

    def schedule(step: NoiseStep) -> float:
        high, low = strength * step.variance**0.5, floor
        # the larger one is taken out, so that no power overflows
        return max(high, low) + math.log1p(math.exp(-sharpness * abs(high - low))) / sharpness

    return schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoInverse:
    """Move estimates by the residual of the mixture, through the priors' derivatives.

    ``x0hat^k + ((1 - abar) / sqrt(abar)) J_k^T r / (sum_j r_j^2 + s^2)`` with ``J_k`` the derivative of the
    estimate by its state, and ``r_j^2 = S sigma^2 / (S + sigma^2)`` the expected squared error of a source of
    power S (``1 - abar`` for unit variance).

    Args:
        powers: S of each source, its mean square in full scale; None for equal parts of the mixture's, item
            by item.
        noise: s, deviation of the noise in the mixture.

    Source: J. Song et al., "Pseudoinverse-Guided Diffusion Models for Inverse Problems", 2023.
    """

    powers: Sequence[float] | None = None
    noise: float = 0.0

    differentiates: ClassVar[bool] = True

    def __call__(self, step: NoiseStep, states: Tensor, estimates: Tensor, mixture: Tensor) -> GuidanceUpdate:
        """Return the moved estimates."""
        count = states.shape[1]
        if self.powers is not None and len(self.powers) != count:
            raise ValueError(f"powers={list(self.powers)}: give one for each of {count} sources")
        variance = step.sigma**2
        powers: Sequence[float | Tensor] | None = self.powers
        if powers is None:
            power = mixture.square().mean(dim=(1, 2)) - self.noise**2
            # silence has no power, but rounding errors
            powers = [power.clamp_min(1e-12)[:, None, None, None] / count] * count
        off = sum(power * variance / (power + variance) for power in powers)
        residual = (mixture - estimates.sum(dim=1))[:, None]
        wanted = (residual / (off + self.noise**2)).detach().expand_as(estimates)
        (pulled,) = torch.autograd.grad(estimates, states, wanted)
        factor = (1 - step.alpha_bar) / step.alpha_bar**0.5
        return GuidanceUpdate(estimates=estimates.detach() + factor * pulled)


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """Divide the residual of the mixture equally among the estimates, without a gradient.

    Source: S. Wisdom et al., "Differentiable Consistency Constraints for Improved Deep Speech Enhancement",
    2019.
    """

    differentiates: ClassVar[bool] = False

    def __call__(self, step: NoiseStep, states: Tensor, estimates: Tensor, mixture: Tensor) -> GuidanceUpdate:
        """Return the estimates moved to where they sum to the mixture."""
        return GuidanceUpdate(estimates=sum_to_mixture(estimates, mixture))
