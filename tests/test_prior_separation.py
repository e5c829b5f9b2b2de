"""Separators of priors: levels, draws, order of sources, evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from prior_toys import smooth_and_rough
from torch import Tensor

from encore.inference.guidance import LossGuidance, Projection, hybrid
from encore.inference.posterior import Ancestral, PosteriorSample, SeparationProblem, Start
from encore.inference.prior_separation import PriorSeparator
from encore.inference.source_priors import SourcePrior
from encore.models.processes.diffusion import DiscreteDiffusion
from encore.models.types import LoadedSeparator

SOLVER = Ancestral(guidance=Projection())


class Gaussian(torch.nn.Module):
    """The ideal denoiser of a Gaussian source as a model."""

    classes = ()
    limit = None

    def __init__(self, denoise) -> None:
        super().__init__()
        self.denoise = denoise

    def forward(self, state, alpha_bar, labels):
        return self.denoise(state, alpha_bar)


def separator(**options) -> PriorSeparator:
    sources, _ = smooth_and_rough()
    priors = [SourcePrior(model=Gaussian(denoise)) for denoise in sources.priors]
    settings = {
        "solver": SOLVER,
        "levels": DiscreteDiffusion().levels(40),
        "sample_rate": 8000,
        "start": Start(),
        "level_db": None,
    }
    return PriorSeparator(priors, ["smooth", "rough"], **(settings | options))


def test_it_is_a_separator_whose_estimates_follow_the_mixtures_level() -> None:
    _, mixture = smooth_and_rough()
    made = separator(level_db=-22.5)
    assert isinstance(made, LoadedSeparator)
    assert (made.sources, made.sample_rate, made.channels) == (("smooth", "rough"), 8000, 1)
    found = made(mixture)
    assert found.shape == (20, 2, 1, 100)
    torch.testing.assert_close(made(1000 * mixture), 1000 * found)
    # at its own level a mixture is another one
    assert not torch.allclose(separator()(1000 * mixture), 1000 * separator()(mixture), rtol=0.1)
    # sources of -22.5 dB each are what the priors then see
    seen = []
    made.solver = lambda problem: seen.append(problem.mixture) or SOLVER(problem)
    made(mixture[:1])
    assert 10 * float(seen[0].square().mean().log10()) == pytest.approx(-22.5 + 10 * 0.30103, abs=1e-3)
    assert torch.equal(made(torch.zeros(1, 1, 100).double()).isfinite(), torch.ones(1, 2, 1, 100).bool())


def test_results_depend_on_the_seed_and_not_on_the_batch() -> None:
    _, mixture = smooth_and_rough()
    first = separator(seed=1)(mixture)
    assert torch.equal(separator(seed=1)(mixture), first)
    torch.testing.assert_close(separator(seed=1)(mixture[3:4])[0], first[3])
    assert not torch.allclose(separator(seed=2)(mixture), first)


@pytest.mark.parametrize("choose", ["consistency", "likelihood", "both"])
def test_the_best_of_several_draws_is_kept(choose: str) -> None:
    _, mixture = smooth_and_rough()
    made = separator(draws=6, choose=choose, solver=Ancestral(guidance=Projection(), stop=0.5))
    best, sample = made.sample(mixture)
    draws = sample.estimates.unflatten(0, (6, 20))
    assert not torch.allclose(draws[0], draws[1])
    torch.testing.assert_close(made(mixture[3:4])[0], best[3])
    residuals = (mixture - draws.sum(dim=2)).square().sum(dim=(2, 3))
    errors = torch.stack([made.denoising_error(draw) for draw in draws])
    ranked = {"consistency": [residuals], "likelihood": [errors], "both": [residuals, errors]}[choose]
    for item in range(20):
        kept = next(draw for draw in range(6) if torch.equal(draws[draw, item], best[item]))
        ranks = sum((values[:, item, None] > values[:, item]).sum(1) for values in ranked)
        assert ranks[kept] == ranks.min()


def test_the_mean_of_draws_is_nearer_than_each() -> None:
    sources, mixture = smooth_and_rough()
    mean, sample = separator(draws=6, choose="mean").sample(mixture)
    draws = sample.estimates.unflatten(0, (6, 20))
    torch.testing.assert_close(mean, draws.mean(0))
    true = sources.mean(mixture)
    assert float((mean - true).norm()) < 0.9 * min(float((draw - true).norm()) for draw in draws)


def test_draws_of_interchangeable_sources_are_brought_into_one_order() -> None:
    sources, mixture = smooth_and_rough()
    priors = [SourcePrior(model=Gaussian(denoise)) for denoise in sources.priors]
    true = sources.mean(mixture)

    def turning(problem: SeparationProblem) -> PosteriorSample:
        estimates = torch.cat((true, true.flip(1)))
        return replace(SOLVER(problem), estimates=estimates)

    options = {"solver": turning, "levels": DiscreteDiffusion().levels(3), "sample_rate": 8000}
    options |= {"start": Start(), "level_db": None, "draws": 2, "choose": "mean"}
    torch.testing.assert_close(PriorSeparator(priors, ["speaker1", "speaker2"], **options)(mixture), true)
    mixed_up = PriorSeparator(priors, ["smooth", "rough"], **options)(mixture)
    torch.testing.assert_close(mixed_up, (true + true.flip(1)) / 2)


def test_exchanged_estimates_are_less_likely() -> None:
    sources, mixture = smooth_and_rough()
    made, right = separator(), sources.mean(mixture)
    assert bool((made.denoising_error(right) < made.denoising_error(right.flip(1))).all())


def test_a_separators_estimate_can_be_the_start() -> None:
    sources, mixture = smooth_and_rough()
    start = Start(kind="estimate", at=1 / 200, whole_chain=False)
    made = separator(start=start, first=sources.mean, level_db=-22.5)
    assert made.steps == 1
    true = sources.mean(mixture)
    error = (made(mixture) - true).norm() / true.norm()
    cold = (separator(start=Start(at=1 / 200, whole_chain=False))(mixture) - true).norm() / true.norm()
    assert float(error) < 0.1 < 0.3 < float(cold)


@pytest.mark.parametrize(
    ("options", "evaluations"),
    [
        ({}, 2 * 10),
        ({"draws": 3, "choose": "consistency"}, 3 * 2 * 10),
        ({"draws": 3, "choose": "both"}, 3 * 2 * (10 + 8)),
        ({"start": Start(kind="estimate", at=0.5, whole_chain=False), "first": True}, 2 * 5 + 1),
    ],
)
def test_network_evaluations_are_counted(options: dict, evaluations: int) -> None:
    sources, mixture = smooth_and_rough()
    calls: list[int] = []

    def counted(denoise):
        def call(state, alpha_bar):
            calls.append(len(state))
            return denoise(state, alpha_bar)

        return call

    def first(mixture: Tensor) -> Tensor:
        calls.append(len(mixture))
        return sources.mean(mixture)

    options = options | ({"first": first} if "first" in options else {})
    made = separator(levels=DiscreteDiffusion().levels(10), **options)
    for prior in made.priors:
        prior.model.denoise = counted(prior.model.denoise)
    assert made.sample(mixture[:1])[1].evaluations == made.evaluations == evaluations == sum(calls)
    short = made.shortened(2)
    assert short.sample(mixture[:1])[1].steps == short.steps == (1 if "first" in options else 2)


def test_gradients_are_taken_whatever_mode_the_caller_is_in() -> None:
    mixture = smooth_and_rough()[1][:2]
    made = separator(solver=Ancestral(guidance=LossGuidance(schedule=hybrid())))
    plain = made(mixture)
    with torch.inference_mode():
        torch.testing.assert_close(made(1.0 * mixture), plain)
    with torch.no_grad():
        torch.testing.assert_close(made(mixture), plain)


def test_progress_is_reported_for_every_level() -> None:
    reported = []

    def bar(levels: range) -> Iterator[int]:
        for level in levels:
            yield level
            reported.append(level)

    separator(progress=bar)(smooth_and_rough()[1][:1])
    assert reported == [*range(39, -1, -1)]
