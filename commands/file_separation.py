"""One file through the separator: read, resample, refine, resample back, write."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import soundfile
import torch
from torch import Generator, Tensor

from commands.inputs import Job, is_writable
from commands.method import Method
from commands.references import check_references, find_references, read_references
from data.audio import AudioFileError, AudioInfo, ClipMode, audio_info, read_audio, resample, write_audio
from inference import Refinement
from models.channels import match_channels
from models.types import LoadedSeparator

_CONTAINERS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aiff": "AIFF", ".aif": "AIFF"}
_FULL_SCALE = 0.9999  # the largest 16-bit sample is 0.99997
_CLIPPED_RUN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedJob:
    """A job whose headers have been read and fit.

    Attributes:
        job: Where from and where to.
        info: The input's header.
        references: One file for each source; empty without references.
    """

    job: Job
    info: AudioInfo
    references: tuple[Path, ...]

    @property
    def seconds(self) -> float:
        """Duration of the input."""
        return self.info.frames / self.info.sample_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Separation:
    """What came out for one file.

    Attributes:
        estimates: ``(source, channel, time)`` at the file's rate and of its length.
        mixture: ``(channel, time)`` at the separator's rate, the channels that were separated.
        references: ``(source, channel, time)`` beside it; None without references.
        refinement: Of one item, with its source axis; None for silence, which is not separated.
        notes: What the user should know, a line each.
    """

    estimates: Tensor
    mixture: Tensor
    references: Tensor | None
    refinement: Refinement | None
    notes: list[str] = field(default_factory=list)


class FileSeparator:
    """Separates files, each on its own.

    Args:
        separator: The separator, on its device.
        method: How to refine.
        device: Where the separator lives.
        references: Folder of clean files, or None.
        subtype: Encoding of the outputs; None for each input's own.
        clip: What to do beyond full scale; see :func:`data.audio.write_audio`.
        seed: Seed of what the search draws; a file's draws do not depend on the other files.
    """

    def __init__(
        self,
        separator: LoadedSeparator,
        method: Method,
        *,
        device: torch.device,
        references: Path | None = None,
        subtype: str | None = None,
        clip: ClipMode = "clamp",
        seed: int = 0,
    ) -> None:
        self.separator, self.method, self.device = separator, method, device
        self.references, self.subtype, self.clip, self.seed = references, subtype, clip, seed

    def score_rate(self, info: AudioInfo) -> int:
        """Rate in Hz at which a file is scored: resampling it up adds nothing that a measure could judge."""
        return min(info.sample_rate, self.separator.sample_rate)

    def check(self, job: Job) -> CheckedJob:
        """Read the headers of a job's files, and check what can be known from them.

        Raises:
            ValueError: One line that names the file and what is wrong with it.
            OSError: If a file cannot be opened.
        """
        info = audio_info(job.path)
        if info.frames < 2:
            raise AudioFileError(f"{job.path}: one sample only: record it again")
        match_channels(self.separator, info.channels)
        self.method.quality(self.score_rate(info))
        container = _CONTAINERS[job.outputs[0].suffix.lower()]
        if self.subtype is not None and not soundfile.check_format(container, self.subtype):
            raise ValueError(
                f"{container} cannot hold --subtype {self.subtype}: choose another, or convert to WAV"
            )
        references: tuple[Path, ...] = ()
        if self.references is not None:
            references = find_references(job, self.references, self.separator.sources)
            check_references(job, references, info)
        return CheckedJob(job=job, info=info, references=references)

    def separate(self, checked: CheckedJob, *, keep_trajectory: bool) -> Separation:
        """Separate and refine one file.

        Args:
            checked: From :meth:`check`.
            keep_trajectory: Keep the estimates of all steps, to score them.

        Raises:
            ValueError: If the samples cannot be used.
        """
        rate, own = self.separator.sample_rate, checked.info.sample_rate
        waveform, _ = read_audio(checked.job.path)
        active, notes = waveform.abs().amax(-1) > 0, _level_notes(waveform)
        if own > rate:
            notes.append(f"the separator works at {rate} Hz: nothing above {rate / 2000:g} kHz is kept")
        if self.separator.channels > 1 and active.any():
            active[:] = True  # these channels are separated together
        estimates = torch.zeros(len(self.separator.sources), *waveform.shape)
        mixture = resample(waveform, own, rate)
        references = read_references(checked.references, rate) if checked.references else None
        if not active.any():
            return Separation(
                estimates=estimates, mixture=mixture, references=references, refinement=None, notes=notes
            )
        mixture = mixture[active]
        if references is not None:
            # a reference at another rate may round to one sample more
            references = _of_length(references[:, active], mixture.shape[-1])
        refinement = self.method.run(
            match_channels(self.separator, len(mixture)),
            mixture[None].to(self.device),
            sample_rate=rate,
            reference=None if references is None else references[None].to(self.device),
            keep_trajectory=keep_trajectory,
            generator=self._generator(checked.job),
        )
        estimates[:, active] = resample(refinement.estimate[0].cpu(), rate, own)[..., : waveform.shape[-1]]
        if self.method.guided and bool(refinement.scores[0].isnan()):
            notes.append("the guide cannot score it: the one-step estimate is kept")
        return Separation(
            estimates=estimates, mixture=mixture, references=references, refinement=refinement, notes=notes
        )

    def write(self, checked: CheckedJob, separation: Separation) -> list[str]:
        """Write a file's estimates as the input is encoded; returns notes.

        Raises:
            ValueError: If they cannot be written so.
            OSError: If the disk does not take them.
        """
        notes, job = [], checked.job
        for output, estimate in zip(job.outputs, separation.estimates, strict=True):
            subtype = self.subtype or _own_subtype(output, checked.info)
            exceeding = write_audio(
                output, estimate, checked.info.sample_rate, subtype=subtype, clip=self.clip
            )
            if exceeding:
                done = "clipped" if self.clip == "clamp" else "beyond full scale, file rescaled"
                notes.append(f"{exceeding} samples of {output.name} {done} (--subtype FLOAT keeps them)")
        if not is_writable(job.relative):
            notes.append("such files cannot be written here: written as WAV")
        return notes

    def _generator(self, job: Job) -> Generator:
        digest = hashlib.blake2b(f"{self.seed} {job.name}".encode(), digest_size=7).digest()
        return Generator().manual_seed(int.from_bytes(digest))


def _own_subtype(output: Path, info: AudioInfo) -> str | None:
    """The input's encoding where the output's format has it."""
    container = _CONTAINERS[output.suffix.lower()]
    return info.subtype if soundfile.check_format(container, info.subtype) else None


def _of_length(waveform: Tensor, frames: int) -> Tensor:
    return torch.nn.functional.pad(waveform, (0, frames - waveform.shape[-1]))


def _level_notes(waveform: Tensor) -> list[str]:
    """Silence and clipping of a file ``(channel, time)``."""
    silent = [index + 1 for index, channel in enumerate(waveform) if not channel.any()]
    if len(silent) == len(waveform):
        return ["silent: silence is written, nothing is scored"]
    notes = [f"channel {index} of {len(waveform)} is silent and stays so" for index in silent]
    for limit in (waveform >= _FULL_SCALE, waveform <= -_FULL_SCALE):
        runs = (
            limit.unfold(-1, _CLIPPED_RUN, 1).all(-1) if waveform.shape[-1] >= _CLIPPED_RUN else limit[:, :0]
        )
        if runs.any():
            notes.append("clipped: samples stay at full scale; it is processed as it is")
            break
    return notes
