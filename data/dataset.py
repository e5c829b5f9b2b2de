"""Items and pools of files as samples: dicts of ``mixture`` (c, t), ``references`` (s, c, t) and ``name``.

Every random choice is a function of ``(seed, draw, index)``: workers, ranks and the number of either do not
change it. A dataset is therefore asked for an index, or for a pair ``(index, draw)`` where ``draw`` counts
the passes through the corpus, as :class:`data.datamodule.DrawSampler` does.

Channels: a file of several channels becomes mono as their mean, a mono file becomes several equal channels,
and no other change is made. Levels are never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from data.audio import AudioFileError, AudioInfo, audio_info, read_audio, resampled_length
from data.corpora import Item, Pool


class Sample(TypedDict):
    """What the datasets return; ``references`` is absent for items without references."""

    mixture: Tensor
    references: NotRequired[Tensor]
    name: str


Index = int | tuple[int, int]


class SegmentDataset(Dataset[Sample]):
    """Random segments (training) or whole recordings (validation) of a list of items.

    Args:
        items: What to read. Either all have references or none has.
        sources: Names of the references to return, in the order of the source axis.
        sample_rate: Rate in Hz to resample to.
        channels: Channels to return.
        segment: Length of the random segments in samples; whole recordings if None. Shorter items are
            padded with zeros at the end, in training only.
        max_frames: With ``segment=None``: longest length in samples, cut from the start; None for no limit.
        residual: A source that is the mixture less the items' other references, for corpora that do not
            store it, such as ``"noise"`` in VoiceBank-DEMAND.
        seed: Seed of the segments' places.

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
        residual: str | None = None,
        seed: int = 0,
    ) -> None:
        _check_positive(sample_rate=sample_rate, channels=channels, segment=segment, max_frames=max_frames)
        self.items = list(items)
        self.sources = tuple(sources)
        self.blind = _check_items(self.items, self.sources, residual)
        self.sample_rate = sample_rate
        self.channels = channels
        self.segment = segment
        self.max_frames = max_frames
        self.residual = residual
        self.seed = seed
        self._reader = _Reader(sample_rate, channels)
        self._lengths: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Index) -> Sample:
        index, draw = index if isinstance(index, tuple) else (index, 0)
        item = self.items[index]
        total = self._length(index)
        start, count = self._place(total, index, draw)
        mixture, references = self._read(item, start, count)
        missing = 0 if self.segment is None else self.segment - count
        sample = Sample(mixture=pad(mixture, (0, missing)), name=item.name)
        if not self.blind:
            sample["references"] = pad(torch.stack([references[name] for name in self.sources]), (0, missing))
        return sample

    def _place(self, total: int, index: int, draw: int) -> tuple[int, int]:
        if self.segment is None:
            return 0, total if self.max_frames is None else min(total, self.max_frames)
        count = min(self.segment, total)
        start = np.random.default_rng([self.seed, draw, index]).integers(total - count + 1)
        return int(start), count

    def _read(self, item: Item, start: int, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        # a mixture that is a sum, and a residual, need every reference; else only the asked ones are read
        needs_all = item.mixture is None or self.residual in self.sources
        references = {
            name: self._reader.read(file, start, count)
            for name, file in item.references.items()
            if needs_all or name in self.sources
        }
        if item.mixture is None:
            mixture = torch.stack(list(references.values())).sum(0)
        else:
            mixture = self._reader.read(item.mixture, start, count)
        if self.residual is not None and self.residual not in references and references:
            references[self.residual] = mixture - torch.stack(list(references.values())).sum(0)
        return mixture, references

    def _length(self, index: int) -> int:
        if index not in self._lengths:
            item = self.items[index]
            files = [*([item.mixture] if item.mixture is not None else []), *item.references.values()]
            infos = [self._reader.info(file) for file in files]
            for file, info in zip(files, infos, strict=True):
                if (info.frames, info.sample_rate) != (infos[0].frames, infos[0].sample_rate):
                    raise AudioFileError(
                        f"{file}: {info.frames} frames at {info.sample_rate} Hz, but {files[0]} has "
                        f"{infos[0].frames} at {infos[0].sample_rate} Hz: the files of an item must match"
                    )
            self._lengths[index] = resampled_length(infos[0].frames, infos[0].sample_rate, self.sample_rate)
        return self._lengths[index]


class PoolDataset(Dataset[Sample]):
    """Mixtures made on the fly: an independent random file and segment of every pool, summed.

    From a pool that is sorted by speaker, a speaker is drawn first, each as likely as any other, and never
    one whom another source of the mixture has: two voices to tell apart, not one voice twice.

    A sample is made of its draw alone, so index ``i`` of draw 0 is always the same mixture: a validation
    set that needs no files of its own.

    Args:
        pools: Source name to its files, or to those of each speaker. The first named source keeps its level.
        sources: Names of the references to return, in the order of the source axis; all pools are in the
            mixture.
        sample_rate: Rate in Hz to resample to.
        channels: Channels to return.
        segment: Length in samples; shorter files are padded with zeros at the end.
        epoch_size: Samples per pass.
        snr_db: Range of the ratio in dB, drawn uniformly, of the first source's energy to that of each
            other source, within the segment. A silent segment is left as it is.
        seed: Seed of all draws.

    Raises:
        ValueError: If a pool is empty or has too few speakers, a source has no pool, or a number is not
            positive or a range reversed.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        *,
        sources: Sequence[str],
        sample_rate: int,
        segment: int,
        epoch_size: int,
        channels: int = 1,
        snr_db: tuple[float, float] = (-5.0, 15.0),
        seed: int = 0,
    ) -> None:
        _check_positive(sample_rate=sample_rate, channels=channels, segment=segment, epoch_size=epoch_size)
        _check_pools(pools)
        if not sources:
            raise ValueError("sources is empty: name at least one source, such as ['speech']")
        if absent := [source for source in sources if source not in pools]:
            raise ValueError(f"sources: {absent} have no pool; the pools are {list(pools)}")
        if snr_db[0] > snr_db[1]:
            raise ValueError(f"snr_db={tuple(snr_db)} is reversed: give (lowest, highest)")
        self.pools = dict(pools)
        self.sources = tuple(sources)
        self.segment = segment
        self.epoch_size = epoch_size
        self.snr_db = (float(snr_db[0]), float(snr_db[1]))
        self.seed = seed
        self.sample_rate = sample_rate
        self._reader = _Reader(sample_rate, channels)

    def __len__(self) -> int:
        return self.epoch_size

    def __getitem__(self, index: Index) -> Sample:
        index, draw = index if isinstance(index, tuple) else (index, 0)
        if not 0 <= index < self.epoch_size:
            raise IndexError(f"index {index} is outside 0 to {self.epoch_size - 1}")
        generator = np.random.default_rng([self.seed, draw, index])
        heard: set[str] = set()
        waveforms = {
            source: self._draw(_choose_files(pool, heard, generator), generator)
            for source, pool in self.pools.items()
        }
        first, *others = waveforms
        for source in others:
            snr = generator.uniform(*self.snr_db)
            waveforms[source] = waveforms[source] * _gain_for_snr(waveforms[first], waveforms[source], snr)
        return Sample(
            mixture=torch.stack(list(waveforms.values())).sum(0),
            references=torch.stack([waveforms[source] for source in self.sources]),
            name=f"{draw}_{index}",
        )

    def _draw(self, files: Sequence[Path], generator: np.random.Generator) -> Tensor:
        file = files[int(generator.integers(len(files)))]
        info = self._reader.info(file)
        total = resampled_length(info.frames, info.sample_rate, self.sample_rate)
        count = min(total, self.segment)
        start = int(generator.integers(total - count + 1))
        return pad(self._reader.read(file, start, count), (0, self.segment - count))


class _Reader:
    """Reads segments with the wanted rate and channels, and remembers headers: an epoch opens a file once."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self._infos: dict[Path, AudioInfo] = {}

    def info(self, file: Path) -> AudioInfo:
        if file not in self._infos:
            self._infos[file] = audio_info(file)
        return self._infos[file]

    def read(self, file: Path, start: int, frames: int) -> Tensor:
        waveform, _ = read_audio(file, sample_rate=self.sample_rate, start=start, frames=frames)
        found = len(waveform)
        if found == self.channels:
            return waveform
        if self.channels == 1:
            return waveform.mean(0, keepdim=True)
        if found == 1:
            return waveform.expand(self.channels, -1)
        raise AudioFileError(
            f"{file}: {found} channels cannot become {self.channels}: set channels={found} or 1"
        )


def pool_size(pool: Pool) -> int:
    """Number of files of a pool."""
    return sum(map(len, pool.values())) if isinstance(pool, Mapping) else len(pool)


def _choose_files(pool: Pool, heard: set[str], generator: np.random.Generator) -> Sequence[Path]:
    """All files of a pool, or those of a speaker drawn from the ones not ``heard``, who is added to them."""
    if not isinstance(pool, Mapping):
        return pool
    others = [speaker for speaker in pool if speaker not in heard]
    speaker = others[int(generator.integers(len(others)))]
    heard.add(speaker)
    return pool[speaker]


def _gain_for_snr(signal: Tensor, other: Tensor, snr_db: float) -> float:
    energy, noise = float(signal.double().square().sum()), float(other.double().square().sum())
    if energy == 0 or noise == 0:
        return 1.0
    return float((energy / noise) ** 0.5 * 10 ** (-snr_db / 20))


def _check_items(items: Sequence[Item], sources: Sequence[str], residual: str | None) -> bool:
    """Whether the items have no references; raises where they do not fit ``sources``."""
    if not items:
        raise ValueError("items is empty: the corpus has no files for this split")
    if not sources:
        raise ValueError("sources is empty: name at least one source, such as ['speech']")
    blind = not items[0].references
    for item in items:
        if (not item.references) != blind:
            raise ValueError(
                f"items: {item.name!r} differs from {items[0].name!r} in having references: split them"
            )
        if item.mixture is None and (blind or residual):
            raise ValueError(
                f"items: {item.name!r} has no mixture, which blind items and residual={residual!r} need"
            )
        absent = [source for source in sources if source not in item.references and source != residual]
        if absent and not blind:
            raise ValueError(
                f"sources: {item.name!r} has no reference {absent[0]!r}; it has {sorted(item.references)}: "
                f"change sources, or set residual={absent[0]!r} to take it as the rest of the mixture"
            )
    return blind


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


def _check_positive(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} is not positive: give at least 1")
