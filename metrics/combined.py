"""Qualities made of several: joint ones add up gains, guarded ones exclude what lowers another metric."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from encore.common.items import at_items
from encore.metrics.quality import BoundMetric, ContextMetric, Metric, Quality, for_items

Numbers = Sequence[float] | None


class RelativeQuality(BoundMetric):
    """Qualities that are compared with the one-step estimates, which are scored once, by `relative_to`.

    Args:
        name: Of the combination.
        members: Plain functions among them score whole items, all others their sources.
    """

    first_compared = 0

    def __init__(self, name: str, members: Sequence[Quality]) -> None:
        self.name, self.members = name, tuple(members)
        self.kind = "oracle" if any(getattr(m, "kind", "") == "oracle" for m in members) else "blind"
        calls = [getattr(member, "separator_calls", 0) for member in members]
        nested = sum(getattr(member, "one_step_calls", 0) for member in members)
        self.separator_calls, self.one_step_calls = sum(calls), nested + sum(calls[self.first_compared :])
        self.one_step: Tensor | None = None
        self.before: list[Tensor] = []

    def at(self, items: Tensor) -> BoundMetric:
        """See `BoundMetric`."""
        return self.replace(
            members=[at_items(member, items) for member in self.members],
            one_step=None if self.one_step is None else self.one_step[items],
            before=[scores[items] for scores in self.before],
        )

    @torch.no_grad()
    def relative_to(self, one_step: Tensor) -> BoundMetric:
        """See `BoundMetric`."""
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
        unchanged = (estimates == self.one_step).flatten(2).all(-1)
        if scores.shape != unchanged.shape:
            unchanged = unchanged.all(1, keepdim=True)
        return scores, self.before[index - self.first_compared], unchanged

    def replace(self, **attributes: Any) -> Self:
        """Return a copy with other attributes."""
        other = copy.copy(self)
        vars(other).update(attributes)
        return other


class joint(RelativeQuality):  # noqa: N801, used like a function
    """Join qualities: ``sum_i weight_i (score_i - one-step score_i) / scale_i``, the mean over sources.

    The one-step estimate, given by ``relative_to(one_step)`` as in `encore.refine`, scores 0, exactly; an
    item that a member cannot score is NaN.

    Args:
        members: Bound metrics, blind ones, or plain functions.
        weights: One for each; 1 by default.
        scales: One for each, in its unit; by default its own ``scale``.

    Raises:
        ValueError: If there are no members, or weights or scales do not fit them.
    """

    def __init__(self, members: Sequence[Quality], weights: Numbers = None, scales: Numbers = None) -> None:
        if not members:
            raise ValueError("members=[]: give at least one")
        super().__init__("joint_" + "_".join(map(_name, members)), members)
        self.differentiable = all(getattr(member, "differentiable", True) for member in members)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(members)
        self.scales = tuple(scales) if scales is not None else tuple(map(_own_scale, members))
        for argument, values in (("weights", self.weights), ("scales", self.scales)):
            if len(values) != len(members):
                raise ValueError(f"{argument}={values} does not fit {len(members)} members: give one each")
        if min(self.scales) <= 0:
            raise ValueError(f"scales={self.scales} are not all positive: give differences above 0")

    def per_source(self, estimates: Tensor) -> Tensor:
        """See `BoundMetric`; without a unit."""
        total = torch.zeros((), device=estimates.device)
        for index, (weight, scale) in enumerate(zip(self.weights, self.scales, strict=True)):
            scores, before, unchanged = self.compare(index, estimates)
            gain = scores - before
            # networks round differently in batches of different sizes: equal samples must score 0 still
            total = total + weight / scale * gain.masked_fill(unchanged & ~gain.isnan(), 0.0)
        return total


class guarded(RelativeQuality):  # noqa: N801, used like a function
    """Guard a quality: a source whose score by a guard falls below that of one-step is NaN, not eligible.

    The one-step estimate, given by ``relative_to(one_step)`` as in `encore.refine`, is eligible wherever the
    quality can score it.

    Args:
        quality: The one that steers.
        guards: Those that must not fall.

    Raises:
        ValueError: If there are no guards.
    """

    first_compared = 1

    def __init__(self, quality: Quality, guards: Sequence[Quality]) -> None:
        if not guards:
            raise ValueError("guards=[] guard nothing: give a metric, or use the quality by itself")
        super().__init__(f"{_name(quality)}_guarded_{'_'.join(map(_name, guards))}", (quality, *guards))
        self.differentiable = getattr(quality, "differentiable", True)

    def per_source(self, estimates: Tensor) -> Tensor:
        """See `BoundMetric`; in the unit of the quality that steers."""
        total = _per_source(self.members[0], estimates)
        for index in range(1, len(self.members)):
            scores, before, unchanged = self.compare(index, estimates)
            total = torch.where((scores >= before) | unchanged, total, torch.nan)
        return total


class CombinedMetric(ContextMetric):
    """Metrics of one sample rate, and the combination that they are bound in."""

    def __init__(self, metrics: Sequence[Metric], form: RelativeQuality) -> None:
        rates = {metric.name: metric.sample_rate for metric in metrics}
        if len(set(rates.values())) > 1:
            raise ValueError(f"metrics have the sample rates {rates}: give metrics of one rate")
        self.metrics, self.form, self.sample_rate = tuple(metrics), form, metrics[0].sample_rate
        self.name, self.needs_reference = form.name, form.kind == "oracle"
        self.differentiable, self.separator_calls = form.differentiable, form.separator_calls
        self.one_step_calls = form.one_step_calls
        self.minimum_rate = max(metric.minimum_rate for metric in metrics)

    def bind(self, **signals: Any) -> BoundMetric:
        """See `Metric`."""
        return self.form.replace(members=[metric.bind(**signals) for metric in self.metrics])


class JointMetric(CombinedMetric):
    """Several metrics as one; arguments and errors as of `joint`, and the sample rates must be equal."""

    def __init__(self, members: Sequence[Metric], weights: Numbers = None, scales: Numbers = None) -> None:
        super().__init__(members, joint(members, weights, scales))


class GuardedMetric(CombinedMetric):
    """A metric and its guards; errors as of `guarded`, and the sample rates must be equal."""

    def __init__(self, metric: Metric, guards: Sequence[Metric]) -> None:
        super().__init__((metric, *guards), guarded(metric, guards))


def _per_source(quality: Quality, estimates: Tensor) -> Tensor:
    """Return scores ``(b, s)``, or ``(b, 1)`` by a plain function."""
    return quality.per_source(estimates) if isinstance(quality, BoundMetric) else quality(estimates)[:, None]


def _name(quality: Quality) -> str:
    return str(getattr(quality, "name", getattr(quality, "__name__", "quality")))


def _own_scale(quality: Quality) -> float:
    scale = getattr(quality, "scale", None)
    if scale is None:
        raise ValueError(f"scales=None, but {_name(quality)!r} has no scale of its own: give scales=")
    return float(scale)
