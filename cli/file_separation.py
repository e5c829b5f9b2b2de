"""Separate one file: read, refine, score and write, chunk by chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import soundfile
import torch
from torch import Generator
from tqdm import tqdm

from encore.cli.file_scores import Scores, mean_of_chunks, score_chunk, silence_scores
from encore.cli.input_audio import InputAudio
from encore.cli.inputs import Job
from encore.cli.memory import malloc_trim
from encore.cli.method import Method
from encore.cli.outputs import Outputs
from encore.cli.references import check_references, find_references
from encore.common.dsp import resampled_length
from encore.data.audio import AudioFileError, AudioInfo, audio_info
from encore.data.audio_writing import CONTAINERS, ClipMode
from encore.inference import WorkerPool
from encore.inference.execution import default_workers
from encore.inference.segments import Chunk, ChunkStatistics
from encore.models.types import LoadedSeparator
from encore.models.wrappers import match_channels


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
    """The result of one file.

    Attributes:
        statistics: Guiding scores, ratios and evaluations; None for silence, which is not separated.
        scores: For each source, see `encore.cli.file_scores`; of a file that was refined in segments the
            means over its chunks, weighted by their lengths. Empty if not wanted.
        notes: What the user should know, a line each.
    """

    statistics: ChunkStatistics | None
    scores: Scores
    notes: list[str] = field(default_factory=list)


class FileSeparator:
    """Separate files, each by itself.

    Args:
        separator: The separator, on its device.
        method: How to refine.
        device: The separator's device.
        references: Folder of clean files, or None.
        subtype: Encoding of the outputs; None for each input's own.
        clip: What to do beyond full scale; see `encore.data.audio_writing.AudioWriter`.
        seed: Of shifts and noise; a file's draws do not depend on the other files.
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
        """Return the rate in Hz at which a file is scored: upsampling adds nothing that a metric could judge.

        A guide scores at the separator's rate all the same: it compares estimates of one file.
        """
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
        container = CONTAINERS[job.outputs[0].suffix.lower()]
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

    def separate(self, checked: CheckedJob, outputs: Outputs, *, scored: bool) -> Separation:
        """Separate and refine one file; a long one in segments, as many at a time as there are workers.

        Args:
            checked: From `check`.
            outputs: Gets the estimates, part by part.
            scored: Score the estimates of all steps.

        Raises:
            ValueError: If the samples cannot be used.
            OSError: If the disk does not take the estimates.
        """
        audio = InputAudio(
            checked.job.path,
            checked.info,
            checked.references,
            sample_rate=self.separator.sample_rate,
            together=self.separator.channels > 1,
        )
        if not audio.active.any():
            outputs.write_silence()
            return self._silence(checked, audio, scored)
        statistics, tables = ChunkStatistics(), []
        for chunk, scores in self._chunks(checked, audio, scored):
            statistics.add(chunk)
            tables.append(scores)
            last = chunk.start + chunk.length == audio.frames
            outputs.write(chunk.waveforms[-1, 0], audio.active, last=last)
            if not last:
                malloc_trim()
        found = mean_of_chunks(tables, statistics.lengths) if scored else []
        notes = audio.notes + self._guide_notes(checked.info) + self._segment_notes(statistics, any(found))
        return Separation(statistics=statistics, scores=found, notes=notes)

    def outputs(self, checked: CheckedJob) -> Outputs:
        """Return the writers of a file's estimates, encoded as it is; used in a ``with`` block."""
        sources, rate = len(self.separator.sources), self.separator.sample_rate
        return Outputs(checked.job, sources, checked.info, rate, self.subtype, self.clip)

    def _chunks(self, checked: CheckedJob, audio: InputAudio, scored: bool) -> Iterator[tuple[Chunk, Scores]]:
        """Yield the refined chunks of a file in order, and their scores."""
        rate, score_rate = self.separator.sample_rate, self.score_rate(checked.info)

        def score(chunk: Chunk) -> tuple[Chunk, Scores]:
            if not scored:
                return chunk, []
            bounds = (chunk.start, chunk.start + chunk.length)
            references = audio.read_references(*bounds)[0] if audio.references else None
            estimates, mixture = chunk.waveforms[:, 0].cpu(), audio.read(*bounds)[0]
            scores = score_chunk(mixture, estimates, references, rate=rate, score_rate=score_rate)
            return replace(chunk, waveforms=chunk.waveforms[-1:]), scores

        count = self.method.segments(audio.frames, rate)
        with WorkerPool(min(count, self.method.workers or default_workers(self.device))) as pool:
            chunks = self.method.chunks(
                self.separator,
                audio.read,
                audio.frames,
                read_references=audio.read_references if audio.references else None,
                keep_steps=scored,
                generator=self._generator(checked.job),
                device=self.device,
                pool=pool,
            )
            # by the same workers, which thus have work as long as there is any
            yield from tqdm(
                pool.map(score, chunks),
                total=count,
                desc=checked.job.name,
                unit="segment",
                leave=False,
                disable=None if count > 1 else True,
            )

    def _silence(self, checked: CheckedJob, audio: InputAudio, scored: bool) -> Separation:
        """Return the result of a silent file, which is written as it is."""
        scores = silence_scores(
            len(self.separator.sources),
            self.method.steps,
            sample_rate=self.score_rate(checked.info),
            channels=checked.info.channels,
            has_references=bool(checked.references),
        )
        return Separation(statistics=None, scores=scores if scored else [], notes=audio.notes)

    def _guide_notes(self, info: AudioInfo) -> list[str]:
        """Say that the guide scores audio that was recorded at a rate below its own."""
        metric = self.method.metric(self.separator.sample_rate)
        if metric is None or self.score_rate(info) >= metric.minimum_rate:
            return []
        rate = info.sample_rate
        return [f"the guide scores it upsampled from {rate} Hz: its scores compare within this file only"]

    def _segment_notes(self, statistics: ChunkStatistics, scored: bool) -> list[str]:
        """Return notes on the segments of a file."""
        count, unscored = len(statistics.lengths), int(statistics.unscored) if self.method.guided else 0
        if count == 1:
            return ["the guide cannot score it: the one-step estimate is kept"] if unscored else []
        done = "refined" if self.method.steps else "separated"
        means = ", its scores are means over them" if scored else ""
        notes = [f"{done} in {count} segments of {self.method.segment_seconds:g} s{means}"]
        if unscored:
            notes.append(f"the guide cannot score {unscored} of them: their one-step estimates are kept")
        return notes

    def _generator(self, job: Job) -> Generator:
        digest = hashlib.blake2b(f"{self.seed} {job.name}".encode(), digest_size=7).digest()
        return Generator().manual_seed(int.from_bytes(digest))
