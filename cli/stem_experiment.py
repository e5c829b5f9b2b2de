"""Score a separator on a corpus source by source: one step, several methods, and the oracle predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

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
from encore.models.types import LoadedSeparator, Separator, interchangeable
from encore.models.wrappers import select
from encore.reporting.examples import choose_examples, write_examples
from encore.reporting.labels import shown_metrics
from encore.reporting.results import comparable, results_text
from encore.reporting.scores import write_scores
from encore.reporting.stem_report import write_stem_report
from encore.reporting.summary import final_steps

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
        targets = self._targets(separator.sources)
        places = evenly_spaced(len(songs), self.items)
        panel = MetricPanel(
            self.metrics or default_metrics(separator.sample_rate, separator.channels),
            sample_rate=separator.sample_rate,
            workers=0 if subject.workers == 1 else subject.workers,
        )
        done = {name: table.items for name, table in tables.items()}
        jobs = [(place, target) for place in places for target in targets]
        job_of: dict[str, tuple[int, str]] = {}

        def load(place: int, target: str) -> _Item:
            sample, own = songs[place], separator if target == TOGETHER else select(separator, target)
            mixture, references = (sample[key].to(subject.device) for key in ("mixture", "references"))
            name = sample["name"] if len(targets) == 1 else f"{sample['name']}/{target}"
            indices = [separator.sources.index(source) for source in own.sources]
            return _Item(name, own, indices, mixture[None], references[None])

        def work(job: tuple[int, str]) -> Rows:
            target, item = job[1], load(*job)
            job_of[item.name] = job
            rows: dict[str, list[Row]] = {}
            if item.name not in done[SCORES]:
                result = evaluate(
                    item.separator,
                    item.mixture,
                    methods,
                    panel,
                    run=subject.name,
                    items=[item.name],
                    references=item.own_references,
                    generator=self._generator(),
                    at_once=subject.workers,
                )
                rows[SCORES] = [row | {"source": target} for row in result.rows]
                if self.relative_delta:
                    value = relative_delta(separator, item.own_references[0])
                    delta = {"kind": "one_step", "evaluations": 1, "metric": "relative_delta", "value": value}
                    rows[SCORES].append(rows[SCORES][0] | delta)
            if self.betas and item.name not in done[PREDICTOR]:
                base = {"run": subject.name, "item": item.name, "target": target}
                signals = (item.mixture[0], item.references[0], item.indices[0])
                scores = oracle_predictor(separator, *signals, self.betas, forms=self.forms)
                rows[PREDICTOR] = [
                    base | asdict(score) | {"source": separator.sources[score.source]} for score in scores
                ]
            return rows

        def waveforms(name: str, method: str) -> dict[str, Tensor]:
            # an item of an earlier session that this one left out is looked for
            item = load(*(job_of.get(name) or next(job for job in jobs if load(*job).name == name)))
            own: dict[str, Any] = {"references": item.own_references, "generator": self._generator()}
            return example_waveforms(item.separator, item.mixture, methods[method], **own)

        def report(folder: Path) -> str:
            scores, predictor = tables[SCORES].frame, tables[PREDICTOR].frame
            if scores.empty or not predictor.empty or len(targets) > 1:
                return write_stem_report(folder, scores, predictor)[1].read_text()
            write_scores(folder / "scores.parquet", scores)
            results = comparable(scores)
            chosen = choose_examples(scores, shown_metrics(final_steps(results[0].summary))[0])
            write_examples(folder / "examples", chosen, waveforms, separator.sample_rate)
            costs = {subject.name: RunFolder(folder).facts().get("macs_per_second")}
            return results_text(results, costs)

        return jobs, work, report

    def _targets(self, sources: Sequence[str]) -> Sequence[str]:
        """Return the names of what is refined; raise where the separator has no such source."""
        targets = self.targets or ([TOGETHER] if interchangeable(sources) else sources)
        if unknown := [target for target in targets if target not in (*sources, TOGETHER)]:
            known = ", ".join(sources)
            raise UserError(f"evaluation.targets: the separator has no {unknown[0]}, but {known}")
        if self.betas and TOGETHER in targets:
            raise UserError("evaluation.betas: are for sources one by one, not for all together; give []")
        return targets

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


class _Item(NamedTuple):
    """A test item with what is refined of it: signals ``(1, c, t)`` and, of all sources, ``(1, s, c, t)``."""

    name: str
    separator: LoadedSeparator
    indices: list[int]
    mixture: Tensor
    references: Tensor

    @property
    def own_references(self) -> Tensor:
        """Those of the refined sources."""
        return self.references[:, self.indices]


@torch.no_grad()
def relative_delta(separate: Separator, references: Tensor) -> float:
    """Return the mean over references ``(s, c, t)`` of ``||f(s) - s|| / ||s||``, of the nearest estimate."""
    errors = (separate(references) - references[:, None]).flatten(2).norm(dim=2)
    return float((errors.amin(dim=1) / references.flatten(1).norm(dim=1)).mean())
