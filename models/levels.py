"""Normalize the input of a network item by item, or leave it to the caller."""

from __future__ import annotations

import copy
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from encore.models.types import Separator

AnySeparator = TypeVar("AnySeparator", bound=Separator)

Level = Literal["mixture", "own"]
"""Statistics that normalize an input: the original mixture's mean and deviation, or its own."""


def normalized(mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a mixture with mean 0 and standard deviation 1 over the mean of its channels, item by item.

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
    """Call a network that needs normalized mixtures, with a mean and a deviation measured before.

    Args:
        network: Maps ``(batch, channel, time)`` to ``(batch, source, channel, time)``.
        mixture: ``(batch, channel, time)``.
        mean: ``(batch, 1, 1)`` or broadcast to it, as `normalized` gives it.
        deviation: Likewise.

    Returns:
        Estimates ``(batch, source, channel, time)`` in the mixture's unit.
    """
    return network((mixture - mean) / deviation) * deviation[:, None] + mean[:, None]


class InputNormalization(nn.Module):
    """A separator that normalizes its input for a network that needs it.

    Attributes:
        normalizes: Whether it does; False if the caller does, see `without_normalization`.
    """

    normalizes = True

    def at_own_level(self, network: Separator, mixture: Tensor) -> Tensor:
        """Call a network on the normalized mixture, and undo that in every estimate."""
        if not self.normalizes:
            return network(mixture)
        _, mean, deviation = normalized(mixture)
        return at_level(network, mixture, mean, deviation)


def without_normalization(separator: AnySeparator) -> AnySeparator | None:
    """Return the same separator, with the same weights, that leaves normalization to its caller.

    Mixes of a mixture and an estimate have statistics of their own; a caller can use the original mixture's.

    Args:
        separator: Any.

    Returns:
        A copy that shares all weights; None if nothing in it normalizes, or only some of several separators
        per source do.
    """
    if not isinstance(separator, nn.Module) or not _normalizes(separator):
        return None
    twin: Any = _twin(separator)
    return twin


def _normalizes(module: nn.Module) -> bool:
    if isinstance(module, InputNormalization) and module.normalizes:
        return True
    found = [_normalizes(child) for child in module.children()]
    # of several with the same input, either all are normalized by the caller or none
    return all(found) if getattr(module, "side_by_side", False) else any(found)


def _twin(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = {
        name: _twin(child) if child is not None and _normalizes(child) else child
        for name, child in module._modules.items()
    }
    if isinstance(twin, InputNormalization):
        twin.normalizes = False
    return twin
