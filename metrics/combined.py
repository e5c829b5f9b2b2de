"""Metrics made of several: joint ones add up gains, guarded ones exclude what lowers another metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from encore.common.items import at_items
from encore.metrics.quality import Metric, Quality, for_items

Numbers = Sequence[float] | None


class CombinedMetric(Metric):
    """Qualities that are compared with the one-step estimates, which are scored once, by `relative_to`.

    Args:
        name: Of the combination.
        members: Metrics, bound or not, or plain functions, which score whole items and not their sources.
        differentiable: See `Metric`.

    Raises:
        ValueError: If members score audio of different rates.
    """

    first_compared = 0

    def __init__(self, name: str, members: Sequence[Quality], differentiable: bool) -> None:
        rates = {_name(m): m.sample_rate for m in members if isinstance(m, Metric) and m.sample_rate}
        if len(set(rates.values())) > 1:
            raise ValueError(f"metrics have the sample rates {rates}: give metrics of one rate")
        calls = [getattr(member, "separator_calls", 0) for member in members]
        nested = sum(getattr(member, "one_step_calls", 0) for member in members)
        super().__init__(
            name=name,
            function=type(self).per_source,
            sample_rate=max(rates.values(), default=0),
            needs=_union(members, "needs"),
            minimum_rate=max(getattr(member, "minimum_rate", 1) for member in members),
            differentiable=differentiable,
            one_step_calls=nested + sum(calls[self.first_compared :]),
        )
        self.members = tuple(members)
        self.one_step: Tensor | None = None
        self.before: list[Tensor] = []

    @property
    def missing(self) -> tuple[str, ...]:
        """See `Metric`."""
        return _union(self.members, "missing")

    @property
    def separator_calls(self) -> int:
        """See `Metric`."""
        return sum(getattr(member, "separator_calls", 0) for member in self.members)

    def bind(self, **signals: Any) -> Metric:
        """Bind the members that lack a signal; see `Metric`."""
        return self.replace(
            members=[m.bind(**signals) if isinstance(m, Metric) and m.missing else m for m in self.members]
        )

    def at(self, items: Tensor) -> Metric:
        """See `Metric`."""
        return self.replace(
            members=[at_items(member, items) for member in self.members],
            one_step=None if self.one_step is None else self.one_step[items],
            before=[scores[items] for scores in self.before],
        )

    @torch.no_grad()
    def relative_to(self, one_step: Tensor) -> Metric:
        """See `Metric`."""
        self.check()
        members = [
            m.relative_to(one_step) if hasattr(m, "relative_to") else for_items(m, one_step)
            for m in self.members
        ]
        before = [_per_source(member, one_step) for member in members[self.first_compared :]]
        return self.replace(members=members, one_step=one_step, before=before)

    def compare(self, index: int, estimates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score with a member: now, before, and whether what it scores is the one-step estimate."""
        if self.one_step is None:
            raise ValueError(f"{self.name!r} compares with the one-step estimate: call relative_to(one_step)")
        scores = _per_source(self.members[index], estimates)
        unchanged = estimates.eq(self.one_step).flatten(2).all(-1)
        if scores.shape != unchanged.shape:
            unchanged = unchanged.all(1, keepdim=True)
        return scores, self.before[index - self.first_compared], unchanged


class joint(CombinedMetric):  # noqa: N801, used like a function
    """Join qualities: ``sum_i weight_i (score_i - one-step score_i) / scale_i``, the mean over sources.

    The one-step estimate, given by ``relative_to(one_step)`` as in `encore.refine`, scores 0, exactly; an
    item that a member cannot score is NaN.

    Args:
        members: See `CombinedMetric`.
        weights: One for each; 1 by default.
        scales: One for each, in its unit; by default its own ``scale``.

    Raises:
        ValueError: If there are no members, their sample rates differ, or weights or scales do not fit them.
    """

    def __init__(self, members: Sequence[Quality], weights: Numbers = None, scales: Numbers = None) -> None:
        if not members:
            raise ValueError("members=[]: give at least one")
        differentiable = all(getattr(member, "differentiable", True) for member in members)
        super().__init__("joint_" + "_".join(map(_name, members)), members, differentiable)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(members)
        self.scales = tuple(scales) if scales is not None else tuple(map(_own_scale, members))
        for argument, values in (("weights", self.weights), ("scales", self.scales)):
            if len(values) != len(members):
                raise ValueError(f"{argument}={values} does not fit {len(members)} members: give one each")
        if min(self.scales) <= 0:
            raise ValueError(f"scales={self.scales} are not all positive: give differences above 0")

    def per_source(self, estimates: Tensor) -> Tensor:
        """See `Metric`; without a unit."""
        total = torch.zeros((), device=estimates.device)
        for index, (weight, scale) in enumerate(zip(self.weights, self.scales, strict=True)):
            scores, before, unchanged = self.compare(index, estimates)
            gain = scores - before
            # networks round differently in batches of different sizes: equal samples must score 0 still
            total = total + weight / scale * gain.masked_fill(unchanged & ~gain.isnan(), 0.0)
        return total


class guarded(CombinedMetric):  # noqa: N801, used like a function
    """Guard a quality: a source whose score by a guard falls below that of one-step is NaN, not eligible.

    The one-step estimate, given by ``relative_to(one_step)`` as in `encore.refine`, is eligible wherever the
    quality can score it.

    Args:
        quality: The one that steers, like the guards one of the members of `CombinedMetric`.
        guards: Those that must not fall.

    Raises:
        ValueError: If there are no guards, or sample rates differ.
    """

    first_compared = 1

    def __init__(self, quality: Quality, guards: Sequence[Quality]) -> None:
        if not guards:
            raise ValueError("guards=[] guard nothing: give a metric, or use the quality by itself")
        name = f"{_name(quality)}_guarded_{'_'.join(map(_name, guards))}"
        super().__init__(name, (quality, *guards), getattr(quality, "differentiable", True))

    def per_source(self, estimates: Tensor) -> Tensor:
        """See `Metric`; in the unit of the quality that steers."""
        total = _per_source(self.members[0], estimates)
        for index in range(1, len(self.members)):
            scores, before, unchanged = self.compare(index, estimates)
            total = torch.where((scores >= before) | unchanged, total, torch.nan)
        return total


def _per_source(quality: Quality, estimates: Tensor) -> Tensor:
    """Return scores ``(b, s)``, or ``(b, 1)`` by a plain function."""
    return quality.per_source(estimates) if isinstance(quality, Metric) else quality(estimates)[:, None]


def _union(members: Sequence[Quality], attribute: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for member in members for name in getattr(member, attribute, ())))


def _name(quality: Quality) -> str:
    return str(getattr(quality, "name", getattr(quality, "__name__", "quality")))


def _own_scale(quality: Quality) -> float:
    scale = getattr(quality, "scale", None)
    if scale is None:
        raise ValueError(f"scales=None, but {_name(quality)!r} has no scale of its own: give scales=")
    return float(scale)
