"""Solvers of the posterior under source priors: closed forms, exact lengths, and laws of all solvers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from gaussian_sources import GaussianSources
from prior_toys import (
    alike_sources,
    generator,
    problem,
    smooth_and_rough,
    solved,
    unlike_sources,
    white_sources,
)
from torch import Tensor

from encore.inference.guidance import (
    LossGuidance,
    Projection,
    PseudoInverse,
    Unguided,
    constant,
    hybrid,
    proportional,
)
from encore.inference.posterior import Ancestral, PosteriorSample, SeparationProblem, Start
from encore.inference.posterior_flow import SourceFlow
from encore.inference.reconstruction import ReconstructionLoss
from encore.inference.red_diff import RedDiff
from encore.inference.source_priors import PriorBank
from encore.models.processes.diffusion import DiscreteDiffusion

LEVELS = DiscreteDiffusion().levels(50)
SHORT = ReconstructionLoss(chunk=2, window=4, hop=2)
SOLVERS = {
    "hybrid": Ancestral(guidance=LossGuidance(schedule=hybrid(), loss=SHORT)),
    "joint": Ancestral(guidance=LossGuidance(schedule=hybrid(), loss=SHORT, normalise="joint")),
    "proportional": Ancestral(guidance=LossGuidance(schedule=proportional(), loss=SHORT)),
    "constant": Ancestral(guidance=LossGuidance(schedule=constant(0.1), loss=SHORT, normalise="none")),
    "pseudo_inverse": Ancestral(guidance=PseudoInverse(powers=(0.5, 0.5))),
    "projection": Ancestral(guidance=Projection()),
    "dirac": SourceFlow(constrained=0),
    "gaussian": SourceFlow(),
    "red_diff": RedDiff(rate=0.05),
}


def drawn(solver, sources: GaussianSources, *, count: int = 20_000, levels=LEVELS) -> tuple[Tensor, Tensor]:
    """Return the error of the mean of samples of one mixture, ``(k t,)``, and their covariance."""
    mixture = torch.linspace(1.0, -0.6, sources.length, dtype=torch.float64).expand(1, count, -1)
    sample = solved(solver, sources.priors, mixture, levels, generator=generator(), start=Start(kind="noise"))
    flat = sample.estimates[0].transpose(0, 1).flatten(1)
    return flat.mean(0) - sources.mean(mixture[:, :1])[0, :, 0].flatten(), torch.cov(flat.T)


def test_the_exact_kernel_reaches_mean_and_covariance_to_rounding() -> None:
    """Mean and covariance are propagated through every step in closed form, instead of being sampled."""
    sources, levels = unlike_sources(), DiscreteDiffusion().levels()
    size, eye = 12, torch.eye(12, dtype=torch.float64)
    mixture = torch.linspace(1, -1, 6, dtype=torch.float64)
    last = levels.step(199)
    mean = last.alpha_bar**0.5 * sources.mean(mixture[None, None])[0, :, 0].flatten()
    covariance = last.alpha_bar * sources.covariance() + (1 - last.alpha_bar) * eye
    plain = covariance.clone()
    for number in range(199, -1, -1):
        step = levels.step(number)
        # the step's affine map, read off the ideal denoisers and gains at 0 and at unit vectors
        own, total = sources.conditional(step)
        gains = (own @ torch.linalg.inv(total)).reshape(size, 6)
        states = torch.cat((torch.zeros(1, size), eye)).reshape(-1, 2, 1, 6).double()
        found = PriorBank(sources.priors)(states, step.alpha_bar)
        residual = mixture - found.sum(dim=1)[:, 0]
        moved = step.estimate_weight * (found[:, :, 0].flatten(1) + residual @ gains.T)
        moved = moved + step.state_weight * states[:, :, 0].flatten(1)
        matrix = (moved[1:] - moved[0]).T
        mean = matrix @ mean + moved[0]
        covariance = matrix @ covariance @ matrix.T + sources.kernel(step)
        plain = matrix @ plain @ matrix.T + step.variance * eye
    true = sources.covariance()
    torch.testing.assert_close(mean, sources.mean(mixture[None, None])[0, :, 0].flatten())
    torch.testing.assert_close(covariance, true, atol=1e-10, rtol=1e-8)
    # the noise of plain ancestral sampling is a little too small
    ratio = plain.diagonal() / true.diagonal()
    assert 0.7 < float(ratio.min()) < float(ratio.max()) < 0.99


def test_projection_has_the_exact_mean_where_sources_are_alike_and_not_elsewhere() -> None:
    """``C_k C^-1 = 1 / K`` for equal covariances of any shape, without noise in the mixture."""
    alike = alike_sources(3)
    off, covariance = drawn(SOLVERS["projection"], alike)
    spread = alike.covariance().diagonal().sqrt()
    assert float((off / spread).abs().max()) < 0.04
    # the plain noise of the chain is a little too small, and the sum is the mixture
    assert 0.8 < float((covariance.diagonal() / spread.square()).mean()) < 1.02
    off, _ = drawn(SOLVERS["projection"], unlike_sources(0.0))
    assert float((off / unlike_sources(0.0).covariance().diagonal().sqrt()).abs().max()) > 0.3


def test_the_pseudo_inverse_is_exact_in_the_mean_for_white_sources_of_known_power() -> None:
    """``J_k sigma^2 sqrt(abar) = C_k`` and ``sum r_j^2 = C`` there, powers equal or not."""
    for powers in ((0.5, 0.5), (1.0, 0.1)):
        white = white_sources(*powers, noise=0.1)
        solver = Ancestral(guidance=PseudoInverse(powers=powers, noise=0.1))
        off, _ = drawn(solver, white)
        spread = white.covariance().diagonal().sqrt()
        assert float((off / spread).abs().max()) < 0.05
    # quiet sources suffer from the assumption of unit variance
    quiet = white_sources(0.01, 0.001)
    off, _ = drawn(Ancestral(guidance=PseudoInverse()), quiet)
    assert float((off / quiet.covariance().diagonal().sqrt()).abs().max()) > 1


def test_the_pseudo_inverse_assumes_equal_parts_of_each_mixture_for_unknown_powers() -> None:
    sources = unlike_sources()
    mixture = torch.tensor([1.0, 0.1]).double()[:, None, None] * torch.randn(2, 1, 6).double()

    def run(powers: tuple[float, float] | None, mixture: Tensor) -> Tensor:
        solver = Ancestral(guidance=PseudoInverse(powers=powers, noise=0.01))
        return solved(solver, sources.priors, mixture, LEVELS, generator=generator()).estimates

    found = run(None, mixture)
    for item in range(2):
        power = (float(mixture[item].square().mean()) - 1e-4) / 2
        torch.testing.assert_close(found[[item]], run((power, power), mixture[[item]]))
    assert bool(run(None, 0 * mixture).isfinite().all())


@pytest.mark.parametrize("kind", ["source", "joint"])
@pytest.mark.parametrize("shortened", ["summed", "own"])
def test_every_sources_step_has_the_exact_length(kind: str, shortened: str) -> None:
    """With a prior without information, only guidance moves."""
    rule = LossGuidance(schedule=hybrid(), normalise=kind, shortened=shortened)
    lengths = []

    class Watched(LossGuidance):
        def __call__(self, step, *signals):
            update = rule(step, *signals)
            lengths.append((step, update.move.norm(dim=(2, 3))))
            return update

    mixture = 0.1 * torch.randn(2, 1, 4000, generator=generator())
    watched = Ancestral(guidance=Watched(schedule=hybrid()))
    solved(watched, [lambda x, s: 0.1 * x, lambda x, s: 0.3 * x], mixture, LEVELS, generator=generator(1))
    assert len(lengths) == 50
    for step, found in lengths:
        # the steps of the whole chain, see test_diffusion
        length = 4000**0.5 * sum(map(hybrid(), step.substeps if shortened == "summed" else [step]))
        if kind == "source":
            torch.testing.assert_close(found, torch.full((2, 2), length))
        else:
            torch.testing.assert_close(found.norm(dim=1), torch.full((2,), 2**0.5 * length))
            # a source that depends more on its state gets the larger step
            assert bool((found[:, 1] > 2 * found[:, 0]).all())


def test_schedules() -> None:
    levels = DiscreteDiffusion().levels()
    for number in (0, 1, 50, 199):
        step = levels.step(number)
        high = 0.09 * step.variance**0.5
        written = torch.tensor([1000 * high, 2.0], dtype=torch.float64).logsumexp(0) / 1000
        assert hybrid()(step) == pytest.approx(float(written))
        assert proportional()(step) == pytest.approx(high)
        assert hybrid(floor=0.0)(step) >= high
        assert constant(1.5)(step) == 1.5
    assert hybrid(sharpness=1e9)(levels.step(0)) == pytest.approx(0.002)


@pytest.mark.parametrize("name", SOLVERS)
def test_laws_of_all_solvers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solver, sources = SOLVERS[name], alike_sources()
    mixture = torch.randn(3, 1, 6, generator=generator()).double()

    def run(priors=sources.priors, mixture=mixture, solver=solver, seed=1) -> PosteriorSample:
        return solved(solver, priors, mixture, LEVELS, generator=generator(seed))

    first = run()
    assert first.estimates.shape == (3, 2, 1, 6)
    assert first.evaluations == 100
    assert first.residuals.shape == (50, 3)
    assert torch.equal(run().estimates, first.estimates)
    if name not in ("dirac", "gaussian"):
        assert not torch.equal(run(seed=2).estimates, first.estimates)
    torch.testing.assert_close(run(mixture=mixture[1:2]).estimates[0], first.estimates[1])
    estimate = torch.stack((mixture, 0 * mixture), dim=1)
    options = {"start": Start(kind="estimate", at=0.01, whole_chain=False), "estimate": estimate}
    near = solved(
        solver, sources.priors, mixture, DiscreteDiffusion().levels(), generator=generator(), **options
    )
    assert near.steps == 2
    assert float((near.estimates - estimate).norm() / estimate.norm()) < 0.1
    # the order of sources is of no meaning but for the noise that each gets, and the one that is constrained
    unlike = unlike_sources()
    drawn = SeparationProblem.noise
    monkeypatch.setattr(SeparationProblem, "noise", lambda self: drawn(self).flip(1))
    # all sources start from one noise, which is the first source's
    monkeypatch.setattr(
        SeparationProblem,
        "first_states",
        lambda self: self.mixture[:, None].expand(-1, len(self.priors), -1, -1) + 0.0,
    )
    other = replace(solver, constrained=1) if name == "dirac" else solver
    flipped = run(unlike.priors[::-1], solver=other, seed=3)
    monkeypatch.setattr(SeparationProblem, "noise", drawn)
    straight = run(unlike.priors, seed=3)
    torch.testing.assert_close(flipped.estimates.flip(1), straight.estimates)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("hybrid", 0.4),
        ("proportional", 0.4),
        ("projection", 0.25),
        ("pseudo_inverse", 0.25),
        ("dirac", 0.1),
        ("gaussian", 0.3),
        ("red_diff", 0.3),
    ],
)
def test_estimates_come_to_the_posterior_mean(name: str, most: float) -> None:
    """How close is a table in docs/results.md; a sample of the posterior itself would be at 0.15."""
    sources, mixture = smooth_and_rough()
    solver = SOLVERS[name]
    if name == "pseudo_inverse":
        solver = Ancestral(guidance=PseudoInverse())
    if name == "red_diff":
        solver = RedDiff(rate=0.005)
    levels = DiscreteDiffusion().levels()
    sample = solved(solver, sources.priors, mixture, levels, generator=generator())
    true = sources.mean(mixture)
    assert float((sample.estimates - true).norm() / true.norm()) < most


def test_the_dirac_flow_sums_to_the_mixture_exactly() -> None:
    sources, mixture = unlike_sources(), torch.randn(2, 1, 6, generator=generator()).double()
    sample = solved(SourceFlow(constrained=1), sources.priors, mixture, LEVELS, generator=generator())
    torch.testing.assert_close(sample.estimates.sum(dim=1), mixture)


def test_starts() -> None:
    made, own = problem(Start()), torch.randn(2, 2, 1, 10)
    levels, noise = made.levels, problem(Start()).noise()
    expected = 0.566 * made.mixture[:, None] + 0.824 * noise[:, :1].expand(-1, 2, -1, -1)
    torch.testing.assert_close(made.first_states(), expected, atol=5e-3, rtol=5e-3)
    assert Start().first(levels) == 199
    assert Start(whole_chain=False).first(levels) == 149
    assert Start(whole_chain=False).first(levels.respaced(50)) == 37
    assert levels.indices(50, "log")[Start(whole_chain=False).first(levels.respaced(50, "log"))] == 149
    assert torch.equal(problem(Start(kind="noise")).first_states(), noise)
    guess = problem(Start(kind="estimate", at=1.0), own).first_states()
    alpha_bar = float(levels.alpha_bar[-1])
    torch.testing.assert_close(guess, alpha_bar**0.5 * own + (1 - alpha_bar) ** 0.5 * noise[:, :1])
    # a chain that starts lower is shorter
    short = SOLVERS["projection"](problem(Start(at=0.5, whole_chain=False)))
    assert (short.steps, short.evaluations) == (100, 200)


def test_red_diff_stays_where_an_estimate_explains_the_mixture_and_nothing_regularises() -> None:
    sources, mixture = unlike_sources(), torch.randn(2, 1, 6, generator=generator()).double()
    estimate = torch.stack((mixture, 0 * mixture), dim=1)
    options = {"start": Start(kind="estimate"), "estimate": estimate}
    sample = solved(RedDiff(weight=0), sources.priors, mixture, LEVELS, generator=generator(), **options)
    torch.testing.assert_close(sample.estimates, estimate, atol=1e-5, rtol=0)


def test_guidance_brings_samples_to_the_mixture() -> None:
    sources, mixture = smooth_and_rough()
    run = {"generator": generator(), "start": Start(kind="noise")}
    free = solved(Ancestral(guidance=Unguided()), sources.priors, mixture, LEVELS, **run)
    led = solved(SOLVERS["hybrid"], sources.priors, mixture, LEVELS, **run)
    assert float(led.residuals[-1].mean()) < 0.6 < 1.2 < float(free.residuals[-1].mean())
    assert free.conflicts is None
    assert led.conflicts.shape == (50, 20, 2)
    assert led.losses.shape == (50, 20)


def test_conflict_is_the_strength_that_cancels_a_step() -> None:
    """At that strength prior and guidance together do not move along the gradient."""
    mixture = torch.randn(1, 1, 4000, generator=generator())
    seen = {}

    class Watched(LossGuidance):
        def __call__(self, step, states, *rest):
            seen["before"] = states.detach()
            update = LossGuidance(schedule=hybrid())(step, states, *rest)
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
        def __call__(self, *state):
            update = Projection()(*state)
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
