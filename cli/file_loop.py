"""All files of one call of ``infer.py``: several at a time where there are cores, told of in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from tqdm import tqdm

from encore.cli.file_separation import CheckedJob, FileSeparator
from encore.cli.infer_setup import Messages
from encore.cli.inference_scores import ScoreBook
from encore.inference.execution import Lanes, usual_lanes

Result = tuple[pd.DataFrame | None, list[str]] | Exception
"""Score rows and notes of a file that was done, or why it could not be."""


def process_files(
    files: FileSeparator, jobs: Sequence[CheckedJob], book: ScoreBook | None, messages: Messages
) -> Iterator[bool]:
    """Separate, score and write every file, on a CPU as many at a time as there are cores.

    Yields:
        For each file, in order, whether it was done; if not, the reason has been told.
    """
    with Lanes(min(usual_lanes(files.device), max(1, len(jobs)))) as lanes:
        results = lanes.map(lambda checked: _process(files, checked, book), jobs)
        # without a terminal there is no bar, so that logs hold lines only
        for checked, result in zip(tqdm(jobs, unit="file", disable=None), results, strict=True):
            yield _take(checked, result, book, messages)


def _process(files: FileSeparator, checked: CheckedJob, book: ScoreBook | None) -> Result:
    """Separate, score and write one file."""
    try:
        with files.outputs(checked) as outputs:
            separation = files.separate(checked, outputs, keep_trajectory=book is not None)
            # scored before the block ends: a file that is there has its scores too
            rows = None if book is None else book.rows(files, checked, separation)
        return rows, separation.notes + outputs.notes
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        return error


def _take(checked: CheckedJob, result: Result, book: ScoreBook | None, messages: Messages) -> bool:
    """Tell what became of a file and keep its scores; says whether it was done."""
    path = checked.job.path
    try:
        if isinstance(result, Exception):
            raise result
        rows, notes = result
        if book is not None and rows is not None:
            book.add(rows)
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        messages.fault(path, error)
        return False
    for note in notes:
        messages.note(f"{path}: {note}")
    return True
