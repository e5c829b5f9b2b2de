"""Measure speed, always against a control within the same run.

    python benchmarks/speed.py metrics                     # DNSMOS against `speechmos`, PESQ in processes
    python benchmarks/speed.py options [URI ...]           # mixed precision and compiling against none
    python benchmarks/speed.py models [MODEL ...] [--time] # parameters, arithmetic, real-time factor
    python benchmarks/speed.py refinement [...]            # `encore.refine` against the published loop
    python benchmarks/speed.py training [...]              # training against asteroid's own
    python benchmarks/speed.py long_file [...]             # memory of infer.py on an hour and on 30 s

"faster" is the ratio of the medians of calls that take turns, in brackets the smallest and largest ratio of
one repetition. `speed.py SUBJECT --help` says what a subject measures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import speed_refinement
import speed_training
import torch
from omegaconf import OmegaConf
from shared import command_line, faster, in_turns, milliseconds, noisy_speech, print_table, timed
from speechmos import dnsmos as speechmos_dnsmos

from encore.cli.memory import disable_malloc_trim
from encore.cli.overrides import CONFIGS
from encore.metrics import dnsmos, get_metric
from encore.models import load_separator
from encore.models.acceleration import accelerate
from encore.models.checkpoint import instantiate
from encore.models.costs import macs_per_second, parameters

ACCELERATED: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "compiled": {"compiled": True},
    "compiled, bf16": {"precision": "bf16", "compiled": True},
}
SPEECH = {"sample_rate": 16000, "channels": 1, "sources": 1}
MUSIC = {"sample_rate": 44100, "channels": 2, "sources": 4}
FOR_MUSIC = ("hdemucs_", "bs_roformer_", "dttnet_", "spectrogram_unet_")
INFER = Path(__file__).parents[1] / "infer.py"
PEAK = """import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid, 0)
print(status, usage.ru_maxrss)"""
"""Runs a command; prints its status and its largest memory in KiB."""


def metrics(options: argparse.Namespace) -> None:
    """Compare metrics with their packages and with worker processes.

    DNSMOS of one clip, all scores and those of its primary network, against `speechmos.dnsmos.run`
    (onnxruntime, its default threads); PESQ and STOI of a batch, in this process against worker processes
    that run already. Leave OMP_NUM_THREADS unset.
    """
    rows = []
    for seconds in options.seconds:
        clip = noisy_speech(0, seconds, 16000)[0][0, 0].clamp(-1, 1)
        theirs, ours = partial(speechmos_dnsmos.run, clip.numpy(), 16000), partial(dnsmos, clip)
        primary = partial(ours, names=("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl"))
        own, some, control = in_turns([ours, primary, theirs], options.repeats)
        expected = {f"dnsmos_{name.removesuffix('_mos')}": score for name, score in theirs().items()}
        worst = max(abs(float(score) - float(expected[name])) for name, score in ours().items())
        rows.append(
            {
                "clip": f"{seconds:g} s",
                "speechmos": milliseconds(control),
                "ours, faster": faster(own, control),
                "without P.808, faster": faster(some, control),
                "scores differ by": f"{worst:.1e}" + ("" if worst <= 1e-4 else " (too much)"),
            }
        )
    print_table(rows)
    rows = []
    for name, seconds in product(("pesq", "stoi", "estoi"), options.seconds):
        pairs = [noisy_speech(seed, seconds, 16000) for seed in range(options.clips)]
        signals = [torch.cat(own) for own in zip(*pairs, strict=True)]
        both = [get_metric(name, sample_rate=16000, workers=count) for count in (options.workers, 0)]
        elsewhere, here = (partial(metric.score, *signals) for metric in both)
        own, control = in_turns([elsewhere, here], options.repeats)
        rows.append(
            {
                "metric": name,
                "batch": f"{options.clips} x {seconds:g} s",
                "in this process": milliseconds(control),
                f"in {options.workers} others": milliseconds(own),
                "faster": faster(own, control),
                "same scores": "yes" if torch.equal(elsewhere(), here()) else "no",
            }
        )
    print_table(rows)


@torch.inference_mode()
def separator_options(options: argparse.Namespace) -> None:
    """Compare options of separators at each batch size, in one thread, as the workers of a refinement."""
    torch.set_num_threads(1)
    rows = []
    for uri, name, batch in product(options.names or [None], ACCELERATED, options.batches):
        plain, changed = (load_separator(uri, device=options.device) for _ in range(2))
        accelerate(changed, **ACCELERATED[name])
        noise = torch.randn(batch, plain.channels, round(options.seconds * plain.sample_rate))
        mixture = 0.1 * noise.to(options.device)
        first, estimates = timed(changed, mixture)
        expected = plain(mixture)
        ours, theirs = in_turns([partial(changed, mixture), partial(plain, mixture)], options.repeats)
        rows.append(
            {
                "separator": type(plain).__name__,
                "option": name,
                "batch": str(batch),
                "without": milliseconds(theirs),
                "faster": faster(ours, theirs),
                "first call": f"{first:.1f} s",
                "estimates differ by": f"{float((estimates - expected).norm() / expected.norm()):.1e}",
            }
        )
    print_table(rows)


@torch.inference_mode()
def models(options: argparse.Namespace) -> None:
    """Count, and time, networks by their configurations, names of configs/model or patterns of them.

    Those for music by default with four sources of stereo at 44.1 kHz, the others with one of one channel at
    16 kHz; arithmetic as of `models/costs.py`.
    """
    files = [sorted((CONFIGS / "model").glob(f"{pattern}.yaml")) for pattern in options.names or ["*"]]
    if not all(files):
        raise SystemExit(f"error: MODEL={options.names}: give names of configs/model, or patterns of them")
    rows = []
    for path in (path for found in files for path in found):
        usual = MUSIC if path.stem.startswith(FOR_MUSIC) else SPEECH
        rate, channels, sources = (getattr(options, key) or usual[key] for key in usual)
        names = [f"source{number + 1}" for number in range(sources)]
        data = {"sample_rate": rate, "channels": channels, "sources": names}
        node = OmegaConf.create({"data": data, "model": OmegaConf.load(path)})
        config: Any = OmegaConf.to_container(node.model, resolve=True)
        with torch.device("meta"):
            network = instantiate(config)
        cells = {
            "model": path.stem,
            "audio": f"{rate / 1000:g} kHz, {channels} ch., {sources} src.",
            "parameters (M)": f"{parameters(network) / 1e6:.2f}",
            "GMAC per second": f"{macs_per_second(network, seconds=options.seconds) / 1e9:.2f}",
        }
        if options.time:
            noise = 0.1 * torch.randn(1, channels, round(options.seconds * rate))
            [own] = in_turns([partial(instantiate(config).eval(), noise)], options.repeats)
            cells["real-time factor"] = f"{median(own) / options.seconds:.3f}"
        rows.append(cells)
    print_table(rows)


def long_file(options: argparse.Namespace) -> None:
    """Measure the memory of ``infer.py`` on a long file beyond that on one of 30 s, and its time.

    Noisy synthetic speech, 20 voices and noises in changing order, is written to a temporary folder, 30 s and
    the given minutes. Printed are the largest memory that the process held, Python and torch included, and
    the seconds of work per second of audio of the long file. The goal for an hour is below 2048 MiB more.
    """
    rate = options.sample_rate
    # mixture and reference, (20, 2, samples)
    pieces = np.stack([torch.cat(noisy_speech(seed, 7.3, rate)).numpy()[:, 0] for seed in range(20)])
    peaks, took = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seconds in (30, 60 * options.minutes):
            order = np.random.default_rng(seconds).integers(20, size=seconds // 7)
            paths = [Path(folder, f"{kind}_{seconds}.wav") for kind in ("noisy", "clean")]
            for number, path in enumerate(paths):
                with soundfile.SoundFile(path, "w", rate, options.channels, "PCM_16") as file:
                    for place in order:
                        file.write(np.outer(pieces[place, number], 0.7 ** np.arange(options.channels)))
            command = [INFER, paths[0], "-o", Path(folder, f"out_{seconds}"), *options.infer]
            command += ["--reference", paths[1]] if options.reference else []
            # by a small process: the record of a process begins with the memory of the one that started it
            small = [sys.executable, "-c", PEAK, sys.executable, *map(str, command)]
            took, done = timed(subprocess.run, small, stdout=subprocess.PIPE, text=True, check=True)
            status, peak = map(int, done.stdout.split())
            if status:
                raise SystemExit(f"error: {' '.join(map(str, command))} failed")
            peaks.append(peak / 1024)
    audio = 7.3 * len(order)
    print(
        f"{peaks[1] - peaks[0]:.0f} MiB more than {peaks[0]:.0f} MiB, {took / audio:.2f} s a second of audio"
    )


Subject = tuple[Callable[[argparse.Namespace], None], dict[str, dict[str, Any]]]
DEVICE = {"default": "cpu"}
SUBJECTS: dict[str, Subject] = {  # what measures, and its options
    "metrics": (
        metrics,
        {
            "--seconds": {"type": float, "nargs": "+", "default": [4.0, 5.0, 8.0, 10.0], "help": "of clips"},
            "--repeats": {"type": int, "default": 7},
            "--clips": {"type": int, "default": 10, "help": "in a batch of PESQ and STOI"},
            "--workers": {"type": int, "default": 2, "help": "processes for PESQ and STOI"},
        },
    ),
    "options": (
        separator_options,
        {
            "names": {"nargs": "*", "metavar": "URI", "help": "separators; the shipped one by default"},
            "--seconds": {"type": float, "default": 3.0, "help": "of the input"},
            "--repeats": {"type": int, "default": 15},
            "--batches": {"type": int, "nargs": "+", "default": [1, 4], "help": "inputs in a call"},
            "--device": DEVICE,
        },
    ),
    "models": (
        models,
        {
            "names": {"nargs": "*", "metavar": "MODEL"},
            "--seconds": {"type": float, "default": 4.0, "help": "of the input"},
            "--repeats": {"type": int, "default": 5},
            "--time": {"action": "store_true", "help": "call the models, too"},
            **{f"--{name.replace('_', '-')}": {"type": int} for name in SPEECH},
        },
    ),
    "refinement": (speed_refinement.measure, speed_refinement.OPTIONS),
    "training": (speed_training.measure, speed_training.OPTIONS),
    "long_file": (
        long_file,
        {
            "infer": {
                "nargs": "*",
                "default": ["--guide", "dnsmos_ovrl", "--steps", "1", "--candidates", "2"],
                "metavar": "INFER OPTION",
                "help": "after --; by default --guide dnsmos_ovrl --steps 1 --candidates 2",
            },
            "--minutes": {"type": int, "default": 60},
            "--sample-rate": {"type": int, "default": 16000},
            "--channels": {"type": int, "default": 1},
            "--reference": {"action": "store_true", "help": "give infer.py the clean file, for oracles"},
        },
    ),
}


def main() -> None:
    """Measure one subject."""
    parser = command_line(__doc__)
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for name, (measure, arguments) in SUBJECTS.items():
        shape = argparse.RawDescriptionHelpFormatter
        own = subjects.add_parser(name, description=measure.__doc__, formatter_class=shape)
        for flag, settings in arguments.items():
            own.add_argument(flag, **settings)
    options = parser.parse_args()
    disable_malloc_trim()
    SUBJECTS[options.subject][0](options)


if __name__ == "__main__":
    main()
