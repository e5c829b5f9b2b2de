"""Posterior sampling: sources from diffusion priors whose sum is the mixture.

A solver is a function from a `SeparationProblem` to a `PosteriorSample`. This file has both, the log of
a solver's steps, and the ancestral solver; `encore.inference.posterior_flow` and `encore.inference.red_diff`
have the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from encore.inference.guidance import Guidance
from encore.inference.source_priors import PriorBank
from encore.models.processes.diffusion import NoiseLevels, NoiseStep
from encore.models.types import Denoiser

StartKind = Literal["mixture", "noise", "estimate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Where a chain starts.

    Args:
        kind: ``"mixture"``: ``sqrt(abar) y + sqrt(1 - abar) eps`` for every source, with one eps for all;
            ``"noise"``: white noise, independent for each; ``"estimate"``: as the first, with an estimate of
            each source instead of the mixture.
        at: Position of that abar in the full chain, a fraction in (0, 1]: 0.75 is the 150th of 200 levels. A
            shortened chain uses its nearest level.
        whole_chain: Whether all levels are run from the noisiest one on, as in the published code, or only
            those from that position down. Of no meaning for noise.

    Raises:
        ValueError: If an argument is out of range.

    Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025.
    """

    kind: StartKind = "mixture"
    at: float = 0.75
    whole_chain: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(StartKind):
            raise ValueError(f"kind={self.kind!r}: choose {', '.join(get_args(StartKind))}")
        if not 0 < self.at <= 1:
            raise ValueError(f"at={self.at}: give a fraction of the chain above 0, at most 1")

    def first(self, levels: NoiseLevels) -> int:
        """Return the index of the first level to run."""
        return len(levels) - 1 if self.kind == "noise" or self.whole_chain else self.index(levels)

    def index(self, levels: NoiseLevels) -> int:
        """Return the index of the level at ``at``."""
        full = levels.full.alpha_bar
        wanted = full[max(0, round(self.at * len(full)) - 1)]
        return int((levels.alpha_bar - wanted).abs().argmin())


@dataclass(frozen=True, kw_only=True, slots=True)
class SeparationProblem:
    """A mixture, the priors of its sources, and the chain to run.

    Args:
        priors: One for each source.
        mixture: ``(b, c, t)``, the sum of the sources, in full scale.
        levels: The chain of the priors.
        generator: For all noise.
        start: Where the chain starts.
        estimate: ``(b, k, c, t)``, for a start from an estimate, and only then.
        draws: The batch is this many repetitions of the mixtures, one after the other, each with own noise.
        progress: Wraps the numbers of the levels that are run, as `tqdm` does.

    Raises:
        ValueError: If the estimate does not fit.
    """

    priors: Sequence[Denoiser]
    mixture: Tensor
    levels: NoiseLevels
    generator: Generator
    start: Start = field(default_factory=Start)
    estimate: Tensor | None = None
    draws: int = 1
    progress: Callable[[range], Iterable[int]] = iter

    def __post_init__(self) -> None:
        if (self.estimate is None) != (self.start.kind != "estimate"):
            raise ValueError(
                f"kind={self.start.kind!r}: give an estimate of the sources for 'estimate', and only then"
            )
        wanted = (len(self.priors), *self.mixture.shape[1:])
        if self.estimate is not None and self.estimate.shape[1:] != wanted:
            raise ValueError(
                f"estimate has shape {tuple(self.estimate.shape)}: give {len(self.priors)} sources like the "
                f"mixture {tuple(self.mixture.shape)}"
            )

    def noise(self) -> Tensor:
        """Draw white noise ``(b, k, c, t)``, one for all items of a draw: none depends on the others."""
        shape, generator = (self.draws, len(self.priors), *self.mixture.shape[1:]), self.generator
        drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=self.mixture.dtype)
        return drawn.to(self.mixture.device).repeat_interleave(len(self.mixture) // self.draws, dim=0)

    def first_states(self) -> Tensor:
        """Return the states ``(b, k, c, t)`` in which the chain starts."""
        drawn = self.noise()
        if self.start.kind == "noise":
            return drawn
        centre = self.mixture[:, None] if self.estimate is None else self.estimate
        alpha_bar = float(self.levels.alpha_bar[self.start.index(self.levels)])
        # one noise for all sources
        return alpha_bar**0.5 * centre + (1 - alpha_bar) ** 0.5 * drawn[:, :1].expand_as(drawn)

    @property
    def first_step(self) -> NoiseStep:
        """The step from the first level."""
        return self.levels.step(self.start.first(self.levels))

    def steps(self) -> Iterator[NoiseStep]:
        """Yield the steps of the chain from the first level down."""
        for number in self.progress(range(self.start.first(self.levels), -1, -1)):
            yield self.levels.step(number)


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


Solver = Callable[[SeparationProblem], PosteriorSample]
"""Samples the sources of a mixture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ancestral:
    """Ancestral sampling of every prior's chain, guided by the mixture.

    At each level ``x' = c1 x0hat + c2 x_t + sqrt(betatilde) z`` with the estimates, and then the move of the
    guidance. The last level, where the noise is 0, gives the estimates themselves, and their last move.

    Args:
        guidance: How the mixture guides a step.
        stop: Ends an item when its estimates change by less than this fraction of the mixture's norm from a
            level to the next, for three levels; its result are the estimates at that level. None never.
        batched: See `encore.inference.source_priors.PriorBank`.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020 (small variance).
    """

    guidance: Guidance
    stop: float | None = None
    batched: bool = True

    def __call__(self, problem: SeparationProblem) -> PosteriorSample:
        """Sample the sources."""
        bank, log = PriorBank(problem.priors, self.batched), SamplerLog(problem.mixture, self.stop)
        states = problem.first_states()
        for step in problem.steps():
            with torch.set_grad_enabled(self.guidance.differentiates):
                states = states.detach().requires_grad_(self.guidance.differentiates)
                estimates = bank(states, step.alpha_bar)
                update = self.guidance(step, states, estimates, problem.mixture)
            with torch.no_grad():
                used = (estimates if update.estimates is None else update.estimates).detach()
                following = step.estimate_weight * used + step.state_weight * states
                if step.variance > 0:
                    following = following + step.variance**0.5 * problem.noise()
                log.add(used, update.loss, update.gradient, following - states)
                states = following if update.move is None else following + update.move
            if log.finished:
                break
        return log.sample(states.detach(), bank.evaluations)
