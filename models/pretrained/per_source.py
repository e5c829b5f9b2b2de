"""Several separators as one: a network per source, as music separators are often trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from encore.models.pretrained.base import PretrainedSeparator
from encore.models.types import LoadedSeparator


def open_per_source(names: str, open_separator: Callable[[str], nn.Module]) -> nn.Module:
    """Open several separators of different sources as one.

    Args:
        names: What `encore.models.load_separator` takes, with commas between; none may hold one itself.
        open_separator: Opens each.

    Returns:
        A separator of all their sources, in that order, at their common rate and channels.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one cannot be opened, or they do not fit together.
    """
    return PerSourceSeparator([open_separator(name.strip()) for name in names.split(",") if name.strip()])


class SideBySide(nn.ModuleList):
    """Separators of the same mixture; see `encore.models.levels.without_normalization`."""

    side_by_side = True


class PerSourceSeparator(PretrainedSeparator):
    """Separators that are all called with the same mixture.

    Args:
        separators: With ``sources``, ``sample_rate`` and ``channels``; one or more.

    Raises:
        ValueError: If there is none, rates or channels differ, or two estimate the same source.
    """

    def __init__(self, separators: Sequence[nn.Module]) -> None:
        if not separators:
            raise ValueError("per_source names no separator: write per_source:vocals.ckpt,drums.ckpt")
        parts: list[Any] = list(separators)
        for name in ("sample_rate", "channels"):
            found = {getattr(part, name) for part in parts}
            if len(found) > 1:
                raise ValueError(
                    f"separators of per_source have {name} {sorted(found)}: name those that agree"
                )
        sources = [source for part in parts for source in part.sources]
        super().__init__(sources, parts[0].sample_rate, parts[0].channels)
        self.parts = SideBySide(parts)

    def estimate(self, mixture: Tensor) -> Tensor:
        """Call one separator after the other: ``(b, c, t)`` to ``(b, s, c, t)``."""
        return torch.cat([part(mixture) for part in self.parts], dim=1)

    def only(self, sources: Sequence[str]) -> LoadedSeparator:
        """Return the separators alone that estimate one of these sources, so that no other is called."""
        parts: list[Any] = list(self.parts)
        chosen: Any = PerSourceSeparator([part for part in parts if set(part.sources) & set(sources)])
        return chosen
