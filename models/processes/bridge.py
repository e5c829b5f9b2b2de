"""Diffusion bridges: Gaussian paths ``x_t = a_t s + b_t x_0 + c_t z`` from a clean source to its mixture.

``t = 0`` is clean and ``t = 1`` the mixture, ``z`` is white. A bridge holds the three coefficients only; the
samplers are in `encore.inference`.

The published constants of `SchroedingerVE`, `BBED` and `OUVE` are for states of about the size of a
peak-normalized mixture's compressed spectrum; for states of another size, scale the noise by `Scaled`.

Source of all coefficients: docs/methods.md, diffusion bridges, which names the papers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from scipy.special import expi
from torch import Tensor

Coefficients = tuple[Tensor, Tensor, Tensor]
"""``a`` of the clean source, ``b`` of the mixture, ``c``, the standard deviation of the noise."""


class Bridge(ABC):
    """A Gaussian path between a clean source and its mixture.

    Attributes:
        start: The time in (0, 1] at which sampling starts; below 1 where the process is singular at 1.
        noiseless: Whether ``c`` is 0 at all times.
    """

    start = 1.0
    noiseless = False

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return ``(a, b, c)`` at times ``t`` in [0, 1], like ``t`` but computed in float64."""
        a, b, variance = self._moments(t.double())
        # rounding may push a vanishing variance below 0
        parts = (a, b, variance.clamp_min(0).sqrt())
        return tuple(part.to(t) for part in parts)  # type: ignore[return-value]

    def state(self, t: Tensor, source: Tensor, mixture: Tensor, noise: Tensor) -> Tensor:
        """Return the state ``a_t s + b_t x_0 + c_t z``.

        Args:
            t: ``(batch,)`` in [0, 1].
            source: ``(batch, ...)``, real or complex.
            mixture: Same shape, or broadcast to it.
            noise: Same shape, white.
        """
        a, b, c = (part.reshape(-1, *(1 for _ in source.shape[1:])) for part in self.coefficients(t))
        return a * source + b * mixture + c * noise

    def noise_of(self, state: Tensor, t: Tensor, source: Tensor, mixture: Tensor) -> Tensor:
        """Return ``z`` of a state; infinite or NaN where the bridge has no noise."""
        c = self.coefficients(t)[2].reshape(-1, *(1 for _ in source.shape[1:]))
        return (state - self.state(t, source, mixture, torch.zeros_like(source))) / c

    @abstractmethod
    def _moments(self, t: Tensor) -> Coefficients:
        """Return ``a``, ``b`` and the variance ``c^2`` at float64 times."""


class LinearBridge(Bridge):
    """The straight line without noise: linear mixing, and cold diffusion.

    Source: A. Bansal et al., "Cold Diffusion", 2022; docs/methods.md.
    """

    noiseless = True

    def _moments(self, t: Tensor) -> Coefficients:
        return 1 - t, t, torch.zeros_like(t)


class BrownianBridge(Bridge):
    """The straight line with ``c_t^2 = g^2 t (1 - t)``.

    Args:
        g: Diffusion above 0 in units of the states; the largest deviation is ``g / 2``.
    """

    def __init__(self, g: float = 1.0) -> None:
        self.g = _positive("g", g)

    def _moments(self, t: Tensor) -> Coefficients:
        return 1 - t, t, self.g**2 * t * (1 - t)


class VarianceExploding(Bridge):
    """A bridge of a process that only adds noise, given its variance ``v_t``.

    ``a = (v_1 - v_t) / v_1``, ``b = v_t / v_1``, ``c^2 = v_t (v_1 - v_t) / v_1 = a b v_1``.
    """

    @abstractmethod
    def variance(self, t: Tensor) -> Tensor:
        """Return ``v_t`` at float64 times: 0 at 0, rising."""

    def _moments(self, t: Tensor) -> Coefficients:
        v, last = self.variance(t), self.variance(torch.ones_like(t))
        return (last - v) / last, v / last, v * (last - v) / last


class SchroedingerVE(VarianceExploding):
    """Schroedinger bridge with exploding variance, ``v_t = c (k^(2t) - 1) / (2 ln k)``.

    Args:
        k: Growth above 1 of the diffusion from t = 0 to 1.
        c: Scale above 0 of the variance.

    Source: A. Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", 2024.
    """

    def __init__(self, k: float = 2.6, c: float = 0.4) -> None:
        self.k, self.c = _above("k", k, 1), _positive("c", c)

    def variance(self, t: Tensor) -> Tensor:
        """Return ``c (k^(2t) - 1) / (2 ln k)``."""
        growth = 2 * math.log(self.k)
        return self.c * torch.expm1(growth * t) / growth


class I2SB(VarianceExploding):
    """Image-to-image Schroedinger bridge: ``v_t`` is the integral of a mirrored quadratic schedule.

    ``beta`` is the square of ``steps`` even values from ``sqrt(first)`` to ``sqrt(last)``, of which the first
    half and its mirror image are used; ``v_t`` is its running sum, linear within a step.

    Args:
        steps: Steps of the table, even.
        first: First value of ``beta``, above 0.
        last: Last value of ``beta`` before mirroring, above 0.

    Source: G.-H. Liu et al., "I2SB: Image-to-Image Schroedinger Bridge", 2023.
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 3e-4) -> None:
        if steps < 2 or steps % 2:
            raise ValueError(f"steps={steps}: give an even number from 2 up, one half mirrors the other")
        self.steps = steps
        roots = torch.linspace(_positive("first", first) ** 0.5, _positive("last", last) ** 0.5, steps)
        half = roots.double()[: steps // 2].square()
        betas = torch.cat((half, half.flip(0)))
        self._sums = torch.cat((betas.new_zeros(1), betas.cumsum(0)))

    def variance(self, t: Tensor) -> Tensor:
        """Return the running sum of ``beta``, linear between its steps."""
        sums = self._sums.to(t.device)
        position = (t * self.steps).clamp(0, self.steps)
        below = position.floor().long().clamp_max(self.steps - 1)
        return torch.lerp(sums[below], sums[below + 1], position - below)


class DDBMVE(VarianceExploding):
    """Denoising diffusion bridge model with exploding variance, ``v_t = (sigma_max t)^2``.

    Args:
        sigma_max: Deviation of the process at t = 1, above 0, in units of the states; published 80 and 20.

    Source: L. Zhou et al., "Denoising Diffusion Bridge Models", 2023.
    """

    def __init__(self, sigma_max: float = 80.0) -> None:
        self.sigma_max = _positive("sigma_max", sigma_max)

    def variance(self, t: Tensor) -> Tensor:
        """Return ``(sigma_max t)^2``."""
        return (self.sigma_max * t).square()


class DDBMVP(Bridge):
    """Denoising diffusion bridge model with preserved variance.

    With ``alpha_t = exp(-beta_d t^2 / 4 - beta_min t / 2)``, ``sigma_t^2 = 1 - alpha_t^2`` and
    ``w_t = sigma_t^2 / alpha_t^2``: ``a = alpha_t (1 - w_t / w_1)``, ``b = (w_t / w_1) alpha_t / alpha_1``,
    ``c^2 = sigma_t^2 (1 - w_t / w_1)``.

    Args:
        beta_min: Rate of the noise at t = 0, above 0.
        beta_d: How much it rises until t = 1.

    Source: L. Zhou et al., "Denoising Diffusion Bridge Models", 2023.
    """

    def __init__(self, beta_min: float = 0.1, beta_d: float = 2.0) -> None:
        self.beta_min, self.beta_d = _positive("beta_min", beta_min), _above("beta_d", beta_d, 0, equal=True)

    def _moments(self, t: Tensor) -> Coefficients:
        exponent, last = self._exponent(t), self._exponent(torch.ones_like(t))
        ratio = torch.expm1(exponent) / torch.expm1(last)
        alpha = torch.exp(-exponent / 2)
        variance = -torch.expm1(-exponent) * (1 - ratio)
        return alpha * (1 - ratio), ratio * torch.exp((last - exponent) / 2), variance

    def _exponent(self, t: Tensor) -> Tensor:
        """Return ``-2 ln alpha_t``."""
        return self.beta_d * t.square() / 2 + self.beta_min * t


class BBED(Bridge):
    """Brownian bridge with exponential diffusion.

    ``a = 1 - t``, ``b = t``, ``c^2 = (1 - t) theta [k^(2t) - 1 + t + 2 k^2 ln(k) (1 - t) E]`` with
    ``E = Ei(2 (t - 1) ln k) - Ei(-2 ln k)``, Ei the exponential integral. The drift diverges at t = 1, so
    sampling starts a little before.

    Args:
        k: Growth of the diffusion above 1.
        theta: Scale of the variance above 0.

    Source: B. Lay et al., "Reducing the Prior Mismatch of Stochastic Differential Equations for
    Diffusion-based Speech Enhancement", 2023.
    """

    start = 0.999

    def __init__(self, k: float = 2.6, theta: float = 0.52) -> None:
        self.k, self.theta = _above("k", k, 1), _positive("theta", theta)

    def _moments(self, t: Tensor) -> Coefficients:
        log = math.log(self.k)
        rest = 1 - t
        # Ei(0) is minus infinity, times rest^2 = 0; any finite number will do there
        inner = torch.where(rest > 0, -2 * log * rest, -1.0)
        integral = torch.as_tensor(expi(inner.cpu().numpy())).to(t) - float(expi(-2 * log))
        bracket = torch.expm1(2 * log * t) + t + 2 * self.k**2 * log * rest * integral
        return rest, t, rest * self.theta * bracket


class OUVE(Bridge):
    """Ornstein-Uhlenbeck process with exploding variance, that of SGMSE+.

    ``a = exp(-gamma t)``, ``b = 1 - a``, and with ``q = sigma_max / sigma_min``
    ``c^2 = sigma_min^2 (q^(2t) - exp(-2 gamma t)) ln(q) / (gamma + ln q)``.

    **It never reaches the mixture**: at t = 1 a fifth of the clean source is left in the mean (a = 0.223).
    A sampler starts from mixture and noise alone, a state that training never produces.

    Args:
        gamma: Drift to the mixture, above 0.
        sigma_min: Scale of the diffusion at t = 0, above 0.
        sigma_max: Scale at t = 1, above ``sigma_min``.

    Source: J. Richter et al., "Speech Enhancement and Dereverberation with Diffusion-based Generative
    Models", 2023.
    """

    def __init__(self, gamma: float = 1.5, sigma_min: float = 0.05, sigma_max: float = 0.5) -> None:
        self.gamma, self.sigma_min = _positive("gamma", gamma), _positive("sigma_min", sigma_min)
        self.sigma_max = _above("sigma_max", sigma_max, sigma_min)

    def _moments(self, t: Tensor) -> Coefficients:
        log = math.log(self.sigma_max / self.sigma_min)
        a = torch.exp(-self.gamma * t)
        variance = torch.exp(2 * log * t) - torch.exp(-2 * self.gamma * t)
        return a, 1 - a, self.sigma_min**2 * log / (self.gamma + log) * variance


class Scaled(Bridge):
    """A bridge with its noise scaled, for states of another size.

    Args:
        bridge: The bridge.
        scale: Factor of its ``c``, above 0.
    """

    def __init__(self, bridge: Bridge, scale: float) -> None:
        self.bridge, self.scale = bridge, _positive("scale", scale)
        self.start, self.noiseless = bridge.start, bridge.noiseless

    def _moments(self, t: Tensor) -> Coefficients:
        a, b, variance = self.bridge._moments(t)
        return a, b, self.scale**2 * variance


def _positive(name: str, value: float) -> float:
    return _above(name, value, 0)


def _above(name: str, value: float, bound: float, *, equal: bool = False) -> float:
    if not (value > bound or (equal and value == bound)):
        raise ValueError(f"{name}={value}: give a number {'from' if equal else 'above'} {bound:g}")
    return float(value)
