"""How much faster ``encore.inference.refine`` is than the published loop written plainly, at the same result.

    python benchmarks/refinement_speed.py [--separator URI ...] [--guides si_sdr pesq dnsmos_ovrl] [--items 5]
        [--data CORPUS] [--device cuda] [--trace trace.json]

For every separator and guide the items (test items of a corpus, or noisy speech made on the spot) are refined
by both, in turn, on the same cores. The control (``benchmarks/reference_refinement.py``) makes 1 + T K calls,
one at a time, with as many threads as torch takes by default; for DNSMOS it scores with the package
``speechmos``. Printed are

- medians of the ratio of wall times, with the spread over items, and how much of it comes from calls that
  need not be made (ratio 1, and items that finished early);
- whether the scores agree to 1e-3, and the chosen ratios wherever the best two candidates differ by more than
  1e-4, both loops scoring with our measures;
- with one lane, the shares of time of separator, measure and everything else;
- for the frugal search that ``infer.py`` uses by default, the ratio of wall times to the plain loop, item by
  item and for all of them, as many at a time as there are lanes, and the share of the plain loop's gain.

``--trace`` profiles one refinement instead, prints what took longest and writes a Chrome trace.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from reference_refinement import PlainResult, plain_refinement
from search_front import Pair, load_items
from speechmos import dnsmos as speechmos_dnsmos
from torch import Tensor
from torch.profiler import profile
from tqdm import tqdm

from encore.cli.memory import keep_freed_memory
from encore.data.synthesis.noise import NOISES, draw_noise
from encore.data.synthesis.speech import draw_utterance, draw_voice
from encore.inference import BatchSize, GreedySearch, GridSearch, Lanes, Refinement, Search, refine
from encore.metrics import Quality, get_quality
from encore.models import load_separator
from encore.models.costs import macs_per_second
from encore.models.types import LoadedSeparator
from encore.reporting.tables import to_markdown

SCORE_TOLERANCE = 1e-3
TIE = 1e-4
FRUGAL_STEPS = 20


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
    separator: Any,
    quality: Any,
    item: Pair,
    options: argparse.Namespace,
    *,
    lanes: int,
    search: Search | None = None,
    steps: int | None = None,
) -> Refinement:
    """The refinement under test: of the published grid, or by another search."""
    mixture, reference = item
    return refine(
        separator,
        mixture,
        steps=steps or options.steps,
        search=search or GridSearch(options.candidates),
        quality=quality,
        reference=reference if quality.needs_reference else None,
        max_batch=options.batch,
        lanes=lanes,
    )


def control(
    separator: LoadedSeparator, quality: Quality, item: Pair, options: argparse.Namespace
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
    separator: LoadedSeparator, quality: Quality, item: Pair, options: argparse.Namespace
) -> PlainResult:
    """The plain loop as people run it, with the package that the scores come from."""
    key = f"{quality.name.removeprefix('dnsmos_')}_mos"

    def score(estimate: Tensor) -> float:
        return float(
            speechmos_dnsmos.run(estimate[0, 0].clamp(-1, 1).cpu().numpy(), sr=quality.sample_rate)[key]
        )

    return plain_refinement(separator, item[0], score, steps=options.steps, candidates=options.candidates)


def timed(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(*arguments, **keywords)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def disagreements(plain: PlainResult, refinement: Refinement) -> tuple[float, int]:
    """Largest difference of scores, and steps whose ratio differs though nothing near a tie came before."""
    scores = torch.tensor(plain.scores) - refinement.scores[:, 0].cpu()
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
    separator = load_separator(uri, device=options.device)
    quality = get_quality(guide, sample_rate=separator.sample_rate)
    fast = get_quality(guide, sample_rate=separator.sample_rate, workers=options.workers)
    blind = guide.startswith("dnsmos")
    items = test_items(options, separator.sample_rate)
    frugal = {"search": GreedySearch(), "steps": FRUGAL_STEPS, "lanes": options.lanes}
    ours(separator, fast, items[0], options, lanes=options.lanes)  # sets up kernels, processes, batch sizes
    plain_refinement(separator, items[0][0], lambda estimate: 0.0, steps=1, candidates=2)
    ours(separator, fast, items[0], options, **frugal)
    ratios, saved, shares, worst, wrong = [], [], [], 0.0, 0
    sooner, gains, rates, plain_seconds = [], [], [], []
    bar = tqdm(items, desc=f"{type(separator).__name__} {guide}", leave=False)
    for item in bar:
        mine, refinement = timed(ours, separator, fast, item, options, lanes=options.lanes)
        plainly, plain = timed(
            control_with_speechmos if blind else control, separator, quality, item, options
        )
        if blind:
            plain = control(separator, quality, item, options)
        briefly, found = timed(ours, separator, fast, item, options, **frugal)
        sooner.append(plainly / briefly)
        gains.append([float(x.scores[-1, 0] - x.scores[0, 0]) for x in (found, refinement)])
        plain_seconds.append(plainly)
        ratios.append(plainly / mine)
        rates.append(float(refinement.evaluations[0]) / mine)
        calls = 1 + options.steps * options.candidates
        saved.append(calls / float(refinement.evaluations[0]))
        difference, steps = disagreements(plain, refinement)
        worst, wrong = max(worst, difference), wrong + steps
        one, two = Timed(separator), Timed(quality)
        alone, _ = timed(ours, one, two, item, options, lanes=1)
        shares.append((one.seconds / alone, two.seconds / alone))
        bar.set_postfix(faster=f"{statistics.median(ratios):.1f}x")
    with Lanes(options.lanes) as threads:
        alone_in_lane = frugal | {"lanes": 1}
        together, _ = timed(
            lambda: list(
                threads.map(lambda item: ours(separator, fast, item, options, **alone_in_lane), items)
            )
        )
    seconds = statistics.median(item[0].shape[-1] / separator.sample_rate for item in items)
    separated, scored = (statistics.median(column) for column in zip(*shares, strict=True))
    return {
        "separator": type(separator).__name__,
        "guide": guide,
        "faster": f"{statistics.median(ratios):.1f}x",
        "spread": f"{min(ratios):.1f} to {max(ratios):.1f}",
        "fewer calls": f"{statistics.median(saved):.1f}x",
        "the rest": f"{statistics.median(a / b for a, b in zip(ratios, saved, strict=True)):.1f}x",
        "calls a second": f"{statistics.median(rates):.0f}",
        "GFLOP/s": f"{2e-9 * statistics.median(rates) * macs_per_second(separator) * seconds:.0f}",
        "scores differ by": f"{worst:.1e}" + ("" if worst <= SCORE_TOLERANCE else " (too much)"),
        "other ratios": str(wrong),
        "in separator": f"{separated:.0%}",
        "in measure": f"{scored:.0%}",
        "overhead": f"{1 - separated - scored:.1%}",
        "frugal": f"{statistics.median(sooner):.0f}x",
        "frugal, spread": f"{min(sooner):.0f} to {max(sooner):.0f}",
        "frugal, all items": f"{sum(plain_seconds) / together:.0f}x",
        "its share of the gain": f"{sum(gain[0] for gain in gains) / sum(gain[1] for gain in gains):.0%}",
    }


def test_items(options: argparse.Namespace, sample_rate: int) -> list[Pair]:
    """Mixtures and references ``(1, 1, time)``."""
    if options.data is not None:
        items = load_items(options.data, "test", options.items, sample_rate)
    else:
        items = [noisy_speech(seed, options.seconds, sample_rate) for seed in range(options.items)]
    return [(mixture.to(options.device), reference.to(options.device)) for mixture, reference in items]


def trace(uri: str | None, guide: str, options: argparse.Namespace) -> None:
    """Profile one refinement."""
    separator = load_separator(uri, device=options.device)
    quality = get_quality(guide, sample_rate=separator.sample_rate)
    item = test_items(options, separator.sample_rate)[0]
    ours(separator, quality, item, options, lanes=1)
    with profile() as profiler:
        ours(separator, quality, item, options, lanes=1)
    profiler.export_chrome_trace(str(options.trace))
    by = "self_cuda_time_total" if item[0].is_cuda else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=40))


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
    parser.add_argument("--data", type=Path, help="a corpus in the layout of VoiceBank-DEMAND")
    parser.add_argument("--items", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--trace", type=Path, help="profile one refinement instead, and write its trace here")
    parser.add_argument("--max-batch", type=int, help="blends in a call; found by timing by default")
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    with torch.no_grad():
        for uri in options.separator:
            options.batch = options.max_batch or BatchSize()
            if options.trace is not None:
                trace(uri, options.guides[0], options)
                continue
            rows += [compare(uri, guide, options) for guide in options.guides]
    if rows:
        print(to_markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
