"""Score items as they are, separated once, and refined under any number of guides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Generator, Tensor

from encore.inference.consistency import Consistency
from encore.inference.execution import BatchSize
from encore.inference.refinement import Refinement, refine
from encore.inference.refinement_run import PostFilter, Source
from encore.inference.search import GridSearch, Search
from encore.metrics.quality import Quality
from encore.metrics.reference import si_sdr
from encore.models.levels import Level, unstandardised
from encore.models.types import Separator

Panel = Callable[..., Mapping[str, Tensor]]
"""``panel(estimate (b, c, t), reference=None, mixture=None)`` to scores ``(b,)`` by measure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Guide:
    """One way of refining: a search, the measure that it listens to, and how far it goes.

    Args:
        search: Proposes the ratios.
        quality: The measure; None for a schedule.
        steps: Steps, for searches that do not bring their own.
        keep_previous: Let the previous estimate compete.
        blend: ``"endpoint"`` or ``"state"``, see `encore.inference.refine`.
        max_batch: Largest number of blends in one separator call; by default found by timing. A number makes
            two runs on one machine equal to the last bit.
        lanes: Parts of a round that are worked on at the same time, see `encore.inference.refine`.
        consistency: Where all sources are refined, move their estimates to where they sum to the mixture.
        post_filter: Applied to every estimate, such as `encore.inference.Wiener`.
        noise: White noise in every blend, see `encore.inference.refine`.
        level: What a separator that standardises its input goes by: ``"mixture"`` the original mixture's mean
            and deviation in every step, ``"own"`` those of each blend.
        tell_share: Tell a bridge's data predictor the mixture's share as its time; one that takes no shares
            is an error.
        items: Refine only this many items, evenly spread; None for all. For measures that take long.
        label: Name in tables and log keys, to tell two guides with one measure or two schedules apart.
    """

    search: Search
    quality: Quality | None = None
    steps: int = 5
    keep_previous: bool = True
    blend: Literal["endpoint", "state"] = "endpoint"
    max_batch: int | BatchSize | None = field(default_factory=BatchSize)
    lanes: int = 1
    consistency: Consistency | None = None
    post_filter: PostFilter | None = None
    noise: float = 0.0
    level: Level = "mixture"
    tell_share: bool = False
    items: int | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """The label if there is one, else the name of the measure, or ``"none"`` for a schedule."""
        return self.label or ("none" if self.quality is None else self.quality.name)

    @property
    def kind(self) -> str:
        """``"oracle"``, ``"blind"``, or ``"fixed"`` for a schedule."""
        return "fixed" if self.quality is None else self.quality.kind

    @property
    def plain(self) -> bool:
        """Whether its first estimate is the separator's own."""
        return self.consistency is None and self.post_filter is None

    def usable(self, reference: Tensor | None) -> bool:
        """Whether an item with or without a reference can be refined under this guide."""
        return reference is not None or self.quality is None or not self.quality.needs_reference

    def __call__(
        self,
        separate: Separator,
        mixture: Tensor,
        *,
        source: Source = 0,
        interchangeable: bool = False,
        reference: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Refinement:
        """Run `encore.inference.refine` on ``(b, c, t)`` with this guide, keeping the trajectory."""
        bare = unstandardised(separate) if self.level == "mixture" else None
        return refine(
            bare or separate,
            mixture,
            source=source,
            steps=self.steps,
            search=self.search,
            quality=self.quality,
            reference=reference,
            keep_previous=self.keep_previous,
            blend=self.blend,
            interchangeable=interchangeable,
            consistency=self.consistency,
            post_filter=self.post_filter,
            noise=self.noise,
            standardise=bare is not None,
            tell_share=self.tell_share,
            max_batch=self.max_batch,
            lanes=self.lanes,
            keep_trajectory=True,
            generator=generator,
        )


class Way(Protocol):
    """One way of going on from the one-step estimate: a `Guide`, or a sampler of bridges."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    @property
    def kind(self) -> str:
        """``"oracle"``, ``"blind"`` or ``"fixed"``."""
        ...

    @property
    def plain(self) -> bool:
        """Whether its first estimate is the separator's own."""
        ...

    @property
    def items(self) -> int | None:
        """How many items it is for; None for all."""
        ...

    def usable(self, reference: Tensor | None) -> bool:
        """Whether it is for an item with or without a reference."""
        ...

    def __call__(
        self,
        separate: Separator,
        mixture: Tensor,
        *,
        source: Source = 0,
        interchangeable: bool = False,
        reference: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Refinement:
        """Separate ``(b, c, t)``, keeping the trajectory."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Rows of the score table of some items, and the refinements they describe, by position of the guide."""

    rows: list[dict[str, Any]]
    refinements: dict[int, Refinement]


def evaluate(
    separate: Separator,
    mixture: Tensor,
    guides: Mapping[int, Way],
    panel: Panel,
    *,
    run: str,
    items: Sequence[str],
    source: Source = 0,
    interchangeable: bool = False,
    reference: Tensor | None = None,
    generator: Generator | None = None,
) -> Evaluation:
    """Refine items of one length under every guide and score every step with every measure of the panel.

    Equal estimates (the previous one kept, an item finished) are scored once.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``.
        mixture: ``(b, c, t)``.
        guides: The guides by a number that the caller knows them by; one that needs a reference is left out
            where there is none.
        panel: Scores estimates with all measures at once.
        run: Name of the run, for the table.
        items: Names of the items, for the table.
        source: Index of the source that is refined; ``"all"`` refines all of them together, and scores are
            means over them.
        interchangeable: Whether the separator gives its sources in any order, see `encore.inference.refine`.
        reference: ``(b, c, t)``, for all sources ``(b, s, c, t)``, or None.
        generator: For searches that draw.

    Returns:
        Rows for the mixture, the one-step estimate and every step of every guide, and the refinements.
    """
    options: dict[str, Any] = {
        "source": source,
        "interchangeable": interchangeable,
        "reference": reference,
        "generator": generator,
    }
    refinements = {
        number: guide(separate, mixture, **options)
        for number, guide in guides.items()
        if guide.usable(reference)
    }
    # one step is the separator as it is
    plain = (own for number, own in refinements.items() if guides[number].plain)
    first = next(plain, None)
    if first is None:
        first = refine(separate, mixture, steps=0, search=GridSearch(1), **options)
    own_mixture = mixture if source != "all" else mixture[:, None].expand_as(first.one_step)
    rows = []
    for place, item in enumerate(items):
        own = slice(place, place + 1)
        scored = _Scored(panel, None if reference is None else reference[own], own_mixture[own])
        mixture_db = math.nan
        if reference is not None:
            mixture_db = float(si_sdr(own_mixture[own], reference[own]).mean())
        base = {"run": run, "item": item, "mixture_db": mixture_db}
        rows += score_rows(
            base, scored(own_mixture[own]), guide="none", kind="mixture", step=0, evaluations=0
        )
        rows += score_rows(
            base, scored(first.one_step[own]), guide="none", kind="one_step", step=0, evaluations=1
        )
        for number, refinement in refinements.items():
            rows += _refined_rows(base, guides[number], refinement, place, scored)
    return Evaluation(rows=rows, refinements=refinements)


def _refined_rows(
    base: Mapping[str, Any], guide: Way, refinement: Refinement, place: int, scored: _Scored
) -> list[dict[str, Any]]:
    """Rows of all steps of one refined item of a batch."""
    assert refinement.trajectory is not None  # Guide always keeps it
    rows = []
    for step, estimates in enumerate(refinement.trajectory):
        rows += score_rows(
            base,
            scored(estimates[place : place + 1]),
            guide=guide.name,
            kind=guide.kind,
            step=step,
            evaluations=int(refinement.evaluations[place]),
            ratio=math.nan if step == 0 else float(refinement.ratios[step - 1, place]),
        )
    return rows


class _Scored:
    """Scores of estimates ``(1, c, t)`` or ``(1, s, c, t)`` of one item, remembered by their values."""

    def __init__(self, panel: Panel, reference: Tensor | None, mixture: Tensor) -> None:
        self.panel, self.reference, self.mixture = panel, reference, mixture
        self.known: list[tuple[Tensor, dict[str, float]]] = []

    def __call__(self, estimate: Tensor) -> dict[str, float]:
        for earlier, scores in self.known:
            if torch.equal(earlier, estimate):
                return scores
        reference = None if self.reference is None else _as_items(self.reference)
        measured = self.panel(_as_items(estimate), reference=reference, mixture=_as_items(self.mixture))
        scores = {name: float(value.mean()) for name, value in measured.items()}
        self.known.append((estimate, scores))
        return scores


def _as_items(signals: Tensor) -> Tensor:
    """Sources as items, whose mean is taken: ``(1, s, c, t)`` to ``(s, c, t)``; ``(1, c, t)`` as it is."""
    return signals.flatten(0, -3)


def score_rows(
    base: Mapping[str, Any],
    scores: Mapping[str, float],
    *,
    guide: str,
    kind: str,
    step: int,
    evaluations: int,
    ratio: float = math.nan,
) -> list[dict[str, Any]]:
    """Rows of the score table for one estimate of one item, a row per measure.

    Args:
        base: The columns ``run``, ``item`` and ``mixture_db``.
        scores: Values by measure.
        guide: Measure that steered, or ``"none"``.
        kind: ``"mixture"``, ``"one_step"``, ``"fixed"``, ``"blind"`` or ``"oracle"``.
        step: Number of the step, 0 for the mixture and for the one-step estimate.
        evaluations: Separator calls of the whole refinement.
        ratio: Mixture share chosen at this step, NaN where none was.
    """
    return [
        {
            **base,
            "step": step,
            "guide": guide,
            "kind": kind,
            "metric": metric,
            "value": value,
            "ratio": ratio,
            "evaluations": evaluations,
        }
        for metric, value in scores.items()
    ]
