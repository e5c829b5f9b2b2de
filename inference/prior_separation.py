"""A separator made of diffusion priors and a solver: a function of the mixture, like any other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from einops import rearrange
from torch import Generator, Tensor, nn

from encore.inference.permutation import matching_order, reorder
from encore.inference.posterior import Problem, Solver, Start
from encore.inference.posterior_log import PosteriorSample
from encore.inference.source_priors import Ensemble, SourcePrior
from encore.models.processes.diffusion import NoiseLevels
from encore.models.types import Separator, exchangeable

Choice = Literal["consistency", "likelihood", "both", "mean"]
"""What is made of several draws: see `PriorSeparator`."""

Progress = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Opens a bar of so many levels; what it gives is called after each."""

USUAL_SECONDS = 4.0
"""Windows of priors that do not say what they were trained on: the published ones."""

LIKELIHOOD_LEVELS = 8
"""Levels, evenly spread over the chain, at which the likelihood of a draw is looked at."""


class PriorSeparator(nn.Module):
    """Separate by sampling the sources of a mixture from their priors.

    The mixture is brought to the level at which the priors were trained, its sources at ``level_db``
    each, and the estimates back. With several draws the best one is kept, item by item: by
    ``"consistency"``, the smallest residual of the mixture; by ``"likelihood"``, the smallest error of
    the priors in finding the same noise in the estimates at several levels; by ``"both"``, the smallest
    sum of the ranks of both. ``"mean"`` keeps none of them, but their mean, which comes nearer to the sources
    than any draw where draws differ by chance: interchangeable sources in the order of the first draw.

    Args:
        priors: Of each source.
        sources: Their names; those that differ by their number only come in any order.
        solver: How to sample.
        levels: Chain of the priors.
        start: Where it starts.
        sample_rate: Rate in Hz of the priors.
        level_db: RMS of a source in dB of full scale; None leaves the mixture at its own.
        draws: How many times each mixture is separated, in one batch.
        choose: See above.
        seed: Of all noise: the same for every item and call.
        first: A separator of the same sources whose estimate the chain starts from.
        progress: Opens a bar for each call.

    Attributes:
        segment_seconds: Length of the windows in which long mixtures should be separated, see
            `encore.inference.segments`: the shortest that a prior was trained on.

    Raises:
        ValueError: If the arguments do not fit each other.

    Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025.
    """

    channels = 1

    def __init__(
        self,
        priors: Sequence[SourcePrior],
        sources: Sequence[str],
        *,
        solver: Solver,
        levels: NoiseLevels,
        sample_rate: int,
        start: Start,
        level_db: float | None = -22.5,
        draws: int = 1,
        choose: Choice = "both",
        seed: int = 0,
        first: Separator | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        if len(priors) != len(sources) or len(set(sources)) != len(sources):
            raise ValueError(f"sources={list(sources)}: give {len(priors)} different names, one a prior")
        if draws < 1 or choose not in get_args(Choice):
            raise ValueError(
                f"draws={draws}, choose={choose!r}: give 1 or more, and one of {', '.join(get_args(Choice))}"
            )
        if (first is None) != (start.kind != "estimate"):
            raise ValueError(
                f"start.kind={start.kind!r}: a first separator is for 'estimate', and needed there"
            )
        self.priors = list(priors)
        # so that they are moved to a device with it
        networks: dict[int, Any] = {id(prior.model): prior.model for prior in priors}
        self.models = nn.ModuleList(networks.values())
        self.sources, self.sample_rate = tuple(sources), int(sample_rate)
        self.solver, self.levels, self.start = solver, levels, start
        self.level_db, self.draws, self.choose, self.seed = level_db, draws, choose, seed
        self.first, self.progress = first, progress
        known = [getattr(network, "segment_seconds", None) for network in networks.values()]
        self.segment_seconds = min((length for length in known if length is not None), default=USUAL_SECONDS)

    @property
    def steps(self) -> int:
        """Levels that are run."""
        return self.start.first(self.levels) + 1

    @property
    def evaluations(self) -> int:
        """Evaluations of networks for one mixture, if nothing stops early.

        Of all levels, sources and draws, of the choice among these, and the first separator's.
        """
        return self.draws * self.steps * Ensemble(self.priors).evaluations + self._more_evaluations

    @property
    def _more_evaluations(self) -> int:
        """Those outside the chains."""
        judged = self.draws > 1 and self.choose in ("likelihood", "both")
        choice = self.draws * LIKELIHOOD_LEVELS * Ensemble(self.priors).evaluations if judged else 0
        return choice + (self.first is not None)

    def shortened(self, steps: int) -> PriorSeparator:
        """The same with a chain of so many levels, and without a bar: to see how long one takes."""
        short = copy.copy(self)
        short.levels, short.progress = self.levels.respaced(min(steps, len(self.levels))), None
        return short

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate ``(b, 1, t)`` into ``(b, s, 1, t)``, in the mixture's unit."""
        return self.sample(mixture)[0]

    def sample(self, mixture: Tensor) -> tuple[Tensor, PosteriorSample]:
        """As `forward`, with what the solver wrote down of all draws, which follow each other.

        Returns:
            Estimates ``(b, s, 1, t)``, and the sample of ``draws`` times b items, with the evaluations for
            one mixture as they were counted, see `evaluations`.

        Raises:
            ValueError: If the shape is wrong.
        """
        if mixture.ndim != 3 or mixture.shape[1] != 1:
            raise ValueError(f"mixture has shape {tuple(mixture.shape)}: give (batch, 1, time)")
        # gradients are taken inside, where a caller's mode must not forbid them
        with torch.inference_mode(False), torch.no_grad():
            return self._sample(mixture.clone())

    def _sample(self, mixture: Tensor) -> tuple[Tensor, PosteriorSample]:
        gain = self._gain(mixture)
        scaled = (gain * mixture).repeat(self.draws, 1, 1)
        estimate = None if self.first is None else gain[:, None] * self.first(mixture)
        opened = nullcontext(None) if self.progress is None else self.progress(self.steps)
        with opened as advance:
            sample = self.solver(
                Problem(
                    priors=self.priors,
                    mixture=scaled,
                    levels=self.levels,
                    generator=Generator().manual_seed(self.seed),
                    start=self.start,
                    estimate=None if estimate is None else estimate.repeat(self.draws, 1, 1, 1),
                    draws=self.draws,
                    progress=advance,
                )
            )
        found = rearrange(sample.estimates, "(d b) s c t -> d b s c t", d=self.draws)
        kept = self._mean(found) if self.choose == "mean" else self._best(found, gain * mixture)
        evaluations = self.draws * sample.evaluations + self._more_evaluations
        return kept / gain[:, None], replace(sample, evaluations=evaluations)

    def _gain(self, mixture: Tensor) -> Tensor:
        """To the priors' level, ``(b, 1, 1)``; of silence 1."""
        if self.level_db is None:
            return torch.ones_like(mixture[:, :1, :1])
        power = mixture.square().mean(dim=(1, 2), keepdim=True)
        wanted = len(self.priors) * 10 ** (self.level_db / 10)
        return torch.where(power > 0, (wanted / power.clamp_min(1e-20)).sqrt(), 1.0)

    def _mean(self, found: Tensor) -> Tensor:
        """``(b, s, 1, t)`` of draws ``(draw, b, s, 1, t)``."""
        groups = exchangeable(self.sources)
        ordered = [reorder(draw, matching_order(draw, found[0], groups)) for draw in found]
        return torch.stack(ordered).mean(dim=0)

    def _best(self, found: Tensor, mixture: Tensor) -> Tensor:
        """``(b, s, 1, t)``, of every item the draw to keep of ``(draw, b, s, 1, t)``."""
        if len(found) == 1:
            return found[0]
        number = self._best_number(found, mixture)
        best: Tensor = found.gather(0, number[None, :, None, None, None].expand_as(found[:1]))[0]
        return best

    def _best_number(self, found: Tensor, mixture: Tensor) -> Tensor:
        """Number ``(b,)`` of the draw to keep."""
        misses = torch.stack([(mixture - draw.sum(dim=1)).square().sum(dim=(1, 2)) for draw in found])
        if self.choose == "consistency":
            return misses.argmin(dim=0)
        unlikely = torch.stack([self.unlikeliness(draw) for draw in found])
        if self.choose == "likelihood":
            return unlikely.argmin(dim=0)
        ranks = misses.argsort(dim=0).argsort(dim=0) + unlikely.argsort(dim=0).argsort(dim=0)
        # a tie is left to the mixture
        return (ranks * len(found) + misses.argsort(dim=0).argsort(dim=0)).argmin(dim=0)

    @torch.no_grad()
    def unlikeliness(self, estimates: Tensor) -> Tensor:
        """How badly the priors find noise in estimates ``(b, s, 1, t)``, ``(b,)``: lower is more likely.

        The mean squared error of the noise over sources, samples and levels, as the bound on the likelihood
        has it but for its weights, with the same noise for all.
        """
        ensemble, generator = Ensemble(self.priors), Generator().manual_seed(self.seed + 1)
        total = estimates.new_zeros(len(estimates))
        for place in self.levels.places(LIKELIHOOD_LEVELS):
            signal = self.levels.step(place).signal
            noise = torch.randn(estimates.shape[1:], generator=generator).to(estimates)
            states = signal**0.5 * estimates + (1 - signal) ** 0.5 * noise
            error = (ensemble(states, signal) - estimates) * (signal / (1 - signal)) ** 0.5
            total = total + error.square().mean(dim=(1, 2, 3))
        return total / LIKELIHOOD_LEVELS
