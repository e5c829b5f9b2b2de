"""Samplers of bridges: marginals, closed forms on Gaussian data, order of convergence, accounting."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from prior_toys import generator
from test_bridge import ALL, NOISY, at
from torch import Tensor

from encore.inference.bridges import (
    SAMPLERS,
    Point,
    bridge_grid,
    sample_bridge_ode,
    sample_bridge_sde,
    time_grid,
    white_noise,
)
from encore.models.processes.bridge import (
    BBED,
    DDBMVE,
    OUVE,
    Bridge,
    BrownianBridge,
    SchroedingerVE,
    VarianceExploding,
)

SOURCE_VARIANCE, NOISE_VARIANCE = 1.0, 0.5


class GaussianData:
    """Scalars ``s ~ N(0, 1)`` in noise of variance 0.5 given their mixture: the posterior in closed form."""

    def __init__(self, bridge: Bridge, mixture: Tensor) -> None:
        self.bridge, self.mixture = bridge, mixture
        self.gain = SOURCE_VARIANCE / (SOURCE_VARIANCE + NOISE_VARIANCE)
        self.variance = self.gain * NOISE_VARIANCE

    def denoise(self, state: Tensor, t: Tensor) -> Tensor:
        """``E[s | x_t, x_0]``."""
        a, b, c = (part[:, None] for part in self.bridge.coefficients(t))
        expected = self.gain * self.mixture
        spread = a.square() * self.variance + c.square()
        weight = torch.where(spread > 0, a * self.variance / spread, 0.0)
        return expected + weight * (state - a * expected - b * self.mixture)

    def flow(self, state: Tensor, u: float, t: float) -> Tensor:
        """Return the state at t of the exact ODE, which keeps the quantile in the Gaussian marginals."""
        (mean_u, std_u), (mean_t, std_t) = self.marginal(u), self.marginal(t)
        return mean_t + std_t / std_u * (state - mean_u)

    def marginal(self, t: float) -> tuple[Tensor, float]:
        a, b, c = at(self.bridge, t)
        return a * self.gain * self.mixture + b * self.mixture, math.sqrt(a * a * self.variance + c * c)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


KEPT: dict[str, Callable[[Point, Point], float]] = {
    "sde": lambda u, t: u.a * t.c / (t.a * u.c),
    "ode": lambda u, t: 1.0,
    "ode2": lambda u, t: 1.0,
    "consistency": lambda u, t: 0.0,
}
"""What a step keeps of the noise in a state."""


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize("path", KEPT)
def test_with_the_true_source_every_state_has_the_marginal_of_its_time(path: str, kind: type[Bridge]) -> None:
    """Its noise is white, and the part of it that is new is independent of the noise before."""
    mixture, states = torch.full((1, 100_000), 1.1, dtype=torch.float64), {}

    def truth(state: Tensor, t: Tensor) -> Tensor:
        states[float(t[0])] = state
        return torch.full_like(state, 0.3)

    grid = bridge_grid(kind(), torch.tensor([1.0, 0.9, 0.7, 0.4, 0.1, 0.0], dtype=torch.float64))
    SAMPLERS[path](truth, mixture, grid, white_noise(mixture, generator()), None)
    noises = [point.noise_of(states[point.t], 0.3 + 0 * mixture, mixture) for point in grid[1:-1]]
    # a process that does not reach the mixture starts there all the same
    start = grid[0]
    bias = KEPT[path](start, grid[1]) * start.a * 0.8 / start.c if start.c > 0 else 0.0
    assert float(noises[0].mean()) == pytest.approx(bias, abs=0.02)
    assert float(noises[0].std()) == pytest.approx(1.0, rel=0.01)
    for (before, after), (u, t) in zip(pairwise(noises), pairwise(grid[1:-1]), strict=True):
        kept = KEPT[path](u, t)
        new = after - kept * before
        if kept == 1:
            torch.testing.assert_close(new, 0 * new, rtol=0, atol=1e-9)
            continue
        assert float(new.mean()) == pytest.approx(0, abs=0.02)
        assert float(new.std()) == pytest.approx((1 - kept**2) ** 0.5, rel=0.01)
        assert abs(float(torch.corrcoef(torch.cat((new, before)))[0, 1])) < 0.02


@pytest.mark.parametrize("bridge", [SchroedingerVE(), DDBMVE(sigma_max=3.0)])
def test_the_sde_of_exploding_variance_has_the_published_form(bridge: VarianceExploding) -> None:
    times = torch.tensor([1.0, 0.6, 0.35, 0.01], dtype=torch.float64)
    found: list[tuple[Tensor, Tensor]] = []

    def denoise(state: Tensor, t: Tensor) -> Tensor:
        found.append((state, 0.3 * state + 0.1))
        return found[-1][1]

    mixture = normal(1, 40)
    sample_bridge_sde(denoise, mixture, bridge_grid(bridge, times), white_noise(mixture, generator(3)))
    draws = generator(3)
    _, noise = (torch.randn(40, generator=draws, dtype=torch.float64) for _ in range(2))  # of the second step
    u, t = bridge.variance(times[1:3])
    state, estimate = found[1]
    expected = t / u * state + (1 - t / u) * estimate + (t * (1 - t / u)).sqrt() * noise
    torch.testing.assert_close(found[2][0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [BrownianBridge, SchroedingerVE, BBED, OUVE])
@pytest.mark.parametrize(("path", "order"), [("ode", 1), ("ode2", 2)])
def test_the_ode_converges_with_its_order(kind: type[Bridge], path: str, order: int) -> None:
    bridge, mixture, errors = kind(), normal(1, 20), []
    data = GaussianData(bridge, mixture)
    for steps in (32, 64):
        # a step from the mixture, then the steps that are measured
        reached: list[Tensor] = []

        def keep(point: Point, state: Tensor, _: Tensor, reached: list[Tensor] = reached) -> None:
            reached.append(state)

        times = torch.cat((torch.ones(1), torch.linspace(0.9, 0.1, steps + 1), torch.tensor([0.05]))).double()
        SAMPLERS[path](
            data.denoise, mixture, bridge_grid(bridge, times), white_noise(mixture, generator(5)), keep
        )
        errors.append(float((reached[-1] - data.flow(reached[1], 0.9, 0.1)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("path", ["endpoint", "state"])
@pytest.mark.parametrize("kind", ALL)
def test_without_noise_a_perfect_denoiser_stays_on_the_mean(kind: type[Bridge], path: str) -> None:
    bridge, mixture, source = kind(), normal(2, 30), normal(2, 30, seed=1)
    grid = bridge_grid(bridge, time_grid(5, start=bridge.start, end=0.25))
    state = SAMPLERS[path](lambda state, t: source, mixture, grid, None, None)
    a, b, _ = at(bridge, 0.25)
    # from the mixture itself, of which OUVE at 1 and BBED at 0.999 are short
    slack = 0.0 if path == "endpoint" else 3 * at(bridge, bridge.start)[0]
    torch.testing.assert_close(state, a * source + b * mixture, rtol=1e-12, atol=1e-12 + slack)


@pytest.mark.parametrize("path", SAMPLERS)
def test_laws_of_all_samplers(path: str) -> None:
    """A step is one evaluation, and of second order two but the last; items do not depend on their batch."""
    grid, times, steps = bridge_grid(SchroedingerVE(), time_grid(6)), [], []

    def sampled(x: Tensor, seed: int = 0) -> Tensor:
        def denoise(state: Tensor, t: Tensor) -> Tensor:
            times.append(t)
            return (0.8 * state).tanh()

        return SAMPLERS[path](
            denoise, x, grid, white_noise(x, generator(seed)), lambda *step: steps.append(step)
        )

    mixture = torch.randn(3, 2, 40, generator=generator())
    whole = sampled(mixture)
    assert (len(times), len(steps)) == (11 if path == "ode2" else 6, 6)
    assert torch.equal(torch.stack(times), torch.stack(times)[:, :1].expand(-1, 3))
    for (point, state, estimate), expected in zip(steps, grid, strict=False):
        assert point == expected
        assert torch.equal(estimate, (0.8 * state).tanh())
    torch.testing.assert_close(whole[1:2], sampled(mixture[1:2]))
    assert torch.equal(whole, sampled(mixture))
    assert torch.allclose(whole, sampled(mixture, seed=1)) == (path in ("endpoint", "state"))
    with pytest.raises(ValueError, match=r"denoise returned shape \(3, 2, 39\) for \(3, 2, 40\)"):
        SAMPLERS[path](lambda x, t: x[..., 1:], mixture, grid, white_noise(mixture, generator()), None)


def test_the_mean_start_is_the_published_first_step_without_noise() -> None:
    bridge, mixture = SchroedingerVE(), normal(1, 9)
    times = torch.tensor([1.0, 0.5], dtype=torch.float64)
    noise = white_noise(mixture, None, first=False)
    state = sample_bridge_ode(lambda state, t: 0.5 * state, mixture, bridge_grid(bridge, times), noise)
    v, last = bridge.variance(torch.tensor([0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(state, ((last - v) * 0.5 * mixture + v * mixture) / last)


def test_complex_states_get_complex_noise_of_unit_power() -> None:
    bridge, mixture = BrownianBridge(), torch.zeros(1, 100_000, dtype=torch.complex64)

    def power(*times: float) -> float:
        grid, noise = bridge_grid(bridge, torch.tensor(times)), white_noise(mixture, generator())
        state = sample_bridge_ode(lambda state, t: torch.zeros_like(state), mixture, grid, noise)
        return float(state.abs().square().mean())

    assert power(1.0, 0.5) == 0  # the last step adds none
    assert power(1.0, 0.5, 0.25) == pytest.approx(at(bridge, 0.25)[2] ** 2, rel=0.02)


@pytest.mark.parametrize("kind", [kind for kind in NOISY if kind is not OUVE])
@pytest.mark.parametrize("path", ["sde", "ode", "ode2"])
def test_gaussian_data_end_in_mean_and_covariance_of_their_posterior(kind: type[Bridge], path: str) -> None:
    """Two correlated samples in correlated noise: ``E[s | x_t, x_0]`` takes matrices."""
    bridge, count = kind(), 40_000
    source = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    noise = torch.tensor([[0.5, -0.2], [-0.2, 0.3]], dtype=torch.float64)
    given = torch.tensor([0.9, -0.4], dtype=torch.float64)
    gain = source @ torch.linalg.inv(source + noise)
    expected, covariance = gain @ given, source - gain @ source
    mixture = given[None, :, None].expand(1, 2, count)

    def denoise(state: Tensor, t: Tensor) -> Tensor:
        a, b, c = at(bridge, float(t[0]))
        spread = a * a * covariance + c * c * torch.eye(2, dtype=torch.float64)
        weight = a * covariance @ torch.linalg.pinv(spread)
        rest = state - (a * expected + b * given)[:, None]
        return expected[:, None] + weight @ rest

    steps = 60 if path == "ode2" else 300
    times = time_grid(steps, start=bridge.start, end=0.0)
    if kind is DDBMVE:
        # its noise is 40 times the data: even times would skip all that matters
        times = torch.cat((torch.ones(1), torch.logspace(0, -4, 2 * steps)[1:], torch.zeros(1))).double()
    state = SAMPLERS[path](
        denoise, mixture, bridge_grid(bridge, times), white_noise(mixture, generator()), None
    )
    torch.testing.assert_close(state[0].mean(1), expected, rtol=0, atol=0.012)
    torch.testing.assert_close(state[0].cov(), covariance, rtol=0.05, atol=0.012)
