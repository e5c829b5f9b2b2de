"""Diffusion priors and a solver as a separator, a function of the mixture like any other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from einops import rearrange
from torch import Generator, Tensor, nn

from encore.inference.permutation import matching_order, reorder
from encore.inference.posterior import PosteriorSample, SeparationProblem, Solver, Start
from encore.inference.source_priors import PriorBank, SourcePrior
from encore.models.processes.diffusion import NoiseLevels
from encore.models.types import Separator, permutation_groups

Choice = Literal["consistency", "likelihood", "both", "mean"]
"""How several draws become one estimate, see `PriorSeparator`."""

DEFAULT_SECONDS = 4.0
"""Published segment length, for priors that do not state the one they were trained on."""

LIKELIHOOD_LEVELS = 8
"""Levels, evenly spaced over the chain, at which the likelihood of a draw is estimated."""


class PriorSeparator(nn.Module):
    """Separate by sampling the sources of a mixture from their priors.

    The mixture is scaled to the level at which the priors were trained, ``level_db`` per source, and the
    estimates back. Of several draws the best is kept, item by item: by ``"consistency"``, the smallest
    residual of the mixture; by ``"likelihood"``, the priors' smallest error in estimating the same noise at
    several levels; by ``"both"``, the smallest sum of both ranks. ``"mean"`` returns the mean of the draws,
    which is closer to the sources than any draw where draws differ by chance: interchangeable sources in the
    order of the first draw.

    Args:
        priors: One for each source.
        sources: Their names; those that differ by their number only come in any order.
        solver: Samples the sources.
        levels: Chain of the priors.
        start: Where it starts.
        sample_rate: Rate in Hz of the priors.
        level_db: RMS of a source in dB of full scale; None leaves the mixture at its own.
        draws: How many times each mixture is separated, in one batch.
        choose: See above.
        seed: Of all noise: the same for every item and call.
        first: A separator of the same sources whose estimate the chain starts from.
        progress: Wraps the numbers of the levels of each call, as `tqdm` does.

    Attributes:
        segment_seconds: Segment length for long mixtures: the shortest that a prior was trained on.

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
        progress: Callable[[range], Iterable[int]] = iter,
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
        # registered, so that they move to a device with it
        self.models = nn.ModuleList({id(prior.model): prior.model for prior in priors}.values())
        self.sources, self.sample_rate = tuple(sources), int(sample_rate)
        self.solver, self.levels, self.start = solver, levels, start
        self.level_db, self.draws, self.choose, self.seed = level_db, draws, choose, seed
        self.first, self.progress = first, progress
        known = [getattr(network, "segment_seconds", None) for network in self.models]
        self.segment_seconds = min(filter(None, known), default=DEFAULT_SECONDS)

    @property
    def steps(self) -> int:
        """Number of levels that are run."""
        return self.start.first(self.levels) + 1

    @property
    def evaluations(self) -> int:
        """Network evaluations per mixture if nothing stops early, those outside the chains included."""
        return self.draws * self.steps * PriorBank(self.priors).evaluations + self._other_evaluations

    @property
    def _other_evaluations(self) -> int:
        """Network evaluations outside the chains."""
        rated = self.draws > 1 and self.choose in ("likelihood", "both")
        choice = self.draws * LIKELIHOOD_LEVELS * PriorBank(self.priors).evaluations if rated else 0
        return choice + (self.first is not None)

    def shortened(self, steps: int) -> PriorSeparator:
        """Return a copy with a chain of ``steps`` levels and no progress bar, to measure the time of one."""
        short = copy.copy(self)
        short.levels, short.progress = self.levels.respaced(min(steps, len(self.levels))), iter
        return short

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate ``(b, 1, t)`` into ``(b, s, 1, t)``, in the mixture's unit."""
        return self.sample(mixture)[0]

    def sample(self, mixture: Tensor) -> tuple[Tensor, PosteriorSample]:
        """Separate, and return the solver's sample of all draws too.

        Returns:
            Estimates ``(b, s, 1, t)``, and the sample of ``draws`` times b items, one draw after the other,
            with the counted evaluations per mixture, see `evaluations`.

        Raises:
            ValueError: If the shape is wrong.
        """
        if mixture.ndim != 3 or mixture.shape[1] != 1:
            raise ValueError(f"mixture has shape {tuple(mixture.shape)}: give (batch, 1, time)")
        # solvers need gradients in any mode of the caller
        with torch.inference_mode(False), torch.no_grad():
            mixture = mixture.clone()
            gain = self._gain(mixture)
            estimate = None if self.first is None else gain[:, None] * self.first(mixture)
            sample = self.solver(
                SeparationProblem(
                    priors=self.priors,
                    mixture=(gain * mixture).repeat(self.draws, 1, 1),
                    levels=self.levels,
                    generator=Generator().manual_seed(self.seed),
                    start=self.start,
                    estimate=None if estimate is None else estimate.repeat(self.draws, 1, 1, 1),
                    draws=self.draws,
                    progress=self.progress,
                )
            )
            found = rearrange(sample.estimates, "(d b) s c t -> d b s c t", d=self.draws)
            evaluations = self.draws * sample.evaluations + self._other_evaluations
            kept = self._chosen(found, gain * mixture) / gain[:, None]
            return kept, replace(sample, evaluations=evaluations)

    def _gain(self, mixture: Tensor) -> Tensor:
        """Return the gain ``(b, 1, 1)`` to the priors' level; 1 for silence."""
        if self.level_db is None:
            return torch.ones_like(mixture[:, :1, :1])
        power = mixture.square().mean(dim=(1, 2), keepdim=True)
        wanted = len(self.priors) * 10 ** (self.level_db / 10)
        return torch.where(power > 0, (wanted / power.clamp_min(1e-20)).sqrt(), 1.0)

    def _chosen(self, found: Tensor, mixture: Tensor) -> Tensor:
        """Return one estimate ``(b, s, 1, t)`` of draws ``(draw, b, s, 1, t)``, see ``choose``."""
        if len(found) == 1:
            return found[0]
        if self.choose == "mean":
            groups = permutation_groups(self.sources)
            ordered = [reorder(draw, matching_order(draw, found[0], groups)) for draw in found]
            return torch.stack(ordered).mean(dim=0)
        cost = residuals = (mixture - found.sum(dim=2)).square().sum(dim=(2, 3))
        if self.choose != "consistency":
            cost = errors = torch.stack([self.denoising_error(draw) for draw in found])
        if self.choose == "both":
            rank, other = (values.argsort(dim=0).argsort(dim=0) for values in (residuals, errors))
            # the residual decides ties
            cost = (rank + other) * len(found) + rank
        return reorder(found.transpose(0, 1), cost.argmin(dim=0)[:, None])[:, 0]

    @torch.no_grad()
    def denoising_error(self, estimates: Tensor) -> Tensor:
        """Return the priors' mean squared error ``(b,)`` of noise added to estimates ``(b, s, 1, t)``.

        Over sources, samples and levels, as in the bound on the likelihood but for its weights, with the same
        noise for all: lower is more likely.
        """
        bank, generator = PriorBank(self.priors), Generator().manual_seed(self.seed + 1)
        total = estimates.new_zeros(len(estimates))
        for index in self.levels.indices(LIKELIHOOD_LEVELS):
            alpha_bar = self.levels.step(index).alpha_bar
            noise = torch.randn(estimates.shape[1:], generator=generator).to(estimates)
            states = alpha_bar**0.5 * estimates + (1 - alpha_bar) ** 0.5 * noise
            error = (bank(states, alpha_bar) - estimates) * (alpha_bar / (1 - alpha_bar)) ** 0.5
            total = total + error.square().mean(dim=(1, 2, 3))
        return total / LIKELIHOOD_LEVELS
