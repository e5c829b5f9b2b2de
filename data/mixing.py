"""Data mixing: pure functions on tensors, on their device, every draw from a generator.

A training item is taken apart into its *components*, ``(batch, source + 1, channel, time)``: the references
and, last, what the mixture holds besides them (the noise). Their sum is the mixture, so every augmentation
here is a gain on components or a permutation of them among the items, and mixture and references stay
consistent.

Ratios are shares of the mixture throughout, as in `blend`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def blend(mixture: Tensor, estimate: Tensor, ratio: Tensor) -> Tensor:
    """``ratio * mixture + (1 - ratio) * estimate``: one line for training and for inference.

    With an estimate it is the input of multi-step separation; with the true source it is linear-path mixing,
    the mean of a linear diffusion bridge.

    Args:
        mixture: ``(batch, ...)``.
        estimate: Same shape.
        ratio: ``(batch,)`` share of the mixture in [0, 1].

    Returns:
        The blend, the mixture's shape. At ratio 1 it is the mixture and at 0 the estimate, bit for bit.

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025; docs/methods.md.
    """
    ratio = _per_item(ratio, mixture)
    return ratio * mixture + (1 - ratio) * estimate


def components_of(mixture: Tensor, references: Tensor) -> Tensor:
    """``(b, c, t)`` and ``(b, s, c, t)`` to components ``(b, s + 1, c, t)``, the residual last."""
    return torch.cat((references, (mixture - references.sum(dim=1))[:, None]), dim=1)


def random_gains(components: Tensor, gain_db: tuple[float, float], *, generator: Generator) -> Tensor:
    """Scale every component of every item by its own gain, uniform in ``gain_db`` decibels."""
    decibels = uniform("gain_db", gain_db, components.shape[:2], generator).to(components.device)
    return components * (10 ** (decibels / 20))[:, :, None, None]


def random_snr(components: Tensor, snr_db: tuple[float, float], *, generator: Generator) -> Tensor:
    """Scale the residual so that references over residual is an energy ratio uniform in ``snr_db`` decibels.

    An item without residual, or whose references are silent, is left as it is. A residual more than 60 dB
    below the references is none: rounding of the files or of the sum, which must not be blown up to a noise.
    """
    references, residual = components[:, :-1], components[:, -1:]
    signal = references.sum(dim=1).square().sum(dim=(1, 2))
    noise = residual.square().sum(dim=(1, 2, 3))
    decibels = uniform("snr_db", snr_db, signal.shape, generator).to(components.device)
    known = (signal > 0) & (noise > 1e-6 * signal)
    gain = torch.where(known, (signal / torch.where(known, noise, 1.0)).sqrt() * 10 ** (-decibels / 20), 1.0)
    return torch.cat((references, residual * _per_item(gain, residual)), dim=1)


def batch_remix(components: Tensor, *, generator: Generator) -> Tensor:
    """Permute every component but the first among the items of the batch, each on its own.

    Each item keeps its first source and gets the other sources and the residual of random batch-mates: new
    mixtures from independently drawn sources, at no reading cost.
    """
    remixed = [components[:, 0]]
    for index in range(1, components.shape[1]):
        order = torch.randperm(len(components), generator=generator, device=generator.device)
        remixed.append(components[order.to(components.device), index])
    return torch.stack(remixed, dim=1)


def path_gains(source: Tensor, ratio: Tensor, count: int) -> Tensor:
    """Gains ``(b, count)`` of the components at ``ratio`` of the way from one source to the mixture.

    Args:
        source: ``(b,)`` index of the source that is kept whole in each item.
        ratio: ``(b,)`` gain of everything else.
        count: Number of components.
    """
    gains = ratio[:, None].expand(-1, count).clone()
    return gains.scatter_(1, source[:, None], 1.0)


def linear_path(components: Tensor, source: Tensor, ratio: Tensor) -> Tensor:
    """Move every item towards one of its sources: ``x = s + r n``, the blends that a perfect estimate gives.

    The other references shrink with the mixture's share, as they do in the blend.

    Args:
        components: ``(b, s + 1, c, t)``.
        source: ``(b,)`` index of the source moved to.
        ratio: ``(b,)`` share of the mixture in [0, 1].
    """
    return components * path_gains(source, ratio, components.shape[1])[:, :, None, None]


def estimate_path(
    mixture: Tensor, references: Tensor, estimates: Tensor, source: Tensor, ratio: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend mixtures with the separator's own estimates of one source: the inputs refinement will meet.

    Args:
        mixture: ``(b, c, t)``.
        references: ``(b, s, c, t)``.
        estimates: ``(b, s, c, t)``; detached here.
        source: ``(b,)`` index of the source whose estimate is blended in.
        ratio: ``(b,)`` share of the mixture in [0, 1].

    Returns:
        The blends ``(b, c, t)`` and what a separator should find in them ``(b, s, c, t)``: the chosen source
        whole, the others at the mixture's share.
    """
    items = torch.arange(len(mixture), device=mixture.device)
    estimate = estimates.detach()[items, source]
    gains = path_gains(source, ratio, references.shape[1])
    return blend(mixture, estimate, ratio), references * gains[:, :, None, None]


def random_ratios(count: int, beta: float, *, generator: Generator, device: torch.device) -> Tensor:
    """``(count,)`` shares of the mixture from Beta(beta, 1): uniform for 1, nearer the mixture above 1.

    Beta(b, 1) has the distribution function ``r ** b``, so ``u ** (1 / b)`` follows it exactly.
    """
    uniform = torch.rand(count, generator=generator, device=generator.device)
    return (uniform ** (1 / beta)).to(device)


def uniform(name: str, bounds: tuple[float, float], shape: torch.Size, generator: Generator) -> Tensor:
    """Uniform draws of ``shape`` between ``bounds``, on the generator's device; ``name`` is for the error."""
    low, high = bounds
    if low > high:
        raise ValueError(f"{name}={tuple(bounds)}: the lower bound comes first")
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _per_item(values: Tensor, like: Tensor) -> Tensor:
    """``(b,)`` reshaped to broadcast over the items of ``like``."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))
