"""Quality against separator calls: every search, the exhaustive grid, and schedules that need no measure.

    python benchmarks/search_front.py --data datasets/vbd_flite -o outputs/results/front [--separator URI]
        [--guides si_sdr dnsmos_ovrl] [--items 30]

The test items of a corpus are refined by every search under every guide. ``front.csv`` holds, for every
search and step, the mean calls an item has cost by then and the mean gain of the guide's score over one step,
and its share of the gain of the exhaustive grid (T = 20, K = 10); schedules are fitted on the corpus's
validation items. Printed: the share when no item may cost more than 4, 8 or 20 calls (a cap for each item,
not a mean: an item stops before the step that would go beyond; a schedule without a measure stops where it is
best within the cap), with the mean calls, and what every search ends with, alone and with successive halving
over the items; ``front_<guide>.png`` draws it. The curves stand for shorter runs too: nothing in a step hangs
on how many will follow (but for the annealed grid, which is left out).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from encore.cli.memory import keep_freed_memory
from encore.data.corpora import Item, spread, voicebank_demand
from encore.data.dataset import SegmentDataset
from encore.inference import (
    BatchSize,
    CoarseToFine,
    FixedSchedule,
    GoldenSection,
    GreedySearch,
    GridSearch,
    Lanes,
    ParabolicSearch,
    ScheduledSearch,
    Search,
    SlopeSearch,
    Stopping,
    WarmSearch,
    refine,
)
from encore.inference.fitting import fit_schedule
from encore.metrics import Quality, get_quality
from encore.models import load_separator
from encore.models.types import LoadedSeparator
from encore.reporting.labels import title
from encore.reporting.tables import to_markdown

EXHAUSTIVE = "grid 10"
STEPS = 20
BUDGETS = (4, 8, 20)
HALVED = ("parabolic", "greedy", "warm")
HALVING = ", halving"
HALVING_CAPS = (4, 8, 16, 32)
Pair = tuple[Tensor, Tensor]


def searches(fitted: list[float], unguided: list[float], smallest: float) -> dict[str, Search]:
    """Everything that stands on the front, by name."""
    stop = 4 * smallest
    return {
        EXHAUSTIVE: GridSearch(10),
        "grid 10 and 0": GridSearch(10, include_estimate=True),
        "grid 5 and 0": GridSearch(5, include_estimate=True),
        "grid 3 and 0": GridSearch(3, include_estimate=True),
        "grid 2 and 0": GridSearch(2, include_estimate=True),
        "coarse to fine": CoarseToFine(),
        "golden section": GoldenSection(),
        "parabolic": ParabolicSearch(),
        "greedy": GreedySearch(),
        "greedy, stopping": Stopping(GreedySearch(), stop, patience=2),
        "warm": WarmSearch(),
        "warm, stopping": Stopping(WarmSearch(), stop),
        "slopes": SlopeSearch(),
        "fitted, kept if better": ScheduledSearch(fitted),
        "fitted, stopping": Stopping(ScheduledSearch(fitted), stop),
        "fitted, no measure": FixedSchedule([1 - ratio for ratio in unguided]),
        "linear, no measure": FixedSchedule.linear(10),
    }


class Counted:
    """A search that notes how many calls an item has cost after each step; for one item at a time."""

    def __init__(self, search: Search) -> None:
        self.search, self.calls = search, [1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.search, name)

    def propose(self, trace: Any) -> Tensor:
        while len(self.calls) <= trace.step:
            self.calls.append(self.calls[-1])
        shares = self.search.propose(trace)
        asked = int(((shares < 1) & ~shares.isnan()).sum())
        self.calls[trace.step] += asked * (2 if self.search.wants_slopes else 1)
        return shares


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Of one item under one search: calls and scores after each step."""

    calls: list[int]
    scores: list[float]


def follow(
    separator: LoadedSeparator, quality: Quality, search: Search, item: Pair, sizes: BatchSize
) -> Curve:
    """Refine one item."""
    counted = Counted(search)
    result = refine(
        separator,
        item[0],
        steps=STEPS,
        search=counted,
        quality=quality,
        reference=item[1],
        max_batch=sizes,
        keep_trajectory=not search.selects,
    )
    scores = result.scores[:, 0].tolist()
    if result.trajectory is not None:
        scores = [float(quality(y, reference=item[1])) for y in result.trajectory]
    steps = len(scores)
    calls = [*counted.calls, *[counted.calls[-1]] * steps][:steps]
    assert calls[-1] == int(result.evaluations[0])
    return Curve(calls=calls, scores=scores)


def load_items(root: Path, split: str, count: int, sample_rate: int) -> list[Pair]:
    """Evenly spread items as mixtures and references ``(1, 1, t)``."""
    corpus: list[Item] = voicebank_demand(root, split=split)
    chosen = [corpus[place] for place in spread(len(corpus), count)]
    dataset = SegmentDataset(
        chosen, sources=("speech",), sample_rate=sample_rate, channels=1, segment=None, seed=0
    )
    samples = [dataset[place] for place in range(len(chosen))]
    return [(sample["mixture"][None], sample["references"][:1]) for sample in samples]


def front(
    separator: LoadedSeparator, guide: str, options: argparse.Namespace, threads: Lanes
) -> pd.DataFrame:
    """Rows ``guide, search, step, calls, gain, share``; what is there already is not done again."""
    quality = get_quality(guide, sample_rate=separator.sample_rate)
    smallest = 0.01 if guide == "si_sdr" else 0.002
    items = load_items(options.data, "test", options.items, separator.sample_rate)
    valid = load_items(options.data, "valid", options.valid_items, separator.sample_rate)
    fitted, unguided = (
        fit_schedule(
            separator, valid, quality, steps=options.fitted_steps, keep_previous=keep, lanes=options.lanes
        )
        for keep in (True, False)
    )
    print(f"{guide}: fitted shares {fitted}, without a measure {unguided}", flush=True)
    sizes, rows = BatchSize(), []
    for name, search in searches(fitted, unguided, smallest).items():
        if name in options.leave_out:
            continue
        work: Callable[[Pair], Curve] = lambda item, search=search: follow(  # noqa: E731
            separator, quality, search, item, sizes
        )
        curves = list(tqdm(threads.map(work, items), total=len(items), desc=f"{guide} {name}", leave=False))
        rows += [
            row_of(guide, name, [(c.calls[step], c.scores[step] - c.scores[0]) for c in curves], step=step)
            for step in range(len(curves[0].scores))
        ]
        print(f"{guide} {name}: gain {rows[-1]['gain']:.3f}", flush=True)
        rows += [row_of(guide, name, within_cap(curves, cap, search.selects), cap=cap) for cap in BUDGETS]
        if name in HALVED:
            rows.append(row_of(guide, f"{name}{HALVING}", halved(curves), step=len(curves[0].scores) - 1))
    table = pd.DataFrame(rows)
    exhaustive = table[(table["search"] == EXHAUSTIVE) & (table["step"] == STEPS)]["gain"].item()
    return table.assign(share=table["gain"] / exhaustive)


def row_of(
    guide: str,
    name: str,
    found: Sequence[tuple[int, float]],
    *,
    step: int | None = None,
    cap: int | None = None,
) -> dict[str, Any]:
    """Mean calls and gain of all items, after a step or within a cap."""
    calls, gain = (sum(column) / len(found) for column in zip(*found, strict=True))
    return {"guide": guide, "search": name, "step": step, "cap": cap, "calls": calls, "gain": gain}


def within_cap(curves: Sequence[Curve], cap: int, selects: bool) -> list[tuple[int, float]]:
    """Calls and gain of every item after its last step that keeps within the cap.

    What takes any estimate is better stopped early than late: there the step with the best mean gain counts.
    """
    last = [max(step for step, calls in enumerate(curve.calls) if calls <= cap) for curve in curves]
    if not selects:
        gains = [sum(c.scores[step] - c.scores[0] for c in curves) for step in range(min(last) + 1)]
        last = [gains.index(max(gains))] * len(curves)
    return [(c.calls[step], c.scores[step] - c.scores[0]) for c, step in zip(curves, last, strict=True)]


def halved(curves: Sequence[Curve]) -> list[tuple[int, float]]:
    """Successive halving over items: at each of a row of caps only the half that last gained most goes on.

    It compares items, so no item can be refined alone; hence it is no search of ``refine``.
    """
    found, alive, before = [(1, 0.0)] * len(curves), list(range(len(curves))), [0.0] * len(curves)
    for cap in HALVING_CAPS:
        reached = within_cap(curves, cap, selects=True)
        for item in alive:
            found[item] = reached[item]
        alive.sort(key=lambda item: before[item] - reached[item][1])
        alive = alive[: max(1, len(alive) // 2)]
        before = [gain for _, gain in reached]
    return found


def report(table: pd.DataFrame, guide: str) -> str:
    """Markdown: what each search reaches within a cap on the calls of every item, and at its end."""
    rows = []
    for name, own in table.groupby("search", sort=False):
        row: dict[str, str] = {"search": str(name)}
        row |= {f"at most {cap} calls": "-" for cap in BUDGETS}
        for cap, within in own.dropna(subset="cap").groupby("cap"):
            row[f"at most {cap:.0f} calls"] = f"{within['share'].item():.0%} ({within['calls'].item():.1f})"
        last = own.dropna(subset="step").iloc[-1]
        row["at its end"] = f"{last['share']:.0%} ({last['calls']:.1f})"
        row["gain"] = f"{last['gain']:.3f}"
        rows.append(row)
    return (
        f"**{title(guide)}**: share of the exhaustive gain (mean calls)\n\n{to_markdown(pd.DataFrame(rows))}"
    )


def draw(table: pd.DataFrame, guide: str, path: Path) -> None:
    """Gain against calls, a curve per search."""
    table = table.dropna(subset="step")[lambda rows: ~rows["search"].str.endswith(HALVING)]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    colours = mpl.colormaps["tab20"].colors
    for colour, (name, own) in zip(colours, table.groupby("search", sort=False), strict=False):
        style: dict[str, Any] = {"color": colour, "marker": "."}
        if name == EXHAUSTIVE:
            style = {"color": "black", "linewidth": 2}
        style["linestyle"] = "--" if "no measure" in str(name) else "-"
        axes.plot(own["calls"], own["gain"], label=str(name), **style)
    exhaustive = table[table["search"] == EXHAUSTIVE]["gain"].max()
    for share in (0.8, 0.95, 1.0):
        axes.axhline(share * exhaustive, color="grey", linewidth=0.6, linestyle=":")
        axes.annotate(f"{share:.0%}", (1, share * exhaustive), fontsize=7, color="grey", va="bottom")
    axes.set(xscale="log", xlabel="separator calls per item", ylabel=f"gain over one step, {title(guide)}")
    axes.xaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
    axes.set_ylim(bottom=min(0, float(table["gain"].clip(lower=-0.3 * exhaustive).min())))
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Compute, print and draw the fronts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--separator", help="a checkpoint; the shipped separator by default")
    parser.add_argument("--data", type=Path, required=True, help="a corpus in the layout of VoiceBank-DEMAND")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--guides", nargs="+", default=["si_sdr", "dnsmos_ovrl"])
    parser.add_argument("--items", type=int, default=30)
    parser.add_argument("--valid-items", type=int, default=16)
    parser.add_argument("--fitted-steps", type=int, default=12)
    parser.add_argument("--leave-out", nargs="*", default=[], help="searches that are not run")
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    separator = load_separator(options.separator)
    tables = []
    with torch.no_grad(), Lanes(options.lanes) as threads:
        for guide in options.guides:
            table = front(separator, guide, options, threads)
            print(report(table, guide), flush=True)
            draw(table, guide, options.out / f"front_{guide}.png")
            tables.append(table)
    pd.concat(tables).to_csv(options.out / "front.csv", index=False)


if __name__ == "__main__":
    main()
