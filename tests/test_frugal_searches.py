"""What every frugal search keeps to, on any curve and through ``refine``; and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from climbing import CURVES, NAN, climb, falling, flat, nowhere, saturating
from torch import Tensor

from encore.inference.greedy_search import GreedySearch
from encore.inference.interpolation import ParabolicSearch, SlopeSearch
from encore.inference.limits import Stopping
from encore.inference.line_search import CoarseToFine, GoldenSection
from encore.inference.refinement import Refinement, refine
from encore.inference.search import FixedSchedule, GridSearch, Search, Trace
from encore.inference.warm_search import ScheduledSearch, WarmSearch
from encore.metrics.quality import Quality

# with the most calls of a step
SEARCHES: list[tuple[Search, int]] = [
    (ScheduledSearch([0.3, 0.3, 0.1, 0.3, 0.0, 0.0, 0.1, 1.0, 0.0]), 1),
    (WarmSearch(), 2),
    (WarmSearch(first=[0.2, 0.5, 0.8], width=0.3, probes=3), 3),
    (WarmSearch(first=[0.2], probes=0), 2),
    (GreedySearch(), 1),
    (GreedySearch(first=0.0, width=0.5, patience=7), 1),
    (CoarseToFine(), 6),
    (CoarseToFine(points=4, rounds=3), 12),
    (GoldenSection(), 5),
    (GoldenSection(rounds=6, low=0.1, high=0.5), 7),
    (ParabolicSearch(), 3),
    (ParabolicSearch(first=0.9, calls=6, tolerance=0.01, enough=math.inf), 6),
    (SlopeSearch(), 4),
    (SlopeSearch(first=0.9, points=4, tolerance=0, enough=math.inf), 8),
    (Stopping(ParabolicSearch(), 0.05, patience=2), 3),
]
IDS = [f"{type(search).__name__}-{most}" for search, most in SEARCHES]
every_search = pytest.mark.parametrize(("search", "most"), SEARCHES, ids=IDS)
every_curve = pytest.mark.parametrize("curve", CURVES, ids=lambda c: c.__name__)


class Patient:
    """The same search, never finished."""

    def __init__(self, search: Search) -> None:
        self.steps, self.selects, self.wants_slopes = search.steps, search.selects, search.wants_slopes
        self.propose = search.propose

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        return torch.zeros_like(kept)


@every_curve
@every_search
def test_steps_end_within_their_calls_and_scores_never_fall(search, most, curve) -> None:
    result = climb(search, curve, 12, steps=8)
    assert (result.scores.diff(dim=0) >= 0).all()
    assert (result.calls <= 1 + most * len(result.chosen)).all()
    for ratios in result.tried:
        ordered = ratios.sort(dim=1).values
        # a share is tried once; those of steps that are not in order are NaN at the end
        assert not (ordered.diff(dim=1) < 1e-6).any()
    if curve in (falling, flat, nowhere):
        assert result.chosen.isnan().all()
    elif curve is saturating:
        assert (result.scores[-1] > 0.3).all()


@every_curve
@every_search
def test_an_item_climbs_alone_as_in_its_batch(search, most, curve) -> None:
    together = climb(search, curve, 12, steps=5)
    for item in (0, 4, 9):
        alone = climb(search, curve, [item], steps=5)
        for name in ("scores", "chosen", "calls"):
            a, b = getattr(alone, name), getattr(together, name)[..., item : item + 1]
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=f"{name} of item {item}")


@pytest.mark.parametrize(("search", "most"), SEARCHES[:-1], ids=IDS[:-1])
def test_being_finished_changes_nothing_but_calls(search, most) -> None:
    saved = 0
    for curve in CURVES:
        stopped = climb(search, curve, 12, steps=8)
        patient = climb(Patient(search), curve, 12, steps=8)
        for name in ("scores", "chosen"):
            a, b = getattr(stopped, name), getattr(patient, name)
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        saved += int((patient.calls - stopped.calls).sum())
    # schedules and warm searches try nothing twice: to them it only spares the asking
    assert (saved > 0) == (not isinstance(search, ScheduledSearch | WarmSearch | GreedySearch))


def test_frugal_searches_have_most_of_the_grids_gain_for_a_seventh_of_its_calls() -> None:
    grid = climb(GridSearch(10, include_estimate=True), saturating, 20, steps=20)
    assert grid.calls.float().mean() > 150
    for search, share, calls in (
        (ParabolicSearch(), 0.99, 22),
        (WarmSearch(), 0.95, 20),
        (GreedySearch(), 0.95, 20),
        (Stopping(ParabolicSearch(), 0.01), 0.98, 13),
    ):
        result = climb(search, saturating, 20, steps=20)
        assert result.scores[-1].mean() > share * grid.scores[-1].mean(), search
        assert result.calls.float().mean() < calls, search


class Nearness(Quality):
    name, needs_reference, sample_rate, differentiable = "nearness", True, 8000, True

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None) -> Tensor:
        return -(estimate - reference).square().mean((1, 2))


def halves(mixture: Tensor) -> Tensor:
    return 0.5 * mixture[:, None]


def refined(search: Search, tops: Tensor, **options: Any) -> tuple[Refinement, Tensor]:
    """``y_0 = x/2``, so share r gives ``(1 + r) x / 4``, and the reference is that of the best share."""
    mixture = torch.randn(len(tops), 1, 40, generator=torch.Generator().manual_seed(0))
    reference = (1 + tops[:, None, None]) / 4 * mixture
    defaults = {"steps": 1, "quality": Nearness(), "reference": reference}
    return refine(halves, mixture, search=search, **defaults | options), reference


@pytest.mark.parametrize("form", ["endpoint", "state"])
@every_search
def test_refinement_is_the_same_in_any_batch(search, most, form) -> None:
    tops = torch.linspace(0, 0.5, 4)
    together, _ = refined(search, tops, steps=6, blend=form)
    cut, _ = refined(search, tops, steps=6, blend=form, max_batch=1)
    torch.testing.assert_close(together.ratios, cut.ratios, rtol=0, atol=1e-6, equal_nan=True)
    assert together.evaluations.tolist() == cut.evaluations.tolist()
    assert (together.scores.diff(dim=0) >= 0).all()
    assert (together.scores[-1] > together.scores[0]).all()


@pytest.mark.parametrize(
    ("search", "within", "calls"),
    [
        (CoarseToFine(), 1 / 6, 6),
        (GoldenSection(rounds=8), 0.6181**9, 9),
        (ParabolicSearch(tolerance=0.02), 0.02, 3),
        (SlopeSearch(points=3, tolerance=0), 1e-3, 6),
    ],
)
def test_refinement_finds_the_best_share(search, within, calls) -> None:
    tops = torch.linspace(0, 0.9, 10)
    result, _ = refined(search, tops)
    assert (result.ratios[0] - tops).abs().max() <= within + 1e-6
    assert result.evaluations.max() == 1 + calls


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CoarseToFine(points=1), "points=1"),
        (lambda: CoarseToFine(rounds=0), "rounds=0"),
        (lambda: GoldenSection(rounds=0), "rounds=0"),
        (lambda: GoldenSection(low=0.5, high=0.5), "low=0.5, high=0.5"),
        (lambda: GoldenSection(high=1.1), "high=1.1"),
        (lambda: GoldenSection(low=NAN), "low=nan"),
        (lambda: ParabolicSearch(first=1.5), "first=1.5"),
        (lambda: ParabolicSearch(width=0), "width=0"),
        (lambda: ParabolicSearch(width=0.6), "width=0.6"),
        (lambda: ParabolicSearch(calls=1), "calls=1"),
        (lambda: ParabolicSearch(width=0.2, tolerance=0.11), r"tolerance=0.11: .* width / 2 = 0.1"),
        (lambda: ParabolicSearch(enough=0), "enough=0"),
        (lambda: SlopeSearch(first=1.0), "first=1.0"),
        (lambda: SlopeSearch(points=0), "points=0"),
        (lambda: SlopeSearch(reach=1.1), "reach=1.1"),
        (lambda: SlopeSearch(tolerance=-1), "tolerance=-1"),
        (lambda: SlopeSearch(enough=NAN), "enough=nan"),
        (lambda: ScheduledSearch([]), r"ratios=\[\]"),
        (lambda: ScheduledSearch([0.5, NAN]), "ratios="),
        (lambda: GreedySearch(first=1.0), "first=1.0"),
        (lambda: GreedySearch(width=0), "width=0"),
        (lambda: GreedySearch(patience=0), "patience=0"),
        (lambda: WarmSearch(first=[]), r"first=\[\]"),
        (lambda: WarmSearch(first=[1.2]), r"first=\[1.2\]"),
        (lambda: WarmSearch(width=0.7), "width=0.7"),
        (lambda: WarmSearch(shrink=1), "shrink=1"),
        (lambda: WarmSearch(probes=-1), "probes=-1"),
        (lambda: Stopping(FixedSchedule([0.1]), 0.1), "search=FixedSchedule"),
        (lambda: Stopping(WarmSearch(), 0), "minimum_gain=0"),
        (lambda: Stopping(WarmSearch(), 0.1, patience=0), "patience=0"),
    ],
)
def test_mistakes_are_named(build: Callable[[], Search], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
