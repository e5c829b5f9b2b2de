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


class SamplerLog:
    """Residuals, losses and conflicts of every step.

    Args:
        mixture: ``(b, c, t)``.
    """

    def __init__(self, mixture: Tensor) -> None:
        self._mixture, self._norm = mixture, _norms(mixture).clamp_min(1e-12)
        self._residuals: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._conflicts: list[Tensor] = []

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
        self._residuals.append(_norms(self._mixture - estimates.detach().sum(dim=1)) / self._norm)
        if loss is not None:
            self._losses.append(loss)
        if gradient is not None and prior_step is not None:
            power = gradient.square().sum(dim=(2, 3)).clamp_min(1e-30)
            self._conflicts.append((prior_step * gradient).sum(dim=(2, 3)) / power)

    def sample(self, estimates: Tensor, evaluations: int, stopped: Tensor | None = None) -> PosteriorSample:
        """Return the result, with ``evaluations`` per step."""
        steps = len(self._residuals)
        return PosteriorSample(
            estimates=estimates,
            evaluations=steps * evaluations,
            steps=steps,
            residuals=torch.stack(self._residuals),
            losses=torch.stack(self._losses) if self._losses else None,
            conflicts=torch.stack(self._conflicts) if self._conflicts else None,
            stopped=estimates.new_zeros(len(estimates), dtype=torch.bool) if stopped is None else stopped,
        )


class Convergence:
    """Keep the estimates of items from the level on at which they have converged.

    Args:
        tolerance: Change of an item's estimates from level to level, over the mixture's norm, below which it
            has converged after ``PATIENCE`` levels; None for never.
        mixture: ``(b, c, t)``.

    Raises:
        ValueError: If the tolerance is not above 0.
    """

    PATIENCE = 3

    def __init__(self, tolerance: float | None, mixture: Tensor) -> None:
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"stop={tolerance}: give a fraction of the mixture's norm above 0, or None")
        self._tolerance, self._norm = tolerance, _norms(mixture)
        self._before: Tensor | None = None
        self._unchanged = torch.zeros(len(mixture), dtype=torch.long, device=mixture.device)
        self.stopped = torch.zeros(len(mixture), dtype=torch.bool, device=mixture.device)
        self._kept: Tensor | None = None

    def reached(self, estimates: Tensor) -> bool:
        """Return whether all items have converged."""
        if self._tolerance is None:
            return False
        if self._before is not None:
            change = _norms((estimates - self._before).flatten(1, 2))
            self._unchanged = torch.where(change < self._tolerance * self._norm, self._unchanged + 1, 0)
        self._before = estimates
        new = (self._unchanged >= self.PATIENCE) & ~self.stopped
        kept = estimates if self._kept is None else self._kept
        self._kept = torch.where(new[:, None, None, None], estimates, kept)
        self.stopped = self.stopped | new
        return bool(self.stopped.all())

    def result(self, states: Tensor) -> Tensor:
        """Return the kept estimates of converged items, and the last states of the others."""
        if self._kept is None:
            return states
        return torch.where(self.stopped[:, None, None, None], self._kept, states)


def _norms(signals: Tensor) -> Tensor:
    """Return the norms ``(b,)`` of ``(b, c, t)``."""
    return torch.linalg.vector_norm(signals, dim=(1, 2))
