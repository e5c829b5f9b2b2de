"""Process files in parallel and report them in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from tqdm import tqdm

from encore.cli.file_separation import CheckedJob, FileSeparator
from encore.cli.infer_setup import Messages
from encore.cli.score_writer import ScoreWriter
from encore.inference.execution import WorkerPool, default_workers

Result = tuple[pd.DataFrame | None, list[str]] | Exception
"""Score rows and notes of a file, or the error."""


def process_files(
    files: FileSeparator, jobs: Sequence[CheckedJob], writer: ScoreWriter | None, messages: Messages
) -> Iterator[bool]:
    """Separate, score and write every file, on a CPU as many at a time as there are cores.

    Yields:
        For each file, in order, whether it was done; if not, the reason has been reported.
    """
    with WorkerPool(min(default_workers(files.device), max(1, len(jobs)))) as pool:
        results = pool.map(lambda checked: _process(files, checked, writer), jobs)
        # without a terminal there is no bar, so that logs hold lines only
        for checked, result in zip(tqdm(jobs, unit="file", disable=None), results, strict=True):
            yield _take(checked, result, writer, messages)


def _process(files: FileSeparator, checked: CheckedJob, writer: ScoreWriter | None) -> Result:
    """Separate, score and write one file."""
    try:
        with files.outputs(checked) as outputs:
            separation = files.separate(checked, outputs, scored=writer is not None)
            # scored before the block ends: a file that is there has its scores too
            rows = None if writer is None else writer.rows(files, checked, separation)
        return rows, separation.notes + outputs.notes
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        return error


def _take(checked: CheckedJob, result: Result, writer: ScoreWriter | None, messages: Messages) -> bool:
    """Report the result of a file and keep its scores; return whether it was done."""
    path = checked.job.path
    try:
        if isinstance(result, Exception):
            raise result
        rows, notes = result
        if writer is not None and rows is not None:
            writer.add(rows)
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        messages.fault(path, error)
        return False
    for note in notes:
        messages.note(f"{path}: {note}")
    return True
