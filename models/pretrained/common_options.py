"""Options that every scheme takes: names of the sources, another sampling rate, and the network's level."""

from __future__ import annotations

from typing import Any

from torch import nn

from encore.models.pretrained.base import check_sources
from encore.models.wrappers import LEVELS, Resampled

COMMON_OPTIONS: dict[str, Any] = {"sources": tuple[str, ...], "sample_rate": int, "level": str}
"""The options with their types."""


def with_common_options(
    separator: Any,
    *,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    level: str = "none",
) -> nn.Module:
    """Rename the sources of a separator, resample around it or change its level.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
        sources: New names of its sources, in the order of the source axis.
        sample_rate: Rate in Hz of mixture and estimates. Where the network's own differs, the mixture is
            resampled to it and the estimates back.
        level: ``"none"`` leaves levels alone. ``"standardise"`` gives the network a mixture of mean 0 and
            deviation 1, measured on the mean of its channels, and undoes both in every estimate, for
            networks that were trained so. ``"least_squares"`` multiplies all estimates of an item by one
            number that brings their sum closest to the mixture, for networks trained on a scale-invariant
            loss, which give estimates of arbitrary level.

    Returns:
        The separator, or a wrapper of it.

    Raises:
        ValueError: If the names do not fit the sources, or the level is unknown.
    """
    if level not in LEVELS:
        raise ValueError(f"option level={level}: choose one of {', '.join(LEVELS)}")
    if sources is not None:
        if len(sources) != len(separator.sources):
            raise ValueError(
                f"option sources={','.join(sources)} names {len(sources)}, but the separator estimates "
                f"{len(separator.sources)} ({', '.join(separator.sources)}): give one name for each"
            )
        separator.sources = check_sources(sources)
    if sample_rate is not None and sample_rate != separator.sample_rate:
        separator = Resampled(separator, sample_rate)
    wrapper = LEVELS[level]
    levelled: nn.Module = separator if wrapper is None else wrapper(separator)
    return levelled
