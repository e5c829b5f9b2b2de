"""Write the estimates of one input of ``infer.py``, and their residual."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import soundfile
import torch
from torch import Tensor

from encore.cli.inputs import Job
from encore.cli.output_names import is_writable
from encore.data.audio import AudioInfo, StreamResampler, read_audio
from encore.data.audio_writing import CONTAINERS, AudioWriter, ClipMode

_SILENT_BLOCK = 1 << 20


class Outputs:
    """Write one file per source, at the input's rate and of its length; complete files only.

    Where the job names one more file, that gets the residual: the input less all estimates, sample by sample
    at the input's own rate.

    Args:
        job: Names the files.
        sources: How many of them are estimates.
        info: The input's header.
        sample_rate: Rate in Hz of the estimates.
        subtype: Encoding of the files; None for the input's own where the format has it.
        clip: What to do beyond full scale; see `encore.data.audio_writing.AudioWriter`.
    """

    def __init__(
        self, job: Job, sources: int, info: AudioInfo, sample_rate: int, subtype: str | None, clip: ClipMode
    ) -> None:
        self.job, self.info, self.clip = job, info, clip
        self.resamplers = [StreamResampler(sample_rate, info.sample_rate) for _ in range(sources)]
        self.writers = [
            AudioWriter(
                output,
                info.sample_rate,
                info.channels,
                frames=info.frames,
                subtype=subtype or _own_subtype(output, info),
                clip=clip,
            )
            for output in job.outputs
        ]
        self._written = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            for writer in self.writers:
                stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def write(self, estimates: Tensor, channels: Tensor, *, last: bool) -> None:
        """Write the next samples of all sources.

        Args:
            estimates: ``(source, channel, time)``.
            channels: ``(channel,)`` of the input, which of its channels these are; the others are silent.
            last: Whether these are the last ones.

        Raises:
            ValueError: If they cannot be written as the files are encoded.
            OSError: If the disk does not take them.
        """
        left = self.info.frames - self._written
        parts = []
        for estimate, resampler in zip(estimates, self.resamplers, strict=True):
            part = resampler.push(estimate.cpu(), last=last)[..., :left]
            if not channels.all():
                sounding, part = part, part.new_zeros(len(channels), part.shape[-1])
                part[channels] = sounding
            parts.append(part)
        frames = parts[0].shape[-1]
        if len(self.writers) > len(parts) and frames:
            mixture, _ = read_audio(self.job.path, start=self._written, frames=frames)
            parts.append(mixture - torch.stack(parts).sum(0))
        for part, writer in zip(parts, self.writers, strict=False):
            writer.write(part)
        self._written += frames

    def write_silence(self) -> None:
        """Write files that are silent throughout."""
        for writer in self.writers:
            for start in range(0, self.info.frames, _SILENT_BLOCK):
                frames = min(_SILENT_BLOCK, self.info.frames - start)
                writer.write(torch.zeros(self.info.channels, frames))

    @property
    def notes(self) -> list[str]:
        """Notes on what was written, a line each."""
        done = "clipped" if self.clip == "clamp" else "beyond full scale, file rescaled"
        notes = [
            f"{writer.exceeding} samples of {writer.path.name} {done} (--subtype FLOAT keeps them)"
            for writer in self.writers
            if writer.exceeding
        ]
        if not is_writable(self.job.relative) and any(w.path.suffix == ".wav" for w in self.writers):
            notes.append("such files cannot be written here: written as WAV")
        return notes


def _own_subtype(output: Path, info: AudioInfo) -> str | None:
    """Return the input's encoding if the output's format has it."""
    container = CONTAINERS[output.suffix.lower()]
    return info.subtype if soundfile.check_format(container, info.subtype) else None
