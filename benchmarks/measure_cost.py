"""What measures cost: DNSMOS against the package `speechmos`, PESQ and STOI in this process against others.

    python benchmarks/measure_cost.py [--seconds 4 5 8 10] [--repeats 7] [--clips 10] [--workers 2]

Noisy synthetic speech of each length. First table: one clip, all four scores of DNSMOS and the three of its
primary network only, against `speechmos.dnsmos.run`, which computes all four (onnxruntime, its default
threads). Second table: PESQ and STOI of a batch, in this process against worker processes that run already.
The two sides of a comparison take turns. "faster" is the ratio of their medians over the repetitions, in
brackets the smallest and largest ratio of one repetition. Leave OMP_NUM_THREADS unset and the machine idle:
threads that wait for each other at every convolution suffer more than others from a busy one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from refinement_speed import noisy_speech
from speechmos import dnsmos as speechmos_dnsmos
from torch import Tensor
from tqdm import tqdm

from encore.metrics import dnsmos, estoi, pesq, stoi
from encore.metrics.blind import DNSMOS_NAMES
from encore.reporting.tables import to_markdown

RATE = 16000
PRIMARY_NAMES = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")
CLAIMED_DIFFERENCE = 1e-4


def in_turns(calls: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of each repetition of each call, after one that does not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repetition in range(repeats + 1):
        for call, own in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if repetition:
                own.append(time.perf_counter() - start)
    return seconds


def faster(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Ratio of medians, smallest and largest ratio."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    ratio = statistics.median(theirs) / statistics.median(ours)
    return f"{ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def dnsmos_row(seconds: float, repeats: int) -> dict[str, str]:
    """DNSMOS of one clip."""
    clip = noisy_speech(0, seconds, RATE)[0][0, 0].clamp(-1, 1)
    samples = clip.numpy()
    ours, primary, control = in_turns(
        [
            lambda: dnsmos(clip),
            lambda: dnsmos(clip, names=PRIMARY_NAMES),
            lambda: speechmos_dnsmos.run(samples, RATE),
        ],
        repeats,
    )
    scores, expected = dnsmos(clip), speechmos_dnsmos.run(samples, RATE)
    worst = max(
        abs(scores[name].item() - float(expected[f"{name.removeprefix('dnsmos_')}_mos"]))
        for name in DNSMOS_NAMES
    )
    return {
        "clip": f"{seconds:g} s",
        "speechmos": milliseconds(control),
        "dnsmos": milliseconds(ours),
        "faster": faster(ours, control),
        "without P.808": milliseconds(primary),
        "faster ": faster(primary, control),
        "scores differ by": f"{worst:.1e}" + ("" if worst <= CLAIMED_DIFFERENCE else " (too much)"),
    }


def processes_row(
    name: str, measure: Callable[..., Tensor], seconds: float, options: argparse.Namespace
) -> dict[str, str]:
    """A measure of single signals of a batch."""
    pairs = [noisy_speech(seed, seconds, RATE) for seed in range(options.clips)]
    estimate, reference = (torch.cat(signals) for signals in zip(*pairs, strict=True))
    ours, control = in_turns(
        [
            lambda: measure(estimate, reference, workers=options.workers),
            lambda: measure(estimate, reference),
        ],
        options.repeats,
    )
    same = torch.equal(measure(estimate, reference, workers=options.workers), measure(estimate, reference))
    return {
        "measure": name,
        "batch": f"{options.clips} x {seconds:g} s",
        "in this process": milliseconds(control),
        f"in {options.workers} others": milliseconds(ours),
        "faster": faster(ours, control),
        "same scores": "yes" if same else "no",
    }


def milliseconds(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.0f} ms"


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[4.0, 5.0, 8.0, 10.0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clips", type=int, default=10, help="clips in a batch of PESQ and STOI")
    parser.add_argument("--workers", type=int, default=2, help="processes for PESQ and STOI")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads in torch\n")
    rows = [dnsmos_row(seconds, options.repeats) for seconds in tqdm(options.seconds, leave=False)]
    print(to_markdown(pd.DataFrame(rows)), end="\n\n")
    measures = {
        "PESQ": pesq,
        "STOI": lambda *pair, **extra: stoi(*pair, sample_rate=RATE, **extra),
        "ESTOI": lambda *pair, **extra: estoi(*pair, sample_rate=RATE, **extra),
    }
    rows = [
        processes_row(name, measure, seconds, options)
        for name, measure in tqdm(measures.items(), leave=False)
        for seconds in options.seconds
    ]
    print(to_markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
