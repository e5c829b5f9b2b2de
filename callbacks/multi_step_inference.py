"""Refine validation items during training, and log one-step and multi-step scores side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning import LightningModule, Trainer
from torch import Generator, Tensor

from encore.callbacks.media import log_media
from encore.callbacks.validation_items import (
    ValidationCallback,
    ValidationItem,
    of_all_processes,
    validation_items,
)
from encore.inference.evaluation import Evaluation, RefinementMethod, evaluate, example_waveforms
from encore.inference.execution import WorkerPool, default_workers
from encore.metrics import MetricPanel, default_metrics
from encore.models.types import LoadedSeparator, interchangeable
from encore.models.wrappers import select
from encore.reporting.examples import Example, choose_examples, write_examples
from encore.reporting.figures import save_png
from encore.reporting.labels import shown_metrics
from encore.reporting.plots import step_figure
from encore.reporting.results import Comparison, comparable, result_table, results_text
from encore.reporting.scores import write_scores
from encore.reporting.summary import UNGUIDED, chosen_ratios, final_steps, summarise

Batch = dict[str, Any]
"""Items of one length: ``mixture`` (b, c, t), ``references`` (b, s, c, t) if known, ``names``, ``places``."""


class MultiStepInference(ValidationCallback):
    """Refine validation items by any number of methods and score every step.

    Runs at every ``every_n_epochs``-th validation and always once when training ends, also when ``max_steps``
    cuts an epoch, with the weights that validation uses (put averaging callbacks before this one). Each item
    is refined by one process only and counted once.

    Logs, of the metrics of `shown_metrics`, ``val/mixture/<metric>`` and ``val/one_step/<metric>``, and of
    the last step of each method under ``val/multi_step/<name>_<oracle|blind>`` (``<name>`` without a guide)
    the main ``<metric>``, its ``gain`` over one step, paired by item, separator ``calls`` and ``seconds`` per
    item, and with a guide the mean ``ratio`` chosen over all steps and the fraction ``kept`` of steps that
    kept the estimate; ``<metric>_failed`` counts failed items. Writes ``scores.parquet`` (every item, step,
    method and metric), and in ``multi_step`` the results in words and as a table (``scores.md``), curves, and
    audio and spectrograms of the best, median and worst item of one method; the same to loggers that show
    them. Prints the results when training ends.

    Args:
        methods: By their names in tables and log keys; None leaves one out.
        metrics: Names of the metrics that score every step; None for all that the sampling rate allows.
        every_n_epochs: Epochs between runs; 0 runs only when training ends.
        items: Refine this many validation items, evenly spread; None for all.
        max_seconds: Wall time after which no further item is refined; None for no limit.
        batch: Neighbouring items of one length that are refined together, for a GPU.
        workers: Batches that are refined and scored at the same time, each with one processor core; None for
            as many as torch has threads on a CPU, and 1 on a GPU.
        score_workers: Processes in which the scores of PESQ and STOI are computed; None for one per worker if
            there are several, 0 for none.
        source: Name of the refined source, or ``"all"`` to refine all together, with scores that are means
            over them; if None the first one, or all where the separator gives them in any order (speakers).
        seed: Of methods that draw, per item.
        run: Name of the run in the score table; that of the run folder if None.
    """

    def __init__(
        self,
        methods: Mapping[str, RefinementMethod | None],
        *,
        metrics: Sequence[str] | None = None,
        every_n_epochs: int = 0,
        items: int | None = None,
        max_seconds: float | None = None,
        batch: int = 1,
        workers: int | None = None,
        score_workers: int | None = None,
        source: str | None = None,
        seed: int = 0,
        run: str | None = None,
    ) -> None:
        super().__init__(every_n_epochs, items)
        if batch < 1:
            raise ValueError(f"batch={batch}: use 1 or more")
        self.methods = {name: method for name, method in methods.items() if method is not None}
        self.metrics, self.batch, self.source, self.max_seconds = metrics, batch, source, max_seconds
        self.workers, self.score_workers, self.seed, self.run = workers, score_workers, seed, run

    def measure(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Refine this process's items, gather all rows, write and log them; return the values to log."""
        whole: Any = module.separator
        separator = self._selected(whole)
        places = [list(whole.sources).index(name) for name in separator.sources]
        workers = self.workers or default_workers(module.device)
        panel = MetricPanel(
            self.metrics or default_metrics(separator.sample_rate, separator.channels),
            sample_rate=separator.sample_rate,
            workers=(0 if workers == 1 else workers) if self.score_workers is None else self.score_workers,
        )
        folder = Path(trainer.default_root_dir)

        def refine(batch: Batch) -> tuple[Batch, Evaluation]:
            return batch, evaluate(
                separator,
                batch["mixture"].to(module.device),
                self.methods,
                panel,
                run=self.run or folder.name,
                items=batch["names"],
                references=_moved(batch.get("references"), module.device),
                generator=self._generator(),
                at_once=workers,
            )

        rows: list[dict[str, Any]] = []
        place_of: dict[str, int] = {}
        with WorkerPool(workers) as pool:
            what = "multi-step validation"
            items = validation_items(trainer, self.items, what, max_seconds=self.max_seconds)
            for batch, result in pool.map(refine, _batches(items, places, self.batch)):
                rows += result.rows
                place_of |= zip(batch["names"], batch["places"], strict=True)
        parts = of_all_processes((rows, place_of))
        scores = pd.DataFrame([row for part in parts for row in part[0]])
        if scores.empty:
            raise ValueError("no validation item to refine: give data.valid, or switch multi_step=null")
        summary = summarise(scores)
        if trainer.is_global_zero:
            write_scores(folder / "scores.parquet", scores)
            place_of = {name: place for part in parts for name, place in part[1].items()}

            def waveforms(item: str, name: str) -> dict[str, Tensor]:
                sample = validation_items(trainer, self.items, "examples", places=[place_of[item]])
                (batch,) = _batches(sample, places, 1)
                mixture, references = batch["mixture"].to(module.device), batch.get("references")
                known = _moved(references, module.device)
                return example_waveforms(
                    separator, mixture, self.methods[name], references=known, generator=self._generator()
                )

            chosen = choose_examples(scores, shown_metrics(final_steps(summary))[0])
            examples = write_examples(folder / "multi_step", chosen, waveforms, separator.sample_rate)
            _log_media(trainer, folder / "multi_step", comparable(scores), summary, examples)
        return logged_values(summary)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure once more, unless this very step was measured already, and print the results."""
        super().on_train_end(trainer, pl_module)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir) / "multi_step"
            print(f"\n{(folder / 'scores.md').read_text('utf-8')}\ncurves, spectrograms, audio: {folder}")

    def _generator(self) -> Generator:
        return Generator().manual_seed(self.seed)

    def _selected(self, separator: LoadedSeparator) -> LoadedSeparator:
        """Return the separator of what is refined."""
        sources = separator.sources
        if self.source == "all" or (self.source is None and interchangeable(sources)):
            return separator
        if self.source is not None and self.source not in sources:
            raise ValueError(f"source={self.source}: the separator has {', '.join(sources)}; or use all")
        return select(separator, self.source or sources[0])


def _batches(items: Iterator[ValidationItem], sources: Sequence[int], size: int) -> Iterator[Batch]:
    """Yield neighbours of one length together, with the references of some of the sources."""
    for (_, has_references), alike in groupby(
        items, lambda item: (item.sample["mixture"].shape, "references" in item.sample)
    ):
        while group := list(islice(alike, size)):
            samples = [item.sample for item in group]
            batch: Batch = {
                "names": [name for sample in samples for name in sample["names"]],
                "places": [item.place for item in group],
                "mixture": torch.cat([sample["mixture"] for sample in samples]),
            }
            if has_references:
                batch["references"] = torch.cat([sample["references"][:, sources] for sample in samples])
            yield batch


def _moved(signal: Tensor | None, device: torch.device) -> Tensor | None:
    return None if signal is None else signal.to(device)


def logged_values(summary: pd.DataFrame) -> dict[str, float]:
    """Return the values to log of a summary, see `MultiStepInference`."""
    last = final_steps(summary)
    metrics = shown_metrics(last)
    chosen = chosen_ratios(summary).set_index(["run", "column"])
    values: dict[str, float] = {}
    for row in last[last["metric"].isin(metrics)].to_dict("records"):
        column, metric = row["column"], row["metric"]
        refined = row["kind"] not in UNGUIDED
        base = f"val/multi_step/{column}" if refined else f"val/{column}"
        if refined and metric != metrics[0]:
            continue
        values[f"{base}/{metric}"] = row["mean"]
        if row["failed"]:
            values[f"{base}/{metric}_failed"] = float(row["failed"])
        if refined:
            values |= {f"{base}/gain": row["gain"], f"{base}/calls": row["evaluations"]}
            values[f"{base}/seconds"] = row["seconds"]
        if row["kind"] in ("blind", "oracle") and (row["run"], column) in chosen.index:
            values |= {f"{base}/{name}": own for name, own in chosen.loc[(row["run"], column)].items()}
    # without a chosen ratio there is no mean of them
    return {key: value for key, value in values.items() if value == value or not key.endswith("/ratio")}


def _log_media(
    trainer: Trainer,
    folder: Path,
    comparisons: Sequence[Comparison],
    summary: pd.DataFrame,
    examples: Sequence[Example],
) -> None:
    """Write curves and results to the folder of the examples, and log all where a logger can show it."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for metric in shown_metrics(final_steps(summary)):
        path = folder / f"score_versus_step_{metric}.png"
        pictures[f"score_versus_step/{metric}"] = save_png(step_figure(summary, metric), path)
    pictures |= {f"spectrograms/{example.rank}": folder / example.picture for example in examples}
    audio = {
        f"audio/{example.rank}": {name: folder / file for name, file in example.audio.items()}
        for example in examples
    }
    (folder / "scores.md").write_text(results_text(comparisons), encoding="utf-8")
    (only,) = comparisons  # one run
    table = result_table(only.summary)
    log_media(trainer, "val/multi_step", pictures=pictures, audio=audio, table=table)
