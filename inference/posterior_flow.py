"""A solver that follows the probability flow of all sources, without new noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encore.inference.posterior import PosteriorSample, SamplerLog, SeparationProblem
from encore.inference.source_priors import PriorBank


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFlow:
    """Euler steps of the flow in units of the sources, ``x_t / sqrt(abar)``, whose noise is sigma.

    With ``d^k = (x^k - D^k) / sigma``:

    - ``constrained=c``, the Dirac likelihood: before each evaluation and at the end source c is the mixture
      minus the others, for which ``dx^k / dsigma = d^k - d^c``.
    - ``constrained=None``, the Gaussian likelihood of deviation ``width sigma``:
      ``dx^k / dsigma = d^k - sigma / (2 (width sigma)^2) (y - sum_j x^j)``.

    Args:
        constrained: Index of the constrained source, or None.
        width: Of the Gaussian likelihood, above 0.
        batched: See `encore.inference.source_priors.PriorBank`.

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
    def __call__(self, problem: SeparationProblem) -> PosteriorSample:
        """Sample the sources."""
        mixture, count = problem.mixture, len(problem.priors)
        if self.constrained is not None and not 0 <= self.constrained < count:
            raise ValueError(
                f"constrained={self.constrained}: the mixture has {count} sources, give 0 to {count - 1}"
            )
        bank, log = PriorBank(problem.priors, batched=self.batched), SamplerLog(mixture)
        states = problem.first_states() / problem.first_step.alpha_bar**0.5
        for step in problem.steps():
            states = self._constrain(states, mixture)
            estimates = bank(step.alpha_bar**0.5 * states, step.alpha_bar)
            log.add(estimates)
            slope = (states - estimates) / step.sigma
            if self.constrained is None:
                missing = (mixture - states.sum(dim=1))[:, None]
                slope = slope - missing / (2 * self.width**2 * step.sigma)
            else:
                slope = slope - slope[:, self.constrained, None]
            states = states + (step.cleaner_sigma - step.sigma) * slope
        return log.sample(self._constrain(states, mixture), bank.evaluations)

    def _constrain(self, states: Tensor, mixture: Tensor) -> Tensor:
        """Set source c to the mixture minus the others."""
        if self.constrained is None:
            return states
        own = (torch.arange(states.shape[1], device=states.device) == self.constrained)[:, None, None]
        others = torch.where(own, 0.0, states).sum(dim=1)
        return torch.where(own, (mixture - others)[:, None], states)
