"""Sources sampled from diffusion priors so that they sum to a mixture: one call, many solvers.

Every solver is a function of priors, mixture and noise levels and returns a :class:`PosteriorSample`.
This file has what they share and the ancestral one; :mod:`inference.posterior_flow` and
:mod:`inference.red_diff` have those that are not ancestral.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Generator, Tensor

from inference.guidance import Guidance, LossGuidance, Place, hybrid
from inference.source_priors import Ensemble, Noise
from models.processes.diffusion import NoiseLevels
from models.types import Denoiser

StartKind = Literal["mixture", "noise", "estimate"]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Where a chain starts.

    Args:
        kind: ``"mixture"``: ``sqrt(abar) y + sqrt(1 - abar) eps`` for every source, with one eps for all;
            ``"noise"``: white noise, one for each; ``"estimate"``: as the first, each source with an estimate
            of its own in the mixture's place.
        at: Place of that abar in the chain, as a share in (0, 1]: 0.75 is the 150th of 200 levels. The chain
            must not be shorter for it.
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
        return len(levels) - 1 if self.kind == "noise" or self.whole_chain else self._place(levels)

    def states(
        self, mixture: Tensor, count: int, levels: NoiseLevels, noise: Noise, estimate: Tensor | None
    ) -> Tensor:
        """First states ``(b, k, c, t)``.

        Args:
            mixture: ``(b, c, t)``.
            count: Sources.
            levels: The chain.
            noise: Draws white noise.
            estimate: ``(b, k, c, t)`` for ``kind="estimate"``.
        """
        if estimate is not None and estimate.shape[1:] != (count, *mixture.shape[1:]):
            raise ValueError(
                f"estimate has shape {tuple(estimate.shape)}: give {count} sources like the mixture "
                f"{tuple(mixture.shape)}"
            )
        drawn = noise().to(mixture).expand(len(mixture), count, *mixture.shape[1:])
        if self.kind == "noise":
            return drawn.clone()
        if (estimate is None) != (self.kind == "mixture"):
            raise ValueError(
                f"kind={self.kind!r}: give an estimate of the sources for 'estimate', and only then"
            )
        centre = mixture[:, None] if estimate is None else estimate
        signal = float(levels.signal[self._place(levels)])
        # one noise for all sources
        common = drawn[:, :1].expand_as(drawn)
        return signal**0.5 * centre + (1 - signal) ** 0.5 * common

    def _place(self, levels: NoiseLevels) -> int:
        return max(0, round(self.at * len(levels)) - 1)


PUBLISHED_START = Start()
"""The published code's."""


class Solver(Protocol):
    """Mixture and priors to sources."""

    def __call__(
        self,
        priors: Sequence[Denoiser],
        mixture: Tensor,
        levels: NoiseLevels,
        *,
        generator: Generator,
        start: Start,
        estimate: Tensor | None = None,
        draws: int = 1,
        progress: Callable[[], None] | None = None,
    ) -> PosteriorSample:
        """Separate.

        Args:
            priors: One for each source.
            mixture: ``(b, c, t)``, the sum of the sources, in full scale.
            levels: The chain of the priors.
            generator: For all noise.
            start: Where the chain starts.
            estimate: ``(b, k, c, t)``, where it starts from an estimate.
            draws: The batch is so many draws of the same mixtures, one after the other. Items of one draw get
                the same noise, so that no result depends on what else is in the batch.
            progress: Called after every level.
        """
        ...


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
        checkpointed: See :class:`inference.source_priors.Ensemble`.
        batched: See there.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020 (small variance).
    """

    guidance: Guidance
    stop: float | None = None
    checkpointed: bool = False
    batched: bool = True

    def __call__(
        self,
        priors: Sequence[Denoiser],
        mixture: Tensor,
        levels: NoiseLevels,
        *,
        generator: Generator,
        start: Start = PUBLISHED_START,
        estimate: Tensor | None = None,
        draws: int = 1,
        progress: Callable[[], None] | None = None,
    ) -> PosteriorSample:
        """See :class:`Solver`."""
        ensemble = Ensemble(priors, self.checkpointed, self.batched)
        noise = white_noise(mixture, len(priors), generator, draws)
        states = start.states(mixture, len(priors), levels, noise, estimate)
        log, still = Log(mixture), _Stopping(self.stop, mixture)
        for number in range(start.first(levels), -1, -1):
            step = levels.step(number)
            with torch.set_grad_enabled(self.guidance.differentiates):
                states = states.detach().requires_grad_(self.guidance.differentiates)
                place = Place(
                    step=step, states=states, estimates=ensemble(states, step.signal), mixture=mixture
                )
                push = self.guidance(place)
            with torch.no_grad():
                used = place.estimates if push.estimates is None else push.estimates
                following = step.of_estimate * used + step.of_state * states
                if step.variance > 0:
                    following = following + step.variance**0.5 * noise()
                log.add(used, push.loss, push.gradient, following - states)
                states = following if push.move is None else following + push.move
            if progress is not None:
                progress()
            if still.reached(used.detach()):
                break
        return log.sample(still.result(states.detach()), ensemble.evaluations, still.stopped)


def published() -> Ancestral:
    """The hybrid guidance with the published numbers."""
    return Ancestral(guidance=LossGuidance(schedule=hybrid()))


def white_noise(mixture: Tensor, count: int, generator: Generator, draws: int) -> Noise:
    """Draws ``(b, k, c, t)``, or ``(1, k, c, t)`` for a single draw, anew at each call; see :class:`Solver`.

    Raises:
        ValueError: If the batch is not so many times the same number of items.
    """
    if draws < 1 or len(mixture) % draws:
        raise ValueError(f"draws={draws}: a batch of {len(mixture)} is not so many times the same mixtures")
    shape, items = (draws, count, *mixture.shape[1:]), 1 if draws == 1 else len(mixture) // draws

    def drawn() -> Tensor:
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=mixture.dtype)
        return noise.to(mixture.device).repeat_interleave(items, dim=0)

    return drawn


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
            stopped=torch.zeros(len(estimates), dtype=torch.bool) if stopped is None else stopped,
        )


class _Stopping:
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
