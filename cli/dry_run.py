"""Describe what a run would do and about how long it would take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from encore.cli.file_separation import FileSeparator
from encore.cli.inputs import Job
from encore.inference.quality import relative_to
from encore.models.types import Separator

_LONGEST_CLIP_SECONDS = 4.0


def describe_plan(files: FileSeparator, jobs: Sequence[Job]) -> list[str]:
    """List files, separator calls and estimated time.

    Args:
        files: What would separate them.
        jobs: Checked jobs.

    Returns:
        Lines of text. Calls and time are upper bounds of the refinement: items that finish early cost less.
        A long file's calls are made for each of its segments, whose overlap is counted in the time.
        Reading, writing and scoring come on top.
    """
    if not jobs:
        return ["nothing to do"]
    method, count = files.method, len(files.separator.sources)
    metric = method.metric(files.separator.sample_rate)
    calls = method.max_calls(count, metric)
    scores = 0 if metric is None else calls - 1 + count
    each = "" if files.priors is None else f" of {files.priors.evaluations} network evaluations each"
    lines, work, segmented, longest = [], 0.0, False, method.segment_seconds or math.inf
    for job in jobs:
        segments = files.segments(job)
        segmented |= segments > 1
        # segments overlap
        work += job.info.channels * (job.seconds if segments == 1 else segments * longest)
        parts = f" for each of {segments} segments" if segments > 1 else ""
        outputs = ", ".join(map(str, job.outputs))
        lines.append(
            f"{job.path} -> {outputs} ({job.seconds:.1f} s, at most {calls} separator calls{each}{parts})"
        )
    # a clip as long as the usual file: the cost of a measure is no multiple of the length
    clip = min(_LONGEST_CLIP_SECONDS, sorted(job.seconds for job in jobs)[len(jobs) // 2])
    clip = min(clip, longest) if segmented else clip
    per_call, per_score = _seconds_per_call(files, clip)
    estimate = work / clip * (calls * per_call + scores * per_score)
    return [
        *lines,
        f"{len(jobs)} files, {sum(job.seconds for job in jobs):.1f} s of audio, for each"
        f"{' segment' if segmented else ''} at most {calls} separator calls and {scores} scores of the guide",
        f"estimated time: at most about {_readable(estimate)} (a call on {clip:.1f} s of audio takes "
        f"{per_call:.3f} s, a score {per_score:.3f} s, on {files.device})",
    ]


def _seconds_per_call(files: FileSeparator, clip: float) -> tuple[float, float]:
    """Return the time of one separator call and one score of the guide, on noise of ``clip`` seconds."""
    rate = files.separator.sample_rate
    shape = (1, files.separator.channels, max(2, round(clip * rate)))
    noise = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(files.device)
    separator: Separator = files.separator
    factor = 1.0
    if files.priors is not None:
        # all of a chain would take as long as a file
        separator = short = files.priors.shortened(2)
        factor = files.priors.steps / short.steps
    per_call = factor * _timed(lambda: separator(noise))
    metric = files.method.metric(rate)
    if metric is None:
        return per_call, 0.0
    estimates = noise[:, None, :1]
    # the calls of a metric that calls the separator are counted among the calls
    bound = metric.bind(mixture=noise[:, :1], references=estimates, separate=lambda inputs: inputs[:, None])
    quality = relative_to(bound, estimates)
    return per_call, _timed(lambda: quality(estimates))


@torch.no_grad()
def _timed(call: Callable[[], Tensor]) -> float:
    """Return the seconds of the second call: the first one loads and plans."""
    call()
    start = time.perf_counter()
    call().sum().item()  # waits for the device
    return time.perf_counter() - start


def _readable(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
