"""Music mixed on the fly: every source from a song of its own, or all from one song at one time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from encore.data.activity import is_silent
from encore.data.corpora import Item, parts_of
from encore.data.dataset import TRIES, Index, Sample, check_positive, check_ranges, random_levels
from encore.data.reading import Reader, random_place


class SongDataset(Dataset[Sample]):
    """Random mixtures of the sources of songs, as `encore.data.dataset.PoolDataset` makes them of pools.

    A share ``same_song`` of the mixtures has all sources from one song at one time, as they were played;
    in the others the song and the place of every source are drawn on their own. A sample is made of its draw
    alone, so index ``i`` of draw 0 is always the same mixture.

    Args:
        items: The songs, all with the same references; their own mixtures are not read.
        sources: Names of the references to return, in the order of the source axis; all references are in
            the mixture.
        sample_rate: Rate in Hz to resample to.
        channels: Channels to return.
        segment: Length in samples; shorter songs are padded with zeros at the end.
        epoch_size: Samples per pass.
        same_song: Probability in [0, 1] that all sources come from one song at one time.
        gain_db: Range of a gain in dB of each source, drawn uniformly; None keeps the levels.
        skip_silent: Whether a segment below -60 dBFS is drawn anew, and with it, of one song, all others;
            the tenth is taken as it is. Songs that lack a source (``()``) are then left out of its draws;
            of one song at one time only the sources count that it has.
        seed: Seed of all draws.

    Raises:
        ValueError: If there are no items, references differ among them or lack a source, a source is
            recorded in no song, a number is out of range or a range reversed.

    Source: types 1 and 4 of data sets, ``same_song`` 0 and 1, in Music-Source-Separation-Training.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        sources: Sequence[str],
        sample_rate: int,
        segment: int,
        epoch_size: int,
        channels: int = 1,
        same_song: float = 0.0,
        gain_db: tuple[float, float] | None = None,
        skip_silent: bool = True,
        seed: int = 0,
    ) -> None:
        check_positive(sample_rate=sample_rate, channels=channels, segment=segment, epoch_size=epoch_size)
        check_ranges(gain_db=gain_db)
        if not 0 <= same_song <= 1:
            raise ValueError(f"same_song={same_song} is no probability: give a number from 0 to 1")
        self.items = [replace(item, mixture=None) for item in items]
        self.stems = _common_stems(self.items, sources)
        self.sources = tuple(sources)
        self.segment = segment
        self.epoch_size = epoch_size
        self.same_song = same_song
        self.gain_db = gain_db
        self.skip_silent = skip_silent
        self.seed = seed
        self._reader = Reader(sample_rate, channels)
        self._songs = {
            stem: [item for item in self.items if not skip_silent or parts_of(item.references[stem])]
            for stem in self.stems
        }

    def __len__(self) -> int:
        return self.epoch_size

    def __getitem__(self, index: Index) -> Sample:
        index, draw = index if isinstance(index, tuple) else (index, 0)
        if not 0 <= index < self.epoch_size:
            raise IndexError(f"index {index} is outside 0 to {self.epoch_size - 1}")
        generator = np.random.default_rng([self.seed, draw, index])
        if generator.random() < self.same_song:
            waveforms = self._draw_together(generator)
        else:
            waveforms = {stem: self._draw_alone(stem, generator) for stem in self.stems}
        waveforms = random_levels(waveforms, self.gain_db, generator)
        return Sample(
            mixture=torch.stack(list(waveforms.values())).sum(0),
            references=torch.stack([waveforms[source] for source in self.sources]),
            name=f"{draw}_{index}",
        )

    def _draw_alone(self, stem: str, generator: np.random.Generator) -> Tensor:
        songs = self._songs[stem]
        for _ in range(self._tries):
            reference = songs[int(generator.integers(len(songs)))].references[stem]
            waveform = self._reader.draw(reference, self.segment, generator)
            if not is_silent(waveform):
                break
        return waveform

    def _draw_together(self, generator: np.random.Generator) -> dict[str, Tensor]:
        for _ in range(self._tries):
            song = self.items[int(generator.integers(len(self.items)))]
            start, count = random_place(self._reader.item_length(song), self.segment, generator)
            waveforms = {
                stem: pad(self._reader.read(song.references[stem], start, count), (0, self.segment - count))
                for stem in self.stems
            }
            recorded = [stem for stem in self.stems if parts_of(song.references[stem])]
            if not any(is_silent(waveforms[stem]) for stem in recorded):
                break
        return waveforms

    @property
    def _tries(self) -> int:
        return TRIES if self.skip_silent else 1


def _common_stems(items: Sequence[Item], sources: Sequence[str]) -> tuple[str, ...]:
    """The references that all items have; raises where they differ or do not fit ``sources``."""
    if not items:
        raise ValueError("items is empty: the corpus has no songs for this split")
    if not sources:
        raise ValueError("sources is empty: name at least one source, such as ['vocals']")
    stems = tuple(items[0].references)
    for item in items:
        if set(item.references) != set(stems):
            raise ValueError(
                f"items: {item.name!r} has references {sorted(item.references)}, {items[0].name!r} has "
                f"{sorted(stems)}: songs that are mixed need the same ones; give an empty tuple for silence"
            )
    if absent := [source for source in sources if source not in stems]:
        raise ValueError(f"sources: {absent} are in no song; the references are {list(stems)}: change them")
    if silent := [stem for stem in stems if not any(parts_of(item.references[stem]) for item in items)]:
        raise ValueError(f"items: no song has a recording of {silent}: leave them out of the references")
    return stems
