"""Chains of noise levels: the published constants, laws of their steps, and what networks are told."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from encore.models.processes.diffusion import ContinuousDiffusion, Diffusion, DiscreteDiffusion

BOTH = [DiscreteDiffusion(), ContinuousDiffusion()]


def test_the_published_chain_has_its_constants() -> None:
    levels = DiscreteDiffusion().levels()
    assert len(levels) == 200
    assert float(levels.alpha_bar[199]) == pytest.approx(0.132, abs=5e-4)
    assert float(levels.alpha_bar[149].sqrt()) == pytest.approx(0.566, abs=5e-4)
    assert float((1 - levels.alpha_bar[149]).sqrt()) == pytest.approx(0.824, abs=5e-4)
    assert levels.step(0).noise == pytest.approx(1e-4)
    assert levels.step(199).noise == pytest.approx(0.02)
    assert levels.step(0).variance == 0


@pytest.mark.parametrize("steps", [200, 50, 7])
def test_a_step_is_the_posterior_of_the_cleaner_state(steps: int) -> None:
    """Gaussian conditioning, written out by joint covariances instead of the published weights."""
    levels = DiscreteDiffusion().levels(steps)
    for place in (1, steps // 2, steps - 1):
        step = levels.step(place)
        # given the source, both states are noise around their means, with covariance sqrt(alpha) (1 -
        # cleaner)
        ratio = math.sqrt(step.alpha_bar / step.cleaner)
        gain = ratio * (1 - step.cleaner) / (1 - step.alpha_bar)
        assert step.state_weight == pytest.approx(gain)
        assert step.estimate_weight == pytest.approx(
            math.sqrt(step.cleaner) - gain * math.sqrt(step.alpha_bar)
        )
        assert step.variance == pytest.approx(1 - step.cleaner - gain * ratio * (1 - step.cleaner))


def test_respacing_keeps_marginals_and_both_ends() -> None:
    full, short = DiscreteDiffusion().levels(), DiscreteDiffusion().levels(50)
    assert len(short) == 50
    assert float(short.alpha_bar[0]) == float(full.alpha_bar[0])
    assert float(short.alpha_bar[-1]) == float(full.alpha_bar[-1])
    assert set(short.alpha_bar.tolist()) <= set(full.alpha_bar.tolist())
    # forward steps of the short chain multiply up to the same alpha_bar
    kept = math.prod(1 - short.step(place).noise for place in range(50))
    assert kept == pytest.approx(float(full.alpha_bar[-1]))
    # and stand for all of its steps, in order
    replaced = [step for place in reversed(range(50)) for step in short.step(place).substeps]
    assert replaced == [full.step(place) for place in reversed(range(200))]
    assert short.respaced(7).step(6).skipped == tuple(full.alpha_bar[168:199].flip(0).tolist())
    assert full.step(9).substeps == [full.step(9)]
    assert DiscreteDiffusion().levels(1).alpha_bar.tolist() == full.alpha_bar[-1:].tolist()


@pytest.mark.parametrize("count", [2, 7, 50, 199, 200])
def test_logarithmic_spacing_takes_the_cleanest_levels_and_then_ever_fewer(count: int) -> None:
    full = DiscreteDiffusion().levels()
    places = full.indices(count, "log")
    assert len(set(places)) == count
    assert (places[0], places[-1]) == (0, 199)
    assert full.respaced(count, "log").alpha_bar.tolist() == full.alpha_bar[places].tolist()
    ratios = [full.step(noisy).sigma / full.step(clean).sigma for clean, noisy in pairwise(places)]
    # even in the logarithm from where steps are longer than one level
    far = [ratio for ratio, step in zip(ratios, torch.tensor(places).diff(), strict=True) if step > 8]
    assert not far or max(far) < 1.15 * min(far)
    if count == 7:
        assert len(far) == 4
    if count == 50:
        assert places[:12] == list(range(12))


def test_networks_are_told_the_published_numbers() -> None:
    chain = DiscreteDiffusion()
    alpha_bar = chain.levels().alpha_bar[[0, 1, 149, 199]]
    assert chain.condition(alpha_bar).tolist() == [0, 5, 745, 995]
    assert DiscreteDiffusion(steps=300).condition(
        DiscreteDiffusion(steps=300).levels().alpha_bar[[1]]
    ).tolist() == [3]
    continuous = ContinuousDiffusion()
    sigma = torch.tensor([0.01, 1.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(continuous.condition(1 / (1 + sigma**2)), 25 * sigma.log())


@pytest.mark.parametrize("diffusion", BOTH)
def test_the_weights_turn_the_perfect_output_into_the_source(diffusion: Diffusion) -> None:
    alpha_bar = diffusion.draw(1000, torch.Generator().manual_seed(0))
    source, noise = 0.07 * torch.randn(1000).double(), torch.randn(1000).double()
    state = alpha_bar.sqrt() * source + (1 - alpha_bar).sqrt() * noise
    skip, out, into = diffusion.weights(alpha_bar)
    perfect = (source - skip * state) / out
    if isinstance(diffusion, DiscreteDiffusion):
        torch.testing.assert_close(perfect, noise)
        torch.testing.assert_close(into, torch.ones_like(into))
    else:
        assert float(perfect.std()) == pytest.approx(1, rel=0.1)
        assert float((into * state).std()) == pytest.approx(1, rel=0.1)


def test_levels_to_train_at() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = DiscreteDiffusion(steps=5).draw(5000, generator)
    found, counts = drawn.unique(return_counts=True)
    assert found.flip(0).tolist() == DiscreteDiffusion(steps=5).levels().alpha_bar.tolist()
    assert counts.tolist() == pytest.approx([1000] * 5, rel=0.1)
    drawn = ContinuousDiffusion(mean=-2.0, deviation=0.5).draw(5000, generator)
    sigmas = ((1 - drawn) / drawn).sqrt().log()
    assert float(sigmas.mean()) == pytest.approx(-2, abs=0.03)
    assert float(sigmas.std()) == pytest.approx(0.5, rel=0.03)


def test_continuous_levels_are_even_in_a_root() -> None:
    levels = ContinuousDiffusion(lowest=0.01, highest=2.0, rho=3.0).levels(9)
    roots = ((1 - levels.alpha_bar) / levels.alpha_bar) ** (1 / 6)
    assert float(roots[0]) == pytest.approx(0.01 ** (1 / 3))
    assert float(roots[-1]) == pytest.approx(2 ** (1 / 3))
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(8))
    step = levels.step(8)
    assert step.sigma == pytest.approx(2)
    assert levels.step(0).cleaner_sigma == 0
