"""Score a separator on a test set, one step beside several: the tables of docs/results.md.

    python benchmarks/corpus_scores.py SEPARATOR --data datasets/vbd -o outputs/results/NAME
    python benchmarks/corpus_scores.py SPEAKERS --corpus librimix --data datasets/libri2mix -o OUT

Every step of every guide is scored with every metric; OUT gets ``scores.parquet`` and ``run.json``,
with the separator's relative delta as a metric of one step. Items that OUT already holds are not done again,
so an interrupted run goes on where it stopped. ``report.py`` draws it, ``tables.py`` has every step. Speakers
are refined together and scored by the mean over them. ``SEPARATOR?sample_rate=16000`` lets DNSMOS guide a
separator of 8 kHz.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from shared import command_line
from torch import Tensor
from tqdm import tqdm

from encore.cli.evaluation import Row, Table
from encore.cli.memory import disable_malloc_trim
from encore.data.corpora import evenly_spaced, voicebank_demand
from encore.data.dataset import SegmentDataset
from encore.data.speaker_corpora import librimix
from encore.inference import GridSearch, RefineOptions, WorkerPool, evaluate, linear_schedule
from encore.metrics import MetricPanel, default_metrics, get_metric
from encore.models import load_separator, select
from encore.models.costs import macs_per_second, parameters
from encore.models.types import Separator, interchangeable
from encore.reporting import summarise
from encore.reporting.tables import overview_table, to_markdown

CORPORA = {"voicebank_demand": voicebank_demand, "librimix": librimix}


def method(guide: str, options: argparse.Namespace, sample_rate: int) -> RefineOptions:
    """Return the published grid plus the bare estimate under a guide, or the schedule ``fixed``."""
    if guide == "fixed":
        return RefineOptions(search=linear_schedule(10, last=1.0), max_batch=options.max_batch)
    blind = guide.startswith("dnsmos")
    candidates = options.blind_candidates if blind else options.candidates
    return RefineOptions(
        search=GridSearch(candidates, include_estimate=True, steps=options.steps),
        guide=get_metric(guide, sample_rate=sample_rate, workers=options.workers),
        items=options.blind_items if blind else None,
        consistency=options.consistency,
        max_batch=options.max_batch,
    )


def relative_delta(separate: Separator, references: Tensor) -> float:
    """Return the mean over references ``(s, c, t)`` of ``||f(s) - s|| / ||s||``, of the nearest estimate."""
    errors = (separate(references) - references[:, None]).flatten(2).norm(dim=2)
    return float((errors.amin(dim=1) / references.flatten(1).norm(dim=1)).mean())


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("separator", help="URI of the separator")
    add("--data", type=Path, required=True, help="folder of the corpus")
    add("--corpus", choices=CORPORA, default="voicebank_demand", help="its layout")
    add("--split", default="test", choices=["train", "valid", "test"])
    add("-o", "--out", type=Path, required=True)
    add("--guides", nargs="+", default=["si_sdr", "pesq", "dnsmos_ovrl", "fixed"])
    add("--metrics", nargs="+", help="all by default")
    add("--steps", type=int, default=5)
    add("--candidates", type=int, default=10)
    add("--blind-candidates", type=int, default=5)
    add("--items", type=int, help="this many, evenly spread; all by default")
    add("--blind-items", type=int, help="this many under DNSMOS guides; all by default")
    add("--consistency", choices=["uniform", "energy"], help="estimates sum to the mixture")
    add("--max-batch", type=int, default=4)
    add("--workers", type=int, default=2, help="items at a time, and processes of PESQ and STOI")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    """Score the items that OUT does not hold yet, saving item by item; then print the last steps."""
    options = parse()
    disable_malloc_trim()
    separator: Any = load_separator(options.separator)
    rate, refined, targets = separator.sample_rate, separator, slice(None)
    if not interchangeable(separator.sources):
        refined, targets = select(separator, separator.sources[0]), slice(1)
    corpus = CORPORA[options.corpus](options.data, split=options.split)
    items = [corpus[place] for place in evenly_spaced(len(corpus), options.items)]
    audio: dict[str, Any] = {"sample_rate": rate, "channels": 1, "segment": None, "seed": 0}
    samples = SegmentDataset(items, sources=separator.sources, **audio)
    methods = [method(guide, options, rate) for guide in options.guides]
    chosen = [set(evenly_spaced(len(items), own.items)) for own in methods]
    panel = MetricPanel(options.metrics or default_metrics(rate), sample_rate=rate, workers=options.workers)

    def work(place: int) -> list[Row]:
        own = {number: each for number, each in enumerate(methods) if place in chosen[number]}
        sample, named = samples[place], {"run": options.out.name, "items": [items[place].name]}
        named |= {"references": sample["references"][None, targets], "at_once": options.workers}
        rows = evaluate(refined, sample["mixture"][None], own, panel, **named).rows
        delta = {"metric": "relative_delta", "value": relative_delta(separator, sample["references"])}
        return [*rows, {**rows[0], "kind": "one_step", "evaluations": 1} | delta]

    options.out.mkdir(parents=True, exist_ok=True)
    table = Table(options.out / "scores.parquet")
    missing = [place for place, item in enumerate(items) if item.name not in table.items]
    with WorkerPool(options.workers) as pool:
        for rows in tqdm(pool.map(work, missing), total=len(missing), desc="items"):
            table.add(rows)
    record = {"name": options.out.name, "model": type(separator).__name__, "sample_rate": rate}
    record |= {"parameters": parameters(separator), "macs_per_second": macs_per_second(separator)}
    (options.out / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    overview = overview_table(summarise(table.frame)).drop(columns="run")
    print(f"{table.frame['item'].nunique()} items\n\n{to_markdown(overview)}")


if __name__ == "__main__":
    main()
