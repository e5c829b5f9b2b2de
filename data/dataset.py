"""Items and pools of files as samples: dicts of ``mixture`` (c, t), ``references`` (s, c, t) and ``name``.

Every random choice is a function of ``(seed, draw, index)``, independent of the number of workers and ranks.
A dataset is indexed by an index, or by a pair ``(index, draw)`` where ``draw`` counts the passes through the
corpus, as `encore.data.loaders.DrawSampler` does. `encore.data.reading` reads the files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from encore.data.activity import is_silent
from encore.data.corpora import Item, Pool, Reference, check_choice
from encore.data.reading import Reader, random_segment


class Sample(TypedDict):
    """A sample; ``references`` is absent for items without references."""

    mixture: Tensor
    references: NotRequired[Tensor]
    name: str


Index = int | tuple[int, int]

Crop = Literal["start", "active"]

TRIES = 10
"""Draws of a segment, the last of which is used even if it is silent; MSST's number."""


class SegmentDataset(Dataset[Sample]):
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

    def __init__(
        self,
        items: Sequence[Item],
        *,
        sources: Sequence[str],
        sample_rate: int,
        channels: int = 1,
        segment: int | None = None,
        max_frames: int | None = None,
        crop: Crop = "start",
        residual: str | None = None,
        rebuild_mixture: bool = False,
        seed: int = 0,
    ) -> None:
        check_positive(sample_rate=sample_rate, channels=channels, segment=segment, max_frames=max_frames)
        check_choice("crop", crop, ("start", "active"))
        if rebuild_mixture and residual is not None:
            raise ValueError(
                f"rebuild_mixture=True leaves nothing for residual={residual!r}: set only one of them"
            )
        self.items = [replace(item, mixture=None) for item in items] if rebuild_mixture else list(items)
        self.sources = tuple(sources)
        self.blind = _check_items(self.items, self.sources, residual)
        self.segment, self.max_frames, self.crop = segment, max_frames, crop
        self.residual, self.seed = residual, seed
        self._reader = Reader(sample_rate, channels)
        self._starts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Index) -> Sample:
        index, draw = index if isinstance(index, tuple) else (index, 0)
        item = self.items[index]
        start, count = self._extent(index, draw)
        mixture, references = self._read(item, start, count)
        missing = 0 if self.segment is None else self.segment - count
        sample = Sample(mixture=pad(mixture, (0, missing)), name=item.name)
        if not self.blind:
            sample["references"] = pad(torch.stack([references[name] for name in self.sources]), (0, missing))
        return sample

    def _extent(self, index: int, draw: int) -> tuple[int, int]:
        item = self.items[index]
        total = self._reader.item_length(item)
        if self.segment is not None:
            return random_segment(total, self.segment, np.random.default_rng([self.seed, draw, index]))
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


class MixingDataset(Dataset[Sample]):
    """Base of datasets that draw mixtures: the sum of one random segment per source.

    A sample depends on its draw alone, so index ``i`` of draw 0 is always the same mixture: a validation set
    that needs no files of its own.

    Args:
        sources: Names of the references to return, in the order of the source axis.
        sample_rate: Rate in Hz to resample to.
        segment: Length in samples; shorter files are padded with zeros at the end.
        epoch_size: Samples per pass.
        channels: Channels to return.
        gain_db: Range of a random gain in dB of each source; None for none.
        skip_silent: Whether a segment below -60 dBFS is drawn again, up to `TRIES` times.
        seed: Seed of all draws.

    Raises:
        ValueError: If there are no sources, a number is not positive or the range reversed.
    """

    def __init__(
        self,
        *,
        sources: Sequence[str],
        sample_rate: int,
        segment: int,
        epoch_size: int,
        channels: int = 1,
        gain_db: tuple[float, float] | None = None,
        skip_silent: bool = False,
        seed: int = 0,
    ) -> None:
        check_positive(sample_rate=sample_rate, channels=channels, segment=segment, epoch_size=epoch_size)
        check_ranges(gain_db=gain_db)
        _check_sources(sources)
        self.sources = tuple(sources)
        self.segment, self.epoch_size, self.seed = segment, epoch_size, seed
        self.gain_db, self.skip_silent = gain_db, skip_silent
        self.tries = TRIES if skip_silent else 1
        self.reader = Reader(sample_rate, channels)

    def __len__(self) -> int:
        return self.epoch_size

    def __getitem__(self, index: Index) -> Sample:
        index, draw = index if isinstance(index, tuple) else (index, 0)
        if not 0 <= index < self.epoch_size:
            raise IndexError(f"index {index} is outside 0 to {self.epoch_size - 1}")
        generator = np.random.default_rng([self.seed, draw, index])
        waveforms = self.draw_sources(generator)
        if self.gain_db is not None:
            waveforms = {
                source: waveform * 10 ** (generator.uniform(*self.gain_db) / 20)
                for source, waveform in waveforms.items()
            }
        return Sample(
            mixture=torch.stack(list(waveforms.values())).sum(0),
            references=torch.stack([waveforms[source] for source in self.sources]),
            name=f"{draw}_{index}",
        )

    @abstractmethod
    def draw_sources(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """Draw the sources of a mixture, ``(channel, segment)`` each."""

    def draw_segment(self, recordings: Sequence[Reference], generator: np.random.Generator) -> Tensor:
        """Draw a segment ``(channel, segment)`` of a random recording."""
        for _ in range(self.tries):
            reference = recordings[int(generator.integers(len(recordings)))]
            waveform = self.reader.draw(reference, self.segment, generator)
            if not is_silent(waveform):
                break
        return waveform


class PoolDataset(MixingDataset):
    """Random mixtures of one independently drawn file and segment of every pool.

    From a pool that is sorted by speaker, a speaker is drawn first, uniformly from those who are not yet in
    the mixture.

    Args:
        pools: Source name to its files, or to those of each speaker. The first source keeps its level.
        snr_db: Range in dB of a random ratio of the first source's energy to that of each other source,
            within the segment. A silent segment is unchanged. None keeps all levels.
        **options: As of `MixingDataset`; ``sources`` may be some of the pools, ``gain_db`` needs
            ``snr_db=None``.

    Raises:
        ValueError: As `MixingDataset`, and if a pool is empty or has too few speakers, a source has no pool,
            or both ranges are given.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        *,
        snr_db: tuple[float, float] | None = (-5.0, 15.0),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _check_pools(pools)
        if absent := [source for source in self.sources if source not in pools]:
            raise ValueError(f"sources: {absent} have no pool; the pools are {list(pools)}")
        check_ranges(snr_db=snr_db)
        if snr_db is not None and self.gain_db is not None:
            raise ValueError(
                f"gain_db={tuple(self.gain_db)} and snr_db={tuple(snr_db)} both set levels: set snr_db=null"
            )
        self.pools, self.snr_db = dict(pools), snr_db

    def draw_sources(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """See `MixingDataset`."""
        used: set[str] = set()
        waveforms = {
            source: self.draw_segment(_choose_files(pool, used, generator), generator)
            for source, pool in self.pools.items()
        }
        if self.snr_db is not None:
            first, *others = waveforms
            for source in others:
                snr = generator.uniform(*self.snr_db)
                gain = _gain_for_snr(waveforms[first], waveforms[source], snr)
                waveforms[source] = waveforms[source] * gain
        return waveforms


def pool_size(pool: Pool) -> int:
    """Return the number of files of a pool."""
    return sum(map(len, pool.values())) if isinstance(pool, Mapping) else len(pool)


def _choose_files(pool: Pool, used: set[str], generator: np.random.Generator) -> Sequence[Path]:
    """Return all files of a pool, or those of a random speaker not in ``used``, who is added to it."""
    if not isinstance(pool, Mapping):
        return pool
    others = [speaker for speaker in pool if speaker not in used]
    speaker = others[int(generator.integers(len(others)))]
    used.add(speaker)
    return pool[speaker]


def _gain_for_snr(signal: Tensor, other: Tensor, snr_db: float) -> float:
    energy, noise = float(signal.double().square().sum()), float(other.double().square().sum())
    if energy == 0 or noise == 0:
        return 1.0
    return float((energy / noise) ** 0.5 * 10 ** (-snr_db / 20))


def _check_items(items: Sequence[Item], sources: Sequence[str], residual: str | None) -> bool:
    """Return whether the items have no references; raise where they do not match ``sources``."""
    if not items:
        raise ValueError("items is empty: the corpus has no files for this split")
    _check_sources(sources)
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


def _check_sources(sources: Sequence[str]) -> None:
    if not sources:
        raise ValueError("sources is empty: name at least one source, such as ['speech']")


def _check_pools(pools: Mapping[str, Pool]) -> None:
    empty = [
        source
        for source, pool in pools.items()
        if not pool or (isinstance(pool, Mapping) and not all(pool.values()))
    ]
    if empty or not pools:
        raise ValueError(f"pools has no files for {empty}: give files per source")
    by_speaker = {source: pool for source, pool in pools.items() if isinstance(pool, Mapping)}
    for source, pool in by_speaker.items():
        if len(pool) < len(by_speaker):
            raise ValueError(
                f"pools: {source!r} has {len(pool)} speakers, but a mixture needs {len(by_speaker)} of them: "
                "give more speakers, or fewer sources"
            )


def check_positive(**values: int | None) -> None:
    """Raise a ``ValueError`` for numbers below 1."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} is not positive: give at least 1")


def check_ranges(**ranges: tuple[float, float] | None) -> None:
    """Raise a ``ValueError`` for ranges whose highest number comes first."""
    for name, bounds in ranges.items():
        if bounds is not None and bounds[0] > bounds[1]:
            raise ValueError(f"{name}={tuple(bounds)} is reversed: give (lowest, highest)")
