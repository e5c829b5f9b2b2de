"""Read segments of recordings and items at one sampling rate and number of channels.

Several channels become mono as their mean, a mono file becomes several equal channels; other changes of the
channels are errors. Levels are not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from encore.common.dsp import resampled_length
from encore.data.activity import active_start
from encore.data.audio import AudioFileError, AudioInfo, audio_info, read_audio
from encore.data.corpora import Item, Reference, parts_of


class Reader:
    """Reads segments and caches headers.

    Args:
        sample_rate: Rate in Hz to resample to; all frames below are counted at it.
        channels: Channels to return.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self._infos: dict[Path, AudioInfo] = {}

    def read(self, reference: Reference, start: int, frames: int) -> Tensor:
        """Read a segment ``(channel, time)`` of one recording, or of the sum of several.

        Args:
            reference: The recording, or several: the shorter ones end in silence, and none is silence.
            start: First frame.
            frames: Number of frames.

        Raises:
            AudioFileError: If a file cannot be used, or its channels cannot be converted.
            ValueError: If the segment reaches outside a single recording.
        """
        if isinstance(reference, Path):
            return self._read_file(reference, start, frames)
        total = torch.zeros(self.channels, frames)
        for file in reference:
            count = min(frames, self._frames(file) - start)
            if count > 0:
                total[:, :count] += self._read_file(file, start, count)
        return total

    def length(self, reference: Reference) -> int:
        """Return the frames of a recording, or of the longest of several; 0 of none."""
        return max(map(self._frames, parts_of(reference)), default=0)

    def item_length(self, item: Item) -> int:
        """Return the frames of an item.

        Raises:
            AudioFileError: If a file cannot be used, or the files of the item do not match.
            ValueError: If the item names no file.
        """
        frames, rate = self._extent(item)
        return resampled_length(frames, rate, self.sample_rate)

    def item_start(self, item: Item) -> int:
        """Return the first frame at which all sources of an item and its mixture are active.

        Found by `encore.data.activity.active_start` at the files' own rate, so that it depends on the item
        alone. The whole item is read, one source after the other.
        """
        frames, rate = self._extent(item)
        own = Reader(rate, self.channels)

        def signals() -> Iterator[Tensor]:
            mixture = torch.zeros(self.channels, frames)
            for reference in item.references.values():
                signal = own.read(reference, 0, frames)
                yield signal
                if item.mixture is None:
                    mixture += signal
            yield mixture if item.mixture is None else own.read(item.mixture, 0, frames)

        return active_start(signals()) * self.sample_rate // rate

    def draw(self, reference: Reference, segment: int, generator: np.random.Generator) -> Tensor:
        """Read a random segment ``(channel, segment)``, with zeros behind a shorter recording."""
        start, count = random_segment(self.length(reference), segment, generator)
        return pad(self.read(reference, start, count), (0, segment - count))

    def _read_file(self, file: Path, start: int, frames: int) -> Tensor:
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

    def _info(self, file: Path) -> AudioInfo:
        if file not in self._infos:
            self._infos[file] = audio_info(file)
        return self._infos[file]

    def _frames(self, file: Path) -> int:
        info = self._info(file)
        return resampled_length(info.frames, info.sample_rate, self.sample_rate)

    def _extent(self, item: Item) -> tuple[int, int]:
        """Return frames and rate in Hz of an item, which is as long as the longest of its files."""
        infos = {file: self._info(file) for file in item.files}
        if not infos:
            raise ValueError(f"items: {item.name!r} names no file: leave it out, or complete its references")
        plain = {file for file in (item.mixture, *item.references.values()) if isinstance(file, Path)}
        longest = max(infos, key=lambda file: infos[file].frames)
        first = next((file for file in infos if file in plain), longest)
        frames, rate = infos[first].frames, infos[first].sample_rate
        for file, info in infos.items():
            fits = info.frames == frames if file in plain else info.frames <= frames
            if not fits or info.sample_rate != rate:
                raise AudioFileError(
                    f"{file}: {info.frames} frames at {info.sample_rate} Hz, but {first} has "
                    f"{frames} at {rate} Hz: the files of an item must match"
                )
        return frames, rate


def random_segment(total: int, segment: int, generator: np.random.Generator) -> tuple[int, int]:
    """Draw start and length of a segment of a recording of ``total`` frames; all of it if it is shorter."""
    count = min(total, segment)
    return int(generator.integers(total - count + 1)), count
