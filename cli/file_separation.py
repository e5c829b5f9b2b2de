"""Separate files: read, refine, score and write them segment by segment, by one pool of workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import soundfile
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from encore.cli.file_scores import Scores, mean_of_chunks, score_chunk, score_table
from encore.cli.input_audio import InputAudio
from encore.cli.inputs import Job, find_references
from encore.cli.memory import malloc_trim
from encore.cli.method import Method
from encore.cli.output_names import OutputNames
from encore.cli.outputs import open_outputs
from encore.common.dsp import resampled_length
from encore.data.audio import AudioFileError, AudioInfo
from encore.data.audio_writing import CONTAINERS, ClipMode
from encore.inference import WorkerPool
from encore.inference.execution import default_workers
from encore.inference.prior_separation import PriorSeparator
from encore.inference.segments import FAULTS, Chunk, ChunkStatistics, LongItem, refine_segments
from encore.models.types import LoadedSeparator, permutation_groups
from encore.models.wrappers import match_channels


class Separation(NamedTuple):
    """The result of one file, which is written."""

    notes: list[str]
    """What the user should know, a line each."""

    rows: pd.DataFrame
    """Of the table of scores; none if not wanted. Those of a file in segments are means over its chunks."""


@dataclass(kw_only=True, slots=True, eq=False)
class _File(LongItem):
    audio: InputAudio


_Result = tuple[_File, Chunk | Exception, Scores]


@dataclass(frozen=True, kw_only=True)
class FileSeparator:
    """Separate files, each by itself.

    Args:
        separator: The separator, on its device.
        method: How to refine.
        device: The separator's device.
        names: What the outputs are called.
        references: Folder of clean files, or None.
        subtype: Encoding of the outputs; None for each input's own.
        clip: What to do beyond full scale; see `encore.data.audio_writing.AudioWriter`.
        seed: Of shifts and noise; a file's draws do not depend on the other files.
        scored: Score the estimates of all steps.
        priors: What the separator is, or selects sources of, if it is made of priors.
    """

    separator: LoadedSeparator
    method: Method
    device: torch.device
    names: OutputNames
    references: Path | None = None
    subtype: str | None = None
    clip: ClipMode = "clamp"
    seed: int = 0
    scored: bool = True
    priors: PriorSeparator | None = None

    def check(self, job: Job) -> None:
        """Read the headers of a job's files, find its references, and check what can be known from them.

        Raises:
            ValueError: One line that names the file and what is wrong with it.
            OSError: If a file cannot be opened.
        """
        if job.info.frames < 2:
            raise AudioFileError(f"{job.path}: one sample only: record it again")
        match_channels(self.separator, job.info.channels)
        self.segments(job)
        container = CONTAINERS[job.outputs[0].suffix.lower()]
        if self.subtype is not None and not soundfile.check_format(container, self.subtype):
            raise ValueError(
                f"{container} cannot hold --subtype {self.subtype}: choose another, or convert to WAV"
            )
        if self.references is not None:
            job.references = find_references(job, self.references, self.separator.sources)

    def segments(self, job: Job) -> int:
        """Return the number of segments of a file; a ValueError if they are too short for their fades."""
        rate = self.separator.sample_rate
        frames = resampled_length(job.info.frames, job.info.sample_rate, rate)
        return self.method.segments(frames, rate)

    def separate(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Separation | Exception]]:
        """Separate, refine, score and write checked files; those that fail leave no outputs.

        On a CPU as many segments at a time as there are cores, of one or of several files.

        Yields:
            Every file in order, and its result or the error.
        """
        total = sum(map(self.segments, jobs))
        workers = min(max(1, total), self.method.workers or default_workers(self.device))
        with WorkerPool(workers) as pool:
            refine = partial(self._refine, at_once=workers)
            results = pool.map(self._score, refine_segments(refine, map(self._open, jobs), pool))
            # without a terminal there is no bar, so that logs hold lines only
            bar = tqdm(results, total=total, unit="segment", disable=None)
            for file, chunks in groupby(bar, key=itemgetter(0)):
                result: Separation | Exception
                try:
                    result = self._write(file, chunks)
                except FAULTS as error:
                    file.failed, result = True, error
                yield file.audio.job, result

    def _open(self, job: Job) -> _File:
        audio = InputAudio(
            job, self.separator.sample_rate, keep=len(job.outputs) > len(self.separator.sources)
        )
        digest = hashlib.blake2b(f"{self.seed} {job.name}".encode(), digest_size=7).digest()
        bounds: dict[str, Any] = self.method.bounds(audio.frames, self.separator.sample_rate)
        return _File(
            audio=audio,
            read=audio.read,
            length=audio.frames,
            **bounds,
            groups=permutation_groups(self.separator.sources),
            read_references=audio.read_references if job.references else None,
            generator=Generator().manual_seed(int.from_bytes(digest)),
        )

    def _refine(
        self, mixture: Tensor, references: Tensor | None, generator: Generator | None, *, at_once: int
    ) -> Chunk:
        """Refine a segment ``(1, c, t)``; silent channels stay silent."""
        active = self._active(mixture)
        if not active.any():
            sources = len(self.separator.sources)
            return self.method.silence(mixture, references, sources, keep_steps=self.scored)
        own = None if references is None else references[..., active, :]
        refined = self.method.refine(
            self.separator,
            mixture[:, active],
            references=own,
            generator=generator,
            keep_steps=self.scored,
            device=self.device,
            at_once=at_once,
        )
        waveforms = refined.waveforms
        if not active.all():
            waveforms = waveforms.new_zeros(*waveforms.shape[:3], *mixture.shape[1:])
            waveforms[..., active, :] = refined.waveforms
        return replace(refined, mixture=mixture, references=references, waveforms=waveforms)

    def _active(self, mixture: Tensor) -> Tensor:
        """Return which channels ``(c,)`` of ``(1, c, t)`` are separated: all that sound, or together all."""
        sounding = mixture[0].any(-1)
        return sounding | sounding.any() if self.separator.channels > 1 else sounding

    def _score(self, result: tuple[LongItem, Chunk | Exception]) -> _Result:
        """Score the estimates of a chunk, of which the last ones are kept."""
        file, chunk = result
        assert isinstance(file, _File)
        if isinstance(chunk, Exception) or not self.scored:
            return file, chunk, []
        try:
            rates = self.separator.sample_rate, self.score_rate(file.audio.job.info)
            scores = score_chunk(chunk, self._active(chunk.mixture), *rates)
        except FAULTS as error:
            return file, error, []
        return file, replace(chunk, waveforms=chunk.waveforms[-1:]), scores

    def score_rate(self, info: AudioInfo) -> int:
        """Return the rate in Hz at which a file is scored: upsampling adds nothing that a metric could judge.

        A guide scores at the separator's rate all the same: it compares estimates of one file.
        """
        return min(info.sample_rate, self.separator.sample_rate)

    def _write(self, file: _File, results: Iterable[_Result]) -> Separation:
        """Write the chunks of one file; its rows are made before it is there, so that it never is without."""
        statistics, tables = ChunkStatistics(), []
        sources = self.separator.sources
        with open_outputs(file.audio, sources=len(sources), subtype=self.subtype, clip=self.clip) as outputs:
            for _, chunk, scores in results:
                if isinstance(chunk, Exception):
                    raise chunk
                statistics.add(chunk)
                tables.append(scores)
                last = chunk.start + chunk.length == file.length
                outputs.write(chunk.waveforms[-1, 0], last=last)
                if last:  # without waiting for the next file
                    break
                malloc_trim()
            scores = mean_of_chunks(tables, statistics.lengths)
            notes = file.audio.notes + self._refinement_notes(file, statistics, scores) + outputs.notes
            if not self.scored:
                return Separation(notes, pd.DataFrame())
            metric, name = self.method.metric(self.separator.sample_rate), file.audio.job.name
            # a call of a separator of priors costs many network evaluations
            each = 1 if self.priors is None else self.priors.evaluations
            return Separation(notes, score_table(name, sources, scores, statistics, metric, evaluations=each))

    def _refinement_notes(self, file: _File, statistics: ChunkStatistics, scores: Scores) -> list[str]:
        """Return notes on the guide and the segments of a file."""
        if not file.audio.sounds:
            return []
        notes, method, info = [], self.method, file.audio.job.info
        metric = method.metric(self.separator.sample_rate)
        if metric is not None and self.score_rate(info) < metric.minimum_rate:
            notes.append(
                f"the guide scores it upsampled from {info.sample_rate} Hz: its scores compare within this "
                "file only"
            )
        count = len(statistics.lengths)
        unscored = int(statistics.unscored) if method.guided else 0
        if count > 1:
            done = "refined" if method.steps else "separated"
            means = ", its scores are means over them" if any(scores) else ""
            notes.append(f"{done} in {count} segments of {method.segment_seconds:g} s{means}")
            if unscored:
                notes.append(f"the guide cannot score {unscored} of them: their one-step estimates are kept")
        elif unscored:
            notes.append("the guide cannot score it: the one-step estimate is kept")
        return notes
