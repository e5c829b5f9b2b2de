"""The coefficients of bridges: ends, table values, continuity, and the processes they come from."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from encore.models.processes import bridge as bridges
from encore.models.processes.bridge import (
    BBED,
    DDBMVE,
    DDBMVP,
    I2SB,
    OUVE,
    Bridge,
    BrownianBridge,
    LinearBridge,
    Scaled,
    SchroedingerVE,
    VarianceExploding,
)

ALL = [LinearBridge, BrownianBridge, SchroedingerVE, I2SB, DDBMVE, DDBMVP, BBED, OUVE]
NOISY = [kind for kind in ALL if kind is not LinearBridge]


def at(bridge: Bridge, t: float) -> tuple[float, float, float]:
    a, b, c = bridge.coefficients(torch.tensor(t, dtype=torch.float64))
    return float(a), float(b), float(c)


def test_every_bridge_of_the_module_is_tested_here() -> None:
    found = {
        kind
        for _, kind in inspect.getmembers(bridges, inspect.isclass)
        if issubclass(kind, Bridge) and not inspect.isabstract(kind)
    }
    assert found == {*ALL, Scaled}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bridge_goes_from_the_source_to_the_mixture_exactly(kind: type[Bridge], dtype: torch.dtype) -> None:
    a, b, c = kind().coefficients(torch.zeros(2, 3, dtype=dtype))
    assert a.shape == (2, 3)
    assert a.dtype == b.dtype == c.dtype == dtype
    assert bool((a == 1).all() and (b == 0).all() and (c == 0).all())
    assert at(kind(), 1.0) == (0, 1, 0) or kind is OUVE


def test_ouve_never_reaches_the_mixture() -> None:
    a, b, c = at(OUVE(), 1.0)
    assert a == pytest.approx(0.223, abs=5e-4)
    assert b == pytest.approx(1 - a)
    assert c == pytest.approx(0.389, abs=5e-4)


@pytest.mark.parametrize(
    ("kind", "largest"),
    [(BrownianBridge, 0.5), (SchroedingerVE, 0.549), (I2SB, 0.188), (DDBMVE, 40.0), (BBED, 0.540)],
)
def test_the_largest_deviation_is_the_published_one(kind: type[Bridge], largest: float) -> None:
    _, _, c = kind().coefficients(torch.linspace(0, 1, 10_001, dtype=torch.float64))
    assert float(c.max()) == pytest.approx(largest, rel=2e-3)


def test_i2sb_adds_up_to_the_published_variance() -> None:
    table = torch.linspace(0.01, 3e-4**0.5, 1000, dtype=torch.float64).square()[:500]
    sums = torch.cat((table, table.flip(0))).cumsum(0)
    found = I2SB().variance(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(found, sums, rtol=1e-6, atol=0)
    assert float(found[-1]) == pytest.approx(0.141, abs=5e-4)


@pytest.mark.parametrize("kind", ALL)
def test_coefficients_are_continuous_and_the_source_only_fades(kind: type[Bridge]) -> None:
    t = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    a, b, c = kind().coefficients(t)
    assert bool((a.diff() < 0).all() and (b.diff() > 0).all())
    scale = float(c.max()) or 1.0
    # a deviation rises like a root at the ends
    assert float(c.diff().abs().max()) < 0.02 * scale
    assert float(a.diff().abs().max()) < 1e-3


@pytest.mark.parametrize("kind", [SchroedingerVE, I2SB, DDBMVE])
def test_the_variance_of_exploding_bridges_is_a_times_b_times_the_last(kind: type[VarianceExploding]) -> None:
    bridge, t = kind(), torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    a, b, c = bridge.coefficients(t)
    last = bridge.variance(torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(a + b, torch.ones_like(t))
    torch.testing.assert_close(c.square(), a * b * last)


def brownian(bridge: BrownianBridge) -> tuple[Callable, Callable]:
    return lambda t, x, end: (end - x) / (1 - t), lambda t: bridge.g


def exploding(bridge: VarianceExploding) -> tuple[Callable, Callable]:
    def variance(t: float) -> float:
        return float(bridge.variance(torch.tensor(t, dtype=torch.float64)))

    def squared(t: float) -> float:
        return (variance(t + 1e-4) - variance(max(t - 1e-4, 0))) / (t + 1e-4 - max(t - 1e-4, 0))

    # a process that only adds noise, made to end at the mixture (Doob's h-transform)
    return (
        lambda t, x, end: squared(t) * (end - x) / (variance(1.0) - variance(t)),
        lambda t: squared(t) ** 0.5,
    )


def preserving(bridge: DDBMVP) -> tuple[Callable, Callable]:
    def exponent(t: float) -> float:
        return bridge.beta_d * t * t / 2 + bridge.beta_min * t

    def drift(t: float, x: Tensor, end: float) -> Tensor:
        rate = bridge.beta_min + bridge.beta_d * t
        shrink = math.exp((exponent(t) - exponent(1)) / 2)
        # of the end given x, the mean is shrink * x and the variance 1 - shrink^2
        return -rate / 2 * x + rate * shrink * (end - shrink * x) / (1 - shrink**2)

    return drift, lambda t: (bridge.beta_min + bridge.beta_d * t) ** 0.5


def exponential(bridge: BBED) -> tuple[Callable, Callable]:
    return lambda t, x, end: (end - x) / (1 - t), lambda t: bridge.theta**0.5 * bridge.k**t


def ornstein(bridge: OUVE) -> tuple[Callable, Callable]:
    q = bridge.sigma_max / bridge.sigma_min
    return (
        lambda t, x, end: bridge.gamma * (end - x),
        lambda t: bridge.sigma_min * q**t * (2 * math.log(q)) ** 0.5,
    )


@pytest.mark.parametrize(
    ("bridge", "process"),
    [
        (BrownianBridge(g=0.7), brownian),
        (SchroedingerVE(), exploding),
        (I2SB(), exploding),
        (DDBMVE(sigma_max=2.0), exploding),
        (DDBMVP(), preserving),
        (BBED(), exponential),
        (OUVE(), ornstein),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, Bridge) else "",
)
def test_moments_are_those_of_the_stochastic_process(bridge: Bridge, process: Callable) -> None:
    """Simulated by small steps from the source on, which knows nothing of the closed forms."""
    drift, diffusion = process(bridge)
    source, end, steps, particles = -0.4, 0.9, 2000, 40_000
    generator = torch.Generator().manual_seed(0)
    x = torch.full((particles,), source, dtype=torch.float64)
    for step in range(round(0.8 * steps)):
        t = step / steps
        if step in (round(0.3 * steps), round(0.6 * steps)):
            check_moments(bridge, t, x, source, end)
        noise = torch.randn(particles, generator=generator, dtype=torch.float64)
        x = x + drift(t, x, end) / steps + diffusion(t) * noise * steps**-0.5
    check_moments(bridge, 0.8, x, source, end)


def check_moments(bridge: Bridge, t: float, x: Tensor, source: float, end: float) -> None:
    a, b, c = at(bridge, t)
    # five deviations of the means of 40,000, and what the steps leave out
    assert float(x.mean()) == pytest.approx(a * source + b * end, abs=5 * c / 200 + 2e-3)
    assert float(x.std()) == pytest.approx(c, rel=0.025)


def test_scaled_noise_leaves_the_mean() -> None:
    a, b, c = at(BBED(), 0.4)
    scaled = Scaled(BBED(), 0.5)
    assert at(scaled, 0.4) == (a, b, pytest.approx(0.5 * c))
    assert (scaled.start, scaled.noiseless) == (0.999, False)
