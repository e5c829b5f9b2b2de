"""What a file of an hour costs ``infer.py`` in memory beyond a file of one segment, and in time.

    python benchmarks/long_file.py [--minutes 60] [--guides dnsmos_ovrl si_sdr] [--steps 1] [--candidates 2]
    python benchmarks/long_file.py --music

Noisy synthetic speech is written to a temporary folder, at 16 kHz with one channel: 20 voices and noises in
changing order, 30 s and as many minutes as asked for. ``infer.py`` refines and scores both files under each
guide, blind ones without references, in a process of its own each time. With ``--music`` the files are
44.1 kHz stereo, and an untrained Hybrid Demucs (``hdemucs_tiny``, four sources) separates them once. Printed
are the largest memory that the process held for the short file and for the long one (Python, torch and the
separator included), and the real-time factor: seconds of work, Python's start included, per second of audio.
The goal for an hour is a difference below 2048 MiB.
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
from encore.data.synthesis import FloatArray
from encore.data.synthesis.noise import NOISES, draw_noise
from encore.data.synthesis.speech import draw_utterance, draw_voice

INFER = Path(__file__).parents[1] / "infer.py"
RATE = 16000
SEGMENT_SECONDS = 30
PIECES, PIECE_SECONDS = 20, 7.3
MUSIC_RATE = 44100
MUSIC_SEPARATOR = """
import sys
import yaml
from encore.models.checkpoint import instantiate, save_separator
config = yaml.safe_load(open("configs/model/hdemucs_tiny.yaml"))
config |= {"sources": ["drums", "bass", "other", "vocals"], "sample_rate": 44100, "channels": 2}
save_separator(sys.argv[1], instantiate(config), config)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took: wall time in seconds, and the largest memory that it held in MiB."""

    seconds: float
    peak: float


def write_files(folder: Path, lengths: Sequence[int], *, music: bool) -> None:
    """Write ``noisy/<seconds>.wav`` and ``clean/<seconds>.wav`` of each length, piece by piece."""
    rate, channels = (MUSIC_RATE, 2) if music else (RATE, 1)
    pieces = [noisy_speech(seed) for seed in tqdm(range(PIECES), desc="pieces", leave=False)]
    for number, kind in enumerate(("noisy", "clean")):
        (folder / kind).mkdir()
        for seconds in lengths:
            order, left = np.random.default_rng(seconds), seconds * rate
            with soundfile.SoundFile(folder / kind / f"{seconds}.wav", "w", rate, channels, "PCM_16") as file:
                while left:
                    piece = pieces[order.integers(PIECES)][number][:left]
                    file.write(np.stack([piece, 0.7 * piece][:channels], axis=1))
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
    command = [INFER, folder / "noisy" / name, "-o", out]
    if options.music:
        command += ["--separator", folder / "music.safetensors", "--method", "one_step", "--no-scores"]
    else:
        command += ["--guide", guide, "--steps", options.steps, "--candidates", options.candidates]
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
    parser.add_argument("--music", action="store_true", help="44.1 kHz stereo, four sources, one step")
    options = parser.parse_args()
    if options.music:
        options.guides = ["none"]
    print("| minutes | guide | 30 s, MiB | all, MiB | difference, MiB | real-time factor |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder, long = Path(name), 60 * options.minutes
        write_files(folder, (SEGMENT_SECONDS, long), music=options.music)
        if options.music:
            script = [sys.executable, "-c", MUSIC_SEPARATOR, str(folder / "music.safetensors")]
            subprocess.run(script, check=True, cwd=INFER.parent)
        for guide in options.guides:
            one, whole = (cost(folder, seconds, guide, options) for seconds in (SEGMENT_SECONDS, long))
            print(
                f"| {options.minutes} | {guide} | {one.peak:.0f} | {whole.peak:.0f} "
                f"| {whole.peak - one.peak:.0f} | {whole.seconds / long:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
