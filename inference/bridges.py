"""Samplers of diffusion bridges: from the mixture to the sources along a grid of times, with any denoiser.

In a step from time u to t, with ``D`` the estimate in the state ``x_u``, ``m_t = a_t D + b_t x_0`` the mean
and ``z_u = (x_u - m_u) / c_u`` the noise in it, every sampler but the last one sets ``x_t = m_t + c_t z_t``;
they differ in ``z_t``. All have the arguments and the result of `sample_bridge_sde`.

Source: docs/methods.md, diffusion bridges.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, pairwise
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from encore.inference.wrappers import Wrapper
from encore.models.denoisers.bridge_separator import BridgeSeparator
from encore.models.processes.bridge import Bridge
from encore.models.types import Denoiser, LoadedSeparator
from encore.models.wrappers import SelectSources

Noise = Callable[[], Tensor]
"""Draws white noise of one item, the same for all of a batch, so that no result depends on the others."""


class Point(NamedTuple):
    """A time of a sampler, and the coefficients of the bridge there."""

    t: float
    a: float
    b: float
    c: float

    def mean(self, estimate: Tensor, mixture: Tensor) -> Tensor:
        """Return the mean of the state with that estimate of the source."""
        return self.a * estimate + self.b * mixture

    def noise_of(self, state: Tensor, estimate: Tensor, mixture: Tensor) -> Tensor:
        """Return the noise in a state with that estimate of the source."""
        return (state - self.a * estimate - self.b * mixture) / self.c


Grid = list[Point]
"""The points of a sampler, times falling."""

Callback = Callable[[Point, Tensor, Tensor], None]
"""Called in every step with its point, its state ``(b, ...)`` and the estimate in that state."""


def time_grid(steps: int, *, start: float = 1.0, end: float = 1e-4) -> Tensor:
    """Return even times from ``start`` down to ``end``, ``(steps + 1,)`` float64.

    >>> time_grid(4, end=0.0).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]

    Raises:
        ValueError: If there is no step, or the times are not in order.
    """
    if steps < 1 or not 0 <= end < start <= 1:
        raise ValueError(
            f"steps={steps}, start={start}, end={end}: give 1 or more, and 0 <= end < start <= 1"
        )
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def bridge_grid(bridge: Bridge, times: Tensor) -> Grid:
    """Return the coefficients of a bridge at times ``(n + 1,)``; the first is clipped to the bridge's start.

    Raises:
        ValueError: If the times do not fall, or leave [0, 1] or the bridge's times.
    """
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()):
        raise ValueError(f"times={times.tolist()}: give at least two, falling from 1 to 0")
    if not 0 <= float(times[-1]) <= float(times[0]) <= 1 or float(times[1]) >= bridge.start:
        raise ValueError(f"times={times.tolist()}: must be in [0, 1], all but the first below {bridge.start}")
    clipped = times.double().clamp_max(bridge.start)
    parts = (clipped, *bridge.coefficients(clipped))
    return [Point(*values) for values in torch.stack(parts, dim=1).tolist()]


def white_noise(mixture: Tensor, generator: Generator | None, *, first: bool = True) -> Noise:
    """Return the noise of states like ``mixture`` ``(b, ...)``, complex of unit power where they are complex.

    Args:
        mixture: The mixture's state.
        generator: Draws the noise.
        first: False for zeros in the first draw: SDE and ODE then stay on the mean of the path in their first
            step, and the ODE needs no generator.
    """
    state, drawn = mixture[0], count()

    def draw() -> Tensor:
        if next(drawn) == 0 and not first:
            return torch.zeros_like(state)
        if generator is None:
            raise ValueError("generator=None: noise is drawn from it, give a torch.Generator")
        noise = torch.randn(state.shape, generator=generator, device=generator.device, dtype=state.dtype)
        return noise.to(state.device)

    return draw


def sample_bridge_sde(
    denoise: Denoiser, mixture: Tensor, grid: Grid, noise: Noise, callback: Callback | None = None
) -> Tensor:
    """Sample the SDE: ``z_t = r z_u + sqrt(1 - r^2) z`` with new noise z and ``r = a_u c_t / (a_t c_u)``.

    The last step adds no noise, ``r = 1``. For an exploding variance ``v_t`` the new noise has the deviation
    ``sqrt(v_t (1 - v_t / v_u))``.

    Args:
        denoise: State ``(b, ...)`` and time ``(b,)`` to an estimate of the source's state.
        mixture: ``(b, ...)``, real or complex, the mixture's state, of the shape of the source's.
        grid: From `bridge_grid`.
        noise: From `white_noise`.
        callback: Called in every step.

    Returns:
        ``(b, ...)``, the last state.

    Raises:
        ValueError: If the denoiser changes the shape.
    """
    state, z = _first_state(mixture, grid, noise)
    for u, t in pairwise(grid):
        estimate = _evaluate(denoise, state, u, callback)
        if u.c > 0:
            r = u.a * t.c / (t.a * u.c) if t is not grid[-1] else 1.0
            z = r * u.noise_of(state, estimate, mixture)
            if r < 1:
                z = z + (1 - r**2) ** 0.5 * noise()
        state = t.mean(estimate, mixture) + t.c * z
    return state


def sample_bridge_ode(
    denoise: Denoiser, mixture: Tensor, grid: Grid, noise: Noise, callback: Callback | None = None
) -> Tensor:
    """Follow the ODE by steps of first order: ``z_t = z_u``, drawn where ``c_u = 0``."""
    state, z = _first_state(mixture, grid, noise)
    for u, t in pairwise(grid):
        estimate = _evaluate(denoise, state, u, callback)
        z = u.noise_of(state, estimate, mixture) if u.c > 0 else z
        state = t.mean(estimate, mixture) + t.c * z
    return state


def sample_bridge_ode2(
    denoise: Denoiser, mixture: Tensor, grid: Grid, noise: Noise, callback: Callback | None = None
) -> Tensor:
    """Follow the ODE by steps of second order, at two evaluations each but the last.

    After ``z_t = z_u``, ``x_t += w (D(x_t, t) - D)`` with w of an estimate that is linear in
    ``ln(1 + a / c)``: an exponential integrator in a variable in which the path is smooth at both ends.
    """
    state, z = _first_state(mixture, grid, noise)
    for u, t in pairwise(grid):
        estimate = _evaluate(denoise, state, u, callback)
        z = u.noise_of(state, estimate, mixture) if u.c > 0 else z
        state = t.mean(estimate, mixture) + t.c * z
        if t is not grid[-1]:
            state = state + _second_order_weight(u, t) * (_evaluate(denoise, state, t) - estimate)
    return state


def sample_bridge_consistency(
    denoise: Denoiser, mixture: Tensor, grid: Grid, noise: Noise, callback: Callback | None = None
) -> Tensor:
    """Sample a consistency model: ``z_t`` is new noise, and 0 in the last step."""
    state = mixture
    for u, t in pairwise(grid):
        state = t.mean(_evaluate(denoise, state, u, callback), mixture)
        if t is not grid[-1]:
            state = state + t.c * noise()
    return state


def sample_bridge_endpoint(
    denoise: Denoiser, mixture: Tensor, grid: Grid, noise: Noise, callback: Callback | None = None
) -> Tensor:
    """Follow the mean, ``z_t = 0``: on the straight bridge a refinement by fixed mixing ratios."""
    state = mixture
    for u, t in pairwise(grid):
        state = t.mean(_evaluate(denoise, state, u, callback), mixture)
    return state


def sample_bridge_state(
    denoise: Denoiser, mixture: Tensor, grid: Grid, noise: Noise, callback: Callback | None = None
) -> Tensor:
    """Follow the mean from state to state: ``x_t = (b_t / b_u) x_u + (a_t - a_u b_t / b_u) D``."""
    state = mixture
    for u, t in pairwise(grid):
        ratio = t.b / u.b
        state = ratio * state + (t.a - u.a * ratio) * _evaluate(denoise, state, u, callback)
    return state


SAMPLERS: dict[str, Callable[[Denoiser, Tensor, Grid, Noise, Callback | None], Tensor]] = {
    "sde": sample_bridge_sde,
    "ode": sample_bridge_ode,
    "ode2": sample_bridge_ode2,
    "consistency": sample_bridge_consistency,
    "endpoint": sample_bridge_endpoint,
    "state": sample_bridge_state,
}
"""The samplers by the names that configurations use."""


def find_bridge(separator: LoadedSeparator) -> tuple[BridgeSeparator, list[int]] | None:
    """Return the bridge that a separator is or selects sources of, and their indices; None for all others."""
    inner = separator.separator if isinstance(separator, SelectSources) else separator
    if not isinstance(inner, BridgeSeparator):
        return None
    return inner, [list(inner.sources).index(name) for name in separator.sources]


class with_ratio(Wrapper):  # noqa: N801, used like a function
    """Condition a bridge's data predictor on the mixing ratio of its input, which is its time.

    Args:
        separate: A bridge, called with inputs ``(n, c, t)``, and with their ratios ``(n,)`` and mixtures,
            such as `encore.models.denoisers.bridge_separator.BridgeSeparator`; or some of its sources.
        mixture: ``(b, c, t)``.

    Raises:
        ValueError: If the separator was not trained as a bridge.
    """

    per_item = ("mixture",)

    def __init__(self, separate: LoadedSeparator, mixture: Tensor) -> None:
        super().__init__(separate)
        found = find_bridge(separate)
        if found is None:
            name = type(separate).__name__
            raise ValueError(f"with_ratio: {name} was not trained as a bridge, give one that was")
        (self.bridge, self.indices), self.mixture = found, mixture

    def at_ratio(self, inputs: Tensor, ratio: Tensor) -> Tensor:
        """Separate inputs ``(n, c, t)`` of mixing ratios ``(n,)`` into ``(n, s, c, t)``."""
        estimates: Tensor = self.bridge(inputs, ratio, self.mixture)
        return estimates[:, self.indices]


def _evaluate(denoise: Denoiser, state: Tensor, point: Point, callback: Callback | None = None) -> Tensor:
    """Call the denoiser on the state of a point, and then the callback."""
    times = torch.full((len(state),), point.t, device=state.device, dtype=state.real.dtype)
    estimate = denoise(state, times)
    if estimate.shape != state.shape:
        raise ValueError(
            f"denoise returned shape {tuple(estimate.shape)} for {tuple(state.shape)}: it must keep it"
        )
    if callback is not None:
        callback(point, state, estimate)
    return estimate


def _first_state(mixture: Tensor, grid: Grid, noise: Noise) -> tuple[Tensor, Tensor]:
    """Return the first state of SDE and ODE, and the noise of a first step from the mixture itself."""
    # the last step adds no noise
    z = torch.zeros_like(mixture[0]) if grid[0].c == 0 and len(grid) == 2 else noise()
    return mixture + grid[0].c * z, z


def _second_order_weight(u: Point, t: Point) -> float:
    """Return the weight of the change of an estimate that is linear in ``ln(1 + a / c)`` over the step."""
    if t.c == 0:
        return t.a
    before = 0.0 if u.c == 0 else u.a / u.c
    width = torch.log(torch.tensor((1 + t.a / t.c) / (1 + before), dtype=torch.float64))
    mean = -torch.expm1(-width) / width
    return (t.a + t.c) * float(1 - mean)
