"""Turn a caller's quality or search into the functions that a refinement calls, and count its cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from encore.common.names import nearest
from encore.inference.line_search import BrentSearch, CoarseToFine, GoldenSection
from encore.inference.local_search import GreedySearch, LocalSearch
from encore.inference.search import AnnealedGridSearch, GridSearch, Search
from encore.metrics.quality import Metric, Quality
from encore.metrics.table import get_metric
from encore.models.types import Separator

DEFAULT_GUIDE = "dnsmos_ovrl"
"""The quality that steers where none is given."""

SEARCHES: dict[str, type[Search]] = {
    "greedy": GreedySearch,
    "grid": GridSearch,
    "annealed": AnnealedGridSearch,
    "local": LocalSearch,
    "coarse_to_fine": CoarseToFine,
    "golden": GoldenSection,
    "brent": BrentSearch,
}
"""Searches by the names that `encore.refine` accepts, with their default settings."""


class Cost(NamedTuple):
    """Separator calls of one item.

    ``start``: before the first step, one separation and its score; ``candidate``: a ratio below 1.
    """

    start: int
    candidate: int


def cost_of(quality: Quality | None, search: Search, sources: int) -> Cost:
    """Return what an item costs where ``sources`` sources are refined together; None for no quality."""
    score = sources * int(getattr(quality, "separator_calls", 0))
    relative = sources * int(getattr(quality, "one_step_calls", 0))
    return Cost(1 + score + relative, sources * (2 if search.needs_gradient else 1) + score)


def relative_to(quality: Quality, one_step: Tensor) -> Quality:
    """Return the quality that compares with the one-step estimates ``(b, s, c, t)``, if it is such a one."""
    bind = getattr(quality, "relative_to", None)
    return quality if bind is None else bind(one_step)


def resolve_quality(
    quality: Quality | Metric | str | None, search: Search, separate: Separator, mixture: Tensor
) -> Quality:
    """Return the quality that is meant.

    Args:
        quality: A function, which is returned; a metric, which is bound to mixture and separator; a metric's
            name; or None for `DEFAULT_GUIDE`, or for no score where the search has no step.
        search: What it steers.
        separate: Says the sampling rate that a metric given by name scores at.
        mixture: ``(b, c, t)``.

    Raises:
        ValueError: If a name is unknown, its rate is not known, an oracle has no references, or the search
            needs slopes that the quality does not have.
    """
    if quality is None and not search.steps:
        return lambda estimates: estimates.new_full(estimates.shape[:1], torch.nan)
    if quality is None or isinstance(quality, str):
        name = quality or DEFAULT_GUIDE
        rate: Any = getattr(separate, "sample_rate", None)
        if rate is None:
            raise ValueError(
                f"quality={quality!r}: {name} needs the sampling rate, which the separator does not say: use "
                f"encore.as_separator(net, sources=[...], sample_rate=...), or "
                f"quality=encore.get_metric({name!r}, sample_rate=...)"
            )
        quality = get_metric(name, sample_rate=rate)
    if isinstance(quality, Metric):
        if "references" in quality.missing:
            raise ValueError(
                f"quality={quality.name!r}: is an oracle and needs the references: "
                f"quality=encore.oracle(encore.get_metric({quality.name!r}, sample_rate=...), references)"
            )
        quality = quality.bind(mixture=mixture, separate=separate) if quality.missing else quality
    if search.needs_gradient and not getattr(quality, "differentiable", True):
        raise ValueError(
            f"quality={getattr(quality, 'name', quality)!r} has no derivative, which {type(search).__name__} "
            "needs: use si_sdr, snr, sdr or a DNSMOS score, or another search"
        )
    return quality


def resolve_search(search: Search | str) -> Search:
    """Return a search, or the one of a name with its default settings.

    Raises:
        ValueError: If there is none of that name.
    """
    if isinstance(search, str):
        if search not in SEARCHES:
            raise ValueError(f"search={search!r}: use {' or '.join(nearest(search, SEARCHES))}")
        return SEARCHES[search]()
    return search
