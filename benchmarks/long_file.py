"""Measure the memory of ``infer.py`` on a long file beyond that on one of 30 s, and its time.

    python benchmarks/long_file.py [--minutes 60] [--reference]
        [INFER OPTION ...]    # by default --guide dnsmos_ovrl --steps 1 --candidates 2

Noisy synthetic speech, 20 voices and noises in changing order, is written to a temporary folder, 30 s and the
given minutes. ``infer.py`` works on both files in a process of its own, with the options that are not this
script's. Printed are the largest memory that the process held, Python and torch included, and the seconds of
work per second of audio of the long file. The goal for an hour is a difference below 2048 MiB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

# nothing here may import torch: the record of a process begins with the memory of the one that started it
from shared import command_line, draw_noisy_speech

INFER = Path(__file__).parents[1] / "infer.py"
PIECES = 20


def write_files(folder: Path, lengths: tuple[int, int], rate: int, channels: int) -> None:
    """Write ``noisy/<seconds>.wav`` and ``clean/<seconds>.wav`` of each length, piece by piece."""
    pieces = [draw_noisy_speech(seed, 7.3, 16000) for seed in range(PIECES)]
    for number, kind in enumerate(("noisy", "clean")):
        (folder / kind).mkdir()
        for seconds in lengths:
            order, left = np.random.default_rng(seconds), seconds * rate
            path = folder / kind / f"{seconds}.wav"
            with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
                while left:
                    piece = pieces[order.integers(PIECES)][number][:left]
                    file.write(np.outer(piece, 0.7 ** np.arange(channels)))
                    left -= len(piece)


def cost(folder: Path, seconds: int, options: argparse.Namespace) -> tuple[float, float]:
    """Return the largest memory in MiB, and the seconds, of a process that works on one of the files."""
    name = f"{seconds}.wav"
    command = [INFER, folder / "noisy" / name, "-o", folder / f"out_{seconds}", *options.infer]
    command += ["--reference", folder / "clean" / name] if options.reference else []
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
    # its own record: that of all children is the largest of them
    _, status, usage = os.wait4(process.pid, 0)
    elapsed, process.returncode = time.monotonic() - start, os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"error: {' '.join(map(str, command))} failed")
    return usage.ru_maxrss / 1024, elapsed


def main() -> None:
    """Print the difference."""
    parser = command_line(__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--sample-rate", type=int, default=16000)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--reference", action="store_true", help="give infer.py the clean file, for oracles")
    options, given = parser.parse_known_args()
    options.infer = given or ["--guide", "dnsmos_ovrl", "--steps", "1", "--candidates", "2"]
    lengths = (30, 60 * options.minutes)
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), lengths, options.sample_rate, options.channels)
        (short, _), (peak, seconds) = (cost(Path(name), length, options) for length in lengths)
    print(f"{peak - short:.0f} MiB more than {short:.0f} MiB, {seconds / lengths[1]:.2f} s a second of audio")


if __name__ == "__main__":
    main()
