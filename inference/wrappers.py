"""Wrappers: change what a separator does, separator to separator.

A wrapper is called like the separator it wraps, ``(n, c, t)`` to ``(n, s, c, t)``. One that holds tensors of
single items, such as the mixtures that inputs belong to, offers ``at(items)``; `encore.inference.refine`
calls it with the items whose inputs follow.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from encore.common.items import at_items
from encore.inference.consistency import Consistency, sum_to_mixture
from encore.inference.permutation import matching_order, reference_order, reorder
from encore.inference.wiener import Wiener
from encore.models.levels import at_level, normalized
from encore.models.types import Groups, Separator


def separate_each(separate: Separator, inputs: Tensor, ratio: Tensor) -> Tensor:
    """Separate every source from an input of its own.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``; one that is conditioned on the mixing ratio offers
            ``at_ratio(inputs, ratio)``.
        inputs: ``(n, s, c, t)``; source k is taken from the estimates of input k.
        ratio: ``(n,)`` mixing ratios of the inputs.

    Returns:
        ``(n, s, c, t)``, at one separator call per source.
    """
    each = getattr(separate, "each", None)
    if each is not None:
        estimates: Tensor = each(inputs, ratio)
        return estimates
    at_ratio = getattr(separate, "at_ratio", None)
    return torch.stack(
        [
            (separate(x) if at_ratio is None else at_ratio(x, ratio))[:, k]
            for k, x in enumerate(inputs.unbind(1))
        ],
        dim=1,
    )


class Wrapper:
    """A separator made of another one.

    Args:
        separate: The wrapped separator.
    """

    per_item: ClassVar[Sequence[str]] = ()
    """Attributes that hold a row per item."""

    def __init__(self, separate: Separator) -> None:
        self.separate = separate

    def __getattr__(self, name: str) -> Any:
        """Return what the wrapped separator says of itself."""
        if name in ("sources", "sample_rate", "channels"):
            return getattr(self.separate, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def at(self, items: Tensor) -> Self:
        """Return the wrapper for some items of its batch."""
        part = copy.copy(self)
        part.separate = at_items(self.separate, items)
        for name in self.per_item:
            value: Any = getattr(self, name)
            setattr(part, name, None if value is None else value[items])
        return part

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(n, c, t)`` into ``(n, s, c, t)``."""
        return self.separate(mixture)


class at_level_of(Wrapper):  # noqa: N801, used like a function
    """Normalize every input by the mean and deviation of the original mixtures, and undo it in the estimates.

    Args:
        separate: Wants normalized input and leaves it to its caller, see `without_normalization`.
        mixture: ``(b, c, t)``.
    """

    per_item = ("mean", "deviation")

    def __init__(self, separate: Separator, mixture: Tensor) -> None:
        super().__init__(separate)
        _, self.mean, self.deviation = normalized(mixture)

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(n, c, t)`` into ``(n, s, c, t)``."""
        return at_level(self.separate, mixture, self.mean, self.deviation)


class aligned(Wrapper):  # noqa: N801
    """Put interchangeable sources, such as speakers, into the order of the one-step estimates.

    These are in the order of the references where there are any. The mixtures are separated once, here; a
    call with them returns that result.

    Args:
        separate: The wrapped separator.
        mixture: ``(b, c, t)``.
        groups: Positions of sources that come in any order among themselves, group by group.
        references: ``(b, s, c, t)``, or None.
    """

    per_item = ("mixture", "one_step")

    def __init__(
        self, separate: Separator, mixture: Tensor, groups: Groups, references: Tensor | None = None
    ) -> None:
        super().__init__(separate)
        self.mixture, self.groups = mixture, groups
        self.one_step = separate(mixture)
        if references is not None:
            self.one_step = reorder(self.one_step, reference_order(self.one_step, references, groups))

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(n, c, t)`` into ``(n, s, c, t)``, in a fixed order."""
        if torch.equal(mixture, self.mixture):
            return self.one_step
        estimates = self.separate(mixture)
        return reorder(estimates, matching_order(estimates, self.one_step, self.groups))


class wiener_filtered(Wrapper):  # noqa: N801
    """Apply a Wiener filter to every estimate and the input it was separated from.

    Args:
        separate: The wrapped separator.
        wiener: The filter.
    """

    def __init__(self, separate: Separator, wiener: Wiener) -> None:
        super().__init__(separate)
        self.wiener = wiener

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate and filter ``(n, c, t)``."""
        estimates = self.separate(mixture)
        return self.wiener(estimates, mixture[:, None].expand_as(estimates))

    def each(self, inputs: Tensor, ratio: Tensor) -> Tensor:
        """Separate and filter every source by its own input, see `separate_each`."""
        return self.wiener(separate_each(self.separate, inputs, ratio), inputs)


class mixture_consistent(Wrapper):  # noqa: N801
    """Move the estimates of every item to where they sum to its mixture.

    Args:
        separate: Estimates all sources of the mixture.
        mixture: ``(b, c, t)``.
        weighting: See `encore.inference.consistency.sum_to_mixture`.
    """

    per_item = ("mixture",)

    def __init__(self, separate: Separator, mixture: Tensor, weighting: Consistency = "uniform") -> None:
        super().__init__(separate)
        self.mixture, self.weighting = mixture, weighting

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(n, c, t)`` into estimates that sum to the mixture that they belong to."""
        return sum_to_mixture(self.separate(mixture), self.mixture, self.weighting)

    def each(self, inputs: Tensor, ratio: Tensor) -> Tensor:
        """Separate every source from its own input, see `separate_each`, then move the estimates."""
        return sum_to_mixture(separate_each(self.separate, inputs, ratio), self.mixture, self.weighting)
