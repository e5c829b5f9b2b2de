"""Read an input of ``infer.py`` and its references once, from their beginnings to their ends."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from encore.cli.inputs import Job
from encore.common.dsp import resampled_length
from encore.data.audio import AudioInfo, StreamResampler, audio_info, read_blocks

_BLOCK = 1 << 16  # samples, 1 to 4 s
_FULL_SCALE = 0.9999  # the largest 16-bit sample is 0.99997
_CLIPPED_RUN = 3


class InputAudio:
    """One input at the separator's rate, and its references, in windows that move forward.

    What lies before a window is forgotten, so that an hour takes no more memory than a few seconds.

    Args:
        job: Names the files.
        sample_rate: Rate in Hz to read at.
        keep: Keep the samples of the input at its own rate until `take_original` takes them.

    Attributes:
        frames: Samples of the input at that rate.
    """

    def __init__(self, job: Job, sample_rate: int, *, keep: bool) -> None:
        self.job, self.sample_rate = job, sample_rate
        self.frames = resampled_length(job.info.frames, job.info.sample_rate, sample_rate)
        self._mixture = _Windows(map(self._watch, read_blocks(job.path, _BLOCK)), job.info, sample_rate)
        self._original: list[Tensor] | None = [] if keep else None
        self._sounding = torch.zeros(job.info.channels, dtype=torch.bool)
        self._clipped, self._last = False, torch.empty(job.info.channels, 0)

    def read(self, start: int, stop: int) -> Tensor:
        """Return samples of the mixture, ``(1, channel, stop - start)``; ``start`` never goes back.

        Raises:
            AudioFileError: If samples cannot be read or are not finite.
        """
        return self._mixture.read(start, stop)[None]

    def read_references(self, start: int, stop: int) -> Tensor:
        """Return samples of the references, ``(1, source, channel, stop - start)``, like `read`."""
        return torch.stack([reference.read(start, stop) for reference in self._references])[None]

    @cached_property
    def _references(self) -> list[_Windows]:
        return [
            _Windows(read_blocks(path, _BLOCK), audio_info(path), self.sample_rate)
            for path in self.job.references
        ]

    def take_original(self, frames: int) -> Tensor:
        """Return the next samples of the input at its own rate, ``(channel, frames)``, once."""
        assert self._original is not None
        samples = torch.cat(self._original, -1)
        self._original[:] = [samples[:, frames:]]
        return samples[:, :frames]

    @property
    def sounds(self) -> bool:
        """Whether a sample that was read is not 0."""
        return bool(self._sounding.any())

    @property
    def notes(self) -> list[str]:
        """What the user should know of the input as far as it was read, a line each."""
        silent = (~self._sounding).nonzero().flatten().tolist()
        notes = [f"channel {index + 1} of {len(self._sounding)} is silent and stays so" for index in silent]
        if not self.sounds:
            notes = ["silent: silence is written, nothing is scored"]
        if self._clipped:
            notes.append("clipped: samples stay at full scale; it is processed as it is")
        if self.job.info.sample_rate > self.sample_rate:
            limit = self.sample_rate / 2000
            notes.append(f"the separator works at {self.sample_rate} Hz: nothing above {limit:g} kHz is kept")
        return notes

    def _watch(self, block: Tensor) -> Tensor:
        """Note which channels sound and whether samples in a row are at full scale; return the block."""
        if self._original is not None:
            self._original.append(block)
        self._sounding |= block.any(-1)
        joined = torch.cat((self._last, block), -1)
        self._last = joined[:, 1 - _CLIPPED_RUN :].clone()
        if not self._clipped and joined.shape[-1] >= _CLIPPED_RUN:
            limits = torch.stack((joined >= _FULL_SCALE, joined <= -_FULL_SCALE))
            self._clipped = bool(limits.unfold(-1, _CLIPPED_RUN, 1).all(-1).any())
        return block


class _Windows:
    """Windows of a file at another rate, from its blocks."""

    def __init__(self, blocks: Iterator[Tensor], info: AudioInfo, sample_rate: int) -> None:
        self._blocks, self._left = blocks, info.frames
        self._resampler = StreamResampler(info.sample_rate, sample_rate)
        self._parts = [torch.empty(info.channels, 0)]
        self._begin = self._end = 0

    def read(self, start: int, stop: int) -> Tensor:
        """Return ``(channel, stop - start)``; zeros behind the end, which rounding may move by a sample."""
        while self._end < stop and self._left:
            block = next(self._blocks)
            self._left -= block.shape[-1]
            self._parts.append(self._resampler.push(block, last=not self._left))
            self._end += self._parts[-1].shape[-1]
        kept = torch.cat(self._parts, -1)[:, start - self._begin :]
        self._parts, self._begin = [kept], start
        window = kept[:, : stop - start]
        # a copy of its own, as it outlives the others
        return pad(window, (0, stop - start - window.shape[-1])).clone()
