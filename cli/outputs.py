"""Write the estimates of one input of ``infer.py``, and their residual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import soundfile
import torch
from torch import Tensor

from encore.cli.inputs import Job
from encore.cli.output_names import is_writable
from encore.data.audio import StreamResampler
from encore.data.audio_writing import CONTAINERS, AudioWriter, ClipMode


class Outputs:
    """Files of one input, one per source, at the input's rate and of its length.

    Args:
        job: Names the files.
        writers: One for each file.
        resamplers: One for each source. Where there is one writer more, its file gets the residual: the input
            less all estimates, sample by sample at the input's own rate.
        take_original: Gives the next samples ``(channel, time)`` of the input at its own rate.
    """

    def __init__(
        self,
        job: Job,
        writers: Sequence[AudioWriter],
        resamplers: Sequence[StreamResampler],
        take_original: Callable[[int], Tensor],
    ) -> None:
        self.job, self.writers, self.resamplers = job, writers, resamplers
        self._take_original, self._left = take_original, job.info.frames

    def write(self, estimates: Tensor, *, last: bool) -> None:
        """Write the next samples of all sources.

        Args:
            estimates: ``(source, channel, time)``.
            last: Whether these are the last ones.

        Raises:
            ValueError: If they cannot be written as the files are encoded.
            OSError: If the disk does not take them.
        """
        parts = [
            resampler.push(estimate, last=last)[..., : self._left]
            for estimate, resampler in zip(estimates.cpu(), self.resamplers, strict=True)
        ]
        frames = parts[0].shape[-1]
        self._left -= frames
        if len(self.writers) > len(parts) and frames:
            parts.append(self._take_original(frames) - torch.stack(parts).sum(0))
        for part, writer in zip(parts, self.writers, strict=False):
            writer.write(part)

    @property
    def notes(self) -> list[str]:
        """Notes on what was written, a line each."""
        notes = []
        for writer in self.writers:
            done = "clipped" if writer.clip == "clamp" else "beyond full scale, file rescaled"
            if writer.exceeding:
                notes.append(
                    f"{writer.exceeding} samples of {writer.path.name} {done} (--subtype FLOAT keeps them)"
                )
        if not is_writable(self.job.relative) and any(w.path.suffix == ".wav" for w in self.writers):
            notes.append("such files cannot be written here: written as WAV")
        return notes


@contextmanager
def open_outputs(
    job: Job,
    take_original: Callable[[int], Tensor],
    *,
    sources: int,
    sample_rate: int,
    subtype: str | None,
    clip: ClipMode,
) -> Iterator[Outputs]:
    """Open the files of one input; they are there when the block ends, whole, and not after an error.

    Args:
        job: Names the files.
        take_original: See `Outputs`.
        sources: How many of the files are estimates.
        sample_rate: Rate in Hz of the estimates.
        subtype: Encoding of the files; None for the input's own where the format has it.
        clip: What to do beyond full scale; see `encore.data.audio_writing.AudioWriter`.
    """
    info = job.info
    with ExitStack() as stack:
        writers = []
        for path in job.outputs:
            own = soundfile.check_format(CONTAINERS[path.suffix.lower()], info.subtype)
            encoding = subtype or (info.subtype if own else None)
            shape = {"frames": info.frames, "channels": info.channels, "sample_rate": info.sample_rate}
            writers.append(stack.enter_context(AudioWriter(path, **shape, subtype=encoding, clip=clip)))
        resamplers = [StreamResampler(sample_rate, info.sample_rate) for _ in range(sources)]
        yield Outputs(job, writers, resamplers, take_original)
