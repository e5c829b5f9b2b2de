"""One file through the separator: read, resample, refine, measure, resample back, write."""

from __future__ import annotations

import ctypes
import hashlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import soundfile
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from commands.inference_scores import Scores, mean_scores, measure, no_scores
from commands.inputs import Job, is_writable
from commands.method import Method
from commands.references import check_references, find_references, read_references
from data.audio import (
    AudioFileError,
    AudioInfo,
    ClipMode,
    audio_info,
    read_audio,
    resample,
    resampled_length,
    write_audio,
)
from inference import Lanes
from inference.chunking import Numbers, Stretch
from inference.execution import usual_lanes
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
        numbers: Guiding scores, ratios and evaluations; None for silence, which is not separated.
        scores: For each source, see :func:`commands.inference_scores.measure`; of a file that was refined in
            segments the means over its stretches, weighted by their lengths. Empty if not asked for.
        notes: What the user should know, a line each.
    """

    estimates: Tensor
    numbers: Numbers | None
    scores: Scores
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sounds:
    """What is read of one file, at the separator's rate.

    Attributes:
        mixture: ``(channel, time)``, the channels that are separated.
        references: ``(source, channel, time)`` beside it; None without references.
        active: ``(channel,)`` of the file, which of its channels these are.
        notes: What the user should know, a line each.
    """

    mixture: Tensor
    references: Tensor | None
    active: Tensor
    notes: list[str]


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

    def segments(self, info: AudioInfo) -> int:
        """Segments that a file is refined in."""
        frames = resampled_length(info.frames, info.sample_rate, self.separator.sample_rate)
        return self.method.segments(frames, self.separator.sample_rate)

    def separate(self, checked: CheckedJob, *, keep_trajectory: bool) -> Separation:
        """Separate and refine one file; a long one in segments, as many at a time as there are lanes.

        Args:
            checked: From :meth:`check`.
            keep_trajectory: Keep the estimates of all steps until they are scored, and score them.

        Raises:
            ValueError: If the samples cannot be used.
        """
        rate, info = self.separator.sample_rate, checked.info
        sounds, sources = self._read(checked), len(self.separator.sources)
        if not sounds.active.any():
            return self._silence(checked, sounds, keep_trajectory)
        self._tidy(info)
        whole = torch.empty(sources, *sounds.mixture.shape)
        numbers, tables = Numbers(), []
        for stretch, scores in self._refined(checked, sounds, keep_trajectory):
            place = slice(stretch.start, stretch.start + stretch.length)
            whole[..., place] = stretch.refinement.estimate[0]
            numbers.add(stretch)
            tables.append(scores)
        estimates = resample(whole, rate, info.sample_rate)[..., : info.frames]
        if not sounds.active.all():
            separated, estimates = estimates, torch.zeros(sources, info.channels, info.frames)
            estimates[:, sounds.active] = separated
        return Separation(
            estimates=estimates,
            numbers=numbers,
            scores=mean_scores(tables, numbers.lengths) if keep_trajectory else [],
            notes=sounds.notes + self._segment_notes(numbers, keep_trajectory),
        )

    def _read(self, checked: CheckedJob) -> Sounds:
        """Read a file and its references."""
        rate, own = self.separator.sample_rate, checked.info.sample_rate
        waveform, _ = read_audio(checked.job.path)
        active, notes = waveform.any(-1), _level_notes(waveform)
        if own > rate:
            notes.append(f"the separator works at {rate} Hz: nothing above {rate / 2000:g} kHz is kept")
        if self.separator.channels > 1 and active.any():
            active[:] = True  # these channels are separated together
        mixture = resample(waveform, own, rate)
        references = read_references(checked.references, rate) if checked.references else None
        # an hour is copied only where it must be
        if not active.all():
            mixture = mixture[active]
            references = None if references is None else references[:, active]
        if references is not None and references.shape[-1] != mixture.shape[-1]:
            # a reference at another rate may round to one sample more
            references = _of_length(references, mixture.shape[-1])
        return Sounds(mixture=mixture, references=references, active=active, notes=notes)

    def _refined(
        self, checked: CheckedJob, sounds: Sounds, keep_trajectory: bool
    ) -> Iterator[tuple[Stretch, Scores]]:
        """The stretches of a file in order, without their trajectories, and their scores."""
        rate, score_rate = self.separator.sample_rate, self.score_rate(checked.info)
        mixture, references = sounds.mixture, sounds.references

        def measured(stretch: Stretch) -> tuple[Stretch, Scores]:
            scores: Scores = []
            if (trajectory := stretch.refinement.trajectory) is not None:
                place = slice(stretch.start, stretch.start + stretch.length)
                clean = None if references is None else references[..., place]
                signals = trajectory[:, 0].cpu()
                scores = measure(mixture[:, place], signals, clean, rate=rate, score_rate=score_rate)
            return replace(stretch, refinement=replace(stretch.refinement, trajectory=None)), scores

        count = self.method.segments(mixture.shape[-1], rate)
        with Lanes(min(count, self.method.lanes or usual_lanes(self.device))) as lanes:
            stretches = self.method.stretches(
                match_channels(self.separator, len(mixture)),
                mixture[None],
                sample_rate=rate,
                reference=None if references is None else references[None],
                keep_trajectory=keep_trajectory,
                generator=self._generator(checked.job),
                device=self.device,
                lanes=lanes,
            )
            # in the same lanes, which thus have work as long as there is any
            results = lanes.map(measured, stretches)
            yield from tqdm(
                results,
                total=count,
                desc=checked.job.name,
                unit="segment",
                leave=False,
                disable=None if count > 1 else True,
            )

    def _silence(self, checked: CheckedJob, sounds: Sounds, scored: bool) -> Separation:
        """A silent file comes out as it went in, whatever the separator would make of it."""
        info, sources = checked.info, len(self.separator.sources)
        scores = no_scores(
            sources,
            self.method.total_steps,
            sample_rate=self.score_rate(info),
            has_reference=bool(checked.references),
        )
        return Separation(
            estimates=torch.zeros(sources, info.channels, info.frames),
            numbers=None,
            scores=scores if scored else [],
            notes=sounds.notes,
        )

    def _segment_notes(self, numbers: Numbers, scored: bool) -> list[str]:
        """What there is to say of the segments of a file."""
        count, unscored = len(numbers.lengths), int(numbers.unscored) if self.method.guided else 0
        if count == 1:
            return ["the guide cannot score it: the one-step estimate is kept"] if unscored else []
        done = "refined" if self.method.total_steps else "separated"
        means = ", its scores are means over them" if scored else ""
        notes = [f"{done} in {count} segments of {self.method.segment_seconds:g} s{means}"]
        if unscored:
            notes.append(f"the guide cannot score {unscored} of them: their one-step estimates are kept")
        return notes

    def write(self, checked: CheckedJob, separation: Separation) -> list[str]:
        """Write a file's estimates as the input is encoded; returns notes.

        Raises:
            ValueError: If they cannot be written so.
            OSError: If the disk does not take them.
        """
        notes, job = [], checked.job
        self._tidy(checked.info)
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

    def _tidy(self, info: AudioInfo) -> None:
        """Give back to the system what is free before more memory is taken for a long file.

        Of its size are a few tensors only, which leave holes that the next ones just do not fit into.
        """
        if self.segments(info) > 1 and platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)

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
