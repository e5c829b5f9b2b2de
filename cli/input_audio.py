"""Read an input of ``infer.py`` and its references, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from encore.common.dsp import resampled_length
from encore.data.audio import AudioInfo, read_audio

_SCANNED = 1 << 20  # samples, less than a minute
_FULL_SCALE = 0.9999  # the largest 16-bit sample is 0.99997
_CLIPPED_RUN = 3


class InputAudio:
    """One file at the separator's rate, and its references, without the channels that are silent throughout.

    The file is scanned once, block by block; then any part of it can be read from disk, from any thread, so
    that an hour takes no more memory than a few seconds.

    Args:
        path: The file.
        info: Its header.
        references: One file for each source; empty without references.
        sample_rate: Rate in Hz to read at.
        together: Whether channels are separated together, so that none of several may be left out.

    Attributes:
        frames: Samples of the file at that rate.
        active: ``(channel,)`` of the file, which of its channels are read.
        notes: What the user should know, a line each.

    Raises:
        AudioFileError: If samples cannot be read or are not finite.
    """

    def __init__(
        self, path: Path, info: AudioInfo, references: Sequence[Path], *, sample_rate: int, together: bool
    ) -> None:
        self.path, self.references, self.sample_rate = path, tuple(references), sample_rate
        self.frames = resampled_length(info.frames, info.sample_rate, sample_rate)
        sounding, clipped = self._scan(info)
        self.notes = _level_notes(sounding, clipped)
        if info.sample_rate > sample_rate:
            limit = sample_rate / 2000
            self.notes.append(f"the separator works at {sample_rate} Hz: nothing above {limit:g} kHz is kept")
        self.active = sounding | sounding.any() if together else sounding

    def read(self, start: int, stop: int) -> Tensor:
        """Return samples of the mixture, ``(1, channel, stop - start)``."""
        return self._part(self.path, start, stop)[None]

    def read_references(self, start: int, stop: int) -> Tensor:
        """Return samples of the references, ``(1, source, channel, stop - start)``."""
        return torch.stack([self._part(path, start, stop) for path in self.references])[None]

    def _part(self, path: Path, start: int, stop: int) -> Tensor:
        # a reference at another rate may round to one sample more or less
        try:
            waveform, _ = read_audio(path, sample_rate=self.sample_rate, start=start, frames=stop - start)
        except ValueError:
            if stop != self.frames or path == self.path:
                raise
            waveform, _ = read_audio(path, sample_rate=self.sample_rate, start=start)
            waveform = pad(waveform, (0, stop - start - waveform.shape[-1]))
        return waveform if self.active.all() else waveform[self.active]

    def _scan(self, info: AudioInfo) -> tuple[Tensor, bool]:
        """Return which channels sound ``(channel,)``, and whether samples in a row are at full scale."""
        sounding, clipped = torch.zeros(info.channels, dtype=torch.bool), False
        for block in self._blocks(info):
            sounding |= block.any(-1)
            clipped = clipped or _is_clipped(block)
        return sounding, clipped

    def _blocks(self, info: AudioInfo) -> Iterator[Tensor]:
        """Yield the file ``(channel, time)`` at its own rate, in blocks that share a few samples."""
        for start in range(0, info.frames, _SCANNED):
            stop = min(start + _SCANNED + _CLIPPED_RUN - 1, info.frames)
            yield read_audio(self.path, start=start, frames=stop - start)[0]


def _is_clipped(waveform: Tensor) -> bool:
    if waveform.shape[-1] < _CLIPPED_RUN:
        return False
    limits = (waveform >= _FULL_SCALE, waveform <= -_FULL_SCALE)
    return any(bool(limit.unfold(-1, _CLIPPED_RUN, 1).all(-1).any()) for limit in limits)


def _level_notes(sounding: Tensor, clipped: bool) -> list[str]:
    """Return notes on silence and clipping."""
    if not sounding.any():
        return ["silent: silence is written, nothing is scored"]
    silent = (~sounding).nonzero().flatten().tolist()
    notes = [f"channel {index + 1} of {len(sounding)} is silent and stays so" for index in silent]
    if clipped:
        notes.append("clipped: samples stay at full scale; it is processed as it is")
    return notes
