"""Music mixed on the fly: every source from a song of its own, or all from one song at one time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from encore.data.activity import is_silent
from encore.data.corpora import Item, parts_of
from encore.data.dataset import MixingDataset
from encore.data.reading import random_segment


class SongDataset(MixingDataset):
    """Random mixtures of the sources of songs.

    With probability ``same_song`` all sources of a mixture are from one song at one time; otherwise song and
    segment of every source are drawn independently.

    Args:
        items: The songs, all with the same references; their own mixtures are not read.
        same_song: Probability in [0, 1] that all sources come from one song at one time.
        skip_silent: Whether silent segments are drawn again; of one song, all sources if one that it has is
            silent. Songs without a source (``()``) are left out of its draws.
        **options: As of `MixingDataset`; ``sources`` may be some of the references.

    Raises:
        ValueError: As `MixingDataset`, and if there are no items, references differ among them or lack a
            source, or a source is recorded in no song.

    Source: types 1 and 4 of data sets, ``same_song`` 0 and 1, in Music-Source-Separation-Training.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        same_song: float = 0.0,
        skip_silent: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(skip_silent=skip_silent, **options)
        if not 0 <= same_song <= 1:
            raise ValueError(f"same_song={same_song}: give a probability from 0 to 1")
        self.items = [replace(item, mixture=None) for item in items]
        self.stems = _common_stems(self.items, self.sources)
        self.same_song = same_song
        references = {stem: [item.references[stem] for item in self.items] for stem in self.stems}
        self._recordings = {
            stem: [reference for reference in own if not skip_silent or parts_of(reference)]
            for stem, own in references.items()
        }

    def draw_sources(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """See `MixingDataset`."""
        if generator.random() < self.same_song:
            return self._draw_together(generator)
        return {stem: self.draw_segment(self._recordings[stem], generator) for stem in self.stems}

    def _draw_together(self, generator: np.random.Generator) -> dict[str, Tensor]:
        for _ in range(self.tries):
            song = self.items[int(generator.integers(len(self.items)))]
            start, count = random_segment(self.reader.item_length(song), self.segment, generator)
            waveforms = {
                stem: pad(self.reader.read(song.references[stem], start, count), (0, self.segment - count))
                for stem in self.stems
            }
            recorded = [stem for stem in self.stems if parts_of(song.references[stem])]
            if not any(is_silent(waveforms[stem]) for stem in recorded):
                break
        return waveforms


def _common_stems(items: Sequence[Item], sources: Sequence[str]) -> tuple[str, ...]:
    """Return the references that all items have; raise where they differ or do not match ``sources``."""
    if not items:
        raise ValueError("items is empty: the corpus has no songs for this split")
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
