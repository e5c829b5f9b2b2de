"""Some of a separator's sources instead of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from encore.models.types import LoadedSeparator, exchangeable


class Selected(nn.Module):
    """A separator of some of another one's sources: the others are not kept, refined or written.

    Args:
        separator: Any separator that says what it separates.
        sources: Names of the sources to keep, in the order that the estimates shall have.

    Raises:
        ValueError: If there is no such source, or one of several that come in any order is named alone, which
            cannot be told by its name.
    """

    def __init__(self, separator: LoadedSeparator, sources: Sequence[str]) -> None:
        super().__init__()
        known = tuple(separator.sources)
        if absent := [name for name in sources if name not in known]:
            raise ValueError(f"sources={','.join(sources)}: {absent[0]!r} is none of {', '.join(known)}")
        for group in exchangeable(known):
            together = [known[place] for place in group]
            if 0 < len(set(together) & set(sources)) < len(together):
                raise ValueError(
                    f"sources={','.join(sources)}: {', '.join(together)} come in any order; name all of them"
                )
        if not sources or len(set(sources)) != len(sources):
            raise ValueError(f"sources={','.join(sources)}: give different names of {', '.join(known)}")
        opened: Any = separator
        if hasattr(opened, "only"):
            opened = opened.only(sources)
            known = tuple(opened.sources)
        self.separator = opened
        self.sources = tuple(sources)
        self.sample_rate, self.channels = separator.sample_rate, separator.channels
        self._places = [known.index(name) for name in sources]

    def forward(self, mixture: Tensor) -> Tensor:
        """``(batch, channel, time)`` to estimates ``(batch, source, channel, time)`` of the kept sources."""
        estimates: Tensor = self.separator(mixture)[:, self._places]
        return estimates
