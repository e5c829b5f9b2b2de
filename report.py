"""Compare runs: one step beside every multi-step guide, per metric, step, model and cost.

    python report.py RUN [RUN ...] -o OUT

RUN is a folder with ``scores.parquet`` or ``scores.csv`` and perhaps ``run.json``, as ``train.py`` and
``infer.py`` write it. OUT gets ``report.html`` (one file, pictures inside), ``report.md``, CSV tables and
PNG figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from encore.reporting import load_all, write_report


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folder, or a score file itself")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report"), help="folder to write (default: report)"
    )
    parser.add_argument("--title", default="Separation report", help="heading of the pages")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap intervals (default: 0)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report.

    Args:
        arguments: Command line without the program's name; the real one if None.

    Returns:
        0 if all went well; 1 if any run could not be read (the others are reported all the same), if none
        could, or if the folder cannot be written. Each fault is one line on standard error.
    """
    options = parse(arguments)
    runs, faults = load_all(options.runs)
    for fault in faults:
        print(f"report.py: {fault}", file=sys.stderr)
    if not runs:
        print("report.py: no run to report; give at least one folder with a score table", file=sys.stderr)
        return 1
    try:
        files = write_report(runs, options.out, title=options.title, seed=options.seed)
    except OSError as error:
        print(f"report.py: {options.out}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return 1
    print(f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {', '.join(run.name for run in runs)}")
    print(f"Open {files[0]} (or read {files[1]}); {len(files) - 2} tables and figures lie beside it.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
