"""What a file of an hour costs ``infer.py`` in memory beyond a file of one segment, and in time.

    python benchmarks/long_file.py [--minutes 60] [--guides dnsmos_ovrl si_sdr] [--steps 1] [--candidates 2]

Noisy synthetic speech is written to a temporary folder, at 16 kHz with one channel: 20 voices and noises in
changing order, 30 s and as many minutes as asked for. ``infer.py`` refines and scores both files under each
guide, blind ones without references, in a process of its own each time. Printed are the largest memory that
the process held for the short file and for the long one (Python, torch and the separator included), the
and the real-time factor: seconds of work, Python's start included, per second of audio. The goal for an hour
is a difference below 2048 MiB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

# nothing here may import torch: the record of a process begins with the memory of the one that started it
from data.synthesis import FloatArray
from data.synthesis.noise import NOISES, draw_noise
from data.synthesis.speech import draw_utterance, draw_voice

INFER = Path(__file__).parents[1] / "infer.py"
RATE = 16000
SEGMENT_SECONDS = 30
PIECES, PIECE_SECONDS = 20, 7.3


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took: wall time in seconds, and the largest memory that it held in MiB."""

    seconds: float
    peak: float


def write_files(folder: Path, lengths: Sequence[int]) -> None:
    """Write ``noisy/<seconds>.wav`` and ``clean/<seconds>.wav`` of each length, piece by piece."""
    pieces = [noisy_speech(seed) for seed in tqdm(range(PIECES), desc="pieces", leave=False)]
    for number, kind in enumerate(("noisy", "clean")):
        (folder / kind).mkdir()
        for seconds in lengths:
            order, left = np.random.default_rng(seconds), seconds * RATE
            with soundfile.SoundFile(folder / kind / f"{seconds}.wav", "w", RATE, 1, "PCM_16") as file:
                while left:
                    piece = pieces[order.integers(PIECES)][number][:left]
                    file.write(piece)
                    left -= len(piece)


def noisy_speech(seed: int) -> tuple[FloatArray, FloatArray]:
    """Mixture and reference ``(time,)``: one voice in one kind of noise at 5 dB."""
    rng = np.random.default_rng(seed)
    frames = round(PIECE_SECONDS * RATE)
    speech = np.resize(draw_utterance(draw_voice(rng), RATE, rng)[1], frames)
    speech = 0.05 * speech / np.std(speech)
    noise = draw_noise(sorted(NOISES)[seed % len(NOISES)], frames, RATE, rng)
    return speech + 0.05 * 10 ** (-5 / 20) * noise / np.std(noise), speech


def cost(folder: Path, seconds: int, guide: str, options: argparse.Namespace) -> Cost:
    """Refine one of the files in a process of its own.

    Raises:
        RuntimeError: If it failed.
    """
    name, out = f"{seconds}.wav", folder / f"{guide}_{seconds}"
    command = [INFER, folder / "noisy" / name, "-o", out, "--guide", guide, "--steps", options.steps]
    command += ["--candidates", options.candidates]
    if not guide.startswith("dnsmos"):
        command += ["--reference", folder / "clean" / name]
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
    # its own record: that of all children is the largest of them
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"infer.py {' '.join(map(str, command[1:]))} ended with {process.returncode}")
    return Cost(elapsed, usage.ru_maxrss / 1024)


def main() -> None:
    """Print one row for each guide."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--guides", nargs="+", default=["dnsmos_ovrl", "si_sdr"])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--candidates", type=int, default=2)
    options = parser.parse_args()
    print("| minutes | guide | 30 s, MiB | all, MiB | difference, MiB | real-time factor |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder, long = Path(name), 60 * options.minutes
        write_files(folder, (SEGMENT_SECONDS, long))
        for guide in options.guides:
            one, whole = (cost(folder, seconds, guide, options) for seconds in (SEGMENT_SECONDS, long))
            print(
                f"| {options.minutes} | {guide} | {one.peak:.0f} | {whole.peak:.0f} "
                f"| {whole.peak - one.peak:.0f} | {whole.seconds / long:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
