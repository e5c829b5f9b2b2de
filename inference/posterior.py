"""Sources sampled from diffusion priors so that they sum to a mixture: one call, many solvers.

A solver is a function of a `Problem` and returns a
`encore.inference.posterior_log.PosteriorSample`. This file has the problem and the ancestral solver;
`encore.inference.posterior_flow` and `encore.inference.red_diff` have those that are not ancestral.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from encore.inference.guidance import Guidance, LossGuidance, Place, hybrid
from encore.inference.posterior_log import Log, PosteriorSample, Stopping
from encore.inference.source_priors import Ensemble
from encore.models.processes.diffusion import NoiseLevels, Step
from encore.models.types import Denoiser

StartKind = Literal["mixture", "noise", "estimate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Where a chain starts.

    Args:
        kind: ``"mixture"``: ``sqrt(abar) y + sqrt(1 - abar) eps`` for every source, with one eps for all;
            ``"noise"``: white noise, one for each; ``"estimate"``: as the first, each source with an estimate
            of its own in the mixture's place.
        at: Place of that abar in the whole chain, as a share in (0, 1]: 0.75 is the 150th of 200 levels. Of a
            shortened chain it is the nearest level, however it is spaced.
        whole_chain: Whether all levels are run from the noisiest one on, as the published code does, or only
            those from that place down. Of no meaning for noise.

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
            raise ValueError(f"at={self.at}: give a share of the chain above 0, at most 1")

    def first(self, levels: NoiseLevels) -> int:
        """Number of the level that is run first."""
        return len(levels) - 1 if self.kind == "noise" or self.whole_chain else self.place(levels)

    def place(self, levels: NoiseLevels) -> int:
        """Number of the level that ``at`` stands for."""
        whole = levels.whole.signal
        wanted = whole[max(0, round(self.at * len(whole)) - 1)]
        return int((levels.signal - wanted).abs().argmin())


PUBLISHED_START = Start()
"""The published code's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A mixture, the priors of its sources, and how their chain is to be run.

    Args:
        priors: One for each source.
        mixture: ``(b, c, t)``, the sum of the sources, in full scale.
        levels: The chain of the priors.
        generator: For all noise.
        start: Where the chain starts.
        estimate: ``(b, k, c, t)``, for a start from an estimate, and only then.
        draws: The batch is so many draws of the same mixtures, one after the other. Items of one draw get the
            same noise, so that no result depends on what else is in the batch.
        progress: Called after every level.

    Raises:
        ValueError: If the batch is not so many times the same number of items, or the estimate does not fit.
    """

    priors: Sequence[Denoiser]
    mixture: Tensor
    levels: NoiseLevels
    generator: Generator
    start: Start = PUBLISHED_START
    estimate: Tensor | None = None
    draws: int = 1
    progress: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.draws < 1 or len(self.mixture) % self.draws:
            raise ValueError(
                f"draws={self.draws}: a batch of {len(self.mixture)} is not so many times the same mixtures"
            )
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
        """White noise of every source, drawn anew: ``(b, k, c, t)``, for one draw ``(1, k, c, t)``."""
        mixture, generator = self.mixture, self.generator
        shape = (self.draws, len(self.priors), *mixture.shape[1:])
        drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=mixture.dtype)
        items = 1 if self.draws == 1 else len(mixture) // self.draws
        return drawn.to(mixture.device).repeat_interleave(items, dim=0)

    def first_states(self) -> Tensor:
        """Where the chain starts, ``(b, k, c, t)``."""
        drawn = self.noise().expand(len(self.mixture), -1, -1, -1)
        if self.start.kind == "noise":
            return drawn.clone()
        centre = self.mixture[:, None] if self.estimate is None else self.estimate
        signal = float(self.levels.signal[self.start.place(self.levels)])
        # one noise for all sources
        return signal**0.5 * centre + (1 - signal) ** 0.5 * drawn[:, :1].expand_as(drawn)

    def steps(self) -> Iterator[Step]:
        """The steps of the chain from the first level down; each is told of once it is done."""
        for number in range(self.start.first(self.levels), -1, -1):
            yield self.levels.step(number)
            if self.progress is not None:
                self.progress()


Solver = Callable[[Problem], PosteriorSample]
"""Separates a mixture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ancestral:
    """The chain of each prior, sampled level by level, with a rule by which the mixture guides it.

    At each level ``x' = c1 x0hat + c2 x_t + sqrt(betatilde) z`` with the estimates and, after it, the
    move of the rule. The last level, where the noise is 0, gives the estimates themselves, and their last
    move.

    Args:
        guidance: The rule.
        stop: Ends an item when its estimates have changed by less than this share of the mixture's norm from
            a level to the next, for three levels; the estimates at that level are its result. None never.
        batched: See `encore.inference.source_priors.Ensemble`.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020 (small variance).
    """

    guidance: Guidance
    stop: float | None = None
    batched: bool = True

    def __call__(self, problem: Problem) -> PosteriorSample:
        """Separate."""
        ensemble = Ensemble(problem.priors, self.batched)
        states = problem.first_states()
        log, still = Log(problem.mixture), Stopping(self.stop, problem.mixture)
        for step in problem.steps():
            with torch.set_grad_enabled(self.guidance.differentiates):
                states = states.detach().requires_grad_(self.guidance.differentiates)
                estimates = ensemble(states, step.signal)
                place = Place(step=step, states=states, estimates=estimates, mixture=problem.mixture)
                push = self.guidance(place)
            with torch.no_grad():
                used = estimates if push.estimates is None else push.estimates
                following = step.of_estimate * used + step.of_state * states
                if step.variance > 0:
                    following = following + step.variance**0.5 * problem.noise()
                log.add(used, push.loss, push.gradient, following - states)
                states = following if push.move is None else following + push.move
            if still.reached(used.detach()):
                break
        return log.sample(still.result(states.detach()), ensemble.evaluations, still.stopped)


def published() -> Ancestral:
    """The hybrid guidance with the published numbers."""
    return Ancestral(guidance=LossGuidance(schedule=hybrid()))
