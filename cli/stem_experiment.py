"""One separator, one corpus, stem by stem: one step, every way to refine, and the oracle predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

from encore.cli.evaluation import Row, Table
from encore.cli.overrides import UserError
from encore.data.corpora import evenly_spaced
from encore.data.datamodule import SeparationData
from encore.inference import RefinementMethod, WorkerPool
from encore.inference.evaluation import evaluate as evaluate_item
from encore.inference.execution import default_workers
from encore.inference.oracle_predictor import Form, oracle_predictor
from encore.metrics import MetricPanel
from encore.models.types import LoadedSeparator
from encore.models.wrappers import select
from encore.reporting.scores import column_name
from encore.reporting.stem_report import write_stem_report


@dataclass(frozen=True, kw_only=True, slots=True)
class StemExperiment:
    """Refine every stem of every song by any number of methods, and run the oracle predictor on it.

    Each stem is a target by itself: only its estimate is fed back. Results are stored song by song in the run
    folder, so that a run that was cut off goes on where it stopped.

    Args:
        methods: By any key; the key lets a config override one of them, None leaves it out.
        metrics: Names of the metrics that score every step.
        betas: Of the oracle predictor; empty for none.
        forms: Of the oracle predictor, see `encore.inference.oracle_predictor`.
        targets: Names of the stems to refine; None for all of the separator's.
        items: Songs, evenly spread; None for all.
        workers: Songs and stems that are worked on at the same time, each with one processor core; None for
            as many as torch has threads on a CPU, and 1 on a GPU.
        seed: Of methods that draw, the same for every song.
    """

    methods: Mapping[str, RefinementMethod | None] = field(default_factory=dict)
    metrics: Sequence[str] = ("si_sdr", "usdr", "csdr")
    betas: Sequence[float] = ()
    forms: Sequence[Form] = ("intended", "published_code")
    targets: Sequence[str] | None = None
    items: int | None = None
    workers: int | None = None
    seed: int = 0

    page: ClassVar[str] = "stems.md"
    tables: ClassVar[tuple[str, ...]] = ("stem_scores.parquet", "oracle_predictor.parquet")

    def __post_init__(self) -> None:
        columns = [column_name(method.name, method.kind) for method in self._used]
        if twice := {column for column in columns if columns.count(column) > 1}:
            raise UserError(f"evaluation.methods: two are called {min(twice)}; tell them apart by label=...")
        if wrong := [beta for beta in self.betas if not 0 <= beta < 1]:
            raise UserError(f"evaluation.betas: {wrong[0]} is outside [0, 1)")

    @property
    def _used(self) -> list[RefinementMethod]:
        return [method for method in self.methods.values() if method is not None]

    def run(
        self,
        separator: LoadedSeparator,
        data: SeparationData,
        folder: Path,
        *,
        name: str,
        device: torch.device,
    ) -> None:
        """Score all songs that ``folder`` has no scores of yet, and write tables and figures.

        Args:
            separator: On its device.
            data: Its test samples have ``mixture`` (c, t), ``references`` (s, c, t) in the order of the
                separator's sources, and ``name``.
            folder: Gets the scores as Parquet, the report as Markdown and the figures as PNG.
            name: Of the run, for the tables.
            device: Where the separator lives.

        Raises:
            UserError: If a target is no source of the separator.
        """
        targets = tuple(self.targets or separator.sources)
        if unknown := [target for target in targets if target not in separator.sources]:
            known = ", ".join(separator.sources)
            raise UserError(f"evaluation.targets: the separator has no {unknown[0]}, but {known}")
        scores, predictor = (Table(folder / table) for table in self.tables)
        songs: Any = data.test_dataloader().dataset
        places = evenly_spaced(len(songs), self.items)
        chosen = [{places[own] for own in evenly_spaced(len(places), method.items)} for method in self._used]
        panel = MetricPanel(self.metrics, sample_rate=separator.sample_rate)

        def work(job: tuple[int, str]) -> tuple[list[Row], list[Row]]:
            place, target = job
            sample = songs[place]
            item = f"{sample['name']}/{target}"
            mixture, references = (sample[key].to(device) for key in ("mixture", "references"))
            refined: list[Row] = []
            if item not in scores.items:
                index = separator.sources.index(target)
                result = evaluate_item(
                    select(separator, target),
                    mixture[None],
                    {n: method for n, method in enumerate(self._used) if place in chosen[n]},
                    panel,
                    run=name,
                    items=[item],
                    references=references[index][None, None],
                    generator=torch.Generator().manual_seed(self.seed),
                    at_once=workers,
                )
                refined = [row | {"source": target} for row in result.rows]
            raised: list[Row] = []
            if self.betas and item not in predictor.items:
                raised = self._raised(separator, mixture, references, target, name, item)
            return refined, raised

        jobs = [(place, target) for place in places for target in targets]
        workers = self.workers or default_workers(device)
        with WorkerPool(workers) as pool:
            done = pool.map(work, jobs)
            for refined, raised in tqdm(done, total=len(jobs), desc="stems of songs", unit="stem"):
                scores.add(refined)
                predictor.add(raised)
        write_stem_report(folder, scores.frame, predictor.frame)

    def _raised(
        self,
        separator: LoadedSeparator,
        mixture: Tensor,
        references: Tensor,
        target: str,
        name: str,
        item: str,
    ) -> list[Row]:
        """Return the rows of the oracle predictor for one target of one song."""
        place = separator.sources.index(target)
        found = oracle_predictor(separator, mixture, references, place, self.betas, forms=self.forms)
        return [
            {
                "run": name,
                "item": item,
                "target": target,
                "source": separator.sources[score.source],
                "form": score.form,
                "beta": score.beta,
                "si_sdr": score.si_sdr,
            }
            for score in found
        ]
