"""Solvers that follow the probability flow of all sources, with no noise on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encore.inference.posterior import Problem
from encore.inference.posterior_log import Log, PosteriorSample
from encore.inference.source_priors import Ensemble


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFlow:
    """Euler steps of the flow in units of the sources, ``x_t / sqrt(abar)``, whose noise is sigma.

    With ``d^k = (x^k - D^k) / sigma``:

    - ``constrained=c``, the Dirac likelihood: source c is what the others leave of the mixture, before each
      evaluation and at the end, and ``dx^k / dsigma = d^k - d^c`` for them.
    - ``constrained=None``, the Gaussian likelihood of deviation ``width sigma``:
      ``dx^k / dsigma = d^k - sigma / (2 (width sigma)^2) (y - sum_j x^j)``.

    Args:
        constrained: Number of the source that is constrained, or None.
        width: Of the Gaussian likelihood, above 0.
        batched: See `encore.inference.source_priors.Ensemble`.

    Source: G. Mariani et al., "Multi-Source Diffusion Models for Simultaneous Music Generation and
    Separation", 2023.
    """

    constrained: int | None = None
    width: float = 0.75
    batched: bool = True

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"width={self.width}: give a number above 0")

    @torch.no_grad()
    def __call__(self, problem: Problem) -> PosteriorSample:
        """Separate."""
        mixture, count = problem.mixture, len(problem.priors)
        if self.constrained is not None and not 0 <= self.constrained < count:
            raise ValueError(
                f"constrained={self.constrained}: there are {count} sources, give 0 to {count - 1}"
            )
        ensemble, log = Ensemble(problem.priors, batched=self.batched), Log(mixture)
        first = problem.levels.step(problem.start.first(problem.levels))
        states = problem.first_states() / first.signal**0.5
        for step in problem.steps():
            states = self._constrain(states, mixture)
            estimates = ensemble(step.signal**0.5 * states, step.signal)
            log.add(estimates)
            slope = (states - estimates) / step.sigma
            if self.constrained is None:
                missing = (mixture - states.sum(dim=1))[:, None]
                slope = slope - missing / (2 * self.width**2 * step.sigma)
            else:
                slope = slope - slope[:, self.constrained, None]
            states = states + (step.cleaner_sigma - step.sigma) * slope
        return log.sample(self._constrain(states, mixture), ensemble.evaluations)

    def _constrain(self, states: Tensor, mixture: Tensor) -> Tensor:
        """Source c to what the others leave of the mixture."""
        if self.constrained is None:
            return states
        own = torch.arange(states.shape[1], device=states.device) == self.constrained
        own = own[:, None, None]
        others = torch.where(own, 0.0, states).sum(dim=1)
        return torch.where(own, (mixture - others)[:, None], states)
