"""Metrics made of several: joint ones add up gains, guarded ones exclude what lowers another metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
        members: Plain functions among them score whole items, all others their sources.
        combine: Scores estimates ``(b, s, c, t)`` by the members of this object.
        first_compared: Index of the first member whose one-step scores it needs.
        differentiable: See `Metric`.

    Raises:
        ValueError: If members score audio of different rates.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Quality],
        combine: Callable[[CombinedMetric, Tensor], Tensor],
        *,
        first_compared: int,
        differentiable: bool,
    ) -> None:
        rates = {_name(m): m.sample_rate for m in members if isinstance(m, Metric) and m.sample_rate}
        if len(set(rates.values())) > 1:
            raise ValueError(f"metrics have the sample rates {rates}: give metrics of one rate")
        own = [getattr(member, "separator_calls", 0) for member in members[first_compared:]]
        super().__init__(
            name=name,
            function=combine,
            sample_rate=max(rates.values(), default=0),
            needs=_union(members, "needs"),
            minimum_rate=max(getattr(member, "minimum_rate", 1) for member in members),
            differentiable=differentiable,
            one_step_calls=sum(getattr(member, "one_step_calls", 0) for member in members) + sum(own),
        )
        self.members, self.first_compared = tuple(members), first_compared
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

    def per_source(self, estimates: Tensor) -> Tensor:
        """See `Metric`."""
        if self.one_step is None:
            raise ValueError(f"{self.name!r} compares with the one-step estimate: call relative_to(one_step)")
        return self.function(self, estimates)

    def compare(self, index: int, estimates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score with a member: now, before, and whether what it scores is the one-step estimate."""
        assert self.one_step is not None
        scores = _per_source(self.members[index], estimates)
        unchanged = estimates.eq(self.one_step).flatten(2).all(-1)
        if scores.shape != unchanged.shape:
            unchanged = unchanged.all(1, keepdim=True)
        return scores, self.before[index - self.first_compared], unchanged


def joint(members: Sequence[Quality], weights: Numbers = None, scales: Numbers = None) -> CombinedMetric:
    """Join qualities: ``sum_i weight_i (score_i - one-step score_i) / scale_i``, the mean over sources.

    The one-step estimate, given by ``relative_to(one_step)`` as in `encore.refine`, scores 0, exactly; an
    item that a member cannot score is NaN.

    Args:
        members: Metrics, bound or not, or plain functions.
        weights: One for each; 1 by default.
        scales: One for each, in its unit; by default its own ``scale``.

    Raises:
        ValueError: If there are no members, their sample rates differ, or weights or scales do not fit them.
    """
    if not members:
        raise ValueError("members=[]: give at least one")
    weights = tuple(weights) if weights is not None else (1.0,) * len(members)
    scales = tuple(scales) if scales is not None else tuple(map(_own_scale, members))
    for argument, values in (("weights", weights), ("scales", scales)):
        if len(values) != len(members):
            raise ValueError(f"{argument}={values} does not fit {len(members)} members: give one each")
    if min(scales) <= 0:
        raise ValueError(f"scales={scales} are not all positive: give differences above 0")
    return CombinedMetric(
        "joint_" + "_".join(map(_name, members)),
        members,
        partial(_weighted_gains, weights, scales),
        first_compared=0,
        differentiable=all(getattr(member, "differentiable", True) for member in members),
    )


def guarded(quality: Quality, guards: Sequence[Quality]) -> CombinedMetric:
    """Guard a quality: a source whose score by a guard falls below that of one-step is NaN, not eligible.

    The one-step estimate, given by ``relative_to(one_step)`` as in `encore.refine`, is eligible wherever the
    quality can score it.

    Args:
        quality: The one that steers, like the guards as of `joint`.
        guards: Those that must not fall.

    Raises:
        ValueError: If there are no guards, or sample rates differ.
    """
    if not guards:
        raise ValueError("guards=[] guard nothing: give a metric, or use the quality by itself")
    return CombinedMetric(
        f"{_name(quality)}_guarded_{'_'.join(map(_name, guards))}",
        (quality, *guards),
        _unless_guarded,
        first_compared=1,
        differentiable=getattr(quality, "differentiable", True),
    )


def _weighted_gains(
    weights: Sequence[float], scales: Sequence[float], metric: CombinedMetric, estimates: Tensor
) -> Tensor:
    """Return the scores ``(b, s)`` of `joint`, without a unit."""
    total = torch.zeros((), device=estimates.device)
    for index, (weight, scale) in enumerate(zip(weights, scales, strict=True)):
        scores, before, unchanged = metric.compare(index, estimates)
        gain = scores - before
        # networks round differently in batches of different sizes: equal samples must score 0 still
        total = total + weight / scale * gain.masked_fill(unchanged & ~gain.isnan(), 0.0)
    return total


def _unless_guarded(metric: CombinedMetric, estimates: Tensor) -> Tensor:
    """Return the scores ``(b, s)`` of `guarded`, in the unit of the quality that steers."""
    total = _per_source(metric.members[0], estimates)
    for index in range(1, len(metric.members)):
        scores, before, unchanged = metric.compare(index, estimates)
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
