"""What holds for every separator: counted calls, early stops, batches, missing scores, mistakes."""

from __future__ import annotations

import re
from copy import copy
from typing import Any

import pytest
import torch
from refinement_toys import Counting, Proposing, closeness, item, of_sources, same, shrink
from torch import Generator, Tensor

from encore.inference import (
    AnnealedGridSearch,
    GreedySearch,
    GridSearch,
    MaxEvaluations,
    Refined,
    Search,
    Step,
    Trajectory,
    batched,
    endpoint,
    refine,
    refine_fixed,
    state,
)
from encore.inference.refinement import refine as readable
from encore.metrics import get_metric, guarded, joint, oracle

STEPS, K = 8, 5
one_source, two_sources = of_sources(shrink), of_sources(shrink, 2)
SEARCHES: list[Search] = [
    GridSearch(K, steps=STEPS),
    GridSearch(K, include_estimate=True, steps=STEPS),
    AnnealedGridSearch(K, steps=STEPS),
    GreedySearch(steps=STEPS),
    MaxEvaluations(GridSearch(K, steps=STEPS), 10),
]
every_search = pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
every_path = pytest.mark.parametrize("path", [endpoint, state], ids=["endpoint", "state"])
either_loop = pytest.mark.parametrize("loop", [refine, readable], ids=["fast", "readable"])


class Scored:
    """An oracle that counts the rows it is called with; its references follow the items."""

    def __init__(self, function: Any, references: Tensor) -> None:
        self.function, self.references = function, references
        self.counts: list[int] = []

    def __call__(self, estimates: Tensor) -> Tensor:
        self.counts.append(len(estimates))
        return self.function(estimates, self.references)

    def at(self, items: Tensor) -> Scored:
        part = copy(self)
        part.references = self.references[items]
        return part


def distance(estimates: Tensor, references: Tensor) -> Tensor:
    return closeness(estimates, references).mean(1)


def signals(batch: int = 4, channels: int = 1, sources: int = 1, time: int = 50) -> tuple[Tensor, Tensor]:
    """Mixtures ``(b, c, t)`` and references ``(b, s, c, t)`` in float32."""
    references, noise = torch.randn(2, batch, channels, time, generator=Generator().manual_seed(3))
    return references + noise, references[:, None].repeat(1, sources, 1, 1)


def run(
    separate: Any = one_source, quality: Any = None, search: Search = SEARCHES[0], **options: Any
) -> Refined:
    mixture, references = signals()
    quality = Scored(distance, references) if quality is None else quality
    return options.pop("loop", refine)(separate, options.pop("mixture", mixture), quality, search, **options)


def identity(x: Tensor) -> Tensor:
    return x[:, None]


def constant(x: Tensor) -> Tensor:
    return torch.ones_like(x)[:, None]


@every_path
@every_search
def test_an_item_is_refined_alone_as_in_its_batch_and_its_calls_are_counted(
    search: Search, path: Any
) -> None:
    mixture, references = signals()
    counting, steps = Counting(one_source), Trajectory()
    together = run(counting, search=search, path=path, callback=steps)
    assert int(together.evaluations.sum()) == counting.rows
    for index in range(len(mixture)):
        counting, quality, own = Counting(one_source), Scored(distance, references[[index]]), Trajectory()
        alone = run(counting, quality, search, mixture=mixture[[index]], path=path, callback=own)
        same(alone, item(together, index))
        assert torch.equal(torch.stack(own.estimates), torch.stack(steps.estimates)[:, [index]])
        # one source and a quality without separator: every call but that of ratio 1 is scored once
        assert alone.evaluations.tolist() == [counting.rows] == [sum(quality.counts)]


@every_search
def test_the_calls_of_the_quality_and_of_all_sources_are_counted(search: Search) -> None:
    mixture, references = signals(sources=2)
    again = get_metric("fixed_point", sample_rate=8000)  # bound to mixtures and separator by the refinement
    for build in (
        lambda close: close,
        lambda close: again,
        lambda close: joint([again, close], scales=(1.0, 1.0)),
        lambda close: guarded(close, [again]),
        lambda close: guarded(again, [joint([close, again], scales=(1.0, 1.0))]),
    ):
        for separate in (one_source, two_sources):
            counting, close = (
                Counting(separate),
                oracle(closeness, references[:, : separate(mixture).shape[1]]),
            )
            found = refine(counting, mixture, build(close), search)
            assert int(found.evaluations.sum()) == counting.rows
            assert found.evaluations.min() > 1
            for index in range(len(mixture)):
                counting.rows, items = 0, torch.tensor([index])
                own = refine(counting, mixture[items], build(close.at(items)), search)
                assert own.evaluations.tolist() == [counting.rows] == [int(found.evaluations[index])]


@every_search
def test_the_size_of_the_calls_changes_nothing_and_is_kept_to(search: Search) -> None:
    references = signals(sources=2)[1]
    results = []
    for size, workers in ((None, 1), (1, 1), (3, 1), (3, 2), (None, 3)):
        counting = Counting(two_sources)
        separate = batched(counting, size, workers)
        results.append(run(separate, Scored(distance, references), search))
        assert size is None or counting.largest <= size
        assert int(results[-1].evaluations.sum()) == counting.rows
    for other in results[1:]:
        same(other, results[0])


def test_a_plain_quality_is_called_with_the_whole_batch() -> None:
    """It may hold tensors of all items."""
    mixture, references = signals(sources=2)
    search = GreedySearch(steps=4)
    expected = refine(two_sources, mixture, oracle(closeness, references), search)
    for separate in (two_sources, batched(two_sources, 3, workers=2)):
        found = refine(separate, mixture, lambda estimates: distance(estimates, references), search)
        same(found, expected)


@either_loop
@every_path
@pytest.mark.parametrize("keep", [True, False])
def test_every_step_takes_the_best_of_its_candidates(keep: bool, path: Any, loop: Any) -> None:
    mixture, references = signals()
    steps, search = Trajectory(), GridSearch(K, include_estimate=True, steps=STEPS, keep_best=keep)
    found = run(search=search, loop=loop, callback=steps, path=path)
    last, anchor, moved = found.one_step[:, 0], mixture, ~found.ratios.isnan()
    for number, after in enumerate(steps.estimates):
        candidates = [one_source(r * anchor + (1 - r) * last) for r in search.ratios()]
        scores = torch.stack([distance(y, references) for y in (last[:, None], *candidates)])
        best, place = scores[int(not keep) :].max(dim=0)
        torch.testing.assert_close(found.scores[number + 1], best)
        assert torch.equal(moved[number], place > 0) or not keep
        if path is state:  # the input that led to the estimate
            taken = found.ratios[number].nan_to_num(1)[:, None, None]
            anchor = taken * anchor + (1 - taken) * last
        last = after[:, 0]
    assert moved.any()
    assert moved.all() != keep


def test_ratio_one_costs_no_call_and_no_score() -> None:
    counting, quality = Counting(one_source), Scored(distance, signals()[1])
    found = run(counting, quality, GridSearch(1, steps=STEPS, keep_best=False))
    assert (counting.rows, sum(quality.counts)) == (4, 4)
    assert (found.ratios == 1).all()
    assert torch.equal(found.estimates, found.one_step)


@either_loop
def test_ties_go_to_the_larger_ratio_and_an_equal_candidate_does_not_replace(loop: Any) -> None:
    for ratios in ([0.25, 0.5, 0.75], [0.75, 0.25, 0.5]):
        for separate in (constant, batched(constant, 1)):
            search = Proposing(ratios=ratios, steps=2, keep_best=False)
            assert (run(separate, search=search, loop=loop).ratios == 0.75).all()
        kept = run(constant, search=Proposing(ratios=ratios, steps=2), loop=loop)
        assert kept.ratios.isnan().all()


def test_a_score_that_rounds_otherwise_in_another_batch_does_not_let_one_step_win_over_itself() -> None:
    quality = Scored(lambda y, s: distance(y, s) + 1e-3 * len(y), signals()[1])
    assert run(constant, quality, GridSearch(1, steps=STEPS)).ratios.isnan().all()


@either_loop
@pytest.mark.parametrize("keep", [True, False])
def test_a_candidate_without_score_is_not_eligible(keep: bool, loop: Any) -> None:
    """Halving ones gives ``(1 + r) / 4`` at ratio r; the lower the better, but none below 0.38."""

    def score(estimates: Tensor) -> Tensor:
        level = estimates.mean((1, 2, 3))
        return torch.where(level < 0.38, torch.nan, -level)

    ones, search = torch.ones(2, 1, 9), GridSearch(K, steps=1, keep_best=keep)
    found = run(lambda x: 0.5 * x[:, None], score, search, mixture=ones, loop=loop)
    torch.testing.assert_close(found.ratios, torch.full((1, 2), 0.6), rtol=0, atol=0)
    torch.testing.assert_close(found.scores[1], torch.full((2,), -0.4))


@either_loop
@pytest.mark.parametrize("keep", [True, False])
def test_an_item_without_one_step_score_is_returned_as_it_is(keep: bool, loop: Any) -> None:
    mixture, references = signals()
    broken = references.clone()
    broken[1] = torch.nan
    for search in (GridSearch(K, steps=4, keep_best=keep), AnnealedGridSearch(K, steps=4, keep_best=keep)):
        found = run(quality=oracle(closeness, broken), search=search, loop=loop)
        assert found.evaluations[1] == 1
        assert torch.equal(found.estimates[1], one_source(mixture)[1])
        assert found.ratios[:, 1].isnan().all()
        assert found.scores[:, 1].isnan().all()
        others = [0, 2, 3]
        assert (found.evaluations[others] > 1).all()
        clean = run(quality=oracle(closeness, references), search=search, loop=loop)
        assert torch.equal(found.estimates[others], clean.estimates[others])


@either_loop
@pytest.mark.parametrize("keep", [True, False])
def test_where_no_candidate_has_a_score_the_previous_estimate_stays(keep: bool, loop: Any) -> None:
    """Only the one-step estimates can be scored."""
    one_step = one_source(signals()[0])

    def score(estimates: Tensor) -> Tensor:
        known = torch.stack([(estimates == y).all((1, 2, 3)) for y in one_step]).any(0)
        return torch.where(known, 0.0, torch.nan)

    found = run(quality=score, search=AnnealedGridSearch(3, steps=3, keep_best=keep), loop=loop)
    assert torch.equal(found.estimates, one_step)
    assert (found.scores == 0).all()
    # the first step has ratio 1, which is chosen where the previous estimate does not compete
    assert found.ratios[1:].isnan().all()
    assert found.ratios[0].isnan().all() == keep
    assert found.evaluations.tolist() == [1 + 2 + 3 + 3] * 4


def test_no_steps_give_the_one_step_estimate() -> None:
    mixture, references = signals()
    steps = Trajectory()
    for quality in (None, oracle(closeness, references)):
        found = refine(one_source, mixture, quality, GridSearch(1, steps=0), callback=steps)
        assert torch.equal(found.estimates, one_source(mixture))
        assert (found.ratios.shape, found.scores.shape, steps.estimates) == ((0, 4), (1, 4), [])
        assert found.scores.isnan().all() == (quality is None)
        assert found.evaluations.tolist() == [1] * 4


@either_loop
def test_the_callback_gets_what_the_result_holds(loop: Any) -> None:
    seen: list[Step] = []
    found = run(loop=loop, callback=seen.append)
    references = signals()[1]
    assert [step.number for step in seen] == list(range(1, STEPS + 1))
    assert torch.equal(torch.stack([step.scores for step in seen]), found.scores[1:])
    chosen = torch.stack([step.ratios for step in seen])
    torch.testing.assert_close(chosen, found.ratios, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(seen[-1].estimates, found.estimates)
    assert torch.equal(seen[-1].evaluations, found.evaluations)
    assert (torch.stack([step.evaluations for step in seen]).diff(dim=0) >= 0).all()
    for step in seen:
        torch.testing.assert_close(step.scores, distance(step.estimates, references))


@every_path
def test_a_result_shares_no_memory_with_the_mixture_and_carries_no_gradient(path: Any) -> None:
    mixture = signals()[0]
    before = mixture.clone()
    mixture.requires_grad_()
    for found in (
        run(identity, mixture=mixture, path=path),
        refine_fixed(identity, mixture, [0.5, 1.0], path=path),
    ):
        assert not found.estimates.requires_grad
        found.estimates.add_(1)
        found.one_step.add_(1)
        assert torch.equal(mixture, before)


def test_levels_above_full_scale_pass_through() -> None:
    """Powers of two commute with rounding: 64 times the mixture gives 64 times everything, bit for bit."""

    def halves(x: Tensor) -> Tensor:
        return (0.5 * x + 0.25 * x.roll(1, -1))[:, None]

    mixture, references = signals()
    search = GridSearch(K, include_estimate=True, steps=3)
    plain = run(halves, search=search)
    loud = run(halves, oracle(closeness, 64 * references), search, mixture=64 * mixture)
    assert loud.estimates.abs().max() > 10
    assert torch.equal(loud.estimates, 64 * plain.estimates)
    torch.testing.assert_close(loud.ratios, plain.ratios, rtol=0, atol=0, equal_nan=True)


def test_channels_and_sources_have_one_ratio() -> None:
    """The left channel alone would take another ratio than the right one; together they take one."""
    mixture, references = signals(channels=2)
    search = GridSearch(K, steps=1)

    def chosen(channels: slice) -> Tensor:
        quality = oracle(closeness, references[:, :, channels])
        return run(quality=quality, search=search, mixture=mixture[:, channels]).ratios[0]

    left, right = chosen(slice(0, 1)), chosen(slice(1, 2))
    assert not torch.equal(left.nan_to_num(9), right.nan_to_num(9))
    references = references.repeat(1, 2, 1, 1)
    found = refine(two_sources, mixture, oracle(closeness, references), search)
    moved = ~found.ratios[0].isnan()
    assert moved.any()
    ratio = found.ratios[0].nan_to_num(1)[:, None, None]
    inputs = [ratio * mixture + (1 - ratio) * found.one_step[:, k] for k in range(2)]
    expected = torch.stack([two_sources(x)[:, k] for k, x in enumerate(inputs)], dim=1)
    assert torch.equal(found.estimates, expected)


PESQ = oracle(get_metric("pesq_nb", sample_rate=8000), torch.ones(4, 1, 1, 50))
NO_SLOPES = "quality='pesq_nb' has no derivative, which Proposing needs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixture": torch.zeros(4, 50)}, "mixture has shape (4, 50)"),
        ({"mixture": torch.zeros(0, 1, 50)}, "mixture has shape (0, 1, 50)"),
        ({"mixture": torch.zeros(4, 1, 0)}, "mixture has shape (4, 1, 0)"),
        ({"mixture": torch.zeros(4, 1, 50).int()}, "mixture has dtype torch.int32: give floating point"),
        ({"separate": lambda x: x}, "separate returned shape (4, 1, 50) for mixtures (4, 1, 50)"),
        ({"separate": lambda x: x[:, None, :, 1:]}, "separate returned shape (4, 1, 1, 49)"),
        ({"quality": lambda y: y.mean((2, 3))}, "quality returned shape (4, 1) for estimates (4, 1, 1, 50)"),
        ({"quality": lambda y: y.mean()}, "quality returned shape () for estimates (4, 1, 1, 50)"),
        ({"quality": get_metric("si_sdr", sample_rate=8000)}, "quality='si_sdr': is an oracle and needs"),
        ({"quality": oracle(closeness, torch.zeros(4, 1, 1, 49))}, "'closeness' (4, 1, 1, 49)"),
        ({"quality": oracle(closeness, torch.zeros(4, 2, 1, 50))}, "'closeness' (4, 2, 1, 50)"),
        ({"search": Proposing(ratios=[0.5, 1.5])}, "search=Proposing proposed [0.5, 1.5]: give mixing"),
        ({"search": Proposing(ratios=[torch.nan])}, "search=Proposing proposed [nan]"),
        ({"search": Proposing(ratios=[0.5], needs_gradient=True), "quality": PESQ}, NO_SLOPES),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        run(**options)
    assert "\n" not in str(error.value)
