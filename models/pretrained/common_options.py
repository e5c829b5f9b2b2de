"""Options that every scheme takes: names of the sources, another sampling rate, and the network's level."""

from __future__ import annotations

from typing import Any

from torch import nn

from encore.models.pretrained.base import Levelled, Resampled, check_sources

COMMON_OPTIONS: dict[str, Any] = {"sources": tuple[str, ...], "sample_rate": int, "level": str}
"""The options with their types."""

LEVELS = ("none", "standardise", "least_squares")


def with_common_options(
    separator: nn.Module,
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
    changed: Any = separator
    if sources is not None:
        if len(sources) != len(changed.sources):
            raise ValueError(
                f"option sources={','.join(sources)} names {len(sources)}, but the separator estimates "
                f"{len(changed.sources)} ({', '.join(changed.sources)}): give one name for each"
            )
        changed.sources = check_sources(sources)
    if sample_rate is not None and sample_rate != changed.sample_rate:
        changed = Resampled(changed, sample_rate)
    wrapped: nn.Module = changed if level == "none" else Levelled(changed, level)
    return wrapped
