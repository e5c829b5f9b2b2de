"""One separator, one corpus, stem by stem: one step, every way to refine, and the oracle predictor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from encore.cli.evaluation import Experiment, Row, Rows, Subject, Table
from encore.cli.overrides import UserError
from encore.data.corpora import evenly_spaced
from encore.inference import RefinementMethod
from encore.inference.evaluation import evaluate
from encore.inference.oracle_predictor import Form, oracle_predictor
from encore.metrics import MetricPanel
from encore.models.wrappers import select
from encore.reporting.scores import column_name
from encore.reporting.stem_report import write_stem_report

SCORES, PREDICTOR = "stem_scores.parquet", "oracle_predictor.parquet"


@dataclass(frozen=True, kw_only=True)
class StemExperiment(Experiment):
    """Refine every stem of every song by any number of methods, and run the oracle predictor on it.

    Each stem is a target by itself: only its estimate is fed back. Results are stored stem by stem in the run
    folder, so that a run that was cut off goes on where it stopped.

    Args:
    methods: By any key; the key lets a config override one of them, None leaves it out.
        metrics: Names of the metrics that score every step.
        betas: Of the oracle predictor; empty for none.
        forms: Of the oracle predictor, see `encore.inference.oracle_predictor`.
        targets: Names of the stems to refine; None for all of the separator's.
    """

    methods: Mapping[str, RefinementMethod | None] = field(default_factory=dict)
    metrics: Sequence[str] = ("si_sdr", "usdr", "csdr")
    betas: Sequence[float] = ()
    forms: Sequence[Form] = ("intended", "published_code")
    targets: Sequence[str] | None = None

    page: ClassVar[str] = "stems.md"
    tables: ClassVar[tuple[str, ...]] = (SCORES, PREDICTOR)

    def __post_init__(self) -> None:
        columns = [column_name(method.name, method.kind) for method in self._used]
        if twice := {column for column in columns if columns.count(column) > 1}:
            raise UserError(f"evaluation.methods: two are called {min(twice)}; tell them apart by label=...")
        if wrong := [beta for beta in self.betas if not 0 <= beta < 1]:
            raise UserError(f"evaluation.betas: {wrong[0]} is outside [0, 1)")

    @property
    def _used(self) -> list[RefinementMethod]:
        return [method for method in self.methods.values() if method is not None]

    def plan(
        self, subject: Subject, tables: Mapping[str, Table]
    ) -> tuple[Sequence[tuple[int, str]], Callable[[tuple[int, str]], Rows]]:
        """Return the places of songs with their targets, and what scores one of them."""
        separator, songs = subject.separator, subject.samples
        targets = tuple(self.targets or separator.sources)
        if unknown := [target for target in targets if target not in separator.sources]:
            known = ", ".join(separator.sources)
            raise UserError(f"evaluation.targets: the separator has no {unknown[0]}, but {known}")
        places = evenly_spaced(len(songs), self.items)
        chosen = [{places[own] for own in evenly_spaced(len(places), method.items)} for method in self._used]
        panel = MetricPanel(self.metrics, sample_rate=separator.sample_rate)
        done = {name: table.items for name, table in tables.items()}

        def work(job: tuple[int, str]) -> Rows:
            place, target = job
            sample, index = songs[place], separator.sources.index(target)
            item = f"{sample['name']}/{target}"
            mixture, references = (sample[key].to(subject.device) for key in ("mixture", "references"))
            rows: dict[str, list[Row]] = {}
            if item not in done[SCORES]:
                result = evaluate(
                    select(separator, target),
                    mixture[None],
                    {n: method for n, method in enumerate(self._used) if place in chosen[n]},
                    panel,
                    run=subject.name,
                    items=[item],
                    references=references[index][None, None],
                    generator=torch.Generator().manual_seed(self.seed),
                    at_once=subject.workers,
                )
                rows[SCORES] = [row | {"source": target} for row in result.rows]
            if self.betas and item not in done[PREDICTOR]:
                base = {"run": subject.name, "item": item, "target": target}
                scores = oracle_predictor(separator, mixture, references, index, self.betas, forms=self.forms)
                rows[PREDICTOR] = [
                    base | asdict(score) | {"source": separator.sources[score.source]} for score in scores
                ]
            return rows

        return [(place, target) for place in places for target in targets], work

    def report(self, subject: Subject, tables: Mapping[str, Table], folder: Path) -> None:
        """Write the tables beside the published numbers, and the figures."""
        write_stem_report(folder, tables[SCORES].frame, tables[PREDICTOR].frame)
