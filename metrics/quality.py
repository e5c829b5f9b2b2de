"""Metrics, and the functions that they become when they are bound to signals and steer a refinement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Quality = Callable[[Tensor], Tensor]
"""Estimates ``(b, s, c, t)`` to scores ``(b,)``: higher is better, NaN is not eligible.

It may have the attributes and methods of `BoundMetric`; a plain function needs none of them.
"""

Separator = Callable[[Tensor], Tensor]
"""Inputs ``(n, c, t)`` to the estimates ``(n, s, c, t)`` of the sources that are scored."""


class BoundMetric(ABC):
    """A quality that holds the signals it needs.

    Attributes:
        name: Made of a-z, 0-9 and ``_``.
        kind: ``"oracle"`` if it holds references, else ``"blind"``.
        differentiable: Whether derivatives go through it.
        scale: The difference that counts as one unit where metrics are joined; None if unknown.
        separator_calls: Separator calls that the score of one source costs.
        one_step_calls: Separator calls per source that `relative_to` costs.
    """

    name: str
    kind: str
    differentiable: bool = False
    scale: float | None = None
    separator_calls: int = 0
    one_step_calls: int = 0

    def __init__(self, metric: Metric) -> None:
        self.name, self.kind, self.differentiable = metric.name, metric.kind, metric.differentiable
        self.scale, self.separator_calls = metric.scale, metric.separator_calls

    def __call__(self, estimates: Tensor) -> Tensor:
        """Return the scores ``(b,)`` of ``(b, s, c, t)``, the mean over sources, in float32."""
        if estimates.ndim != 4:
            shape = tuple(estimates.shape)
            raise ValueError(f"estimates have shape {shape}: give (item, source, channel, time)")
        return self.per_source(estimates).mean(1).float()

    @abstractmethod
    def per_source(self, estimates: Tensor) -> Tensor:
        """Return the scores ``(b, s)`` of ``(b, s, c, t)``."""

    @abstractmethod
    def at(self, items: Tensor) -> BoundMetric:
        """Return the quality of those items ``(n,)`` of the batch, in that order."""

    def relative_to(self, one_step: Tensor) -> BoundMetric:
        """Return the quality that compares with the one-step estimates ``(b, s, c, t)``, if it does so."""
        return self


class Metric(ABC):
    """A named metric before it is bound to signals; several threads may use it at once.

    Attributes:
        needs_reference: True for an oracle metric, False for a blind one.
        sample_rate: Rate in Hz of the audio that it scores.
        name: As of `BoundMetric`, like the others.
    """

    name: str
    needs_reference: bool
    sample_rate: int
    minimum_rate: int = 1
    differentiable: bool = False
    scale: float | None = None
    separator_calls: int = 0

    @property
    def kind(self) -> str:
        """``"oracle"`` or ``"blind"``."""
        return "oracle" if self.needs_reference else "blind"

    @abstractmethod
    def score(self, estimates: Tensor, references: Tensor | None) -> Tensor:
        """Score each item by itself.

        Args:
            estimates: ``(n, c, t)``, full scale 1.
            references: Same shape; a blind metric ignores them.

        Returns:
            ``(n,)``, the mean over channels; NaN where an item cannot be scored.
        """

    def bind(
        self,
        *,
        mixture: Tensor | None = None,
        references: Tensor | None = None,
        separate: Separator | None = None,
    ) -> BoundMetric:
        """Return the quality of estimates of these signals.

        Args:
            mixture: ``(b, c, t)``.
            references: ``(b, s, c, t)``.
            separate: The separator of the estimates; its sources are those that are scored.

        Raises:
            ValueError: If a signal that the metric needs is missing.
        """
        if self.needs_reference and references is None:
            fix = "give its reference: metric.bind(references=...)"
            raise ValueError(f"references=None: {self.name!r} is an oracle, {fix}")
        return ReferenceQuality(self, references if self.needs_reference else None)

    def __call__(self, estimates: Tensor) -> Tensor:
        """Return the scores ``(b,)`` of ``(b, s, c, t)``, by a metric that needs no other signal."""
        return self.bind()(estimates)

    def relative_to(self, one_step: Tensor) -> BoundMetric:
        """Bind a metric that needs no other signal; see `BoundMetric`."""
        return self.bind().relative_to(one_step)


class ContextMetric(Metric):
    """A metric that compares with more than references, and so scores only after `bind`."""

    def score(self, estimates: Tensor, references: Tensor | None) -> Tensor:
        """Raise a ValueError."""
        raise ValueError(f"{self.name!r} needs more than references: use metric.bind(...)(estimates)")


class ReferenceQuality(BoundMetric):
    """A metric of single sources with their references ``(b, s, c, t)``, None for a blind one."""

    def __init__(self, metric: Metric, references: Tensor | None) -> None:
        super().__init__(metric)
        self.metric, self.references = metric, references

    def per_source(self, estimates: Tensor) -> Tensor:
        """See `BoundMetric`; all sources are scored as one batch."""
        shape, references = estimates.shape, self.references
        if references is not None and references.shape != shape:
            raise ValueError(
                f"estimates have shape {tuple(shape)}, the references of {self.name!r} "
                f"{tuple(references.shape)}: give the same, or quality.at(items)"
            )
        references = None if references is None else references.flatten(0, 1)
        return self.metric.score(estimates.flatten(0, 1), references).reshape(shape[:2])

    def at(self, items: Tensor) -> BoundMetric:
        """See `BoundMetric`."""
        return self if self.references is None else ReferenceQuality(self.metric, self.references[items])


class ReferenceFunction(Metric):
    """A function of estimates and references, as a metric; see `oracle`."""

    needs_reference = True

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        name = getattr(function, "__name__", "")
        self.function, self.name = function, name if name.isidentifier() else "oracle"
        self.differentiable = getattr(function, "differentiable", True)

    def score(self, estimates: Tensor, references: Any) -> Tensor:
        """See `Metric`."""
        scores = self.function(estimates, references)
        return scores if scores.ndim == 1 else scores.flatten(1).mean(1)


def oracle(metric: Metric | Callable[[Tensor, Tensor], Tensor], references: Tensor) -> BoundMetric:
    """Return the quality that compares estimates with references ``(b, s, c, t)``.

    Args:
        metric: A metric, or a function of estimates and references ``(n, c, t)`` such as `si_sdr`, whose
            scores ``(n,)`` or ``(n, c)`` are averaged over channels.
        references: Of every source.

    Example:
        >>> import torch
        >>> from encore.metrics import si_sdr
        >>> references = torch.tensor([[[[3.0, -0.5, 2.0, 7.0]]]])
        >>> oracle(si_sdr, references)(torch.tensor([[[[2.5, 0.0, 2.0, 8.0]]]]))
        tensor([18.4030])
    """
    metric = metric if isinstance(metric, Metric) else ReferenceFunction(metric)
    return metric.bind(references=references)


def scores_of(quality: Quality, estimates: Tensor) -> Tensor:
    """Return the scores ``(n,)`` of ``(n, s, c, t)`` as float32 on the estimates' device.

    Raises:
        ValueError: If the quality returns another shape.
    """
    scores = torch.as_tensor(quality(estimates))
    if scores.shape != estimates.shape[:1]:
        raise ValueError(
            f"quality returned shape {tuple(scores.shape)} for estimates {tuple(estimates.shape)}: it must "
            "map (item, source, channel, time) to one score per item, higher is better"
        )
    return scores.to(estimates.device, torch.float32)


def for_items(quality: Quality, estimates: Tensor) -> Quality:
    """Return a quality that offers ``at(items)``: a plain function as a `WholeBatch`, others as they are.

    Args:
        quality: Any.
        estimates: ``(b, s, c, t)`` of the whole batch.
    """
    return quality if hasattr(quality, "at") else WholeBatch(quality, estimates)


class WholeBatch:
    """Call a plain function with the whole batch, whichever items are scored.

    Such a function may compare with tensors of all items without offering ``at(items)``.

    Args:
        function: Maps ``(b, s, c, t)`` to ``(b,)``.
        estimates: ``(b, s, c, t)``, for the items that are not scored.
    """

    def __init__(self, function: Quality, estimates: Tensor) -> None:
        self.function, self.estimates = function, estimates

    def __call__(self, estimates: Tensor) -> Tensor:
        """Score the whole batch."""
        return self.function(estimates)

    def at(self, items: Tensor) -> Quality:
        """Return the quality of estimates that belong to ``items`` ``(n,)``, each any number of times."""
        calls: list[list[int]] = []
        seen: dict[int, int] = {}
        for row, item in enumerate(items.tolist()):
            number = seen[item] = seen.get(item, -1) + 1
            if number == len(calls):
                calls.append([])
            calls[number].append(row)

        def score(estimates: Tensor) -> Tensor:
            whole = self.estimates.to(estimates.dtype)
            parts = [
                scores_of(self.function, whole.index_copy(0, items[rows], estimates[rows]))[items[rows]]
                for rows in calls
            ]
            order = torch.tensor([row for rows in calls for row in rows], device=parts[0].device)
            return torch.cat(parts)[order.argsort()]

        return score
