"""Options that every door takes: names of the sources, another sampling rate, and how levels are minded."""

from __future__ import annotations

from typing import Any

from torch import nn

from encore.models.pretrained.contract import Levelled, Resampled, checked_sources

CONVENTIONS: dict[str, Any] = {"sources": tuple[str, ...], "sample_rate": int, "level": str}
"""The options with their types."""

LEVELS = ("none", "standardise", "least_squares")


def with_conventions(
    separator: nn.Module,
    *,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    level: str = "none",
) -> nn.Module:
    """Change how an opened separator is seen from outside.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
        sources: New names of its sources, in the order of the source axis.
        sample_rate: Rate in Hz that mixture and estimates shall have. Where the network's own differs, the
            mixture is resampled to it and the estimates back.
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
    opened: Any = separator
    if sources is not None:
        if len(sources) != len(opened.sources):
            raise ValueError(
                f"option sources={','.join(sources)} names {len(sources)}, but the separator estimates "
                f"{len(opened.sources)} ({', '.join(opened.sources)}): give one name for each"
            )
        opened.sources = checked_sources(sources)
    if sample_rate is not None and sample_rate != opened.sample_rate:
        opened = Resampled(opened, sample_rate)
    wrapped: nn.Module = opened if level == "none" else Levelled(opened, level)
    return wrapped
