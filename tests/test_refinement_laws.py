"""What holds for every separator: counted calls, early stops, batches, missing scores, mistakes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from encore.inference.refinement import Refinement, refine
from encore.inference.search import AnnealedGridSearch, FixedSchedule, GridSearch, Trace
from encore.metrics.quality import Quality

STEPS, K = 8, 5
SEARCHES = [
    GridSearch(K),
    GridSearch(K, include_estimate=True),
    AnnealedGridSearch(K),
    FixedSchedule([0.0, 0.5, 1.0]),
]


class Score(Quality):
    """Any function of ``(estimate, reference)`` to ``(b,)``; counts the rows that it is asked for."""

    def __init__(self, function: Any, oracle: bool = True) -> None:
        self.name, self.needs_reference, self.sample_rate = "score", oracle, 8000
        self.function, self.rows = function, 0

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None) -> Tensor:
        self.rows += len(estimate)
        assert len(estimate) == len(mixture) == len(one_step)
        return self.function(estimate, reference)


class Counting:
    def __init__(self, separate: Any) -> None:
        self.separate, self.rows, self.largest = separate, 0, 0

    def __call__(self, mixture: Tensor) -> Tensor:
        self.rows += len(mixture)
        self.largest = max(self.largest, len(mixture))
        return self.separate(mixture)


def distance(estimate: Tensor, reference: Tensor) -> Tensor:
    return -(estimate - reference).square().mean((1, 2))


def shrink(x: Tensor) -> Tensor:
    return (x.sign() * (x.abs() - 0.3).clamp_min(0) + 0.1 * torch.sin(1000 * x))[:, None]


def two_sources(x: Tensor) -> Tensor:
    return torch.cat((shrink(x), 0.7 * shrink(x.flip(-1))), dim=1)


def identity(x: Tensor) -> Tensor:
    return x[:, None]


def constant(x: Tensor) -> Tensor:
    return torch.ones_like(x)[:, None]


def signals(batch: int = 4, channels: int = 1, time: int = 50) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(3)
    reference, noise = torch.randn(2, batch, channels, time, generator=generator)
    return reference + noise, reference


def run(separate: Any = shrink, search: Any = None, **options: Any) -> Refinement:
    mixture, reference = signals()
    arguments = {"mixture": mixture, "reference": reference, "quality": Score(distance), "steps": STEPS}
    return refine(separate, search=search or GridSearch(K), **arguments | options)


def same(a: Refinement, b: Refinement) -> None:
    for name in Refinement.__slots__:
        torch.testing.assert_close(
            getattr(a, name),
            getattr(b, name),
            rtol=0,
            atol=0,
            equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def item(result: Refinement, index: int) -> Refinement:
    at = slice(index, index + 1)
    return Refinement(
        estimate=result.estimate[at],
        one_step=result.one_step[at],
        trajectory=result.trajectory[:, at],
        scores=result.scores[:, at],
        ratios=result.ratios[:, at],
        evaluations=result.evaluations[at],
    )


@pytest.mark.parametrize("form", ["endpoint", "state"])
@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_an_item_is_refined_alone_as_in_its_batch_and_every_call_is_counted(search, form) -> None:
    counting = Counting(shrink)
    together = run(counting, search, blend=form, keep_trajectory=True)
    assert int(together.evaluations.sum()) == counting.rows
    mixture, reference = signals()
    for index in range(len(mixture)):
        at, counting = slice(index, index + 1), Counting(shrink)
        quality = Score(distance)
        options = {"mixture": mixture[at], "reference": reference[at], "quality": quality}
        alone = run(counting, search, blend=form, keep_trajectory=True, **options)
        same(alone, item(together, index))
        assert alone.evaluations.tolist() == [counting.rows] == [quality.rows]


@pytest.mark.parametrize("source", [1, "all"])
@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_the_largest_batch_does_not_matter_and_is_kept(search, source) -> None:
    mixture, reference = signals()
    reference = torch.stack((reference, 0.5 * mixture), dim=1) if source == "all" else reference
    results = []
    for max_batch in (None, 1, 3):
        counting = Counting(two_sources)
        results.append(
            run(
                counting,
                search,
                source=source,
                reference=reference,
                max_batch=max_batch,
                keep_trajectory=True,
            )
        )
        assert max_batch is None or counting.largest <= max_batch
        assert int(results[-1].evaluations.sum()) == counting.rows
    same(results[0], results[1])
    same(results[0], results[2])


def test_with_all_sources_each_blend_and_source_is_a_call_and_the_first_call_serves_all() -> None:
    _, reference = signals()
    result = run(
        two_sources,
        AnnealedGridSearch(K),
        source="all",
        reference=torch.stack((reference, reference), dim=1),
        steps=3,
    )
    assert result.estimate.shape == (4, 2, 1, 50)
    assert result.evaluations.tolist() == [1 + 2 * (3 * K - 1)] * 4


@pytest.mark.parametrize("search", SEARCHES[:3], ids=lambda search: type(search).__name__)
@pytest.mark.parametrize("form", ["endpoint", "state"])
def test_scores_never_fall_and_rise_exactly_where_an_estimate_is_taken(search, form) -> None:
    result = run(search=search, blend=form, quality=Score(lambda y, s: torch.sin(9 * y).mean((1, 2)), False))
    rise = result.scores.diff(dim=0)
    assert (rise >= 0).all()
    assert torch.equal(rise > 0, ~result.ratios.isnan())
    assert (rise > 0).any()


def test_without_the_previous_estimate_scores_may_fall_but_not_below_one_step() -> None:
    """Share 1 is in the published fixed grid, and it gives the one-step estimate."""
    result = run(keep_previous=False, steps=20)
    assert (result.scores >= result.scores[0]).all()
    assert not result.ratios.isnan().any()
    assert result.evaluations.tolist() == [1 + 20 * (K - 1)] * 4


def test_share_one_costs_no_call_and_no_score() -> None:
    counting, quality = Counting(shrink), Score(distance)
    result = run(counting, GridSearch(1), quality=quality, keep_previous=False)
    assert (counting.rows, quality.rows) == (4, 4)
    assert (result.ratios == 1).all()
    assert torch.equal(result.estimate, result.one_step)


def test_an_early_stop_changes_nothing_but_the_calls() -> None:
    class Patient(GridSearch):
        def finished(self, trace: Trace, kept: Tensor) -> Tensor:
            return torch.zeros_like(kept)

    for form in ("endpoint", "state"):
        stopped = run(search=GridSearch(K, include_estimate=True), blend=form, keep_trajectory=True)
        patient = run(search=Patient(K, include_estimate=True), blend=form, keep_trajectory=True)
        assert patient.evaluations.tolist() == [1 + STEPS * K] * 4
        # a step that keeps is paid for once
        kept = stopped.ratios.isnan().sum(0)
        assert stopped.evaluations.tolist() == (1 + K * (STEPS - (kept - 1).clamp_min(0))).tolist()
        assert stopped.evaluations.sum() < patient.evaluations.sum()
        for name in ("estimate", "trajectory", "scores", "ratios"):
            a, b = getattr(stopped, name), getattr(patient, name)
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_ties_go_to_the_larger_share_in_any_order_and_an_equal_candidate_does_not_replace() -> None:
    class Upwards(GridSearch):
        def shares(self, step: int, steps: int) -> list[float]:
            return [0.25, 0.5, 0.75]

    for max_batch in (None, 1):
        result = run(constant, Upwards(), keep_previous=False, max_batch=max_batch)
        assert (result.ratios == 0.75).all()
    kept = run(constant, Upwards())
    assert kept.ratios.isnan().all()
    assert kept.evaluations.tolist() == [4] * 4


def test_a_score_that_rounds_otherwise_in_another_batch_does_not_let_one_step_win_over_itself() -> None:
    quality = Score(lambda y, s: distance(y, s) + 1e-3 * len(y))
    result = run(constant, GridSearch(1), quality=quality)
    assert result.ratios.isnan().all()


@pytest.mark.parametrize("keep_previous", [True, False])
def test_a_candidate_without_score_is_not_eligible(keep_previous: bool) -> None:
    """Halving ones gives ``(1 + r) / 4`` at share r; the lower the better, but none below 0.38."""

    def score(estimate: Tensor, reference: Tensor) -> Tensor:
        level = estimate.mean((1, 2))
        return torch.where(level < 0.38, torch.nan, -level)

    result = run(
        lambda x: 0.5 * x[:, None],
        mixture=torch.ones(2, 1, 9),
        quality=Score(score, False),
        reference=None,
        keep_previous=keep_previous,
        steps=1,
    )
    torch.testing.assert_close(result.ratios, torch.full((1, 2), 0.6), rtol=0, atol=0)
    torch.testing.assert_close(result.scores[1], torch.full((2,), -0.4))


@pytest.mark.parametrize("keep_previous", [True, False])
@pytest.mark.parametrize("search", SEARCHES[:3], ids=lambda search: type(search).__name__)
def test_an_item_without_one_step_score_is_returned_as_it_is(search, keep_previous: bool) -> None:
    mixture, reference = signals()
    reference[1] = torch.nan
    result = run(search=search, reference=reference, keep_previous=keep_previous)
    assert result.evaluations[1] == 1
    assert torch.equal(result.estimate[1], shrink(mixture)[1, 0])
    assert result.ratios[:, 1].isnan().all()
    assert result.scores[:, 1].isnan().all()
    others = [0, 2, 3]
    assert (result.evaluations[others] > 1).all()
    clean = run(search=search, keep_previous=keep_previous)
    torch.testing.assert_close(result.estimate[others], clean.estimate[others], rtol=0, atol=0)


@pytest.mark.parametrize("keep_previous", [True, False])
def test_where_no_candidate_has_a_score_the_previous_estimate_stays(keep_previous: bool) -> None:
    """Only the one-step estimates, of larger norm than any blend's, can be scored."""
    mixture, _ = signals()
    one_step = shrink(mixture)[:, 0]

    def score(estimate: Tensor, reference: Tensor) -> Tensor:
        known = torch.stack([(estimate == y).all((1, 2)) for y in one_step]).any(0)
        return torch.where(known, 0.0, torch.nan)

    search = AnnealedGridSearch(3)
    result = run(search=search, quality=Score(score, False), keep_previous=keep_previous, steps=3)
    torch.testing.assert_close(result.estimate, one_step, rtol=0, atol=0)
    assert (result.scores == 0).all()
    # the first step has share 1, which without the previous estimate is chosen
    assert result.ratios[1:].isnan().all()
    assert result.ratios[0].isnan().all() == keep_previous
    assert result.evaluations.tolist() == [1 + 2 + 3 + 3] * 4


def test_a_schedule_needs_no_measure_and_always_moves() -> None:
    schedule = FixedSchedule([0.25, 0.0, 1.0])
    for quality in (None, Score(lambda y, s: torch.full((len(y),), torch.nan), False)):
        result = run(search=schedule, quality=quality, reference=None, steps=99)
        assert torch.equal(result.ratios, torch.tensor([[0.75], [1.0], [0.0]]).expand(3, 4))
        assert result.scores.shape == (4, 4)
        assert result.scores.isnan().all()
        assert result.evaluations.tolist() == [3] * 4
        torch.testing.assert_close(result.estimate, shrink(result.one_step)[:, 0], rtol=0, atol=0)


def test_no_steps_give_the_one_step_estimate() -> None:
    mixture, _ = signals()
    result = run(steps=0, quality=None, keep_trajectory=True)
    torch.testing.assert_close(result.estimate, shrink(mixture)[:, 0], rtol=0, atol=0)
    assert result.trajectory.shape == (1, 4, 1, 50)
    assert result.ratios.shape == (0, 4)
    assert result.scores.shape == (1, 4)
    assert result.evaluations.tolist() == [1] * 4


def test_the_trajectory_leads_from_the_first_to_the_last_estimate_if_asked_for() -> None:
    result = run(keep_trajectory=True)
    assert torch.equal(result.trajectory[0], result.one_step)
    assert torch.equal(result.trajectory[-1], result.estimate)
    _, reference = signals()
    for step, estimate in enumerate(result.trajectory):
        torch.testing.assert_close(result.scores[step], distance(estimate, reference))
    assert run().trajectory is None


def test_what_comes_back_shares_no_memory_with_the_mixture_and_carries_no_gradient() -> None:
    mixture, _ = signals()
    before = mixture.clone()
    result = run(identity, mixture=mixture.requires_grad_(), steps=2, blend="state")
    result.estimate.add_(1)
    result.one_step.add_(1)
    assert torch.equal(mixture, before)
    assert not result.estimate.requires_grad


def test_levels_above_full_scale_pass_through() -> None:
    """Powers of two commute with rounding: 64 times the mixture gives 64 times everything, bit for bit."""

    def halves(x: Tensor) -> Tensor:
        return (0.5 * x + 0.25 * x.roll(1, -1))[:, None]

    mixture, reference = signals()
    search = GridSearch(K, include_estimate=True)
    plain = run(halves, search, steps=3)
    loud = run(halves, search, mixture=64 * mixture, reference=64 * reference, steps=3)
    assert loud.estimate.abs().max() > 10
    torch.testing.assert_close(loud.estimate, 64 * plain.estimate, rtol=0, atol=0)
    torch.testing.assert_close(loud.ratios, plain.ratios, rtol=0, atol=0, equal_nan=True)


def test_channels_share_one_ratio() -> None:
    """The left channel alone would take another share than the right one; together they take one."""
    mixture, reference = signals(channels=2)

    def chosen(channels: slice) -> Tensor:
        result = run(mixture=mixture[:, channels], reference=reference[:, channels], steps=1)
        return result.ratios[0]

    left, right = chosen(slice(0, 1)), chosen(slice(1, 2))
    assert not torch.equal(left.nan_to_num(9), right.nan_to_num(9))
    result = run(mixture=mixture, reference=reference, steps=1)
    moved = ~result.ratios[0].isnan()
    assert moved.any()
    ratio = result.ratios[0].nan_to_num(1)[:, None, None]
    expected = shrink(ratio * mixture + (1 - ratio) * result.one_step)[:, 0]
    torch.testing.assert_close(result.estimate, expected, rtol=0, atol=0)


class Proposing:
    steps, selects, wants_slopes = None, True, False

    def __init__(self, shares: Tensor) -> None:
        self.shares = shares

    def propose(self, trace: Trace) -> Tensor:
        return self.shares if trace.ratios.shape[1] == 0 else torch.full_like(self.shares, torch.nan)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        return torch.zeros_like(kept)


def test_a_search_may_ask_each_item_for_other_shares() -> None:
    nan = torch.nan
    shares = torch.tensor([[0.5, nan], [nan, nan], [0.25, 0.75], [nan, 0.0]])
    result = run(search=Proposing(shares), keep_previous=False, steps=1)
    assert result.evaluations.tolist() == [2, 1, 3, 2]
    assert result.ratios[0, [0, 3]].tolist() == [0.5, 0.0]
    assert result.ratios[0, 1].isnan()
    assert torch.equal(result.estimate[1], result.one_step[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": None}, "quality=None: GridSearch chooses by a measure"),
        ({"reference": None}, "reference=None: 'score' is an oracle measure"),
        ({"mixture": torch.zeros(4, 50)}, "mixture has shape (4, 50)"),
        ({"mixture": torch.zeros(0, 1, 50)}, "mixture has shape (0, 1, 50)"),
        ({"mixture": torch.zeros(4, 1, 0)}, "mixture has shape (4, 1, 0)"),
        ({"steps": -1}, "steps=-1"),
        ({"blend": "middle"}, "blend='middle'"),
        ({"max_batch": 0}, "max_batch=0"),
        ({"source": 1}, "source=1: the separator has 1 sources"),
        ({"reference": torch.zeros(4, 1, 49)}, "reference has shape (4, 1, 1, 49)"),
        ({"reference": torch.zeros(4, 1, 1, 50)}, "reference has shape (4, 1, 1, 1, 50)"),
        ({"source": "all"}, "reference has shape (4, 1, 50)"),
        ({"separate": lambda x: x}, "separate returned shape (4, 1, 50) for mixtures (4, 1, 50)"),
        ({"separate": lambda x: x[:, None, :, 1:]}, "separate returned shape (4, 1, 1, 49)"),
        ({"search": Proposing(torch.full((4, 1), 1.5))}, "search=Proposing proposed [[1.5]"),
        ({"search": Proposing(torch.full((3, 1), 0.5))}, "search=Proposing proposed [[0.5]"),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        run(**options)
    assert "\n" not in str(error.value)
