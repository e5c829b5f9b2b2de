"""Isolated sources for diffusion priors, as dicts of ``source`` (1, time), ``label`` and ``name``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from encore.data.corpora import evenly_spaced
from encore.data.dataset import DrawnDataset, check_positive, check_ranges
from encore.data.loaders import EVALUATION_SEED, CorpusModule
from encore.data.reading import Reader
from encore.data.source_corpora import Recording

FRAME_SECONDS = 0.032
"""Length of the frames whose energies weight the random segments."""

SILENCE = 1e-4
"""Root mean square of full scale below which a segment keeps its level, or noise would be amplified."""


class SourceSample(TypedDict):
    """A sample; ``label`` is the number of classes where a recording has none."""

    source: Tensor
    label: int
    name: str


class SourceBatch(TypedDict):
    """``source`` (b, 1, time), ``labels`` (b,), ``names``."""

    source: Tensor
    labels: Tensor
    names: list[str]


@dataclass(eq=False, repr=False)
class SourceDataset(DrawnDataset):
    """Active segments of isolated recordings, at a random level.

    A frame of the recording is drawn with a probability proportional to the square root of its root mean
    square, and a segment at random that holds it. A recording shorter than the segment gets zeros on both
    sides, at random. The level of the whole segment is uniform in dB, as in the mixtures of
    `encore.data.mixture_recipes`.

    Args:
        recordings: The recordings; several channels become mono.
        sample_rate: Rate in Hz to resample to.
        segment: Length in samples.
        classes: Names of the classes in the order of their numbers; empty for none.
        level_db: Range of the level of a segment, RMS in dB of full scale; None keeps the levels.
        seed: Seed of all draws.

    Raises:
        ValueError: If there are no recordings, a number is not positive, a range is reversed, or a
            recording's class is not in ``classes``.
    """

    recordings: Sequence[Recording]
    _: KW_ONLY
    sample_rate: int
    segment: int
    classes: Sequence[str] = ()
    level_db: tuple[float, float] | None = (-25.0, -20.0)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the recordings and the options."""
        check_positive(self, "sample_rate", "segment")
        check_ranges(self, "level_db")
        if not self.recordings:
            raise ValueError("recordings is empty: the corpus has no files for this split")
        self.numbers = {name: number for number, name in enumerate(self.classes)}
        unknown = {recording.label for recording in self.recordings if recording.label not in self.numbers}
        if self.classes and unknown:
            raise ValueError(
                f"classes: {sorted(map(str, unknown))} occur in the corpus, but are not named: add them, or "
                "read the named classes only"
            )
        self._reader = Reader(self.sample_rate, 1)

    def __len__(self) -> int:
        return len(self.recordings)

    def sample(self, index: int, draw: int, generator: np.random.Generator) -> SourceSample:
        """Draw a segment of a recording; see `DrawnDataset`."""
        recording = self.recordings[index]
        whole = self._reader.read(recording.path, 0, self._reader.length(recording.path))
        source = active_segment(whole, self.segment, round(FRAME_SECONDS * self.sample_rate), generator)
        if self.level_db is not None:
            wanted, rms = generator.uniform(*self.level_db), float(source.double().square().mean()) ** 0.5
            source = source * (10 ** (wanted / 20) / rms if rms > SILENCE else 1.0)
        label = len(self.numbers) if recording.label is None else self.numbers.get(recording.label, 0)
        return SourceSample(source=source, label=label, name=recording.name)


def active_segment(whole: Tensor, segment: int, frame: int, generator: np.random.Generator) -> Tensor:
    """Draw a segment ``(1, segment)`` of a recording ``(1, time)``, see `SourceDataset`.

    Args:
        whole: The recording.
        segment: Length in samples.
        frame: Length of the frames in samples.
        generator: Source of all draws.
    """
    total = whole.shape[-1]
    if total <= segment:
        start = int(generator.integers(segment - total + 1))
        return torch.nn.functional.pad(whole, (start, segment - total - start))
    frames = whole[0, : total // frame * frame].double().reshape(-1, frame)
    activity = frames.square().mean(dim=1).numpy() ** 0.25
    even = np.full(len(activity), 1 / len(activity))
    chosen = int(generator.choice(len(activity), p=activity / activity.sum() if activity.any() else even))
    first = chosen * frame + frame // 2 - int(generator.integers(segment))
    start = min(max(first, 0), total - segment)
    return whole[:, start : start + segment]


@dataclass(kw_only=True, eq=False, repr=False)
class SourceData(CorpusModule):
    """Data module of isolated sources; validation has one segment of every recording, always the same one.

    Args:
        source: Name of the source.
        classes: Names of the classes in the order of their numbers; empty for one class only.
        level_db: Range of levels, see `SourceDataset`.
        **others: Of `CorpusModule`; corpora are recordings of `encore.data.source_corpora`.

    Raises:
        ValueError: If a number is not positive.
    """

    channels = 1

    segment_seconds: float = 4.0
    source: str = "source"
    classes: Sequence[str] = ()
    level_db: tuple[float, float] | None = (-25.0, -20.0)

    def dataset(self, corpus: Sequence[Recording], stage: str) -> SourceDataset:
        """Return random segments of the recordings."""
        chosen = evenly_spaced(len(corpus), None if stage == "fit" else self.limit_valid)
        return SourceDataset(
            [corpus[index] for index in chosen],
            sample_rate=self.sample_rate,
            segment=self.segment,
            classes=tuple(self.classes),
            level_db=self.level_db,
            seed=self.seed if stage == "fit" else EVALUATION_SEED,
        )

    @staticmethod
    def collate(samples: Sequence[SourceSample]) -> SourceBatch:
        """Stack samples, at least one."""
        return SourceBatch(
            source=torch.stack([sample["source"] for sample in samples]),
            labels=torch.tensor([sample["label"] for sample in samples]),
            names=[sample["name"] for sample in samples],
        )
