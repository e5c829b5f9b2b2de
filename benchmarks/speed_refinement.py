"""The speed of refinement, for ``speed.py refinement``."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from shared import Pair, corpus_items, noisy_speech, print_table, timed
from speechmos import dnsmos as speechmos_dnsmos
from torch import Tensor
from torch.profiler import profile
from tqdm import tqdm

from encore.inference import BatchSize, GreedySearch, GridSearch, Refined, Search, WorkerPool, batched, refine
from encore.metrics import Metric, Quality, get_metric
from encore.models import load_separator
from encore.models.costs import macs_per_second
from encore.models.types import LoadedSeparator, Separator

CORES = len(os.sched_getaffinity(0))
SCORE_TOLERANCE, TIE = 1e-3, 1e-4
Plain = tuple[list[float], list[float], list[float]]
"""The published loop's scores (T + 1) and ratios (T), and by how much the best of each step won."""


def published_loop(
    separate: Separator, mixture: Tensor, steps: int, candidates: int, quality: Quality
) -> Plain:
    """Refine one item as the paper's code does: nothing batched, nothing reused, nothing stopped early.

    Source: Zang, Li and Kong, "Training-Free Multi-Step Audio Source Separation", 2025.
    """
    estimate = separate(mixture)[:, :1]
    scores, ratios, margins = [float(quality(estimate))], [], []
    for _ in range(steps):
        tried = [(scores[-1], math.nan, estimate)]
        for k in range(candidates):
            ratio = 1 - k / candidates
            candidate = separate(ratio * mixture + (1 - ratio) * estimate[:, 0])[:, :1]
            tried.append((float(quality(candidate)), ratio, candidate))
        best, ratio, estimate = max(tried, key=lambda entry: entry[0])
        scores.append(best)
        ratios.append(ratio)
        margins.append(best - max(own for own, _, other in tried if not torch.equal(other, estimate)))
    return scores, ratios, margins


def speechmos(metric: Metric, estimates: Tensor) -> Tensor:
    """Score one estimate ``(1, 1, c, t)`` with the package that DNSMOS scores come from."""
    samples = estimates[0, 0, 0].clamp(-1, 1).cpu().numpy()
    scores = speechmos_dnsmos.run(samples, sr=metric.sample_rate)
    return torch.tensor(scores[f"{metric.name.removeprefix('dnsmos_')}_mos"])


def disagreements(plain: Plain, refined: Refined) -> tuple[float, int]:
    """Return the largest difference of scores, and the steps before the first tie whose ratio differs."""
    scores, ratios, margins = map(torch.tensor, plain)
    # after a tie the two may follow different estimates
    clear = (margins > TIE).cumprod(0).bool()
    same = torch.isclose(ratios, refined.ratios[:, 0].cpu(), equal_nan=True, atol=1e-6)
    return float((scores - refined.scores[:, 0].cpu()).abs().max()), int((clear & ~same).sum())


def compare(
    separator: LoadedSeparator,
    guide: str,
    items: list[Pair],
    grid: GridSearch,
    size: int | BatchSize,
    workers: int,
    processes: int,
) -> dict[str, str]:
    """Return a row of the table: all items under one guide."""
    rate = separator.sample_rate
    metric, fast = (get_metric(guide, sample_rate=rate, workers=count) for count in (0, processes))
    foreign, greedy = guide.startswith("dnsmos"), GreedySearch()

    def ours(item: Pair, search: Search, workers: int = workers) -> Refined:
        quality = fast.bind(references=item[1][:, None])
        return refine(batched(separator, size, workers), item[0], quality, search)

    # sets up kernels, processes and batch sizes
    ours(items[0], grid)
    published_loop(separator, items[0][0], 1, 2, lambda _: torch.zeros(1))
    ours(items[0], greedy)
    rows: list[dict[str, float]] = []
    for item in tqdm(items, desc=f"{type(separator).__name__} {guide}", leave=False):
        quality = metric.bind(references=item[1][:, None])
        plainly = partial(published_loop, separator, item[0], grid.steps, grid.candidates)
        seconds, refined = timed(ours, item, grid)
        plain_seconds, plain = timed(plainly, partial(speechmos, metric) if foreign else quality)
        difference, other = disagreements(plainly(quality) if foreign else plain, refined)
        greedy_seconds, brief = timed(ours, item, greedy)
        gain, greedy_gain = (float(found.scores[-1] - found.scores[0]) for found in (refined, brief))
        own = {"ours": seconds, "plain": plain_seconds, "greedy": greedy_seconds, "other ratios": other}
        own |= {"calls": int(refined.evaluations), "samples": item[0].shape[-1], "difference": difference}
        rows.append(own | {"gain": gain, "greedy gain": greedy_gain})
    with WorkerPool(workers) as pool:
        together, _ = timed(lambda: list(pool.map(lambda item: ours(item, greedy, 1), items)))
    table = pd.DataFrame(rows)
    total = table.sum()
    faster, sooner = (table["plain"] / table[name] for name in ("ours", "greedy"))
    fewer, rates = (1 + grid.steps * grid.candidates) / table["calls"], table["calls"] / table["ours"]
    worst = table["difference"].max()
    flops = 2e-9 * macs_per_second(separator) / rate * table["samples"].median()
    return {
        "separator": type(separator).__name__,
        "guide": guide,
        "faster": f"{faster.median():.1f}x",
        "spread": f"{faster.min():.1f} to {faster.max():.1f}",
        "fewer calls": f"{fewer.median():.1f}x",
        "the rest": f"{(faster / fewer).median():.1f}x",
        "calls a second": f"{rates.median():.0f}",
        "GFLOP/s": f"{rates.median() * flops:.0f}",
        "scores differ by": f"{worst:.1e}{'' if worst <= SCORE_TOLERANCE else ' (too much)'}",
        "other ratios": f"{total['other ratios']:.0f}",
        "greedy": f"{sooner.median():.0f}x",
        "greedy, spread": f"{sooner.min():.0f} to {sooner.max():.0f}",
        "greedy, all items": f"{total['plain'] / together:.0f}x",
        "of the gain": f"{total['greedy gain'] / total['gain']:.0%}",
    }


def trace(separator: LoadedSeparator, guide: str, item: Pair, grid: GridSearch, path: str) -> None:
    """Profile one refinement."""
    quality = get_metric(guide, sample_rate=separator.sample_rate).bind(references=item[1][:, None])
    once = partial(refine, batched(separator, BatchSize()), item[0], quality, grid)
    once()
    with profile() as profiler:
        once()
    profiler.export_chrome_trace(path)
    by = "self_cuda_time_total" if item[0].is_cuda else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=40))


@torch.no_grad()
def refinement(
    *,
    separator: tuple[str, ...] = ("",),
    guides: tuple[str, ...] = ("si_sdr", "pesq", "dnsmos_ovrl"),
    data: str | None = None,
    items: int = 5,
    seconds: float = 3.0,
    steps: int = 20,
    candidates: int = 10,
    workers: int = CORES,
    processes: int = CORES,
    device: str = "cpu",
    max_batch: int = 0,
    trace_file: str | None = None,
) -> None:
    """Compare `encore.refine` with the published loop written plainly, at the same result.

    For every separator (one by default) and guide the items (test items of a corpus ``--data`` in
    the layout of VoiceBank-DEMAND, or noisy speech made on the spot) are refined by both, in turn, on the
    same cores. The control, `published_loop`, makes 1 + T K calls, one at a time, with as many threads as
    torch takes by default, and scores DNSMOS with ``speechmos``. Printed are medians over the items of the
    ratio of wall times and the part of it that comes from calls that need not be made (ratio 1, and items
    that finished early); whether both agree, with our metrics, in the scores (to 1e-3) and in the ratios (up
    to a step that is a tie within 1e-4); for `GreedySearch`, the default of ``infer.py``, the ratio item by
    item, and for all of them, as many at a time as there are workers, and its fraction of the published
    loop's gain. The number of inputs in a call is found by timing without ``--max-batch``; ``--processes``
    are those of PESQ. ``--trace-file`` profiles one refinement instead, and stores its trace.
    """
    rows, grid = [], GridSearch(candidates, steps=steps)
    for uri in separator:
        loaded = load_separator(uri or None, device=device)
        rate = loaded.sample_rate
        pairs = [noisy_speech(seed, seconds, rate) for seed in range(items)] if data is None else []
        pairs = pairs or corpus_items(Path(str(data)), "test", items, rate)
        pairs = [(mixture.to(device), reference.to(device)) for mixture, reference in pairs]
        if trace_file is not None:
            return trace(loaded, guides[0], pairs[0], grid, trace_file)
        size = max_batch or BatchSize()
        rows += [compare(loaded, guide, pairs, grid, size, workers, processes) for guide in guides]
    print_table(rows)
