"""How much faster ``inference.refine`` is than the published loop written plainly, at the same result.

    python benchmarks/refinement_speed.py [--separator URI ...] [--guides si_sdr pesq dnsmos_ovrl] [--items 5]

For every separator and guide the items (noisy synthetic speech) are refined by both, in turn, on the same
cores. The control (``benchmarks/reference_refinement.py``) makes 1 + T K calls, one at a time, with as many
threads as torch takes by default; for DNSMOS it scores with the package ``speechmos``. Printed are medians of
the ratio of wall times, with the spread over items; how much of it comes from calls that need not be made
(ratio 1, and items that finished early); whether the scores agree to 1e-3 and the chosen ratios wherever the
best two candidates differ by more than 1e-4, both loops scoring with our measures; and, with one lane, the
shares of time of separator, measure and everything else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from reference_refinement import PlainResult, plain_refinement
from speechmos import dnsmos as speechmos_dnsmos
from torch import Tensor
from tqdm import tqdm

from commands.memory import keep_freed_memory
from data.synthesis.noise import NOISES, draw_noise
from data.synthesis.speech import draw_utterance, draw_voice
from inference import BatchSize, GridSearch, Refinement, refine
from metrics import Quality, get_quality
from models import load_separator
from models.types import LoadedSeparator
from reporting.tables import to_markdown

SCORE_TOLERANCE = 1e-3
TIE = 1e-4


class Timed:
    """A callable that counts the seconds spent in it."""

    def __init__(self, call: Any) -> None:
        self.call, self.seconds = call, 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = self.call(*arguments, **options)
        self.seconds += time.perf_counter() - start
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.call, name)


def ours(
    separator: Any, quality: Any, item: tuple[Tensor, Tensor], options: argparse.Namespace, *, lanes: int
) -> Refinement:
    """The refinement under test."""
    mixture, reference = item
    return refine(
        separator,
        mixture,
        steps=options.steps,
        search=GridSearch(options.candidates),
        quality=quality,
        reference=reference if quality.needs_reference else None,
        max_batch=options.batch,
        lanes=lanes,
    )


def control(
    separator: LoadedSeparator, quality: Quality, item: tuple[Tensor, Tensor], options: argparse.Namespace
) -> PlainResult:
    """The plain loop with one of our measures."""
    mixture, reference = item
    return plain_refinement(
        separator,
        mixture,
        lambda estimate: float(quality(estimate, reference=reference)),
        steps=options.steps,
        candidates=options.candidates,
    )


def control_with_speechmos(
    separator: LoadedSeparator, quality: Quality, item: tuple[Tensor, Tensor], options: argparse.Namespace
) -> PlainResult:
    """The plain loop as people run it, with the package that the scores come from."""
    key = f"{quality.name.removeprefix('dnsmos_')}_mos"

    def score(estimate: Tensor) -> float:
        return float(speechmos_dnsmos.run(estimate[0, 0].clamp(-1, 1).numpy(), sr=quality.sample_rate)[key])

    return plain_refinement(separator, item[0], score, steps=options.steps, candidates=options.candidates)


def timed(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(*arguments, **keywords)
    return time.perf_counter() - start, result


def disagreements(plain: PlainResult, refinement: Refinement) -> tuple[float, int]:
    """Largest difference of scores, and steps whose ratio differs though nothing near a tie came before."""
    scores = torch.tensor(plain.scores) - refinement.scores[:, 0]
    wrong = 0
    for ratio, margin, chosen in zip(
        plain.ratios, plain.margins, refinement.ratios[:, 0].tolist(), strict=True
    ):
        if margin <= TIE:
            break  # from here on the two may follow different estimates
        wrong += not np.isclose(ratio, chosen, equal_nan=True, atol=1e-6)
    return float(scores.abs().max()), wrong


def compare(uri: str | None, guide: str, options: argparse.Namespace) -> dict[str, str]:
    """One row of the table: all items under one guide."""
    separator = load_separator(uri)
    quality = get_quality(guide, sample_rate=separator.sample_rate)
    fast = get_quality(guide, sample_rate=separator.sample_rate, workers=options.workers)
    blind = guide.startswith("dnsmos")
    items = [noisy_speech(seed, options.seconds, separator.sample_rate) for seed in range(options.items)]
    ours(separator, fast, items[0], options, lanes=options.lanes)  # sets up kernels, processes, batch sizes
    plain_refinement(separator, items[0][0], lambda estimate: 0.0, steps=1, candidates=2)
    ratios, saved, shares, worst, wrong = [], [], [], 0.0, 0
    bar = tqdm(items, desc=f"{type(separator).__name__} {guide}", leave=False)
    for item in bar:
        mine, refinement = timed(ours, separator, fast, item, options, lanes=options.lanes)
        plainly, plain = timed(
            control_with_speechmos if blind else control, separator, quality, item, options
        )
        if blind:
            plain = control(separator, quality, item, options)
        ratios.append(plainly / mine)
        calls = 1 + options.steps * options.candidates
        saved.append(calls / float(refinement.evaluations[0]))
        difference, steps = disagreements(plain, refinement)
        worst, wrong = max(worst, difference), wrong + steps
        one, two = Timed(separator), Timed(quality)
        alone, _ = timed(ours, one, two, item, options, lanes=1)
        shares.append((one.seconds / alone, two.seconds / alone))
        bar.set_postfix(faster=f"{statistics.median(ratios):.1f}x")
    separated, scored = (statistics.median(column) for column in zip(*shares, strict=True))
    return {
        "separator": type(separator).__name__,
        "guide": guide,
        "faster": f"{statistics.median(ratios):.1f}x",
        "spread": f"{min(ratios):.1f} to {max(ratios):.1f}",
        "fewer calls": f"{statistics.median(saved):.1f}x",
        "the rest": f"{statistics.median(a / b for a, b in zip(ratios, saved, strict=True)):.1f}x",
        "scores differ by": f"{worst:.1e}" + ("" if worst <= SCORE_TOLERANCE else " (too much)"),
        "other ratios": str(wrong),
        "in separator": f"{separated:.0%}",
        "in measure": f"{scored:.0%}",
        "overhead": f"{1 - separated - scored:.1%}",
    }


def noisy_speech(seed: int, seconds: float, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Mixture and reference ``(1, 1, time)``: one synthetic voice in one kind of noise at 5 dB."""
    rng = np.random.default_rng(seed)
    voice = draw_voice(rng)
    _, speech = draw_utterance(voice, sample_rate, rng)
    frames = round(seconds * sample_rate)
    speech = 0.05 * np.resize(speech, frames) / np.std(speech)
    noise = draw_noise(sorted(NOISES)[seed % len(NOISES)], frames, sample_rate, rng)
    noise = noise * np.linalg.norm(speech) / np.linalg.norm(noise) * 10 ** (-5 / 20)
    mixture, reference = (torch.tensor(x, dtype=torch.float32)[None, None] for x in (speech + noise, speech))
    return mixture, reference


def main() -> None:
    """Print one row per separator and guide."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--separator", nargs="+", default=[None], help="checkpoints; by default the shipped one"
    )
    parser.add_argument("--guides", nargs="+", default=["si_sdr", "pesq", "dnsmos_ovrl"])
    parser.add_argument("--items", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--max-batch", type=int, help="blends in a call; found by timing by default")
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    with torch.no_grad():
        for uri in options.separator:
            options.batch = options.max_batch or BatchSize()
            rows += [compare(uri, guide, options) for guide in options.guides]
    print(to_markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
