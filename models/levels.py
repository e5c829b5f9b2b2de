"""Levels of what a network gets: standardised item by item, here or by whoever calls."""

from __future__ import annotations

import copy
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from encore.models.types import Separator

AnySeparator = TypeVar("AnySeparator", bound=Separator)

Level = Literal["mixture", "own"]
"""What blends are standardised by: the original mixture's mean and deviation, or their own."""


def standardised(mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A mixture with mean 0 and standard deviation 1 over the mean of its channels, item by item.

    Args:
        mixture: ``(batch, channel, time)``.

    Returns:
        The mixture ``(batch, channel, time)``, and the mean and the standard deviation that it had, each
        ``(batch, 1, 1)``; 1e-8 is added to the deviation, so that silence stays silent.

    Source: ``demucs.api.Separator``, A. Défossez, "Hybrid spectrogram and waveform source separation", 2021.
    """
    mono = mixture.mean(dim=1, keepdim=True)
    mean = mono.mean(dim=-1, keepdim=True)
    # one sample has no deviation that divides by time - 1
    deviation = mono.std(dim=-1, keepdim=True, correction=min(1, mixture.shape[-1] - 1)) + 1e-8
    return (mixture - mean) / deviation, mean, deviation


def at_level(network: Separator, mixture: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Call a network that wants standardised mixtures, by a mean and a deviation that were measured before.

    Args:
        network: Maps ``(batch, channel, time)`` to ``(batch, source, channel, time)``.
        mixture: ``(batch, channel, time)``.
        mean: ``(batch, 1, 1)`` or broadcast to it, as `standardised` gives it.
        deviation: Likewise.

    Returns:
        Estimates ``(batch, source, channel, time)`` in the mixture's unit.
    """
    return network((mixture - mean) / deviation) * deviation[:, None] + mean[:, None]


class Standardising(nn.Module):
    """A separator whose network wants standardised mixtures, and which sees to that.

    Attributes:
        standardises: Whether it does; False where the caller does, see `unstandardised`.
    """

    standardises = True

    def at_own_level(self, network: Separator, mixture: Tensor) -> Tensor:
        """Call a network on the mixture as it wants it, and undo that in every estimate."""
        if not self.standardises:
            return network(mixture)
        _, mean, deviation = standardised(mixture)
        return at_level(network, mixture, mean, deviation)


def unstandardised(separator: AnySeparator) -> AnySeparator | None:
    """The same separator, of the same weights, that leaves standardising to its caller.

    Blends of a mixture and an estimate have levels of their own; whoever wants all of them seen at the
    original mixture's level standardises them by that.

    Args:
        separator: Any.

    Returns:
        A twin that shares all weights; None if nothing in it standardises, or only some of several joined
        separators do.
    """
    if not isinstance(separator, nn.Module) or not _standardises(separator):
        return None
    twin: Any = _twin(separator)
    return twin


def _standardises(module: nn.Module) -> bool:
    if isinstance(module, Standardising) and module.standardises:
        return True
    found = [_standardises(child) for child in module.children()]
    # of several that hear the same, either all have it done for them or none
    return all(found) if getattr(module, "side_by_side", False) else any(found)


def _twin(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = {
        name: _twin(child) if child is not None and _standardises(child) else child
        for name, child in module._modules.items()
    }
    if isinstance(twin, Standardising):
        twin.standardises = False
    return twin
