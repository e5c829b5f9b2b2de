"""How candidates reach the separator changes nothing but the time: batch sizes, lanes, memory, slopes."""

from __future__ import annotations

import threading

import pytest
import torch

from encore.inference import BatchSize, GridSearch, Lanes, refine
from encore.inference.execution import Execution
from encore.metrics import get_quality
from encore.models import load_separator


@pytest.fixture(scope="module")
def noisy() -> tuple[torch.Tensor, torch.Tensor]:
    """Two items of half a second: tones with slow envelopes in coloured noise."""
    generator = torch.Generator().manual_seed(0)
    time_axis = torch.arange(8000) / 16000
    tones = [
        torch.sin(2 * torch.pi * f * time_axis) * torch.sin(0.03 * f * time_axis) ** 2 for f in (200, 330)
    ]
    reference = torch.stack(tones)
    noise = torch.randn(2, 8000, generator=generator).cumsum(-1)
    noise = noise - noise.mean(-1, keepdim=True)
    return (0.2 * reference + 0.003 * noise)[:, None], 0.2 * reference[:, None]


def refined(noisy, **options):
    mixture, reference = noisy
    return refine(
        options.pop("separate", load_separator()),
        mixture,
        steps=options.pop("steps", 3),
        search=options.pop("search", GridSearch(5, include_estimate=True)),
        quality=get_quality("si_sdr", sample_rate=16000),
        reference=reference,
        **options,
    )


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("max_batch", [None, 1, BatchSize()])
def test_lanes_and_batches_change_nothing_but_rounding(noisy, lanes, max_batch) -> None:
    expected = refined(noisy, max_batch=1)
    result = refined(noisy, lanes=lanes, max_batch=max_batch)
    assert torch.allclose(result.scores, expected.scores, atol=1e-3)
    assert torch.equal(result.ratios.isnan(), expected.ratios.isnan())
    assert torch.allclose(result.ratios, expected.ratios, equal_nan=True)
    assert torch.allclose(result.estimate, expected.estimate, atol=1e-5)
    assert torch.equal(result.evaluations, expected.evaluations)
    assert result.evaluations.sum() > 2 * 4  # the separator is really asked again


def test_lanes_are_threads_of_one_core_and_leave_the_setting_alone() -> None:
    before = torch.get_num_threads()
    meeting = threading.Barrier(3, timeout=10)

    def work(part: int) -> tuple[int, int, bool]:
        meeting.wait()  # passes only if three work at once
        return part, torch.get_num_threads(), torch.is_grad_enabled()

    with Lanes(3) as lanes:
        assert list(lanes.map(work, range(3))) == [(0, 1, False), (1, 1, False), (2, 1, False)]
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()


def test_lanes_work_in_the_callers_mixed_precision() -> None:
    def product(x: torch.Tensor) -> torch.dtype:
        return (x @ x).dtype

    with Lanes(2) as lanes, torch.autocast("cpu", torch.bfloat16):
        assert set(lanes.map(product, [torch.ones(2, 2)] * 2)) == {torch.bfloat16}
    with Lanes(2) as lanes:
        assert set(lanes.map(product, [torch.ones(2, 2)] * 2)) == {torch.float32}


def test_a_fault_in_a_lane_is_the_callers() -> None:
    def work(part: int) -> int:
        if part == 1:
            raise ValueError("part 1")
        return part

    with pytest.raises(ValueError, match="part 1"), Lanes(2) as lanes:
        list(lanes.map(work, range(4)))


def settled(seconds_per_blend, limit: int = 256) -> int:
    """Where a batch size ends if a size has this cost."""
    batch, example = BatchSize(limit), torch.zeros(1, 8000)
    for _ in range(100):
        size = batch.choose(example)
        batch.record(size, torch.zeros(size, 1, 8000), size * seconds_per_blend(size))
    return batch.choose(example)


def test_the_batch_size_climbs_to_the_fastest() -> None:
    assert settled(lambda size: 1 / size) == 256  # only the overhead of a call counts
    assert settled(lambda size: 1 / size, limit=16) == 16
    assert settled(lambda size: float(size)) == 1  # caches
    assert settled(lambda size: abs(size - 8) + 1) == 8
    assert settled(lambda size: 1 - size / 1e4) == 4  # a saving below 3 % is none
    assert settled(lambda size: 1.0 + (size > 1)) == 1  # kernels of their own for one alone


def test_lanes_are_taken_where_they_separate_more_blends_a_second() -> None:
    """Two lanes against one on all cores, as a band-split RNN and a Conv-TasNet take them."""
    example = torch.zeros(1, 8000)

    def settled_lanes(seconds_per_blend: dict[int, float]) -> int:
        batch, tried = BatchSize(), []
        for _ in range(30):
            tried.append(lanes := batch.choose_lanes(example, 2))
            size = batch.choose(example, lanes)
            batch.record(size, torch.zeros(size, 1, 8000), size * seconds_per_blend[lanes], lanes=lanes)
        assert set(tried) == {1, 2}
        assert len(set(tried[-20:])) == 1
        return tried[-1]

    assert settled_lanes({1: 0.03, 2: 0.05}) == 2
    assert settled_lanes({1: 0.0135, 2: 0.0324}) == 1
    assert BatchSize().choose_lanes(example, 1) == 1


def test_calls_with_far_fewer_blends_than_was_said_tell_nothing() -> None:
    """The first call of a refinement holds one blend per item, whatever size is being tried."""
    batch, example = BatchSize(), torch.zeros(1, 8000)
    for _ in range(30):
        batch.record(4, torch.zeros(1, 1, 8000), 0.1)
        size = batch.choose(example)
        batch.record(size, torch.zeros(size, 1, 8000), size * (1.0 + (size > 1)))
    assert batch.choose(example) == 1


def test_batch_sizes_of_other_lengths_are_learnt_apart() -> None:
    batch = BatchSize()
    for _ in range(20):
        for length, cost in ((1000, lambda n: 1 / n), (100_000, float)):
            size = batch.choose(torch.zeros(1, length))
            batch.record(size, torch.zeros(size, 1, length), size * cost(size))
    assert batch.choose(torch.zeros(1, 1000)) == 256
    assert batch.choose(torch.zeros(1, 100_000)) == 1


def test_a_call_too_large_for_the_memory_is_repeated_in_halves(noisy) -> None:
    sizes = []
    separator = load_separator()

    def small_machine(mixture: torch.Tensor) -> torch.Tensor:
        sizes.append(len(mixture))
        if len(mixture) > 3:
            raise torch.OutOfMemoryError("no more than 3")
        return separator(mixture)

    batch = BatchSize()
    result = refined(noisy, separate=small_machine, max_batch=batch)
    expected = refined(noisy, max_batch=1)
    assert torch.allclose(result.scores, expected.scores, atol=1e-3)
    assert torch.equal(result.evaluations, expected.evaluations)
    assert max(sizes) > 3
    assert batch.choose(noisy[0][0]) <= 3
    with pytest.raises(torch.OutOfMemoryError):
        refined(noisy, separate=lambda mixture: small_machine(mixture.repeat(4, 1, 1)))


def test_parts_are_balanced_and_enough_for_the_lanes() -> None:
    def identity(mixture: torch.Tensor) -> torch.Tensor:
        return mixture[:, None]

    def lengths(count: int, max_batch: int | None, lanes: int) -> list[int]:
        execution = Execution(identity, max_batch=max_batch, lanes=lanes)
        return [len(part) for part in execution.plan(count, torch.zeros(1, 10)).parts]

    assert lengths(9, None, 1) == [9]
    assert lengths(9, None, 2) == [5, 4]
    assert lengths(9, 4, 2) == [3, 2, 2, 2]
    assert lengths(1, None, 2) == [1]
    assert lengths(2, 8, 3) == [1, 1]
    assert lengths(9, 2, 1) == [2, 2, 2, 2, 1]


class Probe:
    """Tries the given shares once, with slopes."""

    steps, selects, wants_slopes = None, True, True

    def __init__(self, shares: list[float]) -> None:
        self.shares, self.trace = shares, None

    def propose(self, trace):
        self.trace = trace
        tried = trace.ratios.shape[1]
        return torch.tensor([self.shares if tried == 0 else []]).expand(len(trace.previous), -1)

    def finished(self, trace, kept):
        return torch.zeros_like(kept)


@pytest.mark.parametrize("lanes", [1, 2])
def test_slopes_are_the_derivative_of_the_score_by_the_share(noisy, lanes) -> None:
    """Against central differences in float64, through transforms, recurrences and the measure."""
    separator = load_separator().double()
    double = noisy[0].double(), noisy[1].double()
    probe, h = Probe([0.3, 0.7]), 1e-4
    result = refined(double, separate=separator, search=probe, steps=1, lanes=lanes)
    around = Probe([0.3 - h, 0.3 + h, 0.7 - h, 0.7 + h])
    refined(double, separate=separator, search=around, steps=1)
    low, high = around.trace.scores[:, 0::2], around.trace.scores[:, 1::2]
    assert torch.allclose(probe.trace.slopes, (high - low) / (2 * h), rtol=2e-2, atol=0.02)
    assert probe.trace.slopes.abs().mean() > 0.5  # there is something to be compared
    assert result.evaluations.tolist() == [1 + 2 * 2] * 2
