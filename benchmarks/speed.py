"""Measure speed, always against a control within the same run.

    python benchmarks/speed.py metrics                     # DNSMOS against `speechmos`, PESQ in processes
    python benchmarks/speed.py options [URI ...]           # mixed precision and compiling against none
    python benchmarks/speed.py models [MODEL ...] [--time] # parameters, arithmetic, real-time factor
    python benchmarks/speed.py pretrained                  # the separators inside wheels: docs/separators.md
    python benchmarks/speed.py refinement [...]            # `encore.refine` against the published loop
    python benchmarks/speed.py training [...]              # training against asteroid's own
    python benchmarks/speed.py long_file [...]             # memory of infer.py on an hour and on 30 s

"faster" is the ratio of the medians of calls that take turns, in brackets the smallest and largest ratio of
one repetition. `speed.py SUBJECT --help` says what a subject measures.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import soundfile
import speed_refinement
import speed_training
import torch
from omegaconf import OmegaConf
from shared import (
    command_line,
    faster,
    in_turns,
    milliseconds,
    noisy_speech,
    print_table,
    run,
    subcommand,
    timed,
)
from speechmos import dnsmos as speechmos_dnsmos

from encore.cli.memory import disable_malloc_trim
from encore.cli.overrides import CONFIGS
from encore.metrics import dnsmos, get_metric
from encore.models import load_separator
from encore.models.acceleration import accelerate
from encore.models.checkpoint import instantiate
from encore.models.costs import macs_per_second, parameters
from encore.models.pretrained.registry import LOADERS

ACCELERATED: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "compiled": {"compiled": True},
    "compiled, bf16": {"precision": "bf16", "compiled": True},
}
SPEECH = {"sample_rate": 16000, "channels": 1, "sources": 1}
MUSIC = {"sample_rate": 44100, "channels": 2, "sources": 4}
FOR_MUSIC = ("hdemucs_", "bs_roformer_", "dttnet_", "spectrogram_unet_")
INFER = Path(__file__).parents[1] / "infer.py"
INFER_OPTIONS = ("--guide", "dnsmos_ovrl", "--steps", "1", "--candidates", "2")
PEAK = """import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid, 0)
print(status, usage.ru_maxrss)"""
"""Runs a command; prints its status and its largest memory in KiB."""


def metrics(
    *, seconds: tuple[float, ...] = (4.0, 5.0, 8.0, 10.0), repeats: int = 7, clips: int = 10, workers: int = 2
) -> None:
    """Compare metrics with their packages, and with worker processes on a batch of clips.

    DNSMOS of one clip, all scores and those of its primary network, against `speechmos.dnsmos.run`
    (onnxruntime, its default threads); PESQ and STOI of a batch, in this process against worker processes
    that run already. Leave OMP_NUM_THREADS unset.
    """
    rows = []
    for length in seconds:
        clip = noisy_speech(0, length, 16000)[0][0, 0].clamp(-1, 1)
        theirs, ours = partial(speechmos_dnsmos.run, clip.numpy(), 16000), partial(dnsmos, clip)
        primary = partial(ours, names=("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl"))
        own, some, control = in_turns([ours, primary, theirs], repeats)
        expected = {f"dnsmos_{name.removesuffix('_mos')}": score for name, score in theirs().items()}
        worst = max(abs(float(score) - float(expected[name])) for name, score in ours().items())
        rows.append(
            {
                "clip": f"{length:g} s",
                "speechmos": milliseconds(control),
                "ours, faster": faster(own, control),
                "without P.808, faster": faster(some, control),
                "scores differ by": f"{worst:.1e}" + ("" if worst <= 1e-4 else " (too much)"),
            }
        )
    print_table(rows)
    rows = []
    for name, length in product(("pesq", "stoi", "estoi"), seconds):
        pairs = [noisy_speech(seed, length, 16000) for seed in range(clips)]
        signals = [torch.cat(own) for own in zip(*pairs, strict=True)]
        both = [get_metric(name, sample_rate=16000, workers=count) for count in (workers, 0)]
        elsewhere, here = (partial(metric.score, *signals) for metric in both)
        own, control = in_turns([elsewhere, here], repeats)
        rows.append(
            {
                "metric": name,
                "batch": f"{clips} x {length:g} s",
                "in this process": milliseconds(control),
                f"in {workers} others": milliseconds(own),
                "faster": faster(own, control),
                "same scores": "yes" if torch.equal(elsewhere(), here()) else "no",
            }
        )
    print_table(rows)


@torch.inference_mode()
def options(
    *uri: str, seconds: float = 3.0, repeats: int = 15, batches: tuple[int, ...] = (1, 4), device: str = "cpu"
) -> None:
    """Compare options of separators at each batch size, in one thread, as the workers of a refinement."""
    torch.set_num_threads(1)
    rows = []
    for each, name, batch in product(uri or [None], ACCELERATED, batches):
        plain, changed = (load_separator(each, device=device) for _ in range(2))
        accelerate(changed, **ACCELERATED[name])
        noise = torch.randn(batch, plain.channels, round(seconds * plain.sample_rate))
        mixture = 0.1 * noise.to(device)
        first, estimates = timed(changed, mixture)
        expected = plain(mixture)
        ours, theirs = in_turns([partial(changed, mixture), partial(plain, mixture)], repeats)
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
def models(
    *model: str,
    seconds: float = 4.0,
    repeats: int = 5,
    time: bool = False,
    sample_rate: int = 0,
    channels: int = 0,
    sources: int = 0,
) -> None:
    """Count, and time, separators by their configurations, names of configs/model or patterns of them.

    Bridges and priors, whose configurations Hydra completes, are left out. Those for music by default with
    four sources of stereo at 44.1 kHz, the others with one of one channel at 16 kHz; arithmetic as of
    `models/costs.py`. ``--time`` calls them.
    """
    files = [sorted((CONFIGS / "model").glob(f"{pattern}.yaml")) for pattern in model or ["*"]]
    if not all(files):
        raise SystemExit(f"error: MODEL={model}: give names of configs/model, or patterns of them")
    given, rows = {"sample_rate": sample_rate, "channels": channels, "sources": sources}, []
    for path in (path for found in files for path in found):
        usual = MUSIC if path.stem.startswith(FOR_MUSIC) else SPEECH
        rate, width, count = (given[key] or usual[key] for key in usual)
        names = [f"source{number + 1}" for number in range(count)]
        data = {"sample_rate": rate, "channels": width, "sources": names}
        loaded = OmegaConf.load(path)
        if "defaults" in loaded:
            continue
        node = OmegaConf.create({"data": data, "model": loaded})
        config: Any = OmegaConf.to_container(node.model, resolve=True)
        with torch.device("meta"):
            network = instantiate(config)
        cells = {
            "model": path.stem,
            "audio": f"{rate / 1000:g} kHz, {width} ch., {count} src.",
            "parameters (M)": f"{parameters(network) / 1e6:.2f}",
            "GMAC per second": f"{macs_per_second(network, seconds=seconds) / 1e9:.2f}",
        }
        if time:
            noise = 0.1 * torch.randn(1, width, round(seconds * rate))
            [own] = in_turns([partial(instantiate(config).eval(), noise)], repeats)
            cells["real-time factor"] = f"{median(own) / seconds:.3f}"
        rows.append(cells)
    print_table(rows)


@torch.inference_mode()
def pretrained(*, seconds: float = 47.5, repeats: int = 3) -> None:
    """Count and time the separators inside wheels, in one thread: the table of docs/separators.md.

    The length is four segments of Spleeter. The real-time factor is the CPU's time, not the clock's, of the
    fastest call: other processes disturb it least. Latency and licences are those of the registry.
    """
    torch.set_num_threads(1)
    rows = []
    for loader in LOADERS.values():
        for facts in loader.facts:
            separator = load_separator(facts.uri)
            rate, channels = separator.sample_rate, separator.channels
            noise = 0.1 * torch.randn(1, channels, round(seconds * rate))
            took = []
            for _ in range(repeats):
                start = process_time()
                separator(noise)
                took.append(process_time() - start)
            measured = facts._replace(
                sample_rate=rate,
                sources=separator.sources,
                parameters=parameters(separator) / 1e6,
                macs=macs_per_second(separator, seconds=seconds) / 1e6,
                real_time_factor=min(took) / seconds,
            )
            rows.append({**measured.row(), "install": loader.remedy})
    print_table(rows)


def long_file(
    *option: str, minutes: int = 60, sample_rate: int = 16000, channels: int = 1, reference: bool = False
) -> None:
    """Measure the memory of ``infer.py`` on a long file beyond that on one of 30 s, and its time.

    Its options follow ``--``, by default --guide dnsmos_ovrl --steps 1 --candidates 2; ``--reference`` gives
    it the clean file, for oracles.

    Noisy speech, 20 mixtures in changing order, is written to a temporary folder, 30 s and
    the given minutes. Printed are the largest memory that the process held, Python and torch included, and
    the seconds of work per second of audio of the long file. The goal for an hour is below 2048 MiB more.
    """
    # mixture and reference, (20, 2, samples)
    pieces = np.stack([torch.cat(noisy_speech(seed, 7.3, sample_rate)).numpy()[:, 0] for seed in range(20)])
    peaks, took = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seconds in (30, 60 * minutes):
            order = np.random.default_rng(seconds).integers(20, size=seconds // 7)
            paths = [Path(folder, f"{kind}_{seconds}.wav") for kind in ("noisy", "clean")]
            for number, path in enumerate(paths):
                with soundfile.SoundFile(path, "w", sample_rate, channels, "PCM_16") as file:
                    for place in order:
                        file.write(np.outer(pieces[place, number], 0.7 ** np.arange(channels)))
            command = [INFER, paths[0], "-o", Path(folder, f"out_{seconds}"), *(option or INFER_OPTIONS)]
            command += ["--reference", paths[1]] if reference else []
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


def main() -> None:
    """Measure one subject."""
    parser = command_line(__doc__)
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT")
    subcommand(subjects, "metrics", metrics)
    subcommand(subjects, "options", options)
    subcommand(subjects, "models", models)
    subcommand(subjects, "pretrained", pretrained)
    subcommand(subjects, "refinement", speed_refinement.refinement)
    subcommand(subjects, "training", speed_training.training)
    subcommand(subjects, "long_file", long_file)
    disable_malloc_trim()
    run(parser)


if __name__ == "__main__":
    main()
