"""Estimates that sum to the mixture."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Consistency = Literal["uniform", "energy"]
"""How the difference to the mixture is distributed over the sources."""


def sum_to_mixture(estimates: Tensor, mixture: Tensor, weighting: Consistency = "uniform") -> Tensor:
    """Move estimates to where they sum to the mixture.

    Args:
        estimates: ``(b, s, c, t)``, all sources of the mixture.
        mixture: ``(b, c, t)``.
        weighting: ``"uniform"`` adds an equal part of the difference to every source, which gives the closest
            point that sums to the mixture; ``"energy"`` adds parts by the estimates' energies, so that a
            silent source stays silent (equal parts where all are silent).

    Returns:
        ``(b, s, c, t)``.

    Source: S. Wisdom et al., "Differentiable Consistency Constraints for Improved Deep Speech Enhancement",
    2019, section 3.2.
    """
    difference = (mixture - estimates.sum(dim=1))[:, None]
    if weighting == "uniform":
        return estimates + difference / estimates.shape[1]
    energy = estimates.square().sum(dim=(2, 3), keepdim=True)
    total = energy.sum(dim=1, keepdim=True)
    weights = (energy / total.where(total > 0, 1.0)).where(total > 0, 1 / estimates.shape[1])
    return estimates + weights * difference
