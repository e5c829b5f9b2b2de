"""Refine validation items during training, and log one-step and multi-step scores side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from encore.callbacks.media import file_name, log_to_wandb, write_example
from encore.callbacks.validation_items import (
    ValidationCallback,
    ValidationItem,
    of_all_processes,
    validation_items,
)
from encore.data.corpora import evenly_spaced
from encore.inference.evaluation import Evaluation, RefinementMethod, distinct_methods, evaluate
from encore.inference.execution import WorkerPool, default_workers
from encore.metrics import MetricPanel, default_metrics
from encore.models.types import LoadedSeparator, interchangeable
from encore.models.wrappers import select
from encore.reporting.figures import save_png
from encore.reporting.plots import step_figure
from encore.reporting.scores import column_name, write_scores
from encore.reporting.summary import chosen_ratios, final_steps, summarise
from encore.reporting.tables import overview_table, to_markdown

Group = tuple[dict[str, Any], dict[int, RefinementMethod]]
"""A batch of the items of one length, and the methods by which they are refined."""


class MultiStepInference(ValidationCallback):
    """Refine validation items by any number of methods and score every step.

    Runs at every ``every_n_epochs``-th validation and always once when training ends, also when ``max_steps``
    cuts an epoch, with the weights that validation uses (put averaging callbacks before this one). Each item
    is refined by one process only and counted once.

    Logs ``val/mixture/<metric>``, ``val/one_step/<metric>``, and for the last step of each method
    ``val/multi_step/<guide>_<oracle|blind>/<metric>`` with ``_gain`` over one step, the ends ``_gain_low``
    and ``_gain_high`` of its 95 % bootstrap interval, and ``_failed`` items; beside them ``evaluations``, the
    mean ``ratio`` chosen over all steps, and the fraction ``kept`` of steps that kept the estimate. Writes
    ``scores.parquet`` (every item, step, guide and metric), plots, and audio and spectrograms of the items
    that gained most and least to the run folder; the same to Weights & Biases where that is a logger.

    Args:
        methods: By any key; the key lets a config override one of them, None leaves it out.
        metrics: Names of the metrics that score every step; None for all that the sampling rate allows.
        every_n_epochs: Epochs between runs; 0 runs only when training ends.
        items: Refine this many validation items, evenly spread; None for all.
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
        self.methods = distinct_methods(methods)
        self.metrics, self.batch, self.source = metrics, batch, source
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

        def refine(group: Group) -> tuple[Group, Evaluation]:
            batch, methods = group
            references = batch.get("references")
            return group, evaluate(
                separator,
                batch["mixture"].to(module.device),
                methods,
                panel,
                run=self.run or folder.name,
                items=batch["names"],
                references=None if references is None else references.to(module.device),
                generator=torch.Generator().manual_seed(self.seed),
                at_once=workers,
            )

        rows: list[dict[str, Any]] = []
        examples: list[Example] = []
        with WorkerPool(workers) as pool:
            for group, result in pool.map(refine, self._groups(trainer, places)):
                rows += result.rows
                examples = _extremes([*examples, *_examples(group, separator.sources, result)])
        parts = of_all_processes((rows, examples))
        scores = pd.DataFrame([row for part in parts for row in part[0]])
        if scores.empty:
            raise ValueError("no validation item to refine: give data.valid, or switch multi_step=null")
        summary = summarise(scores)
        if trainer.is_global_zero:
            write_scores(folder / "scores.parquet", scores)
            examples = _extremes([example for part in parts for example in part[1]])
            _log_media(trainer, folder / "multi_step", summary, examples, separator.sample_rate)
        return logged_values(summary)

    def _selected(self, separator: LoadedSeparator) -> LoadedSeparator:
        """Return the separator of what is refined."""
        sources = separator.sources
        if self.source == "all" or (self.source is None and interchangeable(sources)):
            return separator
        if self.source is not None and self.source not in sources:
            raise ValueError(f"source={self.source}: the separator has {', '.join(sources)}; or use all")
        return select(separator, self.source or sources[0])

    def _groups(self, trainer: Trainer, places: list[int]) -> Iterator[Group]:
        """Yield this process's items, neighbours of one length and for the same methods together."""

        def kind(item: ValidationItem) -> tuple[Any, ...]:
            chosen = [item.place in evenly_spaced(item.taken, method.items) for method in self.methods]
            return item.sample["mixture"].shape, "references" in item.sample, chosen

        items = validation_items(trainer, self.items, "multi-step validation")
        for (_, has_references, chosen), alike in groupby(items, kind):
            while samples := [item.sample for item in islice(alike, self.batch)]:
                batch: dict[str, Any] = {"names": [name for sample in samples for name in sample["names"]]}
                batch["mixture"] = torch.cat([sample["mixture"] for sample in samples])
                if has_references:
                    batch["references"] = torch.cat([sample["references"][:, places] for sample in samples])
                yield batch, {number: each for number, each in enumerate(self.methods) if chosen[number]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A refined item as an example: waveforms ``(c, t)`` by name."""

    label: str
    item: str
    gain: float
    waveforms: dict[str, Tensor]


def logged_values(summary: pd.DataFrame) -> dict[str, float]:
    """Return the values to log of a summary, at the last step of each method."""
    values: dict[str, float] = {}
    for row in final_steps(summary).to_dict("records"):
        column = column_name(row["guide"], row["kind"])
        refined = row["kind"] not in ("mixture", "one_step")
        key = f"val/multi_step/{column}/{row['metric']}" if refined else f"val/{column}/{row['metric']}"
        values[key] = row["mean"]
        if row["failed"]:
            values[f"{key}_failed"] = float(row["failed"])
        if refined:
            values |= {f"{key}_{name}": row[name] for name in ("gain", "gain_low", "gain_high")}
            values[f"val/multi_step/{column}/evaluations"] = row["evaluations"]
    chosen = chosen_ratios(summary).to_dict("records")
    for row in chosen:
        values |= {f"val/multi_step/{row['column']}/{name}": row[name] for name in ("ratio", "kept")}
    # without a chosen ratio there is no mean of them
    return {key: value for key, value in values.items() if value == value or not key.endswith("/ratio")}


def _examples(group: Group, sources: Sequence[str], result: Evaluation) -> list[Example]:
    """Return one candidate example for every item and method that scored it."""
    examples = []
    batch, methods = group
    for number, refined in result.refined.items():
        gains = (refined.scores[-1] - refined.scores[0]).tolist()
        label = column_name(methods[number].name, methods[number].kind)
        for place, (item, gain) in enumerate(zip(batch["names"], gains, strict=True)):
            if gain != gain:  # schedules and failed items have no score
                continue
            waveforms = {"mixture": batch["mixture"][place].cpu()}
            parts = {"one step": refined.one_step[place], "multi-step": refined.estimates[place]}
            if "references" in batch:
                parts["reference"] = batch["references"][place]
            for name, part in parts.items():
                names = [name] if len(sources) == 1 else [f"{name} {source}" for source in sources]
                waveforms |= dict(zip(names, part.cpu(), strict=True))
            examples.append(Example(label=label, item=item, gain=gain, waveforms=waveforms))
    return examples


def _extremes(examples: Sequence[Example]) -> list[Example]:
    """Return, per method, the examples that gained least and most."""
    kept = []
    for label in dict.fromkeys(example.label for example in examples):
        own = sorted((e for e in examples if e.label == label), key=lambda e: (e.gain, e.item))
        kept += own[:1] if len(own) == 1 else [own[0], own[-1]]
    return kept


def _log_media(
    trainer: Trainer, folder: Path, summary: pd.DataFrame, examples: Sequence[Example], sample_rate: int
) -> None:
    """Write curves, table and examples to a folder, and log them where a logger can show them."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, audio = {}, {}
    for metric in summary["metric"].unique():
        path = folder / f"score_versus_step_{metric}.png"
        pictures[f"score_versus_step/{metric}"] = save_png(step_figure(summary, metric), path)
    for own in examples:
        title = f"{own.item}: {own.gain:+.3f} ({own.label})"
        name = file_name(f"{own.label}_{own.gain:+.3f}_{own.item}")
        picture, clips = write_example(folder, name, own.waveforms, sample_rate, title=title)
        pictures[f"spectrograms/{name}"] = picture
        captioned = {f"{part} ({own.gain:+.3f})": path for part, path in clips.items()}
        audio[f"audio/{file_name(f'{own.label}_{own.item}')}"] = captioned
    table = overview_table(summary)
    (folder / "scores.md").write_text(to_markdown(table) + "\n")
    log_to_wandb(trainer, "val/multi_step", pictures=pictures, audio=audio, table=table)
