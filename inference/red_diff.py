"""A solver that optimises the estimates, regularised by the priors' denoising errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from encore.inference.posterior import PosteriorSample, SamplerLog, SeparationProblem
from encore.inference.source_priors import PriorBank


@dataclass(frozen=True, kw_only=True, slots=True)
class RedDiff:
    """Minimise ``mean (y - sum mu)^2 / 2 + w_t sum_k mean <eps(x_t^k) - z^k, mu^k>``, one Adam step a level.

    At each level, from the noisiest down, ``x_t^k = sqrt(abar) mu^k + sqrt(1 - abar) z^k`` with new noise z,
    eps is the prior's estimate of it, and ``w_t = weight sqrt((1 - abar) / abar)``. The means start at equal
    parts of the mixture, or at the estimate; of `Start`, that and the first level count.

    Args:
        weight: Of the regulariser, from 0 up.
        rate: Of Adam.
        betas: Of Adam.
        batched: See `encore.inference.source_priors.PriorBank`.

    Source: M. Mardani et al., "A Variational Perspective on Solving Inverse Problems with Diffusion
    Models", 2023.
    """

    weight: float = 0.25
    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    batched: bool = True

    def __post_init__(self) -> None:
        if self.weight < 0 or not self.rate > 0:
            raise ValueError(f"weight={self.weight}, rate={self.rate}: give 0 or more, and a number above 0")

    def __call__(self, problem: SeparationProblem) -> PosteriorSample:
        """Sample the sources."""
        mixture, count = problem.mixture, len(problem.priors)
        bank, log = PriorBank(problem.priors, batched=self.batched), SamplerLog(mixture)
        equal = (mixture / count)[:, None].expand(-1, count, -1, -1)
        means = (equal if problem.estimate is None else problem.estimate).clone().requires_grad_(True)
        adam = torch.optim.Adam([means], lr=self.rate, betas=self.betas)
        for step in problem.steps():
            with torch.no_grad():
                z = problem.noise()
                states = step.alpha_bar**0.5 * means + (1 - step.alpha_bar) ** 0.5 * z
                found = bank(states, step.alpha_bar)
                predicted = (states - step.alpha_bar**0.5 * found) / (1 - step.alpha_bar) ** 0.5
            with torch.enable_grad():
                missing = mixture - means.sum(dim=1)
                pull = ((predicted - z) * means).sum(dim=1)
                # of means over samples, so that no item's steps depend on the others
                losses = (missing.square() / 2 + self.weight * step.sigma * pull).mean(dim=(1, 2))
                adam.zero_grad()
                losses.sum().backward()
            adam.step()
            log.add(means.detach(), losses.detach())
        return log.sample(means.detach(), bank.evaluations)
