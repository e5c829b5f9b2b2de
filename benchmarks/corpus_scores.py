"""One-step beside multi-step scores of a separator on a test set: the tables of docs/results.md.

    python benchmarks/corpus_scores.py SEPARATOR --data datasets/vbd -o outputs/results/NAME
    python benchmarks/corpus_scores.py SPEAKERS --corpus librimix --data datasets/libri2mix -o OUT

scores every step of every guide with every measure and writes ``scores.parquet``, ``run.json`` (with the
separator's relative delta) and Markdown tables to OUT. Items that OUT already holds are not done again, so an
interrupted run goes on where it stopped. ``python report.py OUT`` draws it. Speakers are refined together and
scored by the mean over them. ``SEPARATOR?sample_rate=16000`` lets DNSMOS guide a separator of 8 kHz.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from encore.cli.memory import keep_freed_memory
from encore.data.corpora import Item, spread, voicebank_demand
from encore.data.dataset import SegmentDataset
from encore.data.speaker_corpora import librimix
from encore.inference import FixedSchedule, GridSearch, Guide, evaluate
from encore.metrics import MetricPanel, get_quality, usual_names
from encore.models import load_separator
from encore.models.costs import macs_per_second, parameters
from encore.models.types import Separator, interchangeable
from encore.reporting.labels import decimals, title
from encore.reporting.scores import read_scores, write_scores
from encore.reporting.summary import summarise
from encore.reporting.tables import overview_table, to_markdown

BETAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def guides(names: Sequence[str], options: argparse.Namespace, sample_rate: int) -> dict[int, Guide]:
    """The guides by position: measures with the published grid plus the bare estimate, or ``fixed``."""
    built = {}
    for number, name in enumerate(names):
        if name == "fixed":
            built[number] = Guide(search=FixedSchedule(BETAS), max_batch=options.max_batch)
            continue
        blind = name.startswith("dnsmos")
        built[number] = Guide(
            search=GridSearch(
                options.blind_candidates if blind else options.candidates, include_estimate=True
            ),
            quality=get_quality(name, sample_rate=sample_rate),
            steps=options.steps,
            consistency=options.consistency,
            max_batch=options.max_batch,
        )
    return built


@cache
def _loaded(uri: str) -> Any:
    torch.set_num_threads(1)
    keep_freed_memory()
    return load_separator(uri)


def score_item(options: argparse.Namespace, item: Item, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of one item, and its relative delta ``||f(s) - s|| / ||s||`` as a measure of the one-step rows."""
    separator = _loaded(options.separator)
    rate, sources = separator.sample_rate, separator.sources
    dataset = SegmentDataset([item], sources=sources, sample_rate=rate, channels=1, segment=None, seed=0)
    sample = dataset[0]
    mixture, references = sample["mixture"][None], sample["references"]
    together = interchangeable(sources)
    panel = MetricPanel(options.metrics or usual_names(rate), sample_rate=rate)
    result = evaluate(
        separator,
        mixture,
        guides(names, options, rate),
        panel,
        run=options.name,
        items=[item.name],
        source="all" if together else 0,
        interchangeable=together,
        reference=references[None] if together else references[:1],
    )
    delta = {**result.rows[0], "kind": "one_step", "step": 0, "metric": "relative_delta", "evaluations": 1}
    return [*result.rows, {**delta, "value": relative_delta(separator, references)}]


def relative_delta(separator: Separator, references: Tensor) -> float:
    """Mean over references ``(s, c, t)`` of ``||f(s) - s|| / ||s||``, with the estimate that is nearest."""
    with torch.inference_mode():
        errors = (separator(references) - references[:, None]).flatten(2).norm(dim=2)
    return float((errors.amin(dim=1) / references.flatten(1).norm(dim=1)).mean())


CORPORA = {"voicebank_demand": voicebank_demand, "librimix": librimix}


def run(options: argparse.Namespace) -> pd.DataFrame:
    """Score all items that OUT does not hold yet, in parallel, saving as it goes."""
    corpus = CORPORA[options.corpus](options.data, split=options.split)
    items = [corpus[place] for place in spread(len(corpus), options.items)]
    path = options.out / "scores.parquet"
    rows = read_scores(path).to_dict("records") if path.exists() else []
    done = {row["item"] for row in rows}
    slow = {items[place].name for place in spread(len(items), options.blind_items)}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        futures = []
        for item in items:
            if item.name in done:
                continue
            names = [n for n in options.guides if not n.startswith("dnsmos") or item.name in slow]
            futures.append(pool.submit(score_item, options, item, names))
        for number, future in enumerate(tqdm(as_completed(futures), total=len(futures), desc="items")):
            rows += future.result()
            if number % 5 == 4 or number == len(futures) - 1:
                write_scores(path, rows)
    return read_scores(path)


def guide_tables(summary: pd.DataFrame) -> dict[str, str]:
    """For every guide a Markdown table, a row per step, a column per measure."""
    tables = {}
    for column in [name for name in summary["column"].unique() if name not in ("mixture", "one_step")]:
        wide = summary[summary["column"] == column].pivot(index="step", columns="metric", values="mean")
        own = [name for name in summary["metric"].unique() if name in wide]
        text = pd.DataFrame({title(name): wide[name].map(f"{{:.{decimals(name)}f}}".format) for name in own})
        tables[column] = to_markdown(text.reset_index(names="step"))
    return tables


def falling(scores: pd.DataFrame) -> int:
    """How many of the guides' own scores are lower than at the step before; none may be."""
    own = scores[scores["kind"].isin(["oracle", "blind"]) & (scores["metric"] == scores["guide"])]
    steps = own.sort_values("step").groupby(["guide", "item"])["value"].diff()
    # the panel scores one estimate at a time, refine several: rounding differs in the last digits
    return int((steps < -1e-4).sum())


def main() -> None:
    """Score, then print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("separator", help="checkpoint or other URI of the separator")
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--corpus", choices=CORPORA, default="voicebank_demand", help="its layout")
    parser.add_argument("--split", default="test", choices=["train", "valid", "test"])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--name", help="name of the run in the tables; that of OUT by default")
    parser.add_argument("--guides", nargs="+", default=["si_sdr", "pesq", "dnsmos_ovrl", "fixed"])
    parser.add_argument("--metrics", nargs="+", help="all by default")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--blind-candidates", type=int, default=5)
    parser.add_argument("--items", type=int, help="this many, evenly spread; all by default")
    parser.add_argument("--blind-items", type=int, help="this many under DNSMOS guides; all by default")
    parser.add_argument("--consistency", choices=["uniform", "energy"], help="estimates sum to the mixture")
    parser.add_argument("--max-batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    options = parser.parse_args()
    options.name = options.name or options.out.name
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    scores = run(options)
    separator = _loaded(options.separator)
    record = {
        "name": options.name,
        "model": type(separator).__name__,
        "parameters": parameters(separator),
        "macs_per_second": macs_per_second(separator),
        "sample_rate": separator.sample_rate,
        "evaluation_seconds": round(time.monotonic() - started),
    }
    (options.out / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    summary = summarise(scores)
    items = scores["item"].nunique()
    tables = [f"{items} items\n\n{to_markdown(overview_table(summary).drop(columns='run'))}"]
    tables += [f"**{name}**\n\n{table}" for name, table in guide_tables(summary).items()]
    tables.append(f"Guided scores that fall from one step to the next: {falling(scores)}")
    (options.out / "tables.md").write_text("\n\n".join(tables) + "\n")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
