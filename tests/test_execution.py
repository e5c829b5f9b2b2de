"""How candidates reach the separator changes nothing but the time: batch sizes, workers, memory, slopes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from refinement_toys import check_slopes
from torch import Tensor

from encore.inference import BatchSize, GridSearch, Refined, WorkerPool, batched, refine
from encore.metrics import oracle, si_sdr
from encore.models import load_separator
from encore.models.types import Separator


@pytest.fixture(scope="module")
def noisy() -> tuple[Tensor, Tensor]:
    """Return two items of half a second, tones with slow envelopes in coloured noise, and the tones."""
    generator = torch.Generator().manual_seed(0)
    time_axis = torch.arange(8000) / 16000
    tones = [
        torch.sin(2 * torch.pi * f * time_axis) * torch.sin(0.03 * f * time_axis) ** 2 for f in (200, 330)
    ]
    reference = torch.stack(tones)
    noise = torch.randn(2, 8000, generator=generator).cumsum(-1)
    noise = noise - noise.mean(-1, keepdim=True)
    return (0.2 * reference + 0.003 * noise)[:, None], 0.2 * reference[:, None, None]


def refined(noisy: tuple[Tensor, Tensor], separate: Separator, search: Any = None) -> Refined:
    mixture, references = noisy
    search = search or GridSearch(5, include_estimate=True, steps=3)
    return refine(separate, mixture, oracle(si_sdr, references), search)


def test_workers_are_threads_of_one_core_and_leave_the_setting_alone() -> None:
    before = torch.get_num_threads()
    meeting = threading.Barrier(3, timeout=10)

    def work(part: int) -> tuple[int, int, bool]:
        meeting.wait()  # passes only if three work at once
        return part, torch.get_num_threads(), torch.is_grad_enabled()

    with WorkerPool(3) as pool:
        assert list(pool.map(work, range(3))) == [(0, 1, False), (1, 1, False), (2, 1, False)]
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()


def test_workers_use_the_callers_mixed_precision() -> None:
    def product(x: torch.Tensor) -> torch.dtype:
        return (x @ x).dtype

    with WorkerPool(2) as pool, torch.autocast("cpu", torch.bfloat16):
        assert set(pool.map(product, [torch.ones(2, 2)] * 2)) == {torch.bfloat16}
    with WorkerPool(2) as pool:
        assert set(pool.map(product, [torch.ones(2, 2)] * 2)) == {torch.float32}


def test_an_error_in_a_worker_is_raised_in_the_caller() -> None:
    def work(part: int) -> int:
        if part == 1:
            raise ValueError("part 1")
        return part

    with pytest.raises(ValueError, match="part 1"), WorkerPool(2) as pool:
        list(pool.map(work, range(4)))


def settled(seconds_per_input: Callable[[int], float], limit: int = 256) -> int:
    """Return where a batch size ends if a size has this cost."""
    batch, example = BatchSize(limit), torch.zeros(1, 8000)
    for _ in range(100):
        _, size = batch.choose(example)
        batch.record(size, size, example, size * seconds_per_input(size))
    return batch.choose(example)[1]


def test_the_batch_size_climbs_to_the_fastest() -> None:
    assert settled(lambda size: 1 / size) == 256  # only the overhead of a call counts
    assert settled(lambda size: 1 / size, limit=16) == 16
    assert settled(lambda size: float(size)) == 1  # caches
    assert settled(lambda size: abs(size - 8) + 1) == 8
    assert settled(lambda size: 1 - size / 1e4) == 4  # a saving below 3 % is none
    assert settled(lambda size: 1.0 + (size > 1)) == 1  # kernels of their own for one alone


def test_workers_are_used_where_they_separate_more_inputs_a_second() -> None:
    """Two workers against one on all cores, with times of a band-split RNN and of a Conv-TasNet."""
    example = torch.zeros(1, 8000)

    def settled_workers(seconds_per_input: dict[int, float]) -> int:
        batch, tried = BatchSize(), []
        for _ in range(30):
            workers, size = batch.choose(example, 2)
            batch.record(size, size, example, size * seconds_per_input[workers], workers=workers)
            tried.append(workers)
        assert set(tried) == {1, 2}
        assert len(set(tried[-20:])) == 1
        return tried[-1]

    assert settled_workers({1: 0.03, 2: 0.05}) == 2
    assert settled_workers({1: 0.0135, 2: 0.0324}) == 1


def test_calls_with_far_fewer_inputs_than_chosen_say_nothing() -> None:
    """The first call of a refinement holds one input per item, whatever size is being tried."""
    batch, example = BatchSize(), torch.zeros(1, 8000)
    for _ in range(30):
        batch.record(4, 1, example, 0.1)
        _, size = batch.choose(example)
        batch.record(size, size, example, size * (1.0 + (size > 1)))
    assert batch.choose(example) == (1, 1)


def test_batch_sizes_of_other_lengths_are_learnt_apart() -> None:
    batch = BatchSize()
    for _ in range(20):
        for length, cost in ((1000, lambda n: 1 / n), (100_000, float)):
            _, size = batch.choose(torch.zeros(1, length))
            batch.record(size, size, torch.zeros(1, length), size * cost(size))
    assert batch.choose(torch.zeros(1, 1000))[1] == 256
    assert batch.choose(torch.zeros(1, 100_000))[1] == 1


def test_a_call_too_large_for_the_memory_is_repeated_in_halves(noisy) -> None:
    sizes = []
    separator = load_separator("shipped:speech")

    def small_machine(mixture: Tensor) -> Tensor:
        sizes.append(len(mixture))
        if len(mixture) > 3:
            raise torch.OutOfMemoryError("no more than 3")
        return separator(mixture)

    batch = BatchSize()
    result = refined(noisy, batched(small_machine, batch))
    expected = refined(noisy, batched(separator, 1))
    assert torch.allclose(result.scores, expected.scores, atol=1e-3)
    assert torch.equal(result.evaluations, expected.evaluations)
    assert max(sizes) > 3
    assert batch.choose(noisy[0][0])[1] <= 3
    with pytest.raises(torch.OutOfMemoryError):
        refined(noisy, lambda mixture: small_machine(mixture.repeat(4, 1, 1)))


def test_parts_are_balanced_and_enough_for_the_workers() -> None:
    def lengths(count: int, size: int | None, workers: int) -> list[int]:
        separate = batched(lambda mixture: mixture[:, None], size, workers)
        return [len(part) for part, _ in separate.in_parts(lambda part: part, count, torch.zeros(1, 10))]

    assert lengths(9, None, 1) == [9]
    assert lengths(9, None, 2) == [5, 4]
    assert lengths(9, 4, 2) == [3, 2, 2, 2]
    assert lengths(1, None, 2) == [1]
    assert lengths(2, 8, 3) == [1, 1]
    assert lengths(9, 2, 1) == [2, 2, 2, 2, 1]


def test_slopes_of_a_network_are_the_derivative_of_the_score_by_the_ratio(noisy) -> None:
    """Against central differences in float64, through transforms, recurrences and the metric."""
    separator = load_separator("shipped:speech").double()
    double = noisy[0].double(), noisy[1].double()
    result = check_slopes(
        lambda search: refined(double, batched(separator, workers=2), search),
        [0.3, 0.7],
        rtol=2e-2,
        atol=0.02,
    )
    assert result.evaluations.tolist() == [1 + 2 * 3] * 2
