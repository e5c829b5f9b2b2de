"""Metrics, which score estimates, and the functions that steer a refinement."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from encore.common.items import at_items

Quality = Callable[[Tensor], Tensor]
"""Estimates ``(b, s, c, t)`` to scores ``(b,)``: higher is better, NaN is not eligible.

It may have the attributes and methods of `Metric`; a plain function needs none of them.
"""

Separator = Callable[[Tensor], Tensor]
"""Inputs ``(n, c, t)`` to the estimates ``(n, s, c, t)`` of the sources that are scored."""


@dataclass(kw_only=True, eq=False)
class Metric:
    """A named metric, a quality once it holds the signals that it needs; several threads may use it at once.

    Attributes:
        name: Made of a-z, 0-9 and ``_``.
        function: Scores ``(n, c, t)``, full scale 1, with the signals of ``needs``: ``(n,)``, each item by
            itself, higher is better, NaN where it cannot be scored.
        sample_rate: Rate in Hz of the audio that it scores; 0 if it takes any.
        needs: Signals that ``function`` takes beside the estimates, in order: ``"references"`` or
            ``"mixture"``, ``(n, c, t)``, and ``"separate"``, from ``(n, c, t)`` to the source, likewise.
        minimum_rate: Lowest rate in Hz that it can be built for.
        differentiable: Whether derivatives go through it.
        scale: The difference that counts as one unit where metrics are joined; None if unknown.
        signals: Those that it holds, by name; see `bind`.
        one_step_calls: Separator calls per source that `relative_to` costs.
    """

    name: str
    function: Callable[..., Tensor]
    sample_rate: int = 0
    needs: tuple[str, ...] = ()
    minimum_rate: int = 1
    differentiable: bool = False
    scale: float | None = None
    signals: Mapping[str, Any] = field(default_factory=dict)
    one_step_calls: int = 0

    @property
    def kind(self) -> str:
        """``"oracle"`` if it compares with references, else ``"blind"``."""
        return "oracle" if "references" in self.needs else "blind"

    @property
    def missing(self) -> tuple[str, ...]:
        """Signals that it needs and does not hold."""
        return tuple(need for need in self.needs if need not in self.signals)

    @property
    def separator_calls(self) -> int:
        """Separator calls that the score of one source costs."""
        return int("separate" in self.needs)

    def bind(
        self,
        *,
        mixture: Tensor | None = None,
        references: Tensor | None = None,
        separate: Separator | None = None,
    ) -> Metric:
        """Return the quality of estimates of these signals.

        Args:
            mixture: ``(b, c, t)``.
            references: ``(b, s, c, t)``.
            separate: The separator of the estimates; its sources are those that are scored.

        Raises:
            ValueError: If a signal that the metric needs is missing.
        """
        given = {"mixture": mixture, "references": references, "separate": separate}
        held = {name: signal for name, signal in given.items() if name in self.needs and signal is not None}
        bound = self.replace(signals={**self.signals, **held})
        bound.check()
        return bound

    def check(self) -> None:
        """Raise a ValueError if a signal is missing."""
        for need in self.missing:
            kind = "is an oracle and " if need == "references" else ""
            raise ValueError(f"{need}=None: {self.name!r} {kind}needs it, use metric.bind({need}=...)")

    def __call__(self, estimates: Tensor) -> Tensor:
        """Return the scores ``(b,)`` of ``(b, s, c, t)``, the mean over sources, in float32."""
        if estimates.ndim != 4:
            shape = tuple(estimates.shape)
            raise ValueError(f"estimates have shape {shape}: give (item, source, channel, time)")
        self.check()
        return self.per_source(estimates).mean(1).float()

    def score(self, estimates: Tensor, references: Tensor | None = None) -> Tensor:
        """Return the scores ``(n,)`` of single sources ``(n, c, t)`` with references of the same shape."""
        return self.bind(references=None if references is None else references[:, None])(estimates[:, None])

    def per_source(self, estimates: Tensor) -> Tensor:
        """Return the scores ``(b, s)`` of ``(b, s, c, t)``; without a separator all sources are one batch."""
        shape, references = estimates.shape, self.signals.get("references")
        if references is not None and references.shape != shape:
            raise ValueError(
                f"estimates have shape {tuple(shape)}, the references of {self.name!r} "
                f"{tuple(references.shape)}: give the same, or quality.at(items)"
            )
        signals = [self.signals[need] for need in self.needs]
        if "separate" in self.needs:
            calls = (self._separating(index, shape[1]) for index in range(shape[1]))
            each = [self.function(estimates[:, k], *signals[:-1], call) for k, call in enumerate(calls)]
            return torch.stack(each, dim=1)
        signals = [x if x.ndim == 4 else x[:, None].expand(shape) for x in signals]
        return self.function(estimates.flatten(0, 1), *(x.flatten(0, 1) for x in signals)).reshape(shape[:2])

    def at(self, items: Tensor) -> Metric:
        """Return the quality of those items ``(n,)`` of the batch, in that order."""
        held = self.signals.items()
        return self.replace(
            signals={name: x[items] if isinstance(x, Tensor) else at_items(x, items) for name, x in held}
        )

    def relative_to(self, one_step: Tensor) -> Metric:
        """Return the quality that compares with the one-step estimates ``(b, s, c, t)``, if it does so."""
        return self

    def replace(self, **attributes: Any) -> Self:
        """Return a copy with other attributes."""
        other = copy.copy(self)
        vars(other).update(attributes)
        return other

    def _separating(self, index: int, sources: int) -> Separator:
        """Return the function from ``(n, c, t)`` to one of the sources that the separator finds there."""

        def separate(inputs: Tensor) -> Tensor:
            separated: Tensor = self.signals["separate"](inputs)
            if separated.shape[1] != sources:
                raise ValueError(
                    f"separate returns {separated.shape[1]} sources, but {self.name!r} scores {sources}: "
                    "give a separator of these sources alone"
                )
            return separated[:, index]

        return separate


def oracle(metric: Metric | Callable[[Tensor, Tensor], Tensor], references: Tensor) -> Metric:
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
    if isinstance(metric, Metric):
        return metric.bind(references=references)
    name = getattr(metric, "__name__", "")
    return Metric(
        name=name if name.isidentifier() else "oracle",
        function=partial(_mean_over_channels, metric),
        needs=("references",),
        differentiable=getattr(metric, "differentiable", True),
    ).bind(references=references)


def _mean_over_channels(function: Callable[..., Tensor], *signals: Tensor) -> Tensor:
    scores = function(*signals)
    return scores if scores.ndim == 1 else scores.flatten(1).mean(1)


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
        earlier = (items[:, None] == items).tril(-1).sum(1)  # rows of the same item
        calls = [(earlier == number).nonzero().flatten() for number in range(int(earlier.max()) + 1)]
        order = torch.cat(calls).argsort()

        def score(estimates: Tensor) -> Tensor:
            whole = self.estimates.to(estimates.dtype)
            parts = [
                scores_of(self.function, whole.index_copy(0, items[rows], estimates[rows]))[items[rows]]
                for rows in calls
            ]
            return torch.cat(parts)[order]

        return score
