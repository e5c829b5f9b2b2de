"""The log of a solver's steps, and convergence."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from prior_toys import generator, solved, unlike_sources
from torch import Tensor

from encore.inference.guidance import LossGuidance, Projection, hybrid
from encore.inference.posterior import Ancestral
from encore.inference.posterior_log import PosteriorSample
from encore.models.processes.diffusion import DiscreteDiffusion


def test_conflict_is_the_strength_that_cancels_a_step() -> None:
    """At that strength prior and guidance together do not move along the gradient."""
    mixture = torch.randn(1, 1, 4000, generator=generator())
    seen = {}

    class Watched(LossGuidance):
        def __call__(self, state):
            seen["before"] = state.states.detach()
            update = LossGuidance(schedule=hybrid())(state)
            seen["gradient"] = update.gradient
            return replace(update, move=torch.zeros_like(update.move))

    levels = DiscreteDiffusion().levels(2)
    chain = Ancestral(guidance=Watched(schedule=hybrid()))
    sample = solved(
        chain, [lambda x, s: 0.5 * x, lambda x, s: 0.2 * x], mixture, levels, generator=generator(1)
    )
    # the last step has no move, so that the end is where the prior went
    went = sample.estimates - seen["before"]
    strength = sample.conflicts[-1][..., None, None]
    together = went - strength * seen["gradient"]
    assert abs(float((together * seen["gradient"]).sum())) < 1e-3 * float(
        went.norm() * seen["gradient"].norm()
    )


def test_converged_items_keep_their_estimates_and_the_others_go_on() -> None:
    sources, mixture = unlike_sources(), torch.randn(2, 1, 6, generator=generator()).double()
    mixture[1] = 0.01 * mixture[1]  # beside its noise, so that it converges later
    levels = DiscreteDiffusion().levels()
    seen: list[Tensor] = []

    class Watched(Projection):
        def __call__(self, state):
            update = Projection()(state)
            seen.append(update.estimates)
            return update

    def run(stop: float | None) -> PosteriorSample:
        seen.clear()
        chain = Ancestral(guidance=Watched(), stop=stop)
        return solved(chain, sources.priors, mixture, levels, generator=generator())

    full = run(None)
    assert not bool(full.stopped.any())
    norms = mixture.flatten(1).norm(dim=1)
    changes = torch.stack([(b - a).flatten(1).norm(dim=1) / norms for a, b in pairwise(seen)])
    # the largest of three changes in a row, and where that is smallest for the first item
    largest = changes.unfold(0, 3, 1).amax(dim=-1)
    stop = float(largest[:, 0].min()) * 1.001
    assert float(largest[:, 1].min()) > stop
    level = int((largest[:, 0] < stop).int().argmax()) + 3
    kept = seen[level][0]
    sample = run(stop)
    assert sample.stopped.tolist() == [True, False]
    torch.testing.assert_close(sample.estimates[0], kept)
    torch.testing.assert_close(sample.estimates[1], full.estimates[1])
    loose = run(1e4)
    assert (loose.steps, loose.stopped.tolist()) == (4, [True, True])
    torch.testing.assert_close(loose.estimates, seen[3])
    with pytest.raises(ValueError, match="stop=0"):
        run(0.0)
