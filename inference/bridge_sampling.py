"""Sampling a diffusion bridge from the mixture down to the source, with any denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from encore.models.processes.bridge import Bridge
from encore.models.types import Denoiser

Path = Literal["sde", "ode", "renoise", "endpoint", "state"]
"""How a state follows from the one before: see `sample_bridge`."""

Start = Literal["noise", "mean"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeSample:
    """What `sample_bridge` found and what it cost.

    Args:
        state: ``(b, ...)``, the last state.
        estimates: The denoiser's, each ``(b, ...)``, in the order in which it was asked.
        shares: The mixture's share in the mean of the state that each was found in, and last in ``state``.
    """

    state: Tensor
    estimates: list[Tensor]
    shares: list[float]

    @property
    def evaluations(self) -> int:
        """Denoiser calls per item, counted."""
        return len(self.estimates)


def time_grid(steps: int, *, start: float = 1.0, end: float = 1e-4) -> Tensor:
    """Even times from ``start`` down to ``end``, ``(steps + 1,)`` float64.

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


def sample_bridge(
    denoise: Denoiser,
    mixture: Tensor,
    bridge: Bridge,
    times: Tensor,
    *,
    path: Path = "sde",
    order: Literal[1, 2] = 1,
    start: Start = "noise",
    generator: Generator | None = None,
) -> BridgeSample:
    """Go from the mixture to the source along a grid of times.

    With ``D`` the estimate in the state ``x_u``, and ``m_t = a_t D + b_t x_0``:

    - ``"sde"`` and ``"ode"``: ``x_t = m_t + sqrt(c_t^2 - eta^2) (x_u - m_u) / c_u + eta z``. For the ODE eta
      is 0. For the SDE it is the deviation of ``x_t`` given ``x_u`` and the source,
      ``c_t sqrt(1 - (a_u c_t / (a_t c_u))^2)``, which for an exploding variance ``v_t`` is
      ``sqrt(v_t (1 - v_t / v_u))``, and 0 in the last step. Where ``c_u = 0``, which is the mixture itself,
      ``start="noise"`` takes ``eta = c_t``, and ``start="mean"`` 0: the state then stays on the mean of the
      path, where training has it at the ends only.
    - ``"renoise"``: ``x_t = m_t + c_t z``, but ``m_t`` in the last step; for networks of consistency
      training.
    - ``"endpoint"``: ``x_t = m_t``. With the straight bridge these are the blends of refinement.
    - ``"state"``: ``x_t = (b_t / b_u) x_u + (a_t - a_u b_t / b_u) D``, the same with a perfect denoiser.

    An ODE of second order corrects each step but the last by a second estimate, at its end, under which
    ``D`` is linear in ``ln(1 + a / c)``: an exponential integrator in a variable in which the path is smooth
    at both ends.

    All items get the same noise, so that no result depends on what else is in the batch.

    Args:
        denoise: State ``(b, ...)`` and time ``(b,)`` to an estimate of the source's state.
        mixture: ``(b, ...)``, real or complex, the mixture's state, of the shape of the source's.
        bridge: The process.
        times: ``(n + 1,)`` from high to low, in [0, 1]; the first is the start, clipped to the bridge's own.
        path: How a state follows from the one before.
        order: Of the ODE.
        start: What the first step of SDE and ODE does.
        generator: For the noise; needed where there is any.

    Returns:
        The last state, and the estimates on the way.

    Raises:
        ValueError: If an argument does not fit the others.

    Source: docs/methods.md, diffusion bridges.
    """
    _check(times, path, order, start, bridge)
    run = _Run(denoise, mixture, bridge, generator)
    moments = [run.coefficients(min(float(t), bridge.start)) for t in times]
    state = mixture
    if path in ("sde", "ode") and start == "noise" and moments[0].c > 0:
        # the process ends in noise around the mixture
        state = mixture + moments[0].c * run.noise()
    last = len(moments) - 2
    for step, (u, t) in enumerate(pairwise(moments)):
        found = run.estimate(state, u)
        if path == "endpoint":
            state = t.mean(found, mixture)
        elif path == "renoise":
            state = t.mean(found, mixture)
            if step < last:
                state = state + t.c * run.noise()
        elif path == "state":
            state = (t.b / u.b) * state + (t.a - u.a * t.b / u.b) * found
        else:
            eta = _eta(u, t, path, start, final=step == last)
            following = _moved(state, found, mixture, u, t, eta)
            if eta > 0:
                following = following + eta * run.noise()
            if order == 2 and step < last:
                again = run.estimate(following, t)
                following = following + _correction(u, t) * (again - found)
            state = following
    return BridgeSample(state=state, estimates=run.estimates, shares=[*run.shares, moments[-1].b])


@dataclass(frozen=True, slots=True)
class _Moments:
    """The coefficients at one time, as numbers."""

    t: float
    a: float
    b: float
    c: float

    def mean(self, source: Tensor, mixture: Tensor) -> Tensor:
        return self.a * source + self.b * mixture


class _Run:
    """One sampling: counts what it asks, and draws its noise."""

    def __init__(
        self, denoise: Denoiser, mixture: Tensor, bridge: Bridge, generator: Generator | None
    ) -> None:
        self._denoise, self._mixture, self._bridge = denoise, mixture, bridge
        self._generator = generator
        self.estimates: list[Tensor] = []
        self.shares: list[float] = []

    def coefficients(self, t: float) -> _Moments:
        parts = self._bridge.coefficients(torch.tensor(t, dtype=torch.float64))
        return _Moments(t, *(float(part) for part in parts))

    def estimate(self, state: Tensor, at: _Moments) -> Tensor:
        times = torch.full((len(state),), at.t, device=state.device, dtype=state.real.dtype)
        found = self._denoise(state, times)
        if found.shape != state.shape:
            raise ValueError(
                f"denoise returned shape {tuple(found.shape)} for {tuple(state.shape)}: it must keep it"
            )
        self.estimates.append(found)
        self.shares.append(at.b)
        return found

    def noise(self) -> Tensor:
        """White noise of one item, complex of unit power where the states are complex."""
        if self._generator is None:
            raise ValueError("generator=None: noise is drawn from it, give a torch.Generator")
        shape, dtype = self._mixture.shape[1:], self._mixture.dtype
        drawn = torch.randn(shape, generator=self._generator, device=self._generator.device, dtype=dtype)
        return drawn.to(self._mixture.device)


def _moved(state: Tensor, found: Tensor, mixture: Tensor, u: _Moments, t: _Moments, eta: float) -> Tensor:
    """The state of an SDE or ODE at t, without its new noise."""
    following = t.mean(found, mixture)
    if u.c == 0:
        return following
    # never below 0 but by rounding, in a step to the same time
    kept = max(t.c**2 - eta**2, 0.0) ** 0.5 / u.c
    return following + kept * (state - u.mean(found, mixture))


def _eta(u: _Moments, t: _Moments, path: str, start: str, *, final: bool) -> float:
    """Deviation of the noise that a step adds."""
    if u.c == 0:
        return t.c if start == "noise" and not final else 0.0
    if path == "ode" or final:
        return 0.0
    return t.c * max(1 - (u.a * t.c / (t.a * u.c)) ** 2, 0.0) ** 0.5


def _correction(u: _Moments, t: _Moments) -> float:
    """Weight of the change of the estimate over a step, under which it is linear in ``ln(1 + a / c)``."""
    if t.c == 0:
        return t.a
    before = 0.0 if u.c == 0 else u.a / u.c
    width = torch.log(torch.tensor((1 + t.a / t.c) / (1 + before), dtype=torch.float64))
    mean = -torch.expm1(-width) / width
    return (t.a + t.c) * float(1 - mean)


def check_path(path: str, order: int, start: str) -> None:
    """Check what `sample_bridge` is told but its times.

    Raises:
        ValueError: If there is no such path, order or start, or they do not go together.
    """
    for name, value, kinds in (("path", path, Path), ("start", start, Start)):
        if value not in get_args(kinds):
            raise ValueError(f"{name}={value!r}: choose {' or '.join(get_args(kinds))}")
    if order not in (1, 2) or (order == 2 and path != "ode"):
        raise ValueError(f"order={order} with path={path!r}: give 1, or 2 with path='ode'")


def _check(times: Tensor, path: str, order: int, start: str, bridge: Bridge) -> None:
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()):
        raise ValueError(f"times={times.tolist()}: give at least two, falling from 1 to 0")
    if not 0 <= float(times[-1]) <= float(times[0]) <= 1 or float(times[1]) >= bridge.start:
        raise ValueError(
            f"times={times.tolist()}: must lie in [0, 1], all but the first below {bridge.start}"
        )
    check_path(path, order, start)
    if bridge.noiseless and path in ("sde", "ode", "renoise"):
        raise ValueError(f"path={path!r}: {type(bridge).__name__} has no noise; choose 'endpoint' or 'state'")
