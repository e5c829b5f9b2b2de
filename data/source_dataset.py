"""Isolated sources for diffusion priors, as dicts of ``source`` (1, time), ``label`` and ``name``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
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

    def __init__(
        self,
        recordings: Sequence[Recording],
        *,
        sample_rate: int,
        segment: int,
        classes: Sequence[str] = (),
        level_db: tuple[float, float] | None = (-25.0, -20.0),
        seed: int = 0,
    ) -> None:
        check_positive(sample_rate=sample_rate, segment=segment)
        check_ranges(level_db=level_db)
        if not recordings:
            raise ValueError("recordings is empty: the corpus has no files for this split")
        self.numbers = {name: number for number, name in enumerate(classes)}
        unknown = {recording.label for recording in recordings if recording.label not in self.numbers}
        if classes and unknown:
            raise ValueError(
                f"classes: {sorted(map(str, unknown))} occur in the corpus, but are not named: add them, or "
                "read the named classes only"
            )
        self.recordings = list(recordings)
        self.sample_rate, self.segment, self.level_db = sample_rate, segment, level_db
        self._reader = Reader(sample_rate, 1)
        super().__init__(len(self.recordings), seed)

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


class SourceData(CorpusModule):
    """Data module of a corpus of isolated sources.

    Args:
        train: See `CorpusModule`, as for ``valid``, ``batch_size``, ``num_workers``, ``epoch_size`` and
            ``root``. Corpora are recordings of `encore.data.source_corpora`.
        valid: For validation: one segment of every recording, the same in every epoch.
        source: Name of the source.
        sample_rate: Rate in Hz to resample to.
        segment_seconds: Length of all segments.
        batch_size: Of training.
        classes: Names of the classes in the order of their numbers; empty for one class only.
        level_db: Range of levels, see `SourceDataset`.
        epoch_size: Training draws per epoch.
        limit_valid: At most this many validation recordings, evenly spaced; all if None.
        num_workers: Worker processes.
        seed: Seed of order, segments and levels.
        root: The corpus folder.

    Raises:
        ValueError: If a number is not positive.
    """

    channels = 1

    def __init__(
        self,
        *,
        train: Callable[[], Sequence[Recording]],
        valid: Callable[[], Sequence[Recording]] | None = None,
        source: str = "source",
        sample_rate: int = 16000,
        segment_seconds: float = 4.0,
        batch_size: int = 8,
        classes: Sequence[str] = (),
        level_db: Sequence[float] | None = (-25.0, -20.0),
        epoch_size: int | None = None,
        limit_valid: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        root: str | Path | None = None,
    ) -> None:
        super().__init__(
            train,
            valid,
            None,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            epoch_size=epoch_size,
            root=root,
        )
        check_positive(segment_seconds=segment_seconds, limit_valid=limit_valid)
        self.source, self.sample_rate = source, sample_rate
        self.segment = max(1, round(segment_seconds * sample_rate))
        self.classes, self.limit_valid = tuple(classes), limit_valid
        self.level_db = None if level_db is None else (float(level_db[0]), float(level_db[1]))

    def dataset(self, corpus: Sequence[Recording], stage: str) -> SourceDataset:
        """Return random segments of the recordings."""
        chosen = evenly_spaced(len(corpus), None if stage == "fit" else self.limit_valid)
        return SourceDataset(
            [corpus[index] for index in chosen],
            sample_rate=self.sample_rate,
            segment=self.segment,
            classes=self.classes,
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
