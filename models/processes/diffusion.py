"""Diffusion of a single source into noise: ``x_t = sqrt(abar) x + sqrt(1 - abar) z`` with white ``z``.

A noise level is given by ``abar``, the share of the source's power that is left, from 1 (clean) down to
0. With ``sigma = sqrt((1 - abar) / abar)`` the state over ``sqrt(abar)`` is ``x + sigma z``, which other
papers start from. What a sampler needs of a chain of levels is `NoiseLevels`; what training needs,
and how a network's output becomes an estimate, is a `Diffusion`.
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
"""How a chain is shortened, see `NoiseLevels.places`."""

_RESOLUTION = 1e-6
"""Two levels count as the same if their ``abar`` differ by less than this share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """From one level of a chain to the next cleaner one, as numbers.

    Args:
        signal: ``abar_t``.
        cleaner: ``abar_(t-1)``; 1 below the cleanest level.
        passed: Levels between the two that a shortened chain leaves out, from the noisiest on.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
    """

    signal: float
    cleaner: float
    passed: tuple[float, ...] = ()

    @property
    def replaced(self) -> list[Step]:
        """The steps of the whole chain that this one stands for: itself, where none was left out."""
        levels = (self.signal, *self.passed, self.cleaner)
        return [Step(signal=noisy, cleaner=clean) for noisy, clean in pairwise(levels)]

    @property
    def noise(self) -> float:
        """``beta_t = 1 - abar_t / abar_(t-1)``, the variance of the forward step."""
        return 1 - self.signal / self.cleaner

    @property
    def variance(self) -> float:
        """``betatilde_t = beta_t (1 - abar_(t-1)) / (1 - abar_t)``, of ``x_(t-1)`` given source and state."""
        return self.noise * (1 - self.cleaner) / (1 - self.signal)

    @property
    def of_estimate(self) -> float:
        """Weight of the source in the mean of that, ``sqrt(abar_(t-1)) beta_t / (1 - abar_t)``."""
        return math.sqrt(self.cleaner) * self.noise / (1 - self.signal)

    @property
    def of_state(self) -> float:
        """Weight of ``x_t`` in it, ``sqrt(1 - beta_t) (1 - abar_(t-1)) / (1 - abar_t)``."""
        return math.sqrt(1 - self.noise) * (1 - self.cleaner) / (1 - self.signal)

    @property
    def sigma(self) -> float:
        """Deviation of the noise in units of the source, ``sqrt((1 - abar) / abar)``."""
        return math.sqrt((1 - self.signal) / self.signal)

    @property
    def cleaner_sigma(self) -> float:
        """The same at the cleaner level."""
        return math.sqrt((1 - self.cleaner) / self.cleaner)


class NoiseLevels:
    """A chain of noise levels, from the cleanest on.

    Args:
        signal: ``(n,)``, ``abar`` of each, falling, in (0, 1).
        whole: The chain of which these are some levels; None if this is all of it.

    Raises:
        ValueError: If they do not fall, or leave (0, 1).
    """

    def __init__(self, signal: Tensor, whole: NoiseLevels | None = None) -> None:
        signal = signal.double().cpu()
        inside = bool(((signal > 0) & (signal < 1)).all())
        if signal.ndim != 1 or not len(signal) or not inside or not bool((signal.diff() < 0).all()):
            raise ValueError(f"signal={signal.tolist()}: give abar of each level, falling, in (0, 1)")
        self.signal = signal
        self.whole = self if whole is None else whole

    def __len__(self) -> int:
        return len(self.signal)

    def step(self, place: int) -> Step:
        """From the level with that number down."""
        if not 0 <= place < len(self):
            raise ValueError(f"place={place}: the chain has levels 0 to {len(self) - 1}")
        cleaner = 1.0 if place == 0 else float(self.signal[place - 1])
        signal, every = float(self.signal[place]), self.whole.signal
        passed = every[(every > signal) & (every < cleaner)].flip(0).tolist()
        return Step(signal=signal, cleaner=cleaner, passed=tuple(passed))

    def places(self, count: int, spacing: Spacing = "even") -> list[int]:
        """Numbers of so many levels, the first and the last among them; of one, the first.

        Args:
            count: From 1 to as many as there are.
            spacing: ``"even"`` in the numbers, ``"log"`` in ``ln sigma`` as far as there are levels: all of
                the cleanest ones, and the fewer, the noisier.
        """
        wanted = torch.linspace(0, len(self) - 1, count, dtype=torch.float64)
        if spacing == "log" and count > 1:
            sigmas = (1 / self.signal - 1).log() / 2
            values = torch.linspace(float(sigmas[0]), float(sigmas[-1]), count, dtype=torch.float64)
            wanted = torch.from_numpy(np.interp(values, sigmas, np.arange(len(self))))
            # no level twice: what comes after must be further on, what comes before must leave room
            steps = torch.arange(count)
            wanted = (wanted.round() - steps).cummax(0).values.clamp(max=len(self) - count) + steps
        return wanted.round().long().tolist()

    def respaced(self, steps: int, spacing: Spacing = "even") -> NoiseLevels:
        """So many of the levels, the first and the last among them.

        Whatever is computed of the chain is then computed of these levels: a step is longer, its noise and
        weights follow from the two levels that it joins.

        Args:
            steps: How many; of one, the noisiest.
            spacing: See `places`.

        Raises:
            ValueError: If there are not so many, or the spacing is unknown.

        Source: A. Nichol and P. Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021.
        """
        if not 1 <= steps <= len(self):
            raise ValueError(f"steps={steps}: the chain has {len(self)} levels, give 1 to {len(self)}")
        if spacing not in get_args(Spacing):
            raise ValueError(f"spacing={spacing!r}: choose {', '.join(get_args(Spacing))}")
        if steps == 1:
            return NoiseLevels(self.signal[-1:], self.whole)
        return NoiseLevels(self.signal[self.places(steps, spacing)], self.whole)


class Diffusion(ABC):
    """What is known of a diffusion beside its network."""

    @abstractmethod
    def levels(self, steps: int | None = None) -> NoiseLevels:
        """The chain that is sampled.

        Args:
            steps: How many levels; None for all, or as many as are usual.
        """

    @abstractmethod
    def draw(self, count: int, generator: Generator) -> Tensor:
        """``abar`` ``(count,)``, float64, of levels to train at."""

    @abstractmethod
    def told(self, signal: Tensor) -> Tensor:
        """What the network is told of levels ``(b,)``: numbers of its embedding, ``(b,)``."""

    @abstractmethod
    def weights(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``c_skip``, ``c_out``, ``c_in`` of ``xhat = c_skip x_t + c_out F(c_in x_t)``, each ``(b,)``."""


class DiscreteDiffusion(Diffusion):
    """A fixed chain with linear ``beta`` whose network finds the noise.

    ``c_skip = 1 / sqrt(abar)``, ``c_out = -sqrt(1 / abar - 1)`` and ``c_in = 1``, so that a squared error
    of the network's output is one of the noise.

    Args:
        steps: Levels of the chain.
        first: ``beta`` at the cleanest level, in (0, 1).
        last: ``beta`` at the noisiest, in (0, 1).
        told_range: The network is told ``floor(told_range t / steps)`` at level t.

    Raises:
        ValueError: If an argument is out of range.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020; constants as R. Shi et al.,
    "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025.
    """

    def __init__(
        self, steps: int = 200, first: float = 1e-4, last: float = 0.02, told_range: int = 1000
    ) -> None:
        if steps < 1 or not 0 < first <= last < 1 or told_range < 1:
            raise ValueError(
                f"steps={steps}, first={first}, last={last}, told_range={told_range}: give 1 or more steps, "
                "0 < first <= last < 1, and a range from 1 up"
            )
        betas = torch.linspace(first, last, steps, dtype=torch.float64)
        self._levels = NoiseLevels((1 - betas).cumprod(0))
        self.told_range = told_range

    def levels(self, steps: int | None = None) -> NoiseLevels:
        """All levels, or so many of them, evenly spread."""
        return self._levels if steps is None else self._levels.respaced(steps)

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Each level as often."""
        places = torch.randint(len(self._levels), (count,), generator=generator, device=generator.device)
        return self._levels.signal[places.cpu()]

    def told(self, signal: Tensor) -> Tensor:
        """``floor(told_range t / steps)`` of the level t.

        Raises:
            ValueError: If the chain has no such level.
        """
        wanted = signal.detach().double().cpu()
        distance = (self._levels.signal - wanted[:, None]).abs() / wanted[:, None]
        nearest, places = distance.min(dim=1)
        if bool((nearest > _RESOLUTION).any()):
            missing = float(wanted[nearest.argmax()])
            raise ValueError(
                f"signal={missing:.6g} is none of the {len(self._levels)} levels that this network was "
                "trained at: take its own, diffusion.levels(steps)"
            )
        return (self.told_range * places // len(self._levels)).to(signal)

    def weights(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        return signal.rsqrt(), -(1 / signal - 1).sqrt(), torch.ones_like(signal)


class ContinuousDiffusion(Diffusion):
    """Any noise level, with the preconditioning under which the network sees and gives unit variance.

    In units of the source, with its deviation ``s`` and the noise's ``sigma``: ``c_skip = s^2 / (sigma^2
    + s^2)``, ``c_out = sigma s / sqrt(sigma^2 + s^2)``, ``c_in = 1 / sqrt(sigma^2 + s^2)``; the network
    is told ``told_scale ln(sigma) / 4``.

    Args:
        data_sigma: ``s``, the root mean square of the sources.
        lowest: Smallest sigma that is sampled.
        highest: Largest.
        mean: Of ``ln sigma`` in training.
        deviation: Its deviation.
        rho: The larger, the more of a chain's levels are small: even steps of ``sigma^(1/rho)``.
        told_scale: See above; brings the numbers into the range that the embedding is made for.

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
        told_scale: float = 100.0,
    ) -> None:
        if not (data_sigma > 0 and 0 < lowest < highest and deviation > 0 and rho > 0 and told_scale > 0):
            raise ValueError(
                f"data_sigma={data_sigma}, lowest={lowest}, highest={highest}, deviation={deviation}, "
                f"rho={rho}, told_scale={told_scale}: all must be above 0, and lowest below highest"
            )
        self.data_sigma, self.lowest, self.highest = float(data_sigma), float(lowest), float(highest)
        self.mean, self.deviation, self.rho = float(mean), float(deviation), float(rho)
        self.told_scale = float(told_scale)

    def levels(self, steps: int | None = None) -> NoiseLevels:
        """So many levels between the lowest and the highest, 50 if not said."""
        count = 50 if steps is None else steps
        if count < 1:
            raise ValueError(f"steps={steps}: give 1 or more")
        ends = self.lowest ** (1 / self.rho), self.highest ** (1 / self.rho)
        roots = torch.linspace(*ends, count, dtype=torch.float64) if count > 1 else torch.tensor([ends[1]])
        return NoiseLevels(1 / (1 + roots.double() ** (2 * self.rho)))

    def draw(self, count: int, generator: Generator) -> Tensor:
        """``ln sigma`` normal with ``mean`` and ``deviation``."""
        drawn = torch.randn(count, generator=generator, device=generator.device, dtype=torch.float64).cpu()
        return 1 / (1 + (2 * (self.mean + self.deviation * drawn)).exp())

    def told(self, signal: Tensor) -> Tensor:
        """``told_scale ln(sigma) / 4``."""
        return self.told_scale * ((1 - signal) / signal).log() / 8

    def weights(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class; the state is divided by ``sqrt(abar)`` first."""
        own, sigma2 = self.data_sigma**2, (1 - signal) / signal
        total = sigma2 + own
        return own / total * signal.rsqrt(), (sigma2 * own / total).sqrt(), (total * signal).rsqrt()
