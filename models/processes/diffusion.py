"""Diffusion of a single source into noise: ``x_t = sqrt(abar) x + sqrt(1 - abar) z`` with white ``z``.

A noise level is given by ``abar``, the fraction of the source's power that is left, from 1 (clean) down to 0.
With ``sigma = sqrt((1 - abar) / abar)`` the state over ``sqrt(abar)`` is ``x + sigma z``, the form of other
papers. `NoiseLevels` serves samplers; a `Diffusion` serves training and turns network outputs into estimates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import Generator, Tensor

Spacing = Literal["even", "log"]
"""Spacing of the levels of a shortened chain, see `NoiseLevels.indices`."""

_RESOLUTION = 1e-6
"""Two levels count as the same if their ``abar`` differ by less than this, relatively."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseStep:
    """One step of a chain, to the next cleaner level.

    Args:
        alpha_bar: ``abar_t``.
        cleaner: ``abar_(t-1)``; 1 below the cleanest level.
        skipped: Levels between the two that a shortened chain leaves out, noisiest first.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
    """

    alpha_bar: float
    cleaner: float
    skipped: tuple[float, ...] = ()

    @property
    def substeps(self) -> list[NoiseStep]:
        """Steps of the full chain that this one replaces: itself, where none is left out."""
        levels = (self.alpha_bar, *self.skipped, self.cleaner)
        return [NoiseStep(alpha_bar=noisy, cleaner=clean) for noisy, clean in pairwise(levels)]

    @property
    def noise(self) -> float:
        """Variance of the forward step, ``beta_t = 1 - abar_t / abar_(t-1)``."""
        return 1 - self.alpha_bar / self.cleaner

    @property
    def variance(self) -> float:
        """Variance of ``x_(t-1)`` given source and state, ``beta_t (1 - abar_(t-1)) / (1 - abar_t)``."""
        return self.noise * (1 - self.cleaner) / (1 - self.alpha_bar)

    @property
    def estimate_weight(self) -> float:
        """Weight of the source in its mean, ``sqrt(abar_(t-1)) beta_t / (1 - abar_t)``."""
        return math.sqrt(self.cleaner) * self.noise / (1 - self.alpha_bar)

    @property
    def state_weight(self) -> float:
        """Weight of ``x_t`` in its mean, ``sqrt(1 - beta_t) (1 - abar_(t-1)) / (1 - abar_t)``."""
        return math.sqrt(1 - self.noise) * (1 - self.cleaner) / (1 - self.alpha_bar)

    @property
    def sigma(self) -> float:
        """Deviation of the noise in units of the source, ``sqrt((1 - abar) / abar)``."""
        return math.sqrt((1 - self.alpha_bar) / self.alpha_bar)

    @property
    def cleaner_sigma(self) -> float:
        """Deviation of the noise at the cleaner level."""
        return math.sqrt((1 - self.cleaner) / self.cleaner)


class NoiseLevels:
    """A chain of noise levels, cleanest first.

    Args:
        alpha_bar: ``(n,)``, ``abar`` of each level, falling, in (0, 1).
        full: The chain that these levels were taken from; None if this is all of it.

    Raises:
        ValueError: If the levels do not fall, or leave (0, 1).
    """

    def __init__(self, alpha_bar: Tensor, full: NoiseLevels | None = None) -> None:
        alpha_bar = alpha_bar.double().cpu()
        inside = bool(((alpha_bar > 0) & (alpha_bar < 1)).all())
        if alpha_bar.ndim != 1 or not len(alpha_bar) or not inside or not bool((alpha_bar.diff() < 0).all()):
            raise ValueError(f"alpha_bar={alpha_bar.tolist()}: give falling values in (0, 1), one per level")
        self.alpha_bar = alpha_bar
        self.full = self if full is None else full

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def step(self, index: int) -> NoiseStep:
        """Return the step from a level to the next cleaner one."""
        if not 0 <= index < len(self):
            raise ValueError(f"index={index}: the chain has levels 0 to {len(self) - 1}")
        cleaner = 1.0 if index == 0 else float(self.alpha_bar[index - 1])
        alpha_bar, every = float(self.alpha_bar[index]), self.full.alpha_bar
        skipped = every[(every > alpha_bar) & (every < cleaner)].flip(0).tolist()
        return NoiseStep(alpha_bar=alpha_bar, cleaner=cleaner, skipped=tuple(skipped))

    def indices(self, count: int, spacing: Spacing = "even") -> list[int]:
        """Choose levels, the first and the last among them; of one, the first.

        Args:
            count: From 1 to ``len(self)``.
            spacing: ``"even"`` in the index, or ``"log"``: even in ``ln sigma`` as far as there are levels,
                which keeps all of the cleanest and fewer of the noisier ones.
        """
        wanted = torch.linspace(0, len(self) - 1, count, dtype=torch.float64)
        if spacing == "log" and count > 1:
            sigmas = (1 / self.alpha_bar - 1).log() / 2
            values = torch.linspace(float(sigmas[0]), float(sigmas[-1]), count, dtype=torch.float64)
            wanted = torch.from_numpy(np.interp(values, sigmas, np.arange(len(self))))
            # no level twice: each index is above the one before, and leaves enough levels for those after
            steps = torch.arange(count)
            wanted = (wanted.round() - steps).cummax(0).values.clamp(max=len(self) - count) + steps
        return wanted.round().long().tolist()

    def respaced(self, steps: int, spacing: Spacing = "even") -> NoiseLevels:
        """Shorten the chain; the noise and weights of a step follow from the two levels that it joins.

        Args:
            steps: Number of levels, the first and the last among them; of one, the noisiest.
            spacing: See `indices`.

        Raises:
            ValueError: If there are fewer levels, or the spacing is unknown.

        Source: A. Nichol and P. Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021.
        """
        if not 1 <= steps <= len(self):
            raise ValueError(f"steps={steps}: the chain has {len(self)} levels, give 1 to {len(self)}")
        if spacing not in get_args(Spacing):
            raise ValueError(f"spacing={spacing!r}: choose {', '.join(get_args(Spacing))}")
        chosen = self.indices(steps, spacing) if steps > 1 else [-1]
        return NoiseLevels(self.alpha_bar[chosen], self.full)


class Diffusion(ABC):
    """Noise levels and preconditioning of a diffusion, without its network."""

    @abstractmethod
    def levels(self, steps: int | None = None) -> NoiseLevels:
        """Return the chain to sample.

        Args:
            steps: Number of levels; None for the default.
        """

    @abstractmethod
    def draw(self, count: int, generator: Generator) -> Tensor:
        """Draw training levels: ``abar`` ``(count,)``, float64."""

    @abstractmethod
    def condition(self, alpha_bar: Tensor) -> Tensor:
        """Return the numbers ``(b,)`` that the network is conditioned on at levels ``(b,)``."""

    @abstractmethod
    def weights(self, alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``c_skip, c_out, c_in``, ``(b,)`` each, of ``xhat = c_skip x_t + c_out F(c_in x_t)``."""


class DiscreteDiffusion(Diffusion):
    """A fixed chain with linear ``beta`` whose network estimates the noise.

    ``c_skip = 1 / sqrt(abar)``, ``c_out = -sqrt(1 / abar - 1)`` and ``c_in = 1``, so that the squared error
    of the network's output is that of the noise.

    Args:
        steps: Levels of the chain.
        first: ``beta`` at the cleanest level, in (0, 1).
        last: ``beta`` at the noisiest, in (0, 1).
        condition_range: The network is conditioned on ``floor(condition_range t / steps)`` at level t.

    Raises:
        ValueError: If an argument is out of range.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020; constants as R. Shi et al.,
    "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025.
    """

    def __init__(
        self, steps: int = 200, first: float = 1e-4, last: float = 0.02, condition_range: int = 1000
    ) -> None:
        if steps < 1 or not 0 < first <= last < 1 or condition_range < 1:
            raise ValueError(
                f"steps={steps}, first={first}, last={last}, condition_range={condition_range}: give 1 or "
                "more steps, 0 < first <= last < 1, and a range from 1 up"
            )
        betas = torch.linspace(first, last, steps, dtype=torch.float64)
        self._levels = NoiseLevels((1 - betas).cumprod(0))
        self.condition_range = condition_range

    def levels(self, steps: int | None = None) -> NoiseLevels:
        """Return the whole chain, or ``steps`` levels of it, evenly spaced."""
        return self._levels if steps is None else self._levels.respaced(steps)

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Draw levels of the chain, each equally often."""
        indices = torch.randint(len(self._levels), (count,), generator=generator, device=generator.device)
        return self._levels.alpha_bar[indices.cpu()]

    def condition(self, alpha_bar: Tensor) -> Tensor:
        """Return ``floor(condition_range t / steps)`` of the levels t.

        Raises:
            ValueError: If the chain has no such level.
        """
        wanted = alpha_bar.detach().double().cpu()
        distance = (self._levels.alpha_bar - wanted[:, None]).abs() / wanted[:, None]
        nearest, indices = distance.min(dim=1)
        if bool((nearest > _RESOLUTION).any()):
            missing = float(wanted[nearest.argmax()])
            raise ValueError(
                f"alpha_bar={missing:.6g} is none of the {len(self._levels)} levels that this network was "
                "trained at: use diffusion.levels(steps)"
            )
        return (self.condition_range * indices // len(self._levels)).to(alpha_bar)

    def weights(self, alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of the class's docstring."""
        return alpha_bar.rsqrt(), -(1 / alpha_bar - 1).sqrt(), torch.ones_like(alpha_bar)


class ContinuousDiffusion(Diffusion):
    """Any noise level, with a preconditioning that gives the network inputs and targets of unit variance.

    In units of the source, with its deviation ``s`` and the noise's ``sigma``: ``c_skip = s^2 / (sigma^2
    + s^2)``, ``c_out = sigma s / sqrt(sigma^2 + s^2)``, ``c_in = 1 / sqrt(sigma^2 + s^2)``; the network
    is conditioned on ``condition_scale ln(sigma) / 4``.

    Args:
        data_sigma: ``s``, the root mean square of the sources.
        lowest: Smallest sigma that is sampled.
        highest: Largest sigma that is sampled.
        mean: Mean of ``ln sigma`` in training.
        deviation: Its standard deviation.
        rho: Levels are even in ``sigma^(1/rho)``: the larger, the more of them are clean.
        condition_scale: See above; brings the numbers into the range of the embedding.

    Raises:
        ValueError: If an argument is out of range.

    Source: T. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022.
    """

    def __init__(
        self,
        data_sigma: float = 0.07,
        lowest: float = 1e-3,
        highest: float = 3.0,
        mean: float = -2.5,
        deviation: float = 1.5,
        rho: float = 7.0,
        condition_scale: float = 100.0,
    ) -> None:
        if not (data_sigma > 0 and 0 < lowest < highest and min(deviation, rho, condition_scale) > 0):
            raise ValueError(
                f"data_sigma={data_sigma}, lowest={lowest}, highest={highest}, deviation={deviation}, "
                f"rho={rho}, condition_scale={condition_scale}: all must be above 0, and lowest below highest"
            )
        self.data_sigma, self.lowest, self.highest = float(data_sigma), float(lowest), float(highest)
        self.mean, self.deviation, self.rho = float(mean), float(deviation), float(rho)
        self.condition_scale = float(condition_scale)

    def levels(self, steps: int | None = None) -> NoiseLevels:
        """Return ``steps`` levels between the lowest and the highest, 50 by default."""
        count = 50 if steps is None else steps
        if count < 1:
            raise ValueError(f"steps={steps}: give 1 or more")
        ends = self.lowest ** (1 / self.rho), self.highest ** (1 / self.rho)
        roots = torch.linspace(*ends, count, dtype=torch.float64) if count > 1 else torch.tensor([ends[1]])
        return NoiseLevels(1 / (1 + roots.double() ** (2 * self.rho)))

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Draw ``ln sigma`` from a normal distribution with ``mean`` and ``deviation``."""
        drawn = torch.randn(count, generator=generator, device=generator.device, dtype=torch.float64).cpu()
        return 1 / (1 + (2 * (self.mean + self.deviation * drawn)).exp())

    def condition(self, alpha_bar: Tensor) -> Tensor:
        """Return ``condition_scale ln(sigma) / 4``."""
        return self.condition_scale * ((1 - alpha_bar) / alpha_bar).log() / 8

    def weights(self, alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of the class's docstring; the state is divided by ``sqrt(abar)`` first."""
        own, sigma2 = self.data_sigma**2, (1 - alpha_bar) / alpha_bar
        total = sigma2 + own
        return own / total * alpha_bar.rsqrt(), (sigma2 * own / total).sqrt(), (total * alpha_bar).rsqrt()
