"""Items of corpora as samples: dicts of ``mixture``, ``references`` and ``name``.

Every random choice is a function of ``(seed, draw, index)``, independent of the number of workers and ranks.
`encore.data.reading` reads the files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from encore.data.corpora import Item, check_choice
from encore.data.reading import Reader, random_segment

Index = int | tuple[int, int]

Crop = Literal["start", "active"]


class Sample(TypedDict):
    """``mixture`` (c, t) and ``references`` (s, c, t), the latter absent for items without references."""

    mixture: Tensor
    references: NotRequired[Tensor]
    name: str


class DrawnDataset(Dataset[Any]):
    """Base of datasets that are indexed by an index, or by a pair ``(index, draw)``.

    ``draw`` counts the passes through the corpus, as `encore.data.loaders.DrawSampler` does.
    """

    seed: int

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples of a pass."""

    def __getitem__(self, index: Index) -> Any:
        number, draw = index if isinstance(index, tuple) else (index, 0)
        if not 0 <= number < len(self):
            raise IndexError(f"index {number} is outside 0 to {len(self) - 1}")
        return self.sample(number, draw, np.random.default_rng([self.seed, draw, number]))

    @abstractmethod
    def sample(self, index: int, draw: int, generator: np.random.Generator) -> Any:
        """Make a sample; all random choices are drawn from ``generator``."""


@dataclass(eq=False, repr=False)
class SegmentDataset(DrawnDataset):
    """Random segments (training) or whole recordings (validation) of a list of items.

    Args:
        items: Either all have references or none has.
        sources: Names of the references to return, in the order of the source axis.
        sample_rate: Rate in Hz to resample to.
        channels: Channels to return.
        segment: Length of the random segments in samples; whole recordings if None. Shorter items are
            padded with zeros at the end, in training only.
        max_frames: With ``segment=None``: longest length in samples; None for no limit.
        crop: Where longer recordings are cut: from the ``"start"``, or from the first point at which all
            sources are ``"active"`` (`encore.data.activity.active_start`), earlier if less than the full
            length remains.
        residual: A source that is the mixture less the items' other references, for corpora that do not
            store it, such as ``"noise"`` in VoiceBank-DEMAND.
        rebuild_mixture: Whether to use the sum of all references instead of a recorded mixture.
        seed: Seed of the segments.

    Raises:
        ValueError: If there are no items, lengths are not positive, or an item lacks a source.
    """

    items: Sequence[Item]
    _: KW_ONLY
    sources: Sequence[str]
    sample_rate: int
    channels: int = 1
    segment: int | None = None
    max_frames: int | None = None
    crop: Crop = "start"
    residual: str | None = None
    rebuild_mixture: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the items and the options."""
        check_positive(self, "sample_rate", "channels", "segment", "max_frames")
        check_choice("crop", self.crop, ("start", "active"))
        if self.rebuild_mixture and self.residual is not None:
            raise ValueError(
                f"rebuild_mixture=True leaves nothing for residual={self.residual!r}: set only one of them"
            )
        if self.rebuild_mixture:
            self.items = [replace(item, mixture=None) for item in self.items]
        self.blind = _check_items(self.items, self.sources, self.residual)
        self._reader = Reader(self.sample_rate, self.channels)
        self._starts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, index: int, draw: int, generator: np.random.Generator) -> Sample:
        """Read an item; see `DrawnDataset`."""
        item = self.items[index]
        start, count = self._extent(index, generator)
        mixture, references = self._read(item, start, count)
        missing = 0 if self.segment is None else self.segment - count
        sample = Sample(mixture=pad(mixture, (0, missing)), name=item.name)
        if not self.blind:
            sample["references"] = pad(torch.stack([references[name] for name in self.sources]), (0, missing))
        return sample

    def _extent(self, index: int, generator: np.random.Generator) -> tuple[int, int]:
        """Return the first frame and the number of frames to read of an item."""
        item = self.items[index]
        total = self._reader.item_length(item)
        if self.segment is not None:
            return random_segment(total, self.segment, generator)
        if self.max_frames is None or total <= self.max_frames:
            return 0, total
        if self.crop == "start":
            return 0, self.max_frames
        if index not in self._starts:
            self._starts[index] = self._reader.item_start(item)
        return min(self._starts[index], total - self.max_frames), self.max_frames

    def _read(self, item: Item, start: int, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        # a mixture that is a sum, and a residual, need every reference; else only the returned ones are read
        needs_all = item.mixture is None or self.residual in self.sources
        references = {
            name: self._reader.read(reference, start, count)
            for name, reference in item.references.items()
            if needs_all or name in self.sources
        }
        if item.mixture is None:
            mixture = torch.stack(list(references.values())).sum(0)
        else:
            mixture = self._reader.read(item.mixture, start, count)
        if self.residual is not None and self.residual not in references and references:
            references[self.residual] = mixture - torch.stack(list(references.values())).sum(0)
        return mixture, references


def _check_items(items: Sequence[Item], sources: Sequence[str], residual: str | None) -> bool:
    """Return whether the items have no references; raise where they do not match ``sources``."""
    if not items:
        raise ValueError("items is empty: the corpus has no files for this split")
    check_sources(sources)
    blind = not items[0].references
    for item in items:
        if (not item.references) != blind:
            raise ValueError(
                f"items: only one of {item.name!r} and {items[0].name!r} has references: split them"
            )
        if item.mixture is None and (blind or residual):
            raise ValueError(
                f"items: {item.name!r} has no mixture, which blind items and residual={residual!r} need"
            )
        absent = [source for source in sources if source not in item.references and source != residual]
        if absent and not blind:
            raise ValueError(
                f"sources: {item.name!r} has no reference {absent[0]!r}; it has {sorted(item.references)}: "
                f"change sources, or set residual={absent[0]!r} to use the rest of the mixture"
            )
    return blind


def check_sources(sources: Sequence[str]) -> None:
    """Raise a ``ValueError`` if no source is named."""
    if not sources:
        raise ValueError("sources is empty: name at least one source, such as ['speech']")


def check_positive(options: object, *names: str) -> None:
    """Raise a ``ValueError`` for attributes, if not None, that are not above 0."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value} is not positive: give a positive number")


def check_ranges(options: object, *names: str) -> None:
    """Raise a ``ValueError`` for attributes, if not None, that are not a lowest and a highest number."""
    for name in names:
        bounds = getattr(options, name)
        if bounds is not None and not (len(bounds) == 2 and bounds[0] <= bounds[1]):
            raise ValueError(f"{name}={tuple(bounds)} is reversed or no pair: give (lowest, highest)")
