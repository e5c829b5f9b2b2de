"""Samplers of bridges: marginals, closed forms on Gaussian data, order of convergence, accounting."""

from __future__ import annotations

import math

import pytest
import torch
from test_bridge import ALL, NOISY, at
from torch import Tensor

from encore.inference import FixedSchedule, refine, sample_bridge, time_grid
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
    """Scalars ``s ~ N(0, 1)`` in noise of variance 0.5, their mixture given: everything is in closed form."""

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
        """Where the exact ODE takes a state: it keeps its place in the marginals, which are Gaussian."""
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
        # the last step adds no noise, so one more is made and the state before it looked at
        states: list[Tensor] = []

        def truth(state: Tensor, t: Tensor, states: list[Tensor] = states) -> Tensor:
            states.append(state)
            return torch.full_like(state, source)

        times = torch.tensor([1.0, 0.9, 0.8, end, 0.1], dtype=torch.float64)
        sample_bridge(truth, mixture, bridge, times, path="sde", generator=generator())
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
    sample = sample_bridge(
        lambda state, t: source, mixture, bridge, time_grid(6, end=0.3), path="ode", generator=generator(2)
    )
    a, b, c = at(bridge, 0.3)
    torch.testing.assert_close(sample.state, a * source + b * mixture + c * drawn, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bridge", [SchroedingerVE(), DDBMVE(sigma_max=3.0)])
def test_the_sde_of_exploding_variance_has_the_published_form(bridge: VarianceExploding) -> None:
    mixture = torch.randn(1, 40, generator=generator(), dtype=torch.float64)
    times = torch.tensor([1.0, 0.6, 0.35, 0.01], dtype=torch.float64)
    found: list[tuple[Tensor, Tensor]] = []

    def denoise(state: Tensor, t: Tensor) -> Tensor:
        found.append((state, 0.3 * state + 0.1))
        return found[-1][1]

    sample_bridge(denoise, mixture, bridge, times, path="sde", generator=generator(3))
    draws = generator(3)
    torch.randn(40, generator=draws, dtype=torch.float64)  # of the first step
    noise = torch.randn(40, generator=draws, dtype=torch.float64)
    u, t = bridge.variance(times[1:3])
    state, estimate = found[1]
    expected = t / u * state + (1 - t / u) * estimate + (t * (1 - t / u)).sqrt() * noise
    torch.testing.assert_close(found[2][0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in NOISY if kind is not OUVE])
@pytest.mark.parametrize(("path", "order"), [("sde", 1), ("ode", 1), ("ode", 2)])
def test_gaussian_data_end_in_their_posterior(kind: type[Bridge], path: str, order: int) -> None:
    bridge, mixture = kind(), torch.full((1, 100_000), 0.8, dtype=torch.float64)
    data = GaussianData(bridge, mixture)
    steps = 400 if order == 1 else 60
    times = time_grid(steps, start=bridge.start, end=0.0)
    if kind is DDBMVE:
        # its noise is 40 times the data: even times would jump over all that matters
        times = torch.cat(
            (torch.tensor([1.0]), torch.logspace(0, -4, 2 * steps)[1:], torch.zeros(1))
        ).double()
    sample = sample_bridge(
        data.denoise, mixture, bridge, times, path=path, order=order, generator=generator()
    )
    assert float(sample.state.mean()) == pytest.approx(data.gain * 0.8, abs=0.012)
    assert float(sample.state.std()) == pytest.approx(data.variance**0.5, rel=0.03)


@pytest.mark.parametrize("kind", [BrownianBridge, SchroedingerVE, BBED, OUVE])
@pytest.mark.parametrize("order", [1, 2])
def test_the_ode_converges_with_its_order(kind: type[Bridge], order: int) -> None:
    bridge = kind()
    mixture = torch.randn(1, 20, generator=generator(), dtype=torch.float64)
    data = GaussianData(bridge, mixture)
    errors = []
    for steps in (16, 32, 64):
        # from the mixture in one small exact step, then the steps that are measured
        reached: list[Tensor] = []

        def denoise(state: Tensor, t: Tensor, reached: list[Tensor] = reached) -> Tensor:
            reached.append(state)
            return data.denoise(state, t)

        times = torch.cat((torch.ones(1), torch.linspace(0.9, 0.1, steps + 1), torch.tensor([0.05]))).double()
        sample_bridge(denoise, mixture, bridge, times, path="ode", order=order, generator=generator(5))
        asked = torch.stack(reached)
        first, last = (1, -1) if order == 1 else (2, -1)
        began = asked[first]
        errors.append(float((asked[last] - data.flow(began, 0.9, 0.1)).abs().max()))
    rates = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert rates[-1] == pytest.approx(order, abs=0.15), (rates, errors)


@pytest.mark.parametrize("path", ["endpoint", "state"])
@pytest.mark.parametrize("kind", ALL)
def test_without_noise_a_perfect_denoiser_stays_on_the_mean(kind: type[Bridge], path: str) -> None:
    bridge = kind()
    mixture = torch.randn(2, 30, generator=generator(), dtype=torch.float64)
    source = torch.randn(2, 30, generator=generator(1), dtype=torch.float64)
    sample = sample_bridge(
        lambda state, t: source, mixture, bridge, time_grid(5, start=bridge.start, end=0.25), path=path
    )
    a, b, _ = at(bridge, 0.25)
    # from the mixture itself, of which OUVE at 1 and BBED at 0.999 are short
    rest = at(bridge, bridge.start)[0]
    slack = 0.0 if path == "endpoint" else 3 * rest
    torch.testing.assert_close(sample.state, a * source + b * mixture, rtol=1e-12, atol=1e-12 + slack)
    assert sample.evaluations == 5


def test_endpoints_of_the_straight_line_are_the_blends_of_a_fixed_schedule() -> None:
    mixture = torch.randn(2, 1, 100, generator=generator())

    def separate(x: Tensor) -> Tensor:
        return (x.tanh() * 0.9)[:, None]

    refined = refine(separate, mixture, search=FixedSchedule([0.25, 0.5, 0.75]), keep_trajectory=True)
    sample = sample_bridge(
        lambda state, t: separate(state)[:, 0],
        mixture,
        LinearBridge(),
        time_grid(4, end=0.0),
        path="endpoint",
    )
    torch.testing.assert_close(torch.stack(sample.estimates), refined.trajectory)
    torch.testing.assert_close(sample.state, refined.estimate)
    assert sample.shares == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("path", "order", "calls"), [("sde", 1, 6), ("ode", 1, 6), ("ode", 2, 11), ("state", 1, 6)]
)
def test_evaluations_are_counted(path: str, order: int, calls: int) -> None:
    asked = []

    def denoise(state: Tensor, t: Tensor) -> Tensor:
        asked.append(t)
        return 0.5 * state

    sample = sample_bridge(
        denoise,
        torch.ones(1, 8),
        BrownianBridge(),
        time_grid(6),
        path=path,
        order=order,
        generator=generator(),
    )
    assert sample.evaluations == len(asked) == calls
    assert len(sample.shares) == calls + 1


def test_the_mean_start_is_the_published_first_step_without_noise() -> None:
    bridge, mixture = SchroedingerVE(), torch.randn(1, 9, generator=generator(), dtype=torch.float64)
    times = torch.tensor([1.0, 0.5], dtype=torch.float64)
    sample = sample_bridge(lambda state, t: 0.5 * state, mixture, bridge, times, path="ode", start="mean")
    v, last = bridge.variance(torch.tensor([0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(sample.state, ((last - v) * 0.5 * mixture + v * mixture) / last)


def test_items_do_not_depend_on_their_batch_and_seeds_repeat() -> None:
    mixture = torch.randn(3, 2, 40, generator=generator())

    def sampled(x: Tensor, seed: int = 0) -> Tensor:
        return sample_bridge(
            lambda state, t: (0.8 * state).tanh(),
            x,
            SchroedingerVE(),
            time_grid(5),
            generator=generator(seed),
        ).state

    whole = sampled(mixture)
    assert torch.equal(whole, sampled(mixture))
    torch.testing.assert_close(whole[1:2], sampled(mixture[1:2]))
    assert not torch.allclose(whole, sampled(mixture, seed=1))


def test_complex_states_get_complex_noise_of_unit_power() -> None:
    mixture = torch.zeros(1, 100_000, dtype=torch.complex64)
    sample = sample_bridge(
        lambda state, t: torch.zeros_like(state),
        mixture,
        BrownianBridge(),
        torch.tensor([1.0, 0.5]),
        path="ode",
        start="noise",
        generator=generator(),
    )
    assert float(sample.state.abs().max()) == 0  # the last step adds none
    times = torch.tensor([1.0, 0.5, 0.25])
    sample = sample_bridge(
        lambda state, t: torch.zeros_like(state),
        mixture,
        BrownianBridge(),
        times,
        path="ode",
        generator=generator(),
    )
    assert float(sample.state.abs().square().mean()) == pytest.approx(
        at(BrownianBridge(), 0.25)[2] ** 2, rel=0.02
    )


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"times": torch.tensor([0.5, 1.0])}, "falling"),
        ({"times": torch.tensor([1.0])}, "at least two"),
        ({"times": torch.tensor([1.5, 0.5])}, r"\[0, 1\]"),
        ({"path": "euler"}, "path='euler'"),
        ({"start": "middle"}, "start='middle'"),
        ({"path": "sde", "order": 2}, "order=2"),
        ({"bridge": LinearBridge()}, "LinearBridge has no noise"),
        ({"bridge": BBED(), "times": torch.tensor([1.0, 0.9995, 0.5])}, "below 0.999"),
        ({"generator": None}, "generator=None"),
    ],
)
def test_what_does_not_fit_is_named(options: dict, fault: str) -> None:
    given = {"bridge": BrownianBridge(), "times": time_grid(3), "generator": generator()} | options
    bridge, times = given.pop("bridge"), given.pop("times")
    with pytest.raises(ValueError, match=fault):
        sample_bridge(lambda state, t: state, torch.ones(1, 4), bridge, times, **given)


@pytest.mark.parametrize("kind", [BrownianBridge, SchroedingerVE, BBED])
@pytest.mark.parametrize(("path", "order"), [("sde", 1), ("ode", 2)])
def test_correlated_gaussian_data_end_in_mean_and_covariance_of_their_posterior(
    kind: type[Bridge], path: str, order: int
) -> None:
    """Two samples that are correlated, in noise that is too: ``E[s | x_t, x_0]`` takes matrices."""
    bridge, count = kind(), 200_000
    source = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    noise = torch.tensor([[0.5, -0.2], [-0.2, 0.3]], dtype=torch.float64)
    seen = torch.tensor([0.9, -0.4], dtype=torch.float64)
    gain = source @ torch.linalg.inv(source + noise)
    expected, covariance = gain @ seen, source - gain @ source
    mixture = seen[None, :, None].expand(1, 2, count)

    def denoise(state: Tensor, t: Tensor) -> Tensor:
        a, b, c = at(bridge, float(t[0]))
        spread = a * a * covariance + c * c * torch.eye(2, dtype=torch.float64)
        weight = a * covariance @ torch.linalg.pinv(spread)
        rest = state - (a * expected + b * seen)[:, None]
        return expected[:, None] + weight @ rest

    times = time_grid(300 if order == 1 else 60, start=bridge.start, end=0.0)
    sample = sample_bridge(denoise, mixture, bridge, times, path=path, order=order, generator=generator())
    torch.testing.assert_close(sample.state[0].mean(1), expected, rtol=0, atol=0.01)
    torch.testing.assert_close(sample.state[0].cov(), covariance, rtol=0.05, atol=0.01)
