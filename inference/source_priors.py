"""Priors of single sources, called for all sources of a mixture at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from encore.models.denoisers.diffusion_prior import DiffusionPrior
from encore.models.types import Denoiser


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePrior:
    """One source of a mixture: a model that may serve other sources too, and this source's class.

    Args:
        model: The prior of its kind, whose label ``len(classes)`` means any class.
        label: Number of its class; None for any.
        class_guidance: Strength w from 0 up of guidance by class: ``(1 + w) D(x, label) - w D(x, any)``,
            clamped as the model's own estimates are, at the cost of a second evaluation.

    Source: J. Ho and T. Salimans, "Classifier-Free Diffusion Guidance", 2022.
    """

    model: DiffusionPrior
    label: int | None = None
    class_guidance: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.model.classes)
        if self.label is not None and not 0 <= self.label < count:
            raise ValueError(f"label={self.label}: the prior has {count} classes, give 0 to {count - 1}")
        if self.class_guidance < 0 or (self.class_guidance and self.label is None):
            raise ValueError(f"class_guidance={self.class_guidance}: give 0 or more, and 0 without a label")

    def __call__(self, state: Tensor, alpha_bar: Tensor) -> Tensor:
        """Estimate clean sources from states ``(n, c, t)`` and levels ``abar`` ``(n,)``."""
        return _estimated([self], state[:, None], alpha_bar)[:, 0]


@dataclass(frozen=True, slots=True)
class PriorBank:
    """The priors of all sources of a mixture; those of one model are one call of it.

    Args:
        priors: Of each source: a `SourcePrior`, or any function of state and level. Levels are float64 on
            the CPU, since some devices have no such type.
        batched: Whether sources of one model are estimated in one call; on a CPU one by one may be
            faster.
    """

    priors: Sequence[Denoiser]
    batched: bool = True

    def __post_init__(self) -> None:
        if not self.priors:
            raise ValueError("priors is empty: give one for each source")

    @property
    def evaluations(self) -> int:
        """Network evaluations per item for one estimate of all sources."""
        return sum(
            2 if isinstance(prior, SourcePrior) and prior.class_guidance else 1 for prior in self.priors
        )

    def __call__(self, states: Tensor, alpha_bar: float) -> Tensor:
        """Estimate every source in its state.

        Args:
            states: ``(b, k, c, t)``.
            alpha_bar: ``abar`` of the level.

        Returns:
            ``(b, k, c, t)``.

        Raises:
            ValueError: If there are not as many states as priors, or a prior changes the shape.
        """
        if states.shape[1] != len(self.priors):
            raise ValueError(
                f"states of {states.shape[1]} sources for {len(self.priors)} priors: give one each"
            )
        level = torch.full((len(states),), alpha_bar, dtype=torch.float64)
        found: dict[int, Tensor] = {}
        for indices in self._groups():
            own = states[:, indices]
            estimates = _estimated([self.priors[index] for index in indices], own, level)
            if estimates.shape != own.shape:
                raise ValueError(
                    f"a prior returned shape {tuple(estimates.shape)} for {tuple(own.shape)}: it must keep it"
                )
            found |= dict(zip(indices, estimates.unbind(1), strict=True))
        return torch.stack([found[index] for index in range(len(self.priors))], dim=1)

    def _groups(self) -> list[list[int]]:
        """Return the indices of the sources that are estimated together."""
        groups: dict[int, list[int]] = {}
        for index, prior in enumerate(self.priors):
            shared = id(prior.model) if isinstance(prior, SourcePrior) and self.batched else -1 - index
            groups.setdefault(shared, []).append(index)
        return list(groups.values())


def _estimated(group: Sequence[Denoiser], states: Tensor, level: Tensor) -> Tensor:
    """Estimate the sources ``(b, k, ...)`` of one model, or of a single function."""
    first = group[0]
    if not isinstance(first, SourcePrior):
        return first(states[:, 0], level)[:, None]
    model, batch, anything = first.model, len(states), len(first.model.classes)
    priors = [prior for prior in group if isinstance(prior, SourcePrior)]
    labels = [anything if prior.label is None else prior.label for prior in priors]
    guided = [index for index, prior in enumerate(priors) if prior.class_guidance]
    # guided ones are evaluated a second time, without their class
    indices = [*range(len(priors)), *guided]
    conditions = torch.tensor([*labels, *[anything] * len(guided)], device=states.device)
    rows = rearrange(states[:, indices], "b k ... -> (b k) ...")
    found = model(rows, level.repeat_interleave(len(indices)), conditions.repeat(batch))
    found = rearrange(found, "(b k) ... -> b k ...", b=batch)
    estimates = found[:, : len(priors)]
    if not guided:
        return estimates
    strength = torch.tensor([priors[index].class_guidance for index in guided]).to(states)
    difference = (estimates[:, guided] - found[:, len(priors) :]).movedim(1, -1) * strength
    places = torch.tensor(guided, device=states.device)
    estimates = estimates.index_add(1, places, difference.movedim(-1, 1))
    return estimates if model.limit is None else estimates.clamp(-model.limit, model.limit)
