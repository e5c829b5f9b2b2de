"""One separator, one corpus, stem by stem: one step, every way to refine, and the oracle predictor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from commands.infer_setup import choose_device
from commands.overrides import UserError
from commands.run_folder import RunFolder
from data.corpora import spread
from data.datamodule import SeparationData
from inference import Lanes, Way
from inference.evaluation import evaluate as evaluate_item
from inference.execution import usual_lanes
from inference.oracle_predictor import Form, oracle_predictor
from metrics import MetricPanel
from models import load_separator
from models.costs import parameters
from models.types import LoadedSeparator
from reporting.scores import column_name
from reporting.stem_report import write_stem_report

Row = dict[str, Any]

SCORES, PREDICTOR = "stem_scores.parquet", "oracle_predictor.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class StemExperiment:
    """Refine every stem of every song under any number of guides, and raise every stem by its truth.

    Each stem is a target of its own: only its estimate is fed back. What is done is kept song by song in the
    run folder, so that a run that was cut off goes on where it stopped.

    Args:
        guides: Guides by any key; the key lets a config override one of them, None leaves it out.
        metrics: Measures that score every step.
        betas: Of the oracle predictor; empty for none.
        forms: Of the oracle predictor, see :mod:`inference.oracle_predictor`.
        targets: Names of the stems to refine; None for all of the separator's.
        items: Songs, evenly spread; None for all.
        lanes: Songs and stems that are worked on at the same time, each with one processor core; None for as
            many as torch has threads on a CPU, and 1 on a GPU.
        seed: Of what guides draw, the same for every song.
    """

    guides: Mapping[str, Way | None] = field(default_factory=dict)
    metrics: Sequence[str] = ("si_sdr", "usdr", "csdr")
    betas: Sequence[float] = ()
    forms: Sequence[Form] = ("intended", "published_code")
    targets: Sequence[str] | None = None
    items: int | None = None
    lanes: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        columns = [column_name(guide.name, guide.kind) for guide in self._used]
        if twice := {column for column in columns if columns.count(column) > 1}:
            raise UserError(f"evaluation.guides: two are called {min(twice)}; tell them apart by label=...")
        if wrong := [beta for beta in self.betas if not 0 <= beta < 1]:
            raise UserError(f"evaluation.betas: {wrong[0]} is outside [0, 1)")

    @property
    def _used(self) -> list[Way]:
        return [guide for guide in self.guides.values() if guide is not None]

    def run(
        self,
        separator: LoadedSeparator,
        songs: Dataset[Any],
        folder: Path,
        *,
        name: str,
        device: torch.device,
    ) -> None:
        """Score all songs that ``folder`` has no scores of yet, and write tables and figures.

        Args:
            separator: On its device.
            songs: Samples with ``mixture`` (c, t), ``references`` (s, c, t) in the order of the separator's
                sources, and ``name``.
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
        scores, predictor = Table(folder / SCORES), Table(folder / PREDICTOR)
        places = spread(len(songs), self.items)  # type: ignore[arg-type]
        shares = [{places[own] for own in spread(len(places), guide.items)} for guide in self._used]
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
                    separator,
                    mixture[None],
                    {n: guide for n, guide in enumerate(self._used) if place in shares[n]},
                    panel,
                    run=name,
                    items=[item],
                    source=index,
                    reference=references[index][None],
                    generator=torch.Generator().manual_seed(self.seed),
                )
                refined = [row | {"source": target} for row in result.rows]
            raised: list[Row] = []
            if self.betas and item not in predictor.items:
                raised = self._raised(separator, mixture, references, target, name, item)
            return refined, raised

        jobs = [(place, target) for place in places for target in targets]
        with Lanes(self.lanes or usual_lanes(device)) as threads:
            done = threads.map(work, jobs)
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
        """Rows of the oracle predictor for one target of one song."""
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


class Table:
    """Rows of a Parquet file that grows song by song and is whole at any time.

    Args:
        path: The file; its rows are taken up if it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frame = pd.read_parquet(path) if path.exists() else pd.DataFrame()

    @property
    def items(self) -> set[str]:
        """Items that have rows."""
        return set() if self.frame.empty else set(self.frame["item"])

    def add(self, rows: Sequence[Row]) -> None:
        """Take up more rows, if there are any, and write all of them."""
        if not rows:
            return
        self.frame = pd.concat([self.frame, pd.DataFrame(rows)], ignore_index=True)
        partial_file = self.path.with_name(f".{self.path.name}.partial")
        self.frame.to_parquet(partial_file, index=False)
        partial_file.replace(self.path)


def evaluate(config: DictConfig, folder: RunFolder) -> None:
    """Run the evaluation that a configuration describes, on its test data, as the separator wants them.

    Args:
        config: With ``evaluation``, ``separator`` and ``data``, whose rate, channels and sources become those
            of the separator.
        folder: Of the run; a run that was cut off goes on.

    Raises:
        ValueError: If something does not fit.
    """
    if config.separator is None:
        raise UserError("separator is not set: give separator=..., what infer.py --separator takes")
    if config.ckpt is None and any((folder.path / name).exists() for name in (SCORES, PREDICTOR)):
        raise UserError(f"{folder.path} already holds a run: go on (ckpt=last) or give another name=...")
    device = choose_device("cpu" if config.trainer.accelerator == "cpu" else "auto")
    opened: Any = load_separator(config.separator, device=device)
    separator: LoadedSeparator = opened
    config.data.sources = list(separator.sources)
    config.data.sample_rate, config.data.channels = separator.sample_rate, separator.channels
    folder.describe(config)
    folder.update(separator=config.separator, parameters=parameters(opened))
    data: SeparationData = instantiate(config.data)
    experiment: StemExperiment = instantiate(config.evaluation, _convert_="all")
    # as elsewhere: one batch of everything
    items = 1 if config.trainer.fast_dev_run else experiment.items
    started = time.monotonic()
    songs = data.test_dataloader().dataset
    replace(experiment, items=items).run(separator, songs, folder.path, name=config.name, device=device)
    folder.update(seconds=round(time.monotonic() - started, 1), finished=True)
    print((folder.path / "stems.md").read_text())
    print(f"run folder: {folder.path}")
