"""Score a separator on a corpus source by source: one step, several methods, and the oracle predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from encore.cli.evaluation import Experiment, Plan, Row, Rows, Subject, Table
from encore.cli.overrides import UserError
from encore.cli.run_folder import RunFolder
from encore.data.corpora import evenly_spaced
from encore.inference import RefinementMethod
from encore.inference.evaluation import evaluate, example_waveforms
from encore.inference.oracle_predictor import Form, oracle_predictor
from encore.metrics import MetricPanel, default_metrics
from encore.models.types import Separator, interchangeable
from encore.models.wrappers import select
from encore.reporting.examples import choose_examples, write_examples
from encore.reporting.results import results_text
from encore.reporting.scores import column_name, write_scores
from encore.reporting.stem_report import write_stem_report

SCORES, PREDICTOR = "stem_scores.parquet", "oracle_predictor.parquet"

TOGETHER = "all"
"""Target that is all sources, refined together."""


@dataclass(frozen=True, kw_only=True)
class StemExperiment(Experiment):
    """Refine every source of every item by any number of methods, and run the oracle predictor on it.

    Each source is a target by itself: only its estimate is fed back. Speakers, who come in any order, are
    refined together and scored by the mean over them. Results are stored target by target in the run folder,
    so that a run that was cut off goes on where it stopped.

    Args:
        methods: By any key; the key lets a config override one of them, None leaves it out.
        metrics: Names of the metrics that score every step; None for all that the sampling rate allows.
        relative_delta: Whether to score one step by the metric ``relative_delta`` too, see `relative_delta`.
        betas: Of the oracle predictor; empty for none.
        forms: Of the oracle predictor, see `encore.inference.oracle_predictor`.
        targets: Names of the sources to refine, ``"all"`` for all together; None for each of the separator's
            by itself, or all together where they come in any order.
    """

    methods: Mapping[str, RefinementMethod | None] = field(default_factory=dict)
    metrics: Sequence[str] | None = ("si_sdr", "usdr", "csdr")
    relative_delta: bool = False
    betas: Sequence[float] = ()
    forms: Sequence[Form] = ("intended", "published_code")
    targets: Sequence[str] | None = None

    tables: ClassVar[tuple[str, ...]] = (SCORES, PREDICTOR)

    def __post_init__(self) -> None:
        if wrong := [beta for beta in self.betas if not 0 <= beta < 1]:
            raise UserError(f"evaluation.betas: {wrong[0]} is outside [0, 1)")

    def plan(self, subject: Subject, tables: Mapping[str, Table]) -> Plan:
        """Return the places of songs with their targets, what scores one of them, and the report."""
        separator, songs = subject.separator, subject.samples
        methods = {name: method for name, method in self.methods.items() if method is not None}
        each = [TOGETHER] if interchangeable(separator.sources) else separator.sources
        targets = tuple(self.targets or each)
        if unknown := [target for target in targets if target not in (*separator.sources, TOGETHER)]:
            known = ", ".join(separator.sources)
            raise UserError(f"evaluation.targets: the separator has no {unknown[0]}, but {known}")
        if self.betas and TOGETHER in targets:
            raise UserError("evaluation.betas: are for sources one by one, not for all together; give []")
        places = evenly_spaced(len(songs), self.items)
        panel = MetricPanel(
            self.metrics or default_metrics(separator.sample_rate, separator.channels),
            sample_rate=separator.sample_rate,
            workers=0 if subject.workers == 1 else subject.workers,
        )
        done = {name: table.items for name, table in tables.items()}

        selected = {
            target: separator if target == TOGETHER else select(separator, target) for target in targets
        }
        jobs = [(place, target) for place in places for target in targets]
        job_of: dict[str, tuple[int, str]] = {}

        def load(place: int, target: str) -> tuple[str, Tensor, Tensor, list[int]]:
            sample, own = songs[place], selected[target].sources
            item = sample["name"] if len(targets) == 1 else f"{sample['name']}/{target}"
            job_of[item] = place, target
            mixture, references = (sample[key].to(subject.device) for key in ("mixture", "references"))
            return item, mixture, references, [separator.sources.index(source) for source in own]

        def work(job: tuple[int, str]) -> Rows:
            target = job[1]
            item, mixture, references, indices = load(*job)
            rows: dict[str, list[Row]] = {}
            if item not in done[SCORES]:
                result = evaluate(
                    selected[target],
                    mixture[None],
                    methods,
                    panel,
                    run=subject.name,
                    items=[item],
                    references=references[None, indices],
                    generator=self._generator(),
                    at_once=subject.workers,
                )
                rows[SCORES] = [row | {"source": target} for row in result.rows]
                if self.relative_delta:
                    value = relative_delta(separator, references[indices])
                    delta = {"kind": "one_step", "evaluations": 1, "metric": "relative_delta", "value": value}
                    rows[SCORES].append(rows[SCORES][0] | delta)
            if self.betas and item not in done[PREDICTOR]:
                base = {"run": subject.name, "item": item, "target": target}
                scores = oracle_predictor(
                    separator, mixture, references, indices[0], self.betas, forms=self.forms
                )
                rows[PREDICTOR] = [
                    base | asdict(score) | {"source": separator.sources[score.source]} for score in scores
                ]
            return rows

        def waveforms(item: str, column: str) -> dict[str, Tensor]:
            # an item of an earlier session was not loaded in this one
            place, target = job_of.get(item) or next(job for job in jobs if load(*job)[0] == item)
            _, mixture, references, indices = load(place, target)
            name = next(n for n, own in methods.items() if column_name(n, own.kind) == column)
            return example_waveforms(
                selected[target],
                mixture[None],
                methods[name],
                references=references[None, indices],
                generator=self._generator(),
            )

        def report(folder: Path) -> str:
            scores, predictor = tables[SCORES].frame, tables[PREDICTOR].frame
            if scores.empty or not predictor.empty or len(targets) > 1:
                return write_stem_report(folder, scores, predictor)[1].read_text()
            write_scores(folder / "scores.parquet", scores)
            write_examples(folder / "examples", choose_examples(scores), waveforms, separator.sample_rate)
            costs = {subject.name: RunFolder(folder).facts().get("macs_per_second")}
            return results_text(scores, costs)

        return jobs, work, report

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@torch.no_grad()
def relative_delta(separate: Separator, references: Tensor) -> float:
    """Return the mean over references ``(s, c, t)`` of ``||f(s) - s|| / ||s||``, of the nearest estimate."""
    errors = (separate(references) - references[:, None]).flatten(2).norm(dim=2)
    return float((errors.amin(dim=1) / references.flatten(1).norm(dim=1)).mean())
