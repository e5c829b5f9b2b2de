"""Samplers of bridges: marginals, closed forms on Gaussian data, order of convergence, accounting."""

from __future__ import annotations

import math

import pytest
import torch
from test_bridge import ALL, NOISY, at
from torch import Tensor

from encore.inference.bridges import (
    SAMPLERS,
    BridgeStep,
    bridge_grid,
    sample_bridge_endpoint,
    sample_bridge_ode,
    sample_bridge_sde,
    time_grid,
    white_noise,
)
from encore.inference.refinement import Trajectory, refine_fixed
from encore.models.processes.bridge import (
    BBED,
    DDBMVE,
    OUVE,
    Bridge,
    BrownianBridge,
    LinearBridge,
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


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", NOISY)
def test_with_the_true_source_the_sde_has_the_marginal_of_every_time(kind: type[Bridge]) -> None:
    bridge, source, mixture = kind(), 0.3, torch.full((1, 200_000), 1.1, dtype=torch.float64)
    for end in (0.7, 0.2):
        # the last step adds no noise, so the state before it is checked
        states: list[Tensor] = []

        def truth(state: Tensor, t: Tensor, states: list[Tensor] = states) -> Tensor:
            states.append(state)
            return torch.full_like(state, source)

        times = torch.tensor([1.0, 0.9, 0.8, end, 0.1], dtype=torch.float64)
        sample_bridge_sde(truth, mixture, bridge_grid(bridge, times), white_noise(mixture, generator()))
        a, b, c = at(bridge, end)
        # at its start a process that does not reach the mixture is at the mixture all the same
        start = at(bridge, bridge.start)[0] / at(bridge, end)[0]
        missing = bridge.coefficients(torch.tensor(bridge.start).double())[0] * (1.1 - source)
        slack = float(abs(missing)) * max(start, 1) + 5 * c / 400
        assert float(states[-1].mean()) == pytest.approx(a * source + b * 1.1, abs=slack)
        assert float(states[-1].std()) == pytest.approx(c, rel=0.01)


@pytest.mark.parametrize("kind", [kind for kind in NOISY if kind not in (OUVE, BBED)])
def test_with_the_true_source_the_ode_keeps_its_first_noise_to_rounding(kind: type[Bridge]) -> None:
    bridge, mixture = kind(), torch.randn(2, 50, generator=generator(), dtype=torch.float64)
    source = torch.randn(2, 50, generator=generator(1), dtype=torch.float64)
    drawn = torch.randn(50, generator=generator(2), dtype=torch.float64)
    grid, noise = bridge_grid(bridge, time_grid(6, end=0.3)), white_noise(mixture, generator(2))
    state = sample_bridge_ode(lambda state, t: source, mixture, grid, noise)
    a, b, c = at(bridge, 0.3)
    torch.testing.assert_close(state, a * source + b * mixture + c * drawn, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bridge", [SchroedingerVE(), DDBMVE(sigma_max=3.0)])
def test_the_sde_of_exploding_variance_has_the_published_form(bridge: VarianceExploding) -> None:
    mixture = torch.randn(1, 40, generator=generator(), dtype=torch.float64)
    times = torch.tensor([1.0, 0.6, 0.35, 0.01], dtype=torch.float64)
    found: list[tuple[Tensor, Tensor]] = []

    def denoise(state: Tensor, t: Tensor) -> Tensor:
        found.append((state, 0.3 * state + 0.1))
        return found[-1][1]

    sample_bridge_sde(denoise, mixture, bridge_grid(bridge, times), white_noise(mixture, generator(3)))
    draws = generator(3)
    torch.randn(40, generator=draws, dtype=torch.float64)  # of the first step
    noise = torch.randn(40, generator=draws, dtype=torch.float64)
    u, t = bridge.variance(times[1:3])
    state, estimate = found[1]
    expected = t / u * state + (1 - t / u) * estimate + (t * (1 - t / u)).sqrt() * noise
    torch.testing.assert_close(found[2][0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [BrownianBridge, SchroedingerVE, BBED, OUVE])
@pytest.mark.parametrize(("path", "order"), [("ode", 1), ("ode2", 2)])
def test_the_ode_converges_with_its_order(kind: type[Bridge], path: str, order: int) -> None:
    bridge = kind()
    mixture = torch.randn(1, 20, generator=generator(), dtype=torch.float64)
    data = GaussianData(bridge, mixture)
    errors = []
    for steps in (16, 32, 64):
        # a step from the mixture, then the steps that are measured
        reached: list[Tensor] = []

        def keep(step: BridgeStep, reached: list[Tensor] = reached) -> None:
            reached.append(step.state)

        times = torch.cat((torch.ones(1), torch.linspace(0.9, 0.1, steps + 1), torch.tensor([0.05]))).double()
        SAMPLERS[path](
            data.denoise, mixture, bridge_grid(bridge, times), white_noise(mixture, generator(5)), keep
        )
        errors.append(float((reached[-1] - data.flow(reached[1], 0.9, 0.1)).abs().max()))
    rates = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert rates[-1] == pytest.approx(order, abs=0.15), (rates, errors)


@pytest.mark.parametrize("path", ["endpoint", "state"])
@pytest.mark.parametrize("kind", ALL)
def test_without_noise_a_perfect_denoiser_stays_on_the_mean(kind: type[Bridge], path: str) -> None:
    bridge = kind()
    mixture = torch.randn(2, 30, generator=generator(), dtype=torch.float64)
    source = torch.randn(2, 30, generator=generator(1), dtype=torch.float64)
    grid, steps = bridge_grid(bridge, time_grid(5, start=bridge.start, end=0.25)), []
    state = SAMPLERS[path](lambda state, t: source, mixture, grid, None, steps.append)
    a, b, _ = at(bridge, 0.25)
    # from the mixture itself, of which OUVE at 1 and BBED at 0.999 are short
    rest = at(bridge, bridge.start)[0]
    slack = 0.0 if path == "endpoint" else 3 * rest
    torch.testing.assert_close(state, a * source + b * mixture, rtol=1e-12, atol=1e-12 + slack)
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]


def test_endpoints_of_the_straight_line_are_a_refinement_by_fixed_ratios() -> None:
    mixture = torch.randn(2, 1, 100, generator=generator())

    def separate(x: Tensor) -> Tensor:
        return (x.tanh() * 0.9)[:, None]

    trajectory, steps = Trajectory(), []
    refined = refine_fixed(separate, mixture, [0.75, 0.5, 0.25], callback=trajectory)
    grid = bridge_grid(LinearBridge(), time_grid(4, end=0.0))
    state = sample_bridge_endpoint(
        lambda state, t: separate(state)[:, 0], mixture, grid, callback=steps.append
    )
    expected = torch.stack((refined.one_step, *trajectory.estimates))
    torch.testing.assert_close(torch.stack([step.estimate for step in steps])[:, :, None], expected)
    torch.testing.assert_close(state[:, None], refined.estimates)
    assert [step.ratio for step in steps] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("path", "calls"),
    [("sde", 6), ("ode", 6), ("ode2", 11), ("consistency", 6), ("endpoint", 6), ("state", 6)],
)
def test_a_step_is_one_evaluation_and_of_second_order_two_but_the_last(path: str, calls: int) -> None:
    times: list[float] = []
    steps: list[BridgeStep] = []

    def denoise(state: Tensor, t: Tensor) -> Tensor:
        times.append(float(t[0]))
        return 0.5 * state

    grid, mixture = bridge_grid(BrownianBridge(), time_grid(6)), torch.ones(1, 8)
    SAMPLERS[path](denoise, mixture, grid, white_noise(mixture, generator()), steps.append)
    assert (len(times), len(steps)) == (calls, 6)
    for step, t in zip(steps, grid.t, strict=False):
        assert step.ratio == pytest.approx(t)
        assert torch.equal(step.estimate, 0.5 * step.state)


def test_the_mean_start_is_the_published_first_step_without_noise() -> None:
    bridge, mixture = SchroedingerVE(), torch.randn(1, 9, generator=generator(), dtype=torch.float64)
    times = torch.tensor([1.0, 0.5], dtype=torch.float64)
    noise = white_noise(mixture, None, first=False)
    state = sample_bridge_ode(lambda state, t: 0.5 * state, mixture, bridge_grid(bridge, times), noise)
    v, last = bridge.variance(torch.tensor([0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(state, ((last - v) * 0.5 * mixture + v * mixture) / last)


def test_items_do_not_depend_on_their_batch_and_seeds_repeat() -> None:
    mixture = torch.randn(3, 2, 40, generator=generator())

    def sampled(x: Tensor, seed: int = 0) -> Tensor:
        noise, grid = white_noise(x, generator(seed)), bridge_grid(SchroedingerVE(), time_grid(5))
        return sample_bridge_sde(lambda state, t: (0.8 * state).tanh(), x, grid, noise)

    whole = sampled(mixture)
    assert torch.equal(whole, sampled(mixture))
    torch.testing.assert_close(whole[1:2], sampled(mixture[1:2]))
    assert not torch.allclose(whole, sampled(mixture, seed=1))


def test_complex_states_get_complex_noise_of_unit_power() -> None:
    bridge, mixture = BrownianBridge(), torch.zeros(1, 100_000, dtype=torch.complex64)

    def power(*times: float) -> float:
        grid, noise = bridge_grid(bridge, torch.tensor(times)), white_noise(mixture, generator())
        state = sample_bridge_ode(lambda state, t: torch.zeros_like(state), mixture, grid, noise)
        return float(state.abs().square().mean())

    assert power(1.0, 0.5) == 0  # the last step adds none
    assert power(1.0, 0.5, 0.25) == pytest.approx(at(bridge, 0.25)[2] ** 2, rel=0.02)


@pytest.mark.parametrize(
    ("bridge", "times", "fault"),
    [
        (BrownianBridge(), [0.5, 1.0], "falling"),
        (BrownianBridge(), [1.0], "at least two"),
        (BrownianBridge(), [1.5, 0.5], r"\[0, 1\]"),
        (BBED(), [1.0, 0.9995, 0.5], "below 0.999"),
    ],
)
def test_wrong_times_are_named(bridge: Bridge, times: list[float], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        bridge_grid(bridge, torch.tensor(times))


def test_a_missing_generator_is_named() -> None:
    mixture = torch.ones(1, 4)
    with pytest.raises(ValueError, match="generator=None"):
        sample_bridge_sde(
            lambda state, t: state,
            mixture,
            bridge_grid(BrownianBridge(), time_grid(3)),
            white_noise(mixture, None),
        )


def test_an_estimate_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"denoise returned shape \(1, 3\) for \(1, 4\)"):
        sample_bridge_endpoint(
            lambda state, t: state[:, 1:], torch.ones(1, 4), bridge_grid(BrownianBridge(), time_grid(3))
        )


@pytest.mark.parametrize("kind", [kind for kind in NOISY if kind is not OUVE])
@pytest.mark.parametrize("path", ["sde", "ode", "ode2"])
def test_gaussian_data_end_in_mean_and_covariance_of_their_posterior(kind: type[Bridge], path: str) -> None:
    """Two correlated samples in correlated noise: ``E[s | x_t, x_0]`` takes matrices."""
    bridge, count = kind(), 100_000
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
