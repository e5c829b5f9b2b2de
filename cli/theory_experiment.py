"""Measure a separator as a bridge: errors along the path, constants, bounds on refinement, schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from encore.cli.evaluation import Experiment, Plan, Row, Subject, Table
from encore.cli.overrides import UserError
from encore.data.corpora import evenly_spaced
from encore.inference import (
    GridSearch,
    Refined,
    RefineOptions,
    Trajectory,
    WorkerPool,
    batched,
    evaluate,
    fit_schedule,
    linear_schedule,
    refine,
)
from encore.inference.probing import band_levels, layer_statistics, linear_probe
from encore.inference.theory import (
    check_refinement,
    guide_error,
    norms,
    path_rows,
    secant,
    worst_gain,
)
from encore.metrics import MetricPanel, get_metric
from encore.models import load_separator
from encore.models.denoisers.bridge_separator import BridgeSeparator
from encore.models.types import permutation_groups
from encore.models.wrappers import SelectSources
from encore.reporting.bridge_report import write_bridge_report

PATH, STEPS, ITEMS, SCHEDULES, PROBE = (
    f"bridge_{name}.parquet" for name in ("path", "steps", "items", "schedules", "probe")
)


@dataclass(frozen=True, kw_only=True)
class TheoryExperiment(Experiment):
    """Compare the bounds and conjectures of docs/methods.md with test items, for one source.

    Args:
    target: The source; None for the separator's first.
        ratios: Mixing ratios at which the error along the path is measured.
        candidates: Even ratios that refinement tries in each step, both ends included.
        steps: Steps of refinement.
        finer: How many times finer the grid for the constants of the bounds is.
        iterations: Of the search for the worst direction; 0 for none, as for networks without derivatives.
        blind: A blind guide that refines the items too; None for none.
        checks: Blind metrics of the one-step estimate that may predict whether refinement helps.
        bridge: A trained bridge, as for ``infer.py --separator``, to compare with along its own path; None
            for none.
        fitting: Validation items on which a schedule is fitted to replace the search; 0 for none.
    """

    target: str | None = None
    ratios: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    candidates: int = 6
    steps: int = 3
    finer: int = 10
    iterations: int = 6
    blind: str | None = None
    checks: Sequence[str] = ("disjointness", "fixed_point", "remix_agreement")
    bridge: str | None = None
    fitting: int = 0

    tables: ClassVar[tuple[str, ...]] = (PATH, STEPS, ITEMS, SCHEDULES, PROBE)

    def plan(self, subject: Subject, tables: Mapping[str, Table]) -> Plan:
        """Return the indices of items without rows, what measures one of them, and the report.

        Raises:
            UserError: If there is no such source or sources are interchangeable, or the bridge was not
                trained as one or is for other audio; by the report if there are no items to fit on.
        """
        work, samples = _Measurement(self, subject), subject.samples
        for table in (PATH, STEPS):
            # drop rows of an item that an earlier run did not finish
            tables[table].keep(tables[ITEMS].items)
        chosen = evenly_spaced(len(samples), self.items)

        def report(folder: Path) -> str:
            if tables[PROBE].frame.empty:
                tables[PROBE].add(work.probe(samples[n] for n in tqdm(chosen, desc="time", unit="item")))
            if self.fitting and tables[SCHEDULES].frame.empty:
                tables[SCHEDULES].add(work.schedules([samples[n] for n in chosen]))
            frames = {table: own.frame for table, own in tables.items()}
            return write_bridge_report(folder, frames, name=subject.name)[1].read_text()

        left = [n for n in chosen if samples[n]["name"] not in tables[ITEMS].items]
        return left, lambda index: work.measure(samples[index]), report


class _Measurement:
    """Measurements of single items."""

    def __init__(self, plan: TheoryExperiment, subject: Subject) -> None:
        separator, rate = subject.separator, subject.separator.sample_rate
        self.plan, self.subject, self.device = plan, subject, subject.device
        self.source = self._source()
        self.separate = SelectSources(separator, [separator.sources[self.source]])
        self.bridge = self._bridge()
        self.true = get_metric("usdr", sample_rate=rate)
        self.panel = MetricPanel(["usdr"], sample_rate=rate)
        self.checks = [get_metric(check, sample_rate=rate) for check in plan.checks]
        # an even grid with both ends
        self.search = GridSearch(plan.candidates - 1, include_estimate=True, steps=plan.steps)

    def _source(self) -> int:
        sources = self.subject.separator.sources
        target, known = self.plan.target or sources[0], ", ".join(sources)
        if target not in sources:
            raise UserError(f"evaluation.target={target}: the separator has {known}")
        source = sources.index(target)
        if any(source in group for group in permutation_groups(sources)):
            raise UserError(f"evaluation.target={target}: {known} come in any order; choose a fixed source")
        return source

    def _bridge(self) -> Any:
        separator, uri = self.subject.separator, self.plan.bridge
        if uri is None:
            return separator if isinstance(separator, BridgeSeparator) else None
        found = load_separator(uri, device=self.device)
        if not isinstance(found, BridgeSeparator):
            raise UserError(f"evaluation.bridge={uri}: was not trained as a bridge; use one that was")
        if (found.sample_rate, found.channels) != (separator.sample_rate, separator.channels):
            raise UserError(
                f"evaluation.bridge={uri}: is for {found.sample_rate} Hz, {found.channels} channels; "
                f"the separator for {separator.sample_rate} Hz, {separator.channels}"
            )
        return found

    def f(self, x: Tensor) -> Tensor:
        """Estimate the source in ``(n, c, t)``."""
        estimates: Tensor = self.separate(x)
        return estimates[:, 0]

    def signals(self, sample: Any) -> tuple[Tensor, Tensor]:
        """Return mixture and reference, ``(1, c, t)``."""
        mixture, reference = sample["mixture"], sample["references"][self.source]
        return mixture[None].to(self.device), reference[None].to(self.device)

    def measure(self, sample: Any) -> dict[str, list[Row]]:
        """Return the rows of all tables."""
        mixture, reference = self.signals(sample)
        item = {"item": sample["name"]}
        if not bool(norms(reference) > 0):
            return {ITEMS: [item | {"silent": True}]}
        trajectory, quality = Trajectory(), self.true.bind(references=reference[:, None])
        refined = refine(batched(self.separate, 1), mixture, quality, self.search, callback=trajectory)
        estimates = [estimates[:, 0] for estimates in (refined.one_step, *trajectory.estimates)]
        checks = check_refinement(
            self.f,
            estimates,
            refined.ratios[:, 0].tolist(),
            mixture,
            reference,
            candidates=self.plan.candidates,
            finer=self.plan.finer,
        )
        generator = Generator(device=self.device).manual_seed(self.plan.seed)
        path: dict[str, Any] = {"bridge": self.bridge, "source": self.source, "generator": generator}
        return {
            PATH: [item | row for row in path_rows(self.f, reference, mixture, self.plan.ratios, **path)],
            STEPS: [item | asdict(check) for check in checks],
            ITEMS: [item | {"silent": False} | self.constants(mixture, reference, refined)],
        }

    def constants(self, mixture: Tensor, reference: Tensor, refined: Refined) -> Row:
        """Return the constants of the item, the checks, and the gains of refinement."""
        one_step = refined.one_step[:, 0]
        found: Row = {
            "noise": float(norms(mixture - reference) / norms(reference)),
            "delta": float(norms(self.f(reference) - reference) / norms(reference)),
            "secant": float(secant(self.f, mixture, reference)),
            "one_step": float(refined.scores[0]),
            "gain_oracle": float(refined.scores[-1] - refined.scores[0]),
        }
        for point, x in (("clean", reference), ("mixture", mixture), ("estimate", one_step)):
            if self.plan.iterations:
                generator = Generator().manual_seed(self.plan.seed)
                worst = worst_gain(self.f, x, iterations=self.plan.iterations, generator=generator)
                found[f"worst_{point}"] = float(worst)
        for check in self.checks:
            found[check.name] = float(check.bind(mixture=mixture, separate=self.separate)(refined.one_step))
        return found if self.plan.blind is None else found | self.blind_gain(mixture, reference)

    def blind_gain(self, mixture: Tensor, reference: Tensor) -> Row:
        """Return the change of the true score under a blind guide, and the guide's error."""
        method = RefineOptions(search=self.search, guide=self.plan.blind, level="own", max_batch=1)
        found = evaluate(
            self.separate,
            mixture,
            {"blind": method},
            self.panel,
            run="",
            items=[""],
            references=reference[:, None],
        )
        true = torch.tensor([row["value"] for row in found.rows if row["kind"] == "blind"])
        scores = found.refined["blind"].scores[:, 0]
        return {
            "one_step_blind": float(scores[0]),
            "gain_blind": float(true[-1] - true[0]),
            "worst_fall": float((true - true[0]).min()),
            "eps": guide_error(scores, true),
        }

    def probe(self, samples: Iterator[Any]) -> list[Row]:
        """Predict the mixing ratio from the network's layers, and from its input alone."""
        network = self.subject.separator
        if not isinstance(network, torch.nn.Module):
            return []
        rows: list[Row] = []
        features: dict[str, list[Tensor]] = {"layers": [], "input": []}
        for sample in samples:
            mixture, reference = self.signals(sample)
            for ratio in self.plan.ratios:
                x = reference + ratio * (mixture - reference)
                with torch.no_grad():
                    features["layers"].append(layer_statistics(network, x))
                features["input"].append(band_levels(x))
                rows.append({"item": sample["name"], "ratio": ratio})
        if len({row["item"] for row in rows}) < 2:
            return []
        target, items = torch.tensor([row["ratio"] for row in rows]), [row["item"] for row in rows]
        for name, own in features.items():
            found = linear_probe(torch.stack(own), target, items)
            for row, predicted in zip(rows, found.predicted, strict=True):
                row[f"predicted_{name}"] = float(predicted)
                row[f"explained_{name}"] = found.explained
        return rows

    def schedules(self, samples: Sequence[Any]) -> list[Row]:
        """Return the gains on test items of a schedule fitted on validation items, and of an even one."""
        data, workers = self.subject.data, self.subject.workers
        data.setup("validate")
        loader: Any = data.val_dataloader()
        if not loader:
            raise UserError(
                f"evaluation.fitting={self.plan.fitting}: the data has no validation items; give 0"
            )
        chosen = evenly_spaced(len(loader.dataset), self.plan.fitting)
        fitting = [self.signals(loader.dataset[index]) for index in chosen]
        fitted = fit_schedule(
            self.separate,
            [(mixture, self.true.bind(references=reference[:, None])) for mixture, reference in fitting],
            steps=self.plan.steps,
            keep_best=False,
            workers=workers,
        )
        methods = {
            "fitted": RefineOptions(search=torch.tensor(fitted), level="own"),
            "even": RefineOptions(search=linear_schedule(self.plan.steps + 1), level="own"),
        }

        def gains(sample: Any) -> list[Row]:
            mixture, reference = self.signals(sample)
            own: dict[str, Any] = {"items": [sample["name"]], "references": reference[:, None]}
            found = evaluate(self.separate, mixture, methods, self.panel, run="", at_once=workers, **own)
            rows = found.rows
            (first,) = (row["value"] for row in rows if row["kind"] == "one_step")
            return [
                {"item": row["item"], "schedule": row["method"], "step": row["step"]}
                | {"gain": row["value"] - first, "ratio": row["ratio"] if row["step"] else 1.0}
                for row in rows
                if row["kind"] == "fixed"
            ]

        with WorkerPool(workers) as pool:
            found = list(tqdm(pool.map(gains, samples), total=len(samples), desc="schedules", unit="item"))
        return [row for rows in found for row in rows]
