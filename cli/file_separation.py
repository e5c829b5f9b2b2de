"""One file through the separator: read, refine, measure, write, part by part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import soundfile
import torch
from torch import Generator
from tqdm import tqdm

from encore.cli.inference_scores import Scores, mean_scores, measure, no_scores
from encore.cli.inputs import Job
from encore.cli.memory import give_back_freed_memory
from encore.cli.method import Method
from encore.cli.outputs import Outputs
from encore.cli.overrides import UserError
from encore.cli.recordings import Recording
from encore.cli.references import check_references, find_references
from encore.data.audio import AudioFileError, AudioInfo, audio_info, resampled_length
from encore.data.audio_writing import CONTAINERS, ClipMode
from encore.inference import Lanes
from encore.inference.execution import usual_lanes
from encore.inference.segments import Numbers, Stretch
from encore.models.channels import match_channels
from encore.models.levels import unstandardised
from encore.models.types import LoadedSeparator, exchangeable


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
        numbers: Guiding scores, ratios and evaluations; None for silence, which is not separated.
        scores: For each source, see `encore.cli.inference_scores.measure`; of a file that was refined in
            segments the means over its stretches, weighted by their lengths. Empty if not asked for.
        notes: What the user should know, a line each.
    """

    numbers: Numbers | None
    scores: Scores
    notes: list[str] = field(default_factory=list)


class FileSeparator:
    """Separates files, each on its own.

    Args:
        separator: The separator, on its device.
        method: How to refine.
        device: Where the separator lives.
        references: Folder of clean files, or None.
        subtype: Encoding of the outputs; None for each input's own.
        clip: What to do beyond full scale; see `encore.data.audio_writing.AudioWriter`.
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
        """Rate in Hz at which a file is scored: resampling it up adds nothing that a measure could judge.

        A guide hears it at the separator's rate all the same: it compares estimates of one file.
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

    def separate(self, checked: CheckedJob, outputs: Outputs, *, keep_trajectory: bool) -> Separation:
        """Separate and refine one file; a long one in segments, as many at a time as there are lanes.

        Args:
            checked: From `check`.
            outputs: Gets the estimates, part by part.
            keep_trajectory: Keep the estimates of all steps until they are scored, and score them.

        Raises:
            ValueError: If the samples cannot be used.
            OSError: If the disk does not take the estimates.
        """
        recording = Recording(
            checked.job.path,
            checked.info,
            checked.references,
            sample_rate=self.separator.sample_rate,
            together=self.separator.channels > 1,
        )
        if not recording.active.any():
            outputs.write_silence()
            return self._silence(checked, recording, keep_trajectory)
        numbers, tables = Numbers(), []
        for stretch, scores in self._refined(checked, recording, keep_trajectory):
            numbers.add(stretch)
            tables.append(scores)
            last = stretch.start + stretch.length == recording.frames
            outputs.write(stretch.refinement.estimate[0], recording.active, last=last)
            if not last:
                give_back_freed_memory()
        found = mean_scores(tables, numbers.lengths) if keep_trajectory else []
        return Separation(
            numbers=numbers,
            scores=found,
            notes=recording.notes
            + self._guide_notes(checked.info)
            + self._segment_notes(numbers, any(found)),
        )

    def outputs(self, checked: CheckedJob) -> Outputs:
        """Where a file's estimates are written to, encoded as it is; used in a ``with`` block."""
        sources, rate = len(self.separator.sources), self.separator.sample_rate
        return Outputs(checked.job, sources, checked.info, rate, self.subtype, self.clip)

    def _refined(
        self, checked: CheckedJob, recording: Recording, keep_trajectory: bool
    ) -> Iterator[tuple[Stretch, Scores]]:
        """The stretches of a file in order, without their trajectories, and their scores."""
        rate, score_rate = self.separator.sample_rate, self.score_rate(checked.info)

        def measured(stretch: Stretch) -> tuple[Stretch, Scores]:
            scores: Scores = []
            if (trajectory := stretch.refinement.trajectory) is not None:
                place = (stretch.start, stretch.start + stretch.length)
                clean = recording.read_references(*place)[0] if recording.references else None
                signals = trajectory[:, 0].cpu()
                mixture = recording.read(*place)[0]
                scores = measure(mixture, signals, clean, rate=rate, score_rate=score_rate)
            return replace(stretch, refinement=replace(stretch.refinement, trajectory=None)), scores

        count = self.method.segments(recording.frames, rate)
        bare = unstandardised(self.separator) if self.method.level == "mixture" else None
        with Lanes(min(count, self.method.lanes or usual_lanes(self.device))) as lanes:
            stretches = self.method.stretches(
                match_channels(bare or self.separator, int(recording.active.sum())),
                recording.read,
                recording.frames,
                sample_rate=rate,
                interchangeable=exchangeable(self.separator.sources),
                standardise=bare is not None,
                read_reference=recording.read_references if recording.references else None,
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

    def _silence(self, checked: CheckedJob, recording: Recording, scored: bool) -> Separation:
        """A silent file comes out as it went in, whatever the separator would make of it."""
        scores = no_scores(
            len(self.separator.sources),
            self.method.total_steps,
            sample_rate=self.score_rate(checked.info),
            channels=checked.info.channels,
            has_reference=bool(checked.references),
        )
        return Separation(numbers=None, scores=scores if scored else [], notes=recording.notes)

    def _guide_notes(self, info: AudioInfo) -> list[str]:
        """That a guide hears a file at a rate which it was not recorded at."""
        try:
            self.method.quality(self.score_rate(info))
        except UserError:
            rate = info.sample_rate
            return [
                f"the guide hears it resampled up from {rate} Hz: its scores compare within this file only"
            ]
        return []

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

    def _generator(self, job: Job) -> Generator:
        digest = hashlib.blake2b(f"{self.seed} {job.name}".encode(), digest_size=7).digest()
        return Generator().manual_seed(int.from_bytes(digest))
