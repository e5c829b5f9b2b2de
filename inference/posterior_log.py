"""What a solver of the posterior finds, writes down of its steps, and when it may stop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PosteriorSample:
    """What a solver found.

    Attributes:
        estimates: ``(b, k, c, t)``, of all sources in the mixture's unit.
        evaluations: Network evaluations of one item, counted.
        steps: Levels that were really used.
        residuals: ``(steps, b)``, what the estimates at each step left of the mixture, over its norm.
        losses: ``(steps, b)``, of the guidance; None where it has none.
        conflicts: ``(steps, b, k)``, None where there is no gradient: the strength that guidance would need
            to turn a source's step its way, ``-<x' - x_t, -g> / ||g||^2``. Positive where prior and mixture
            pull apart.
        stopped: ``(b,)``, whether the stopping rule ended an item before the last level.
    """

    estimates: Tensor
    evaluations: int
    steps: int
    residuals: Tensor
    losses: Tensor | None
    conflicts: Tensor | None
    stopped: Tensor


class Log:
    """What is written down of every step.

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
        """One step.

        Args:
            estimates: ``(b, k, c, t)``.
            loss: ``(b,)``.
            gradient: ``(b, k, c, t)``, of the loss.
            prior_step: ``(b, k, c, t)``, what the step changes without guidance.
        """
        self._residuals.append(_norms(self._mixture - estimates.detach().sum(dim=1)) / self._norm)
        if loss is not None:
            self._losses.append(loss)
        if gradient is not None and prior_step is not None:
            power = gradient.square().sum(dim=(2, 3)).clamp_min(1e-30)
            self._conflicts.append((prior_step * gradient).sum(dim=(2, 3)) / power)

    def sample(self, estimates: Tensor, evaluations: int, stopped: Tensor | None = None) -> PosteriorSample:
        """The result, with ``evaluations`` for each step."""
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


class Stopping:
    """Items whose estimates have come to rest keep them."""

    PATIENCE = 3

    def __init__(self, tolerance: float | None, mixture: Tensor) -> None:
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"stop={tolerance}: give a share above 0, or None")
        self._tolerance, self._norm = tolerance, _norms(mixture)
        self._before: Tensor | None = None
        self._resting = torch.zeros(len(mixture), dtype=torch.long, device=mixture.device)
        self.stopped = torch.zeros(len(mixture), dtype=torch.bool, device=mixture.device)
        self._kept: Tensor | None = None

    def reached(self, estimates: Tensor) -> bool:
        """Whether all items have come to rest."""
        if self._tolerance is None:
            return False
        if self._before is not None:
            change = _norms((estimates - self._before).flatten(1, 2))
            self._resting = torch.where(change < self._tolerance * self._norm, self._resting + 1, 0)
        self._before = estimates
        new = (self._resting >= self.PATIENCE) & ~self.stopped
        kept = estimates if self._kept is None else self._kept
        self._kept = torch.where(new[:, None, None, None], estimates, kept)
        self.stopped = self.stopped | new
        return bool(self.stopped.all())

    def result(self, states: Tensor) -> Tensor:
        """The kept estimates of items that have stopped, and the last states of the others."""
        if self._kept is None:
            return states
        return torch.where(self.stopped[:, None, None, None], self._kept, states)


def _norms(signals: Tensor) -> Tensor:
    """``(b, c, t)`` to ``(b,)``."""
    return torch.linalg.vector_norm(signals, dim=(1, 2))
