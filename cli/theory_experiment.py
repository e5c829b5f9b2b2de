"""One separator as a bridge: error along the path, constants, bounds on refinement, schedules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from encore.cli.evaluation import Row, Table
from encore.cli.overrides import UserError
from encore.data.corpora import spread
from encore.data.datamodule import SeparationData
from encore.inference import FixedSchedule, GridSearch, Lanes, Refinement, fit_schedule, refine
from encore.inference.bridge_guide import HasBridge
from encore.inference.execution import usual_lanes
from encore.inference.probing import band_levels, layer_statistics, linear_probe
from encore.inference.theory import (
    bridge_path_errors,
    check_refinement,
    ideal_linear_errors,
    noise_of_measure,
    norms,
    path_errors,
    secant,
    worst_direction,
)
from encore.metrics import Quality, get_quality
from encore.metrics.music import usdr
from encore.models import load_separator
from encore.models.types import LoadedSeparator, interchangeable
from encore.reporting.bridge_report import write_bridge_report

PATH, STEPS, ITEMS, SCHEDULES, PROBE = (
    f"bridge_{name}.parquet" for name in ("path", "steps", "items", "schedules", "probe")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TheoryExperiment:
    """Measure on test items what docs/methods.md proves, and what it only suggests, of one source.

    Args:
        target: The source; None for the separator's first.
        ratios: Mixture shares at which the error along the path is measured.
        candidates: Even shares that refinement tries in each step, both ends included.
        steps: Of refinement.
        finer: How many times finer the grid is on which the constants of the bounds are measured.
        iterations: Of the search for the worst direction; 0 for none, as for networks without derivatives.
        blind: A blind measure that refines the items too; None for none.
        checks: Blind measures of the one-step estimate that may tell whether refinement will help.
        bridge: A trained bridge, as ``infer.py --separator`` takes it, whose errors along its own path stand
            beside the separator's; None for none.
        fitting: Validation items on which a schedule is fitted that takes the search's place; 0 for none.
        items: Test items, evenly spread; None for all.
        lanes: Items that are worked on at the same time; None for one a processor core, 1 on a GPU.
        seed: Of noise and first directions.
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
    items: int | None = None
    lanes: int | None = None
    seed: int = 0

    page: ClassVar[str] = "bridge.md"
    tables: ClassVar[tuple[str, ...]] = (PATH, STEPS, ITEMS, SCHEDULES, PROBE)

    def run(
        self,
        separator: LoadedSeparator,
        data: SeparationData,
        folder: Path,
        *,
        name: str,
        device: torch.device,
    ) -> None:
        """Measure all items that ``folder`` has no rows of yet, and write the report.

        Args:
            separator: On its device.
            data: Its test samples have ``mixture`` (c, t), ``references`` (s, c, t) and ``name``.
            folder: Gets tables, figures and report.
            name: Of the run, for the report.
            device: Where the separator lives.

        Raises:
            UserError: If there is no such source or they come in any order, the bridge is none or is of
                other audio, or there is nothing to fit a schedule on.
        """
        work = _Work(self, separator, self._source(separator), self._bridge(separator, device), device)
        tables = {table: Table(folder / table) for table in self.tables}
        for table in (PATH, STEPS):
            # rows of an item that a run was cut off in
            tables[table].keep(tables[ITEMS].items)
        samples: Any = data.test_dataloader().dataset
        places = list(spread(len(samples), self.items))
        left = [place for place in places if samples[place]["name"] not in tables[ITEMS].items]
        with Lanes(self.lanes or usual_lanes(device)) as lanes:
            done = lanes.map(lambda place: work.measure(samples[place]), left)
            for rows in tqdm(done, total=len(left), desc="items", unit="item"):
                for table, own in rows.items():
                    tables[table].add(own)
        if tables[PROBE].frame.empty:
            tables[PROBE].add(work.probe(samples[place] for place in tqdm(places, desc="time", unit="item")))
        if self.fitting and tables[SCHEDULES].frame.empty:
            tables[SCHEDULES].add(work.schedules(data, [samples[place] for place in places]))
        write_bridge_report(folder, {table: own.frame for table, own in tables.items()}, name=name)

    def _source(self, separator: LoadedSeparator) -> int:
        if interchangeable(separator.sources):
            raise UserError(
                f"separator: gives {', '.join(separator.sources)} in any order, so none can be followed"
            )
        target = self.target or separator.sources[0]
        if target not in separator.sources:
            known = ", ".join(separator.sources)
            raise UserError(f"evaluation.target={target}: the separator has {known}")
        return separator.sources.index(target)

    def _bridge(self, separator: LoadedSeparator, device: torch.device) -> Any:
        if self.bridge is None:
            return separator if isinstance(separator, HasBridge) else None
        found: Any = load_separator(self.bridge, device=device)
        if not isinstance(found, HasBridge):
            raise UserError(f"evaluation.bridge={self.bridge}: was not trained as a bridge")
        if (found.sample_rate, found.channels) != (separator.sample_rate, separator.channels):  # type: ignore[attr-defined]
            raise UserError(
                f"evaluation.bridge={self.bridge}: is for {found.sample_rate} Hz, {found.channels} channels; "  # type: ignore[attr-defined]
                f"the separator for {separator.sample_rate} Hz, {separator.channels}"
            )
        return found


class _Work:
    """What is measured of one item, without regard to the others."""

    def __init__(
        self,
        plan: TheoryExperiment,
        separator: LoadedSeparator,
        source: int,
        bridge: Any,
        device: torch.device,
    ) -> None:
        self.plan, self.separator, self.source, self.bridge, self.device = (
            plan,
            separator,
            source,
            bridge,
            device,
        )
        rate = separator.sample_rate
        self.true = get_quality("usdr", sample_rate=rate)
        self.blind = None if plan.blind is None else get_quality(plan.blind, sample_rate=rate)
        self.checks = [get_quality(check, sample_rate=rate) for check in plan.checks]

    def f(self, x: Tensor) -> Tensor:
        """The separator's estimates of the source."""
        return self.separator(x)[:, self.source]

    def signals(self, sample: Any) -> tuple[Tensor, Tensor]:
        """Mixture and reference, ``(1, c, t)``."""
        return sample["mixture"][None].to(self.device), sample["references"][self.source][None].to(
            self.device
        )

    def measure(self, sample: Any) -> dict[str, list[Row]]:
        """Rows of all tables."""
        mixture, reference = self.signals(sample)
        item = {"item": sample["name"]}
        if not bool(norms(reference) > 0):
            return {ITEMS: [item | {"silent": True}]}
        refined = self.refined(mixture, reference, self.true)
        checks = check_refinement(
            self.f, refined, mixture, reference, candidates=self.plan.candidates, finer=self.plan.finer
        )
        return {
            PATH: [item | row for row in self.path(mixture, reference)],
            STEPS: [item | asdict(check) for check in checks],
            ITEMS: [item | {"silent": False} | self.constants(mixture, reference, refined)],
        }

    def refined(self, mixture: Tensor, reference: Tensor, quality: Quality) -> Refinement:
        """The item refined by an even grid with both ends."""
        return refine(
            self.separator,
            mixture,
            source=self.source,
            steps=self.plan.steps,
            search=GridSearch(self.plan.candidates - 1, include_estimate=True),
            quality=quality,
            reference=reference,
            max_batch=1,
            keep_trajectory=True,
        )

    def path(self, mixture: Tensor, reference: Tensor) -> Iterator[Row]:
        """Relative errors along the path: of the separator, of the ideal linear filter, of the bridge."""
        ratios = self.plan.ratios
        own = path_errors(self.f, reference, mixture, ratios)
        linear = ideal_linear_errors(reference, mixture, ratios)
        noise = float(norms(mixture - reference) / norms(reference))
        rows = {
            "separator": own,
            "linear": linear,
            "input": torch.tensor([ratio * noise for ratio in ratios]),
        }
        if self.bridge is not None:
            generator = Generator(device=self.device).manual_seed(self.plan.seed)
            own_path = (self.bridge, reference, mixture, ratios)
            rows |= {
                "bridge": bridge_path_errors(*own_path, source=self.source, generator=generator),
                "bridge_mean": bridge_path_errors(*own_path, source=self.source),
            }
        for what, errors in rows.items():
            for ratio, error in zip(ratios, errors, strict=True):
                yield {"what": what, "ratio": ratio, "error": float(error)}

    def constants(self, mixture: Tensor, reference: Tensor, refined: Refinement) -> Row:
        """Numbers of the whole item, and what refinement gained."""
        found: Row = {
            "noise": float(norms(mixture - reference) / norms(reference)),
            "delta": float(norms(self.f(reference) - reference) / norms(reference)),
            "secant": float(secant(self.f, mixture, reference)),
            "one_step": float(refined.scores[0]),
            "gain_oracle": float(refined.scores[-1] - refined.scores[0]),
        }
        one_step = refined.one_step
        for place, at in (("clean", reference), ("mixture", mixture), ("estimate", one_step)):
            if self.plan.iterations:
                generator = Generator().manual_seed(self.plan.seed)
                worst = worst_direction(self.f, at, iterations=self.plan.iterations, generator=generator)
                found[f"worst_{place}"] = float(worst.gain)

        def ask(inputs: Tensor, mixture: Tensor) -> Tensor:
            return self.f(inputs)

        for check in self.checks:
            found[check.name] = float(check.bound_to(ask)(one_step, mixture=mixture, one_step=one_step))
        if self.blind is not None:
            found |= self.under_a_blind_guide(mixture, reference)
        return found

    def under_a_blind_guide(self, mixture: Tensor, reference: Tensor) -> Row:
        """What the true score does where another measure chooses, beside what that one's error allows."""
        assert self.blind is not None
        refined = self.refined(mixture, reference, self.blind)
        assert refined.trajectory is not None
        true = usdr(refined.trajectory[:, 0], reference.expand_as(refined.trajectory[:, 0]))
        return {
            "one_step_blind": float(refined.scores[0]),
            "gain_blind": float(true[-1] - true[0]),
            "worst_fall": float((true - true[0]).min()),
            "eps": noise_of_measure(refined.scores[:, 0], true),
        }

    def probe(self, samples: Iterator[Any]) -> list[Row]:
        """Whether the time can be read off the network, or off its input alone, by others than itself."""
        if not isinstance(self.separator, torch.nn.Module):
            return []
        rows: list[Row] = []
        features: dict[str, list[Tensor]] = {"layers": [], "input": []}
        for sample in samples:
            mixture, reference = self.signals(sample)
            for ratio in self.plan.ratios:
                x = reference + ratio * (mixture - reference)
                with torch.no_grad():
                    features["layers"].append(layer_statistics(self.separator, x))
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

    def schedules(self, data: SeparationData, samples: Sequence[Any]) -> list[Row]:
        """Gains of the search, of a schedule fitted on validation items, and of even ones, on test items."""
        data.setup("validate")
        loader: Any = data.val_dataloader()
        if not loader:
            raise UserError(
                f"evaluation.fitting={self.plan.fitting}: the data has no validation items; give 0"
            )
        fitting = [loader.dataset[place] for place in spread(len(loader.dataset), self.plan.fitting)]
        lanes = self.plan.lanes or usual_lanes(self.device)
        shares = fit_schedule(
            self.separator,
            [self.signals(sample) for sample in fitting],
            self.true,
            steps=self.plan.steps,
            source=self.source,
            keep_previous=False,
            lanes=lanes,
        )
        ways = {
            "fitted": FixedSchedule([1 - share for share in shares]),
            "even": FixedSchedule.linear(self.plan.steps + 1),
        }

        def gains(sample: Any) -> list[Row]:
            mixture, reference = self.signals(sample)
            rows = []
            for name, schedule in ways.items():
                found = refine(
                    self.separator, mixture, source=self.source, search=schedule, keep_trajectory=True
                )
                assert found.trajectory is not None
                true = usdr(found.trajectory[:, 0], reference.expand_as(found.trajectory[:, 0]))
                rows += [
                    {"item": sample["name"], "schedule": name, "step": step, "gain": float(score - true[0])}
                    | {"ratio": 1 - schedule.betas[step - 1] if step else 1.0}
                    for step, score in enumerate(true)
                ]
            return rows

        with Lanes(lanes) as threads:
            found = list(tqdm(threads.map(gains, samples), total=len(samples), desc="schedules", unit="item"))
        return [row for rows in found for row in rows]
