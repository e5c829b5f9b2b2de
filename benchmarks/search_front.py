"""Draw quality against separator calls: every search, the exhaustive grid, and schedules without a guide.

    python benchmarks/search_front.py --data datasets/vbd -o outputs/results/front [--separator URI]
        [--guides si_sdr dnsmos_ovrl] [--items 30]

The test items of a corpus are refined by every search under every guide; schedules are fitted on its
validation items. ``front.csv`` holds, for every search, item and step, the calls so far and the gain of the
guide's score over one step. Printed: the fraction of the gain of the exhaustive grid (T = 20, K = 10) when no
item may cost more than 4, 8 or 20 calls (an item stops before the step that would go beyond, a schedule where
its mean gain within the cap is best), with the mean calls, and what every search ends with;
``front_<guide>.png`` draws it. Shorter runs are on the curves too: no step depends on how many follow.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib.figure import Figure
from shared import Pair, command_line, corpus_items, print_table
from torch import Tensor
from tqdm import tqdm

from encore import inference
from encore.cli.memory import disable_malloc_trim
from encore.inference import EarlyStopping, GreedySearch, GridSearch, LocalSearch, Search, WorkerPool, batched
from encore.inference.refinement import Step
from encore.metrics import Metric, get_metric
from encore.models import load_separator
from encore.models.types import LoadedSeparator
from encore.reporting.figures import curves, panels, save_png, styled
from encore.reporting.labels import title

EXHAUSTIVE = "grid 10"
CAPS = (4, 8, 20)


def methods(fitted: list[float], unguided: list[float], minimum_gain: float) -> dict[str, Search | Tensor]:
    """Return searches, and schedules that need no guide, by name."""
    listed = inference.FixedListSearch(ratios=fitted)
    return {
        EXHAUSTIVE: GridSearch(10),
        **{f"grid {k} and 0": GridSearch(k, include_estimate=True) for k in (10, 5, 3, 2)},
        "coarse to fine": inference.CoarseToFine(),
        "golden section": inference.GoldenSection(),
        "Brent": inference.BrentSearch(),
        "greedy": GreedySearch(),
        "greedy, stopping": EarlyStopping(GreedySearch(), minimum_gain, patience=2),
        "local": LocalSearch(),
        "local, stopping": EarlyStopping(LocalSearch(), minimum_gain),
        "slopes": inference.GradientLineSearch(),
        "fitted, kept if better": listed,
        "fitted, stopping": EarlyStopping(listed, minimum_gain),
        "fitted, no guide": torch.tensor(unguided),
        "linear, no guide": inference.linear_schedule(10),
    }


def follow(separate: batched, metric: Metric, method: Search | Tensor, item: Pair) -> pd.DataFrame:
    """Refine one item; return calls and gain after each step."""
    quality, steps = metric.bind(references=item[1][:, None]), list[Step]()
    if isinstance(method, Tensor):
        result = inference.refine_fixed(separate, item[0], method, callback=steps.append)
        scores = torch.cat([quality(found) for found in (result.one_step, *(s.estimates for s in steps))])
    else:
        result = inference.refine(separate, item[0], quality, method, callback=steps.append)
        scores = result.scores[:, 0]
    calls = [1, *(int(step.evaluations) for step in steps)]
    return pd.DataFrame({"step": range(len(calls)), "calls": calls, "gain": (scores - scores[0]).numpy()})


def front(
    separator: LoadedSeparator, guide: str, options: argparse.Namespace, pool: WorkerPool
) -> pd.DataFrame:
    """Return rows ``guide, search, item, step, calls, gain``."""
    metric = get_metric(guide, sample_rate=separator.sample_rate)
    items, valid = (
        corpus_items(options.data, split, count, separator.sample_rate)
        for split, count in (("test", options.items), ("valid", options.valid_items))
    )
    known = [(mixture, metric.bind(references=reference[:, None])) for mixture, reference in valid]
    fit = {"steps": options.fitted_steps, "workers": options.workers}
    fitted, unguided = (inference.fit_schedule(separator, known, **fit, keep_best=k) for k in (True, False))
    print(f"{guide}: fitted ratios {fitted}, without a guide {unguided}", flush=True)
    separate, tables = batched(separator, inference.BatchSize()), []
    for name, method in methods(fitted, unguided, 0.04 if guide == "si_sdr" else 0.008).items():
        if name not in options.leave_out:
            work = pool.map(lambda item, method=method: follow(separate, metric, method, item), items)
            found = list(tqdm(work, total=len(items), desc=f"{guide} {name}", leave=False))
            tables += [own.assign(guide=guide, search=name, item=number) for number, own in enumerate(found)]
    return pd.concat(tables, ignore_index=True)


def last_rows(table: pd.DataFrame, cap: float = math.inf, *, schedule: bool = False) -> pd.DataFrame:
    """Return the last row of every item within a cap on its calls.

    A schedule takes any estimate: it is stopped where the mean gain is best.
    """
    table = table[table["calls"] <= cap]
    last = table.groupby("item")["step"].transform("max")
    best = table.groupby("step")["gain"].mean().idxmax()
    return table[table["step"] == (best if schedule else last)]


def report(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return what each search reaches within the caps, and at its end."""
    exhaustive, rows = last_rows(table[table["search"] == EXHAUSTIVE])["gain"].mean(), []
    for name, own in table.groupby("search", sort=False):
        schedule = "no guide" in str(name)
        ends = {f"at most {cap} calls": last_rows(own, cap, schedule=schedule) for cap in CAPS}
        ends["at its end"] = last_rows(own)
        means = {column: found[["gain", "calls"]].mean() for column, found in ends.items()}
        cells = {
            column: f"{own['gain'] / exhaustive:.0%} ({own['calls']:.1f})" for column, own in means.items()
        }
        rows.append({"search": str(name)} | cells | {"gain": f"{means['at its end']['gain']:.3f}"})
    return rows


@styled
def draw(table: pd.DataFrame, guide: str) -> Figure:
    """Draw mean gain against mean calls, a curve for each search."""
    means = table.groupby(["search", "step"], sort=False)[["calls", "gain"]].mean().reset_index()
    looks: dict[str, dict[str, Any]] = {
        name: {"color": colour, "linestyle": "--" if "no guide" in name else "-", "marker": "."}
        for name, colour in zip(means["search"].unique(), mpl.colormaps["tab20"].colors, strict=False)
    }
    looks[EXHAUSTIVE]["color"] = "black"
    ylabel = f"gain over one step, {title(guide)}"
    figure, ((panel,),) = panels([""], xlabel="separator calls per item", ylabels=[ylabel], size=(7.4, 4.5))
    curves(panel, means, "calls", "gain", "search", looks)
    exhaustive = means.loc[means["search"] == EXHAUSTIVE, "gain"].max()
    for fraction in (0.8, 0.95, 1.0):
        panel.axhline(fraction * exhaustive, color="grey", linewidth=0.6, linestyle=":")
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
    panel.set_ylim(bottom=min(0, float(means["gain"].clip(lower=-0.3 * exhaustive).min())))
    panel.legend(fontsize=7, ncols=2)
    return figure


def main() -> None:
    """Compute, print and draw the fronts."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--separator", help="URI; the default separator by default")
    add("--data", type=Path, required=True, help="a corpus in the layout of VoiceBank-DEMAND")
    add("-o", "--out", type=Path, required=True)
    add("--guides", nargs="+", default=["si_sdr", "dnsmos_ovrl"])
    add("--items", type=int, default=30)
    add("--valid-items", type=int, default=16)
    add("--fitted-steps", type=int, default=12)
    add("--leave-out", nargs="*", default=[], help="searches that are not run")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="items at a time")
    options = parser.parse_args()
    disable_malloc_trim()
    separator, tables = load_separator(options.separator), []
    with torch.no_grad(), WorkerPool(options.workers) as pool:
        for guide in options.guides:
            tables.append(front(separator, guide, options, pool))
            print(f"**{title(guide)}**: fraction of the exhaustive gain (mean calls)\n")
            print_table(report(tables[-1]))
            save_png(draw(tables[-1], guide), options.out / f"front_{guide}.png")
    pd.concat(tables).to_csv(options.out / "front.csv", index=False)


if __name__ == "__main__":
    main()
