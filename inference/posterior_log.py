"""The result of a posterior solver, the log of its steps, and when it may end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PosteriorSample:
    """The result of a solver.

    Attributes:
        estimates: ``(b, k, c, t)``, of all sources in the mixture's unit.
        evaluations: Network evaluations of one item, counted.
        steps: Levels that were used.
        residuals: ``(steps, b)``, norm of the mixture minus the sum of the estimates, over the mixture's.
        losses: ``(steps, b)``, of the guidance; None where it has none.
        conflicts: ``(steps, b, k)``, None where there is no gradient: the strength at which guidance would
            cancel a source's step along the gradient, ``-<x' - x_t, -g> / ||g||^2``. Positive where prior and
            mixture pull in opposite directions.
        stopped: ``(b,)``, whether an item converged before the last level.
    """

    estimates: Tensor
    evaluations: int
    steps: int
    residuals: Tensor
    losses: Tensor | None
    conflicts: Tensor | None
    stopped: Tensor


PATIENCE = 3
"""Levels without a change after which an item has converged."""


class SamplerLog:
    """Residuals, losses and conflicts of every step; the estimates of items that have converged.

    Args:
        mixture: ``(b, c, t)``.
        tolerance: Change of an item's estimates from level to level, over the mixture's norm, below which it
            has converged after ``PATIENCE`` levels; None for never.

    Raises:
        ValueError: If the tolerance is not above 0.
    """

    def __init__(self, mixture: Tensor, tolerance: float | None = None) -> None:
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"stop={tolerance}: give a fraction of the mixture's norm above 0, or None")
        self._mixture, self._norm, self._tolerance = mixture, _norms(mixture), tolerance or 0.0
        self._residuals: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._conflicts: list[Tensor] = []
        # the first estimates have changed
        self._kept = torch.full_like(mixture, torch.nan)[:, None]
        self._unchanged = torch.zeros(len(mixture), dtype=torch.long, device=mixture.device)
        self._stopped = self._unchanged > 0

    @property
    def finished(self) -> bool:
        """Whether all items have converged."""
        return self._tolerance > 0 and bool(self._stopped.all())

    def add(
        self,
        estimates: Tensor,
        loss: Tensor | None = None,
        gradient: Tensor | None = None,
        prior_step: Tensor | None = None,
    ) -> None:
        """Add one step.

        Args:
            estimates: ``(b, k, c, t)``.
            loss: ``(b,)``.
            gradient: ``(b, k, c, t)``, of the loss.
            prior_step: ``(b, k, c, t)``, the change of the states without guidance.
        """
        residual = _norms(self._mixture - estimates.sum(dim=1))
        self._residuals.append(residual / self._norm.clamp_min(1e-12))
        if loss is not None:
            self._losses.append(loss)
        if gradient is not None and prior_step is not None:
            power = gradient.square().sum(dim=(2, 3)).clamp_min(1e-30)
            self._conflicts.append((prior_step * gradient).sum(dim=(2, 3)) / power)
        if not self._tolerance:
            return
        change = _norms((estimates - self._kept).flatten(1, 2))
        self._kept = torch.where(self._stopped[:, None, None, None], self._kept, estimates)
        self._unchanged = torch.where(change < self._tolerance * self._norm, self._unchanged + 1, 0)
        self._stopped = self._stopped | (self._unchanged >= PATIENCE)

    def sample(self, states: Tensor, evaluations: int) -> PosteriorSample:
        """Return the result, of the last states ``(b, k, c, t)`` and with ``evaluations`` per step."""
        steps = len(self._residuals)
        return PosteriorSample(
            estimates=torch.where(self._stopped[:, None, None, None], self._kept, states),
            evaluations=steps * evaluations,
            steps=steps,
            residuals=torch.stack(self._residuals),
            losses=torch.stack(self._losses) if self._losses else None,
            conflicts=torch.stack(self._conflicts) if self._conflicts else None,
            stopped=self._stopped,
        )


def _norms(signals: Tensor) -> Tensor:
    """Return the norms ``(b,)`` of ``(b, c, t)``."""
    return torch.linalg.vector_norm(signals, dim=(1, 2))
