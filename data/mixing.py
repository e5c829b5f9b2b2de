"""Data mixing: pure functions on tensors, on their device, every draw from a generator.

The *components* of a training item, ``(batch, source + 1, channel, time)``, are its references and, last, the
residual (the noise). Their sum is the mixture; augmentations are gains on components or permutations of them
among the items, so mixture and references stay consistent.

A mixing ratio is the weight of the mixture throughout, as in `blend`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def blend(mixture: Tensor, estimate: Tensor, ratio: Tensor) -> Tensor:
    """Return ``ratio * mixture + (1 - ratio) * estimate``.

    With an estimate it is the input of multi-step separation; with the true source it is linear-path mixing,
    the mean of a linear diffusion bridge.

    Args:
        mixture: ``(batch, ...)``.
        estimate: Same shape.
        ratio: ``(batch,)`` mixing ratio in [0, 1]; 1 gives exactly the mixture, 0 exactly the estimate.

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025; docs/methods.md.
    """
    ratio = _per_item(ratio, mixture)
    return ratio * mixture + (1 - ratio) * estimate


def components_of(mixture: Tensor, references: Tensor) -> Tensor:
    """Split ``(b, c, t)`` with references ``(b, s, c, t)`` into components, the residual last."""
    return torch.cat((references, (mixture - references.sum(dim=1))[:, None]), dim=1)


def random_gains(components: Tensor, gain_db: tuple[float, float], *, generator: Generator) -> Tensor:
    """Scale every component of every item by a random gain, uniform in ``gain_db`` decibels."""
    decibels = uniform("gain_db", gain_db, components.shape[:2], generator).to(components.device)
    return components * (10 ** (decibels / 20))[:, :, None, None]


def random_snr(components: Tensor, snr_db: tuple[float, float], *, generator: Generator) -> Tensor:
    """Scale the residual to a random energy ratio of references to residual, uniform in ``snr_db`` decibels.

    An item without residual, or whose references are silent, is unchanged. A residual more than 60 dB below
    the references counts as none: it is rounding, which must not be amplified to a noise.
    """
    references, residual = components[:, :-1], components[:, -1:]
    signal = references.sum(dim=1).square().sum(dim=(1, 2))
    noise = residual.square().sum(dim=(1, 2, 3))
    decibels = uniform("snr_db", snr_db, signal.shape, generator).to(components.device)
    known = (signal > 0) & (noise > 1e-6 * signal)
    gain = torch.where(known, (signal / torch.where(known, noise, 1.0)).sqrt() * 10 ** (-decibels / 20), 1.0)
    return torch.cat((references, residual * _per_item(gain, residual)), dim=1)


def batch_remix(components: Tensor, *, generator: Generator) -> Tensor:
    """Permute every component but the first among the items of the batch, independently.

    This makes new mixtures of independently drawn sources without reading further files.
    """
    remixed = [components[:, 0]]
    for index in range(1, components.shape[1]):
        order = torch.randperm(len(components), generator=generator, device=generator.device)
        remixed.append(components[order.to(components.device), index])
    return torch.stack(remixed, dim=1)


def path_gains(source: Tensor, ratio: Tensor, count: int) -> Tensor:
    """Return the gains ``(b, count)`` of the components on the linear path from one source to the mixture.

    Args:
        source: ``(b,)`` index of the source that keeps gain 1 in each item.
        ratio: ``(b,)`` gain of the others.
        count: Number of components.
    """
    gains = ratio[:, None].expand(-1, count).clone()
    return gains.scatter_(1, source[:, None], 1.0)


def linear_path(components: Tensor, source: Tensor, ratio: Tensor) -> Tensor:
    """Move every item towards one of its sources, ``x = s + r n``: `blend` with a perfect estimate.

    Args:
        components: ``(b, s + 1, c, t)``; all but the source are scaled by the ratio.
        source: ``(b,)`` index of the source.
        ratio: ``(b,)`` mixing ratio in [0, 1].
    """
    return components * path_gains(source, ratio, components.shape[1])[:, :, None, None]


def estimate_path(
    mixture: Tensor, references: Tensor, estimates: Tensor, source: Tensor, ratio: Tensor
) -> tuple[Tensor, Tensor]:
    """Mix mixtures with the separator's own estimates of one source, as refinement does.

    Args:
        mixture: ``(b, c, t)``.
        references: ``(b, s, c, t)``.
        estimates: ``(b, s, c, t)``; detached here.
        source: ``(b,)`` index of the source whose estimate is used.
        ratio: ``(b,)`` mixing ratio in [0, 1].

    Returns:
        The blends ``(b, c, t)``, and their references, where all but the source are scaled by the ratio.
    """
    items = torch.arange(len(mixture), device=mixture.device)
    estimate = estimates.detach()[items, source]
    gains = path_gains(source, ratio, references.shape[1])
    return blend(mixture, estimate, ratio), references * gains[:, :, None, None]


def random_ratios(count: int, beta: float, *, generator: Generator, device: torch.device) -> Tensor:
    """Draw ``(count,)`` mixing ratios from Beta(beta, 1): uniform for 1, larger ratios above 1.

    Beta(b, 1) has the distribution function ``r ** b``, so ``u ** (1 / b)`` follows it exactly.
    """
    uniform = torch.rand(count, generator=generator, device=generator.device)
    return (uniform ** (1 / beta)).to(device)


def uniform(name: str, bounds: tuple[float, float], shape: torch.Size, generator: Generator) -> Tensor:
    """Draw uniform numbers between ``bounds``, on the generator's device; ``name`` is for the error."""
    low, high = bounds
    if low > high:
        raise ValueError(f"{name}={tuple(bounds)}: give two values, the lower one first")
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _per_item(values: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(b,)`` to broadcast over the items of ``like``."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))
