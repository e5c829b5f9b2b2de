"""Gaussian sources, whose posterior is known in closed form: the reference for posterior solvers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from encore.models.processes.diffusion import NoiseStep
from encore.models.types import Denoiser


class GaussianSources:
    """Sources ``x^k ~ N(0, Sigma_k)`` in a mixture ``y = sum_k x^k + s n``; samples are along the last axis.

    With ``S = sum_j Sigma_j + s^2 I``: ``E[x^k | y] = Sigma_k S^-1 y``, the Wiener filter, and
    ``Cov[x^k, x^l | y] = delta_kl Sigma_k - Sigma_k S^-1 Sigma_l``.

    Args:
        covariances: ``(k, t, t)``.
        noise: s, from 0 up.
    """

    def __init__(self, covariances: Tensor, noise: float = 0.0) -> None:
        covariances = covariances.double()
        self.covariances, self.noise = covariances, noise
        self.count, self.length = covariances.shape[0], covariances.shape[1]
        self._eye = torch.eye(self.length, dtype=torch.float64)
        self._total = covariances.sum(dim=0) + noise**2 * self._eye

    @property
    def priors(self) -> list[Denoiser]:
        """Ideal denoiser of each source, ``E[x | x_t]``."""
        return [partial(self._denoise, number) for number in range(self.count)]

    def mean(self, mixture: Tensor) -> Tensor:
        """Return ``E[x^k | y]`` ``(b, k, c, t)`` of mixtures ``(b, c, t)``."""
        gains = self.covariances @ torch.linalg.inv(self._total)
        return torch.einsum("kts,bcs->bkct", gains, mixture.double())

    def covariance(self) -> Tensor:
        """Return ``Cov[x^k, x^l | y]``, ``(k t, k t)``."""
        return self._joint(self.covariances, self._total)

    def conditional(self, step: NoiseStep) -> tuple[Tensor, Tensor]:
        """Return covariances given a state: ``C_k`` ``(k, t, t)``, and ``C = sum_k C_k + s^2 I``."""
        noise = 1 - step.alpha_bar
        inverse = torch.linalg.inv(step.alpha_bar * self.covariances + noise * self._eye)
        own = noise * self.covariances @ inverse
        return own, own.sum(dim=0) + self.noise**2 * self._eye

    def kernel(self, step: NoiseStep) -> Tensor:
        """Return the reverse kernel's covariance ``betatilde I + c1^2 Cov[x | x_t, y]``, ``(k t, k t)``."""
        own, total = self.conditional(step)
        white = step.variance * torch.eye(self.count * self.length, dtype=torch.float64)
        return white + step.estimate_weight**2 * self._joint(own, total)

    def _joint(self, own: Tensor, total: Tensor) -> Tensor:
        """Return ``delta_kl A_k - A_k B^-1 A_l`` as one matrix."""
        cross = torch.einsum("kts,sr,lru->ktlu", own, torch.linalg.inv(total), own)
        size = self.count * self.length
        blocks = torch.einsum("kl,kts->ktls", torch.eye(self.count, dtype=own.dtype), own)
        return (blocks - cross).reshape(size, size)

    def _denoise(self, number: int, state: Tensor, alpha_bar: Tensor) -> Tensor:
        power, own = float(alpha_bar[0]), self.covariances[number]
        gain = power**0.5 * own @ torch.linalg.inv(power * own + (1 - power) * self._eye)
        return state @ gain.T.to(state)
