"""Mixtures made on the fly, of files of each source, of utterances by speaker, or of the stems of songs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from encore.data.activity import is_silent
from encore.data.corpora import Item, Pool, Reference, parts_of
from encore.data.dataset import DrawnDataset, Sample, check_positive, check_ranges, check_sources
from encore.data.reading import Reader, random_segment

TRIES = 10
"""Draws of a segment, the last of which is used even if it is silent; MSST's number."""


@dataclass(eq=False, repr=False)
class MixingDataset(DrawnDataset):
    """Random mixtures: the sum of one random segment per source.

    From a pool that is sorted by speaker, a speaker is drawn first, uniformly from those who are not yet in
    the mixture. A sample depends on its draw alone, so index ``i`` of draw 0 is always the same mixture: a
    validation set that needs no files of its own.

    Args:
        corpus: Source name to its files, or to those of each speaker. Or songs, all with the same references;
            their own mixtures are not read.
        sources: Names of the references to return, in the order of the source axis; all are mixed.
        sample_rate: Rate in Hz to resample to.
        segment: Length in samples; shorter files are padded with zeros at the end.
        epoch_size: Samples per pass; if None, the number of songs, or of files of the first source.
        channels: Channels to return.
        snr_db: Range in dB of a random ratio of the first source's energy to that of each other source,
            within the segment. A silent segment is unchanged. None keeps all levels.
        gain_db: Range in dB of a random gain of each source; needs ``snr_db=None``. None for none.
        same_song: Probability in [0, 1] that all sources come from one song at one time, and not song and
            segment of each of them from independent draws.
        skip_silent: Whether a segment below -60 dBFS is drawn again, up to `TRIES` times: of one song, all
            sources if one that it has is silent. Songs without a source (``()``) are left out of its draws.
        seed: Seed of all draws.

    Raises:
        ValueError: If there are no files or songs, a number is not positive, a range reversed or both given,
            a source not in the corpus, references differ among songs, or speakers are too few.

    Source: types 1 and 4 of data sets, ``same_song`` 0 and 1, in Music-Source-Separation-Training.
    """

    corpus: Sequence[Item] | Mapping[str, Pool]
    _: KW_ONLY
    sources: Sequence[str]
    sample_rate: int
    segment: int
    epoch_size: int | None = None
    channels: int = 1
    snr_db: tuple[float, float] | None = None
    gain_db: tuple[float, float] | None = None
    same_song: float = 0.0
    skip_silent: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the corpus and the options."""
        check_positive(self, "sample_rate", "channels", "segment", "epoch_size")
        check_ranges(self, "gain_db", "snr_db")
        check_sources(self.sources)
        if self.snr_db is not None and self.gain_db is not None:
            raise ValueError(
                f"gain_db={self.gain_db} and snr_db={self.snr_db} both set levels: set snr_db=null"
            )
        if not 0 <= self.same_song <= 1:
            raise ValueError(f"same_song={self.same_song}: give a probability from 0 to 1")
        self.songs: list[Item] = []
        if isinstance(self.corpus, Mapping):
            self.pools = dict(self.corpus)
        else:
            self.songs = [replace(item, mixture=None) for item in self.corpus]
            self.pools = _pools_of(self.songs, self.skip_silent)
        _check_pools(self.pools)
        if absent := [source for source in self.sources if source not in self.pools]:
            raise ValueError(
                f"sources: {absent} are not in the corpus, which has {list(self.pools)}: change them"
            )
        self.tries = TRIES if self.skip_silent else 1
        self._reader = Reader(self.sample_rate, self.channels)

    def __len__(self) -> int:
        return self.epoch_size or len(self.songs) or _size(next(iter(self.pools.values())))

    def sample(self, index: int, draw: int, generator: np.random.Generator) -> Sample:
        """Draw a mixture; see `DrawnDataset`."""
        if self.songs and generator.random() < self.same_song:
            waveforms = self._draw_song(generator)
        else:
            used: set[str] = set()
            waveforms = {
                source: self._draw_segment(_choose_files(pool, used, generator), generator)
                for source, pool in self.pools.items()
            }
        first = next(iter(waveforms))
        for source, waveform in waveforms.items():
            if self.gain_db is not None:
                waveforms[source] = waveform * 10 ** (generator.uniform(*self.gain_db) / 20)
            elif self.snr_db is not None and source != first:
                gain = _gain_for_snr(waveforms[first], waveform, generator.uniform(*self.snr_db))
                waveforms[source] = waveform * gain
        return Sample(
            mixture=torch.stack(list(waveforms.values())).sum(0),
            references=torch.stack([waveforms[source] for source in self.sources]),
            name=f"{draw}_{index}",
        )

    def _draw_segment(self, recordings: Sequence[Reference], generator: np.random.Generator) -> Tensor:
        """Draw a segment ``(channel, segment)`` of a random recording."""
        for _ in range(self.tries):
            reference = recordings[int(generator.integers(len(recordings)))]
            waveform = self._reader.draw(reference, self.segment, generator)
            if not is_silent(waveform):
                break
        return waveform

    def _draw_song(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """Draw a segment of all sources of one song."""
        for _ in range(self.tries):
            song = self.songs[int(generator.integers(len(self.songs)))]
            start, count = random_segment(self._reader.item_length(song), self.segment, generator)
            read = {source: self._reader.read(song.references[source], start, count) for source in self.pools}
            waveforms = {source: pad(signal, (0, self.segment - count)) for source, signal in read.items()}
            recorded = [source for source in self.pools if parts_of(song.references[source])]
            if not any(is_silent(waveforms[source]) for source in recorded):
                break
        return waveforms


def _size(pool: Any) -> int:
    """Return the number of files of a pool."""
    return sum(map(len, pool.values())) if isinstance(pool, Mapping) else len(pool)


def _pools_of(songs: Sequence[Item], skip_silent: bool) -> dict[str, Any]:
    """Return the recordings of each reference that songs have in common."""
    if not songs:
        raise ValueError("items is empty: the corpus has no songs for this split")
    sources = tuple(songs[0].references)
    for song in songs:
        if set(song.references) != set(sources):
            raise ValueError(
                f"items: {song.name!r} has references {sorted(song.references)}, {songs[0].name!r} has "
                f"{sorted(sources)}: songs that are mixed need the same ones; give an empty tuple for silence"
            )
    if silent := [name for name in sources if not any(parts_of(song.references[name]) for song in songs)]:
        raise ValueError(f"items: no song has a recording of {silent}: leave them out of the references")
    references = {source: [song.references[source] for song in songs] for source in sources}
    return {
        source: [reference for reference in own if not skip_silent or parts_of(reference)]
        for source, own in references.items()
    }


def _choose_files(pool: Pool, used: set[str], generator: np.random.Generator) -> Sequence[Reference]:
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
