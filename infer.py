"""Separate and refine audio files: ``python infer.py noisy.wav -o out``; see ``--help``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from encore.cli.dry_run import describe_plan
from encore.cli.file_separation import FileSeparator
from encore.cli.infer_options import parse
from encore.cli.infer_setup import Messages, build, check_inputs
from encore.cli.inputs import Job
from encore.cli.run_folder import RunFolder
from encore.cli.run_record import archive_previous_scores, describe_run
from encore.cli.score_writer import ScoreWriter, headline


def main(arguments: Sequence[str] | None = None) -> int:
    """Separate and refine the files of a command line.

    Returns:
        0 if every file was done, 1 if one or all could not be, 130 if interrupted. Each fault is one line on
        standard error.
    """
    options = parse(arguments)
    messages = Messages()
    try:
        files = build(options)
        jobs, skipped = check_inputs(options, files, messages)
        if options.dry_run:
            messages.say("\n".join(describe_plan(files, jobs)))
            return 1 if messages.faults else 0
        writer = None
        if jobs and files.scored:
            facts = describe_run(options, files)
            aside = archive_previous_scores(options.out, facts, skip_existing=options.skip_existing)
            if aside is not None:
                messages.note(f"{aside}: scores of an earlier run, with other settings")
            writer = ScoreWriter(options.out)
            RunFolder(options.out).update(**facts)
    except (ValueError, OSError) as error:
        messages.fault(None, error)
        return 1
    return run(options, files, jobs, skipped, writer, messages)


def run(
    options: argparse.Namespace,
    files: FileSeparator,
    jobs: Sequence[Job],
    skipped: int,
    writer: ScoreWriter | None,
    messages: Messages,
) -> int:
    """Process the files, report them in order, and keep their scores; returns the exit status."""
    start, done, interrupted = time.monotonic(), 0, False
    total = len(jobs) + len(messages.faults)
    try:
        for job, result in files.separate(jobs):
            try:
                if isinstance(result, Exception):
                    raise result
                if writer is not None:
                    writer.add(result.rows)
            except (ValueError, RuntimeError, MemoryError, OSError) as error:
                messages.fault(job.path, error)
                continue
            done += 1
            for note in result.notes:
                messages.note(f"{job.path}: {note}")
    except KeyboardInterrupt:
        interrupted = True
        messages.note(f"interrupted: {done} of {len(jobs)} files are done; go on with --skip-existing")
    finally:
        seconds = time.monotonic() - start
        left_out = f", {skipped} were there already" if skipped else ""
        messages.say(f"{done} of {total} files written to {options.out}{left_out}, {seconds:.1f} s")
        if writer is not None:
            try:
                facts = {"files": done, "skipped": skipped, "faults": messages.faults, "seconds": seconds}
                lines = headline(writer.finish(**facts))
                if lines:
                    messages.say("\n".join(lines))
                elif done:
                    messages.note("there are no scores: no measure fits; give --reference, or --no-scores")
            except (ValueError, OSError) as error:
                messages.fault(writer.path, error)
    return 130 if interrupted else int(bool(messages.faults))


def console() -> int:
    """Run the command line; a job stopped by its scheduler keeps its scores, like one stopped by hand."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(console())
