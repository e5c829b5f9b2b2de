"""Refine validation items while training, and put one-step and multi-step scores side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from encore.callbacks.refinement_media import Example, log_media
from encore.callbacks.validation_items import ValidationCallback, of_all_processes, validation_items
from encore.data.corpora import spread
from encore.inference.evaluation import Evaluation, Way, evaluate
from encore.inference.execution import Lanes, usual_lanes
from encore.inference.refinement_run import Source
from encore.metrics import MetricPanel, usual_names
from encore.models.types import interchangeable
from encore.reporting.scores import column_name, write_scores
from encore.reporting.summary import final_steps, summarise


class MultiStepInference(ValidationCallback):
    """Run `encore.inference.refine` on validation items under any number of guides and score every step.

    Runs at every ``every_n_epochs``-th validation and always once when training ends, also when ``max_steps``
    cuts an epoch, with the weights that validation uses (put averaging callbacks before this one). Each item
    is refined by one process only and counted once.

    Logs ``val/mixture/<metric>``, ``val/one_step/<metric>``, and for the last step of each guide
    ``val/multi_step/<guide>_<oracle|blind>/<metric>`` with ``_gain`` over one step, the ends ``_gain_low``
    and ``_gain_high`` of its 95 % bootstrap interval, ``_failed`` items, and ``evaluations``. Writes
    ``scores.parquet`` (every item, step, guide and metric), plots, and audio and spectrograms of the items
    that gained most and least to the run folder; the same to Weights & Biases where that is a logger.

    Args:
        guides: Guides by any key; the key lets a config override one of them, None leaves it out.
        metrics: Measures that score every step; None for all that the sampling rate allows.
        every_n_epochs: Epochs between runs; 0 runs only when training ends.
        items: Refine this many validation items, evenly spread; None for all.
        batch: Neighbouring items of one length that are refined together, for a GPU.
        lanes: Batches that are refined and scored at the same time, each with one processor core; None for as
            many as torch has threads on a CPU, and 1 on a GPU.
        workers: Processes in which the scores of PESQ and STOI are computed; None for one a lane if there are
            several lanes, 0 for none.
        source: Name of the refined source, or ``"all"`` to refine all together, with scores that are means
            over them; if None the first one, or all where the separator gives them in any order (speakers).
        seed: Seeds searches that draw, per item.
        run: Name of the run in the score table; that of the run folder if None.
    """

    def __init__(
        self,
        guides: Mapping[str, Way | None],
        *,
        metrics: Sequence[str] | None = None,
        every_n_epochs: int = 0,
        items: int | None = None,
        batch: int = 1,
        lanes: int | None = None,
        workers: int | None = None,
        source: str | None = None,
        seed: int = 0,
        run: str | None = None,
    ) -> None:
        if every_n_epochs < 0 or (items is not None and items < 1) or batch < 1:
            raise ValueError(
                f"every_n_epochs={every_n_epochs}, items={items}, batch={batch}: use 0 or more, 1 or more,"
                " and 1 or more"
            )
        self.guides = [guide for guide in guides.values() if guide is not None]
        columns = [column_name(guide.name, guide.kind) for guide in self.guides]
        if len(set(columns)) < len(columns):
            raise ValueError(f"guides={columns}: two have one name; tell them apart by label=...")
        super().__init__(every_n_epochs)
        self.metrics, self.items = metrics, items
        self.batch, self.lanes, self.workers = batch, lanes, workers
        self.source, self.seed, self.run = source, seed, run

    def measure(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Refine this process's items, gather all rows, write and log them; returns the values to log."""
        separator: Any = module.separator
        lanes = self.lanes or usual_lanes(module.device)
        panel = MetricPanel(
            self.metrics or usual_names(separator.sample_rate, separator.channels),
            sample_rate=separator.sample_rate,
            workers=(0 if lanes == 1 else lanes) if self.workers is None else self.workers,
        )
        rows: list[dict[str, Any]] = []
        examples: list[Example] = []
        folder = Path(trainer.default_root_dir)
        run = self.run or folder.name
        source = self._source(separator.sources)

        def refined(group: Group) -> tuple[Group, Evaluation]:
            generator = torch.Generator().manual_seed(self.seed)
            return group, evaluate(
                separator,
                group.mixture.to(module.device),
                group.guides,
                panel,
                run=run,
                items=group.names,
                source=source,
                interchangeable=source == "all" and interchangeable(separator.sources),
                reference=None
                if group.references is None
                else _of(group.references, source).to(module.device),
                generator=generator,
            )

        with Lanes(lanes) as threads:
            for group, result in threads.map(refined, self._groups(trainer)):
                rows += result.rows
                examples = _extremes(examples + _examples(group, source, separator.sources, result))
        scores, examples = _gathered(rows, examples)
        if scores.empty:
            raise ValueError("no validation item to refine: give data.valid, or switch multi_step=null")
        summary = summarise(scores)
        if trainer.is_global_zero:
            write_scores(folder / "scores.parquet", scores)
            log_media(folder, trainer.loggers, trainer.global_step, summary, examples, separator.sample_rate)
        return logged_values(summary)

    def _source(self, sources: Sequence[str]) -> Source:
        """What is refined."""
        if self.source is None:
            return "all" if interchangeable(sources) else 0
        if self.source != "all" and self.source not in sources:
            raise ValueError(f"source={self.source}: the separator has {', '.join(sources)}; or use all")
        return "all" if self.source == "all" else list(sources).index(self.source)

    def _groups(self, trainer: Trainer) -> Iterator[Group]:
        """This process's items, neighbours of one length and under the same guides together."""
        group: Group | None = None
        for own in validation_items(trainer, self.items, "multi-step validation"):
            chosen = {
                n: guide for n, guide in enumerate(self.guides) if own.place in spread(own.taken, guide.items)
            }
            sample = own.sample
            item = Group(sample["names"], sample["mixture"], sample.get("references"), chosen)
            if group is not None and len(group.names) < self.batch and group.takes(item):
                group = group.with_item(item)
                continue
            if group is not None:
                yield group
            group = item
        if group is not None:
            yield group


@dataclass(frozen=True, slots=True)
class Group:
    """Items of one length that are refined together.

    Attributes:
        names: Of the items.
        mixture: ``(b, c, t)``.
        references: ``(b, s, c, t)``, or None.
        guides: Under which they are refined.
    """

    names: list[str]
    mixture: Tensor
    references: Tensor | None
    guides: dict[int, Way]

    def takes(self, other: Group) -> bool:
        """Whether another item has the same length, guides and kind."""
        return (
            self.mixture.shape[1:] == other.mixture.shape[1:]
            and self.guides.keys() == other.guides.keys()
            and (self.references is None) == (other.references is None)
        )

    def with_item(self, other: Group) -> Group:
        """Both together."""
        references = None
        if self.references is not None and other.references is not None:
            references = torch.cat((self.references, other.references))
        mixture = torch.cat((self.mixture, other.mixture))
        return Group([*self.names, *other.names], mixture, references, self.guides)


def logged_values(summary: pd.DataFrame) -> dict[str, float]:
    """Values to log of a summary, at the last step of each guide."""
    values: dict[str, float] = {}
    for row in final_steps(summary).to_dict("records"):
        column = column_name(row["guide"], row["kind"])
        guided = row["kind"] not in ("mixture", "one_step")
        key = f"val/multi_step/{column}/{row['metric']}" if guided else f"val/{column}/{row['metric']}"
        values[key] = row["mean"]
        if row["failed"]:
            values[f"{key}_failed"] = float(row["failed"])
        if guided:
            values |= {f"{key}_{name}": row[name] for name in ("gain", "gain_low", "gain_high")}
            values[f"val/multi_step/{column}/evaluations"] = row["evaluations"]
    return values


def _of(signals: Tensor, source: Source) -> Tensor:
    """One source of ``(b, s, c, t)``, or all."""
    return signals if source == "all" else signals[:, source]


def _examples(group: Group, source: Source, sources: Sequence[str], result: Evaluation) -> list[Example]:
    """One candidate example for every item and guide that scored it."""
    examples = []
    for number, refinement in result.refinements.items():
        gains = (refinement.scores[-1] - refinement.scores[0]).tolist()
        guide = group.guides[number]
        label = column_name(guide.name, guide.kind)
        for place, (item, gain) in enumerate(zip(group.names, gains, strict=True)):
            if gain != gain:  # schedules and failed items have no score
                continue
            waveforms = {"mixture": group.mixture[place].cpu()}
            parts = {"one step": refinement.one_step[place], "multi-step": refinement.estimate[place]}
            if group.references is not None:
                parts["reference"] = _of(group.references, source)[place]
            for name, part in parts.items():
                if source == "all":
                    waveforms |= {f"{name} {own}": x for own, x in zip(sources, part.cpu(), strict=True)}
                else:
                    waveforms[name] = part.cpu()
            examples.append(Example(label=label, item=item, gain=gain, waveforms=waveforms))
    return examples


def _extremes(examples: Sequence[Example]) -> list[Example]:
    """Per guide, the examples that gained least and most."""
    kept = []
    for label in dict.fromkeys(example.label for example in examples):
        own = sorted((e for e in examples if e.label == label), key=lambda e: (e.gain, e.item))
        kept += own[:1] if len(own) == 1 else [own[0], own[-1]]
    return kept


def _gathered(rows: list[dict[str, Any]], examples: list[Example]) -> tuple[pd.DataFrame, list[Example]]:
    """Rows and examples of all processes, the same on each of them."""
    parts = of_all_processes((rows, examples))
    return pd.DataFrame([row for part in parts for row in part[0]]), _extremes(
        [example for part in parts for example in part[1]]
    )
