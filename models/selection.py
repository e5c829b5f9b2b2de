"""Select some of a separator's sources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from encore.models.types import LoadedSeparator, permutation_groups


def select(separator: LoadedSeparator, *sources: str | Iterable[str]) -> LoadedSeparator:
    """Return a separator of some of another one's sources.

    Args:
        separator: The other one.
        sources: Their names, or one sequence of names: ``select(net, "vocals", "drums")``.

    Raises:
        ValueError: See `SelectSources`.
    """
    names = [name for part in sources for name in ([part] if isinstance(part, str) else part)]
    # the separator itself keeps what it can do besides, such as being a bridge
    return separator if tuple(names) == tuple(separator.sources) else SelectSources(separator, names)


class SelectSources(nn.Module):
    """A separator of some of another one's sources: the others are not kept, refined or written.

    Args:
        separator: Any separator with ``sources``, ``sample_rate`` and ``channels``.
        sources: Names of the sources to keep, in the order of the estimates.

    Raises:
        ValueError: If there is no such source, or only some of several interchangeable ones are named, such
            as one of two speakers.
    """

    def __init__(self, separator: LoadedSeparator, sources: Sequence[str]) -> None:
        super().__init__()
        known = tuple(separator.sources)
        names = ",".join(sources)
        if absent := [name for name in sources if name not in known]:
            raise ValueError(f"sources={names}: {absent[0]!r} is none of {', '.join(known)}")
        for group in permutation_groups(known):
            together = [known[index] for index in group]
            if 0 < len(set(together) & set(sources)) < len(together):
                raise ValueError(
                    f"sources={names}: {', '.join(together)} come in any order; name all of them"
                )
        if not sources or len(set(sources)) != len(sources):
            raise ValueError(f"sources={names}: give different names of {', '.join(known)}")
        inner: Any = separator
        if hasattr(inner, "only"):
            inner = inner.only(sources)
            known = tuple(inner.sources)
        self.separator = inner
        self.sources = tuple(sources)
        self.sample_rate, self.channels = separator.sample_rate, separator.channels
        self._indices = [known.index(name) for name in sources]

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate ``(batch, channel, time)`` into the kept sources ``(batch, source, channel, time)``."""
        estimates: Tensor = self.separator(mixture)[:, self._indices]
        return estimates
