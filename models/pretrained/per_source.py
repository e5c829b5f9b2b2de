"""Several separators as one: a network per stem, as music separators are often trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from encore.models.pretrained.contract import OpenedSeparator
from encore.models.types import LoadedSeparator


def open_joined(names: str) -> nn.Module:
    """Open several separators of different sources and put their estimates side by side.

    Args:
        names: What `encore.models.load_separator` takes, with commas between; none may hold one itself.

    Returns:
        A separator of all their sources, in that order, at their common rate and channels.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one cannot be opened, or they do not fit together.
    """
    # the doors are opened there, this one too
    from encore.models.pretrained.uri import open_uri

    return Joined([open_uri(name.strip()) for name in names.split(",") if name.strip()])


class SideBySide(nn.ModuleList):
    """Separators that hear the same; see `encore.models.levels.unstandardised`."""

    side_by_side = True


class Joined(OpenedSeparator):
    """Separators that all hear the same mixture.

    Args:
        separators: With ``sources``, ``sample_rate`` and ``channels``; one or more.

    Raises:
        ValueError: If there is none, rates or channels differ, or two estimate the same source.
    """

    def __init__(self, separators: Sequence[nn.Module]) -> None:
        if not separators:
            raise ValueError("joined names no separator: write joined:vocals.ckpt,drums.ckpt")
        parts: list[Any] = list(separators)
        for name in ("sample_rate", "channels"):
            found = {getattr(part, name) for part in parts}
            if len(found) > 1:
                raise ValueError(f"joined separators have {name} {sorted(found)}: join those that agree")
        sources = [source for part in parts for source in part.sources]
        super().__init__(sources, parts[0].sample_rate, parts[0].channels)
        self.parts = SideBySide(parts)

    def estimate(self, mixture: Tensor) -> Tensor:
        """``(b, c, t)`` to ``(b, s, c, t)``, one separator after the other."""
        return torch.cat([part(mixture) for part in self.parts], dim=1)

    def only(self, sources: Sequence[str]) -> LoadedSeparator:
        """The separators alone that estimate one of these sources, so that the others are not asked."""
        parts: list[Any] = list(self.parts)
        wanted: Any = Joined([part for part in parts if set(part.sources) & set(sources)])
        return wanted
