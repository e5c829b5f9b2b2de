"""Where the time of a refinement goes: separator, measure, and everything else, as shares of one run.

    python benchmarks/refinement_cost.py [--separator URI] [--items 3] [--seconds 3]

Refines noisy synthetic speech under each guide, one item at a time, and prints medians over items: seconds in
all, the shares, the separator calls, and how much of the published 1 + T K calls the exact savings leave.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from commands.memory import keep_freed_memory
from data.synthesis.noise import NOISES, draw_noise
from data.synthesis.speech import draw_utterance, draw_voice
from inference import GridSearch, refine
from metrics import get_quality
from models import load_separator


class Timed:
    """A callable that counts the seconds spent in it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call, self.seconds = call, 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = self.call(*arguments, **options)
        self.seconds += time.perf_counter() - start
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.call, name)


def main() -> None:
    """Print one row per guide."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--separator", help="a checkpoint; the shipped separator by default")
    parser.add_argument("--guides", nargs="+", default=["si_sdr", "pesq", "dnsmos_ovrl"])
    parser.add_argument("--items", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--max-batch", type=int, default=4)
    options = parser.parse_args()
    keep_freed_memory()
    separator = load_separator(options.separator)
    items = [noisy_speech(seed, options.seconds, separator.sample_rate) for seed in range(options.items)]
    separator(items[0][0])  # the first call sets up kernels
    print("| guide | seconds | separator | measure | the rest | calls | of 1 + T K |")
    print("| :--- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.guides:
        rows = []
        for mixture, reference in items:
            timed = Timed(separator)
            quality = Timed(get_quality(name, sample_rate=separator.sample_rate))
            start = time.perf_counter()
            result = refine(
                timed,
                mixture,
                steps=options.steps,
                search=GridSearch(options.candidates),
                quality=quality,  # type: ignore[arg-type]
                reference=reference if quality.needs_reference else None,
                max_batch=options.max_batch,
            )
            total = time.perf_counter() - start
            rows.append((total, timed.seconds / total, quality.seconds / total, int(result.evaluations[0])))
        total, separated, scored, calls = (statistics.median(column) for column in zip(*rows, strict=True))
        published = 1 + options.steps * options.candidates
        print(
            f"| {name} | {total:.2f} | {separated:.0%} | {scored:.0%} | {1 - separated - scored:.1%} "
            f"| {calls:g} | {calls / published:.0%} |"
        )


def noisy_speech(seed: int, seconds: float, sample_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixture and reference ``(1, 1, time)``: one synthetic voice in one kind of noise at 5 dB."""
    rng = np.random.default_rng(seed)
    voice = draw_voice(rng)
    _, speech = draw_utterance(voice, sample_rate, rng)
    frames = round(seconds * sample_rate)
    speech = np.resize(speech, frames)
    noise = draw_noise(sorted(NOISES)[seed % len(NOISES)], frames, sample_rate, rng)
    noise = noise * np.linalg.norm(speech) / np.linalg.norm(noise) * 10 ** (-5 / 20)
    mixture, reference = (torch.tensor(x, dtype=torch.float32)[None, None] for x in (speech + noise, speech))
    return mixture, reference


if __name__ == "__main__":
    main()
