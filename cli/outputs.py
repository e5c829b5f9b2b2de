"""Write the estimates of one input of ``infer.py``, and their residual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import soundfile
import torch
from torch import Tensor

from encore.cli.input_audio import InputAudio
from encore.cli.output_names import is_writable
from encore.data.audio import StreamResampler
from encore.data.audio_writing import CONTAINERS, AudioWriter, ClipMode


class Outputs:
    """Files of one input, one per source, at the input's rate and of its length.

    Args:
        audio: The input.
        writers: One for each file.
        sources: How many of them are estimates. Where there is one file more it gets the residual: the input
            less all estimates, sample by sample at the input's own rate.
    """

    def __init__(self, audio: InputAudio, writers: Sequence[AudioWriter], sources: int) -> None:
        self.audio, self.writers, self._left = audio, writers, audio.job.info.frames
        rates = (audio.sample_rate, audio.job.info.sample_rate)
        self._resamplers = [StreamResampler(*rates) for _ in range(sources)]

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
            for estimate, resampler in zip(estimates.cpu(), self._resamplers, strict=True)
        ]
        frames = parts[0].shape[-1]
        self._left -= frames
        if len(self.writers) > len(parts) and frames:
            parts.append(self.audio.take_original(frames) - torch.stack(parts).sum(0))
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
        if not is_writable(self.audio.job.relative) and any(w.path.suffix == ".wav" for w in self.writers):
            notes.append("such files cannot be written here: written as WAV")
        return notes


@contextmanager
def open_outputs(
    audio: InputAudio, *, sources: int, subtype: str | None, clip: ClipMode
) -> Iterator[Outputs]:
    """Open the files of one input; they are there when the block ends, whole, and not after an error.

    Args:
        audio: The input.
        sources: How many of its outputs are estimates.
        subtype: Encoding of the files; None for the input's own where the format has it.
        clip: What to do beyond full scale; see `encore.data.audio_writing.AudioWriter`.
    """
    info = audio.job.info
    with ExitStack() as stack:
        writers = []
        for path in audio.job.outputs:
            own = soundfile.check_format(CONTAINERS[path.suffix.lower()], info.subtype)
            encoding = subtype or (info.subtype if own else None)
            shape = {"frames": info.frames, "channels": info.channels, "sample_rate": info.sample_rate}
            writers.append(stack.enter_context(AudioWriter(path, **shape, subtype=encoding, clip=clip)))
        yield Outputs(audio, writers, sources)
