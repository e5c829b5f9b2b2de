"""Long items refined in segments: how they are faded together, and what their statistics say."""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from refinement_toys import cut_out
from test_chunking import local_mean, noise, squash, swapping
from torch import Generator, Tensor

from encore.inference import GridSearch, Refined, Trajectory, WorkerPool, refine, refine_fixed
from encore.inference.chunking import overlap_add, segment_bounds
from encore.inference.segments import Chunk, ChunkStatistics, LongItem, RefineOne, refine_segments
from encore.metrics import oracle, snr

SEGMENT, OVERLAP = 40, 12
HOP = SEGMENT - OVERLAP
LENGTHS = [1, SEGMENT - 1, SEGMENT, SEGMENT + 1, SEGMENT + OVERLAP]
LENGTHS += [n * SEGMENT - (n - 1) * OVERLAP + more for n in (2, 3, 5) for more in (-1, 0, 1)]
CUTS = [(SEGMENT, OVERLAP), (SEGMENT, 0), (SEGMENT, 1), (SEGMENT, SEGMENT - 1), (7, 5), (1, 0)]


def fixed(separate: Callable[[Tensor], Tensor], ratios: Sequence[float]) -> RefineOne:
    """Return a refinement by a schedule that keeps the estimates of all steps."""

    def refine_one(mixture: Tensor, references: Tensor | None, generator: Generator | None) -> Chunk:
        steps = Trajectory()
        result = refine_fixed(separate, mixture, ratios, callback=steps)
        return Chunk.of(result, mixture, references, steps.estimates)

    return refine_one


def searched(separate: Callable[[Tensor], Tensor], search: GridSearch) -> RefineOne:
    """Return a refinement by the SNR of the references."""

    def refine_one(mixture: Tensor, references: Tensor, generator: Generator | None) -> Chunk:
        steps = Trajectory()
        result = refine(separate, mixture, oracle(snr, references), search, callback=steps)
        return Chunk.of(result, mixture, references, steps.estimates)

    return refine_one


def made(
    waveform: Callable[[Tensor], Tensor], scores: Callable[[Tensor], float] = lambda mixture: 0.0
) -> RefineOne:
    """Return a refinement of no steps whose estimate and score are known functions of the segment."""

    def refine_one(mixture: Tensor, references: Tensor | None, generator: Generator | None) -> Chunk:
        return Chunk.of(
            Refined(
                estimates=waveform(mixture)[:, None],
                one_step=mixture[:, None],
                scores=torch.tensor([[scores(mixture)]]),
                ratios=torch.empty(0, 1),
                evaluations=torch.ones(1, dtype=torch.long),
            ),
            mixture,
        )

    return refine_one


def long_item(mixture: Tensor, references: Tensor | None = None, **options: Any) -> LongItem:
    read = None if references is None else partial(cut_out, references)
    options = {"segment": SEGMENT, "overlap": OVERLAP, "read_references": read} | options
    return LongItem(read=partial(cut_out, mixture), length=mixture.shape[-1], **options)


def chunks_of(
    refine_one: RefineOne,
    mixture: Tensor,
    references: Tensor | None = None,
    pool: WorkerPool | None = None,
    **options: Any,
) -> Iterator[Chunk]:
    """Yield the chunks of one item."""
    for _, chunk in refine_segments(refine_one, [long_item(mixture, references, **options)], pool):
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk


def joined(
    refine_one: RefineOne, mixture: Tensor, references: Tensor | None = None, **options: Any
) -> tuple[Tensor, ChunkStatistics]:
    """Return the waveforms ``(n, b, s, c, t)`` of a whole item, and the statistics of its chunks."""
    statistics, waveforms = ChunkStatistics(), []
    for chunk in chunks_of(refine_one, mixture, references, **options):
        statistics.add(chunk)
        waveforms.append(chunk.waveforms)
        own = slice(chunk.start, chunk.start + chunk.length)
        assert torch.equal(chunk.mixture, mixture[..., own])
        assert chunk.references is None or torch.equal(chunk.references, references[..., own])
    return torch.cat(waveforms, dim=-1), statistics


def identity(mixture: Tensor) -> Tensor:
    return mixture[:, None]


def test_estimates_are_faded_as_by_overlap_add_and_an_identity_is_kept_in_every_step() -> None:
    items = [(length, SEGMENT, OVERLAP) for length in LENGTHS] + [(61, *cut) for cut in CUTS[1:]]
    for length, segment, overlap in items:
        for separate, groups in ((identity, []), (squash, []), (local_mean, []), (swapping, [[0, 1]])):
            mixture = noise(2, 1 if groups else 2, length)
            context = 4 if groups and segment - overlap > 8 else 0
            options = {"segment": segment, "context": context, "groups": groups}
            expected = overlap_add(separate, overlap=overlap / segment, **options)(mixture)
            waveforms, found = joined(fixed(separate, [0.5, 0.75]), mixture, overlap=overlap, **options)
            assert torch.equal(waveforms[0], expected)
            if separate is identity:
                torch.testing.assert_close(
                    waveforms, mixture[None, :, None].expand_as(waveforms), rtol=0, atol=1e-6
                )
            if separate is squash:
                whole = refine_fixed(squash, mixture, [0.5, 0.75]).estimates
                torch.testing.assert_close(waveforms[-1], whole, rtol=0, atol=1e-6)
            if context:
                torch.testing.assert_close(waveforms, swapping(mixture).expand_as(waveforms))
            torch.testing.assert_close(found.ratios, torch.tensor([[0.5, 0.5], [0.75, 0.75]]))


def test_an_item_that_fits_into_a_segment_is_one_chunk() -> None:
    mixture, references = noise(2, 2, SEGMENT), noise(2, 2, 2, SEGMENT)
    refine_one = searched(squash, GridSearch(4, steps=3))
    with WorkerPool(2) as pool:
        (chunk,) = chunks_of(refine_one, mixture, references, pool)
    expected = refine_one(mixture, references, None)
    for name in ("waveforms", "scores", "ratios", "evaluations"):
        found, plain = getattr(chunk, name), getattr(expected, name)
        torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)
    assert (chunk.start, chunk.segment, chunk.length) == (0, SEGMENT, SEGMENT)
    statistics = ChunkStatistics()
    statistics.add(chunk)
    for name in ("scores", "ratios", "evaluations"):
        found, plain = getattr(statistics, name), getattr(expected, name)
        torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)


def test_each_segment_is_refined_by_itself_and_chooses_its_own_ratios() -> None:
    mixture = noise(1, 2, 3 * SEGMENT)
    # mixes of x and x / 2, halved: x / 4 at ratio 0, 3 x / 8 at 0.5; x / 2 is the one-step estimate
    gains = torch.tensor([0.25, 0.375, 0.5]).repeat_interleave(SEGMENT)
    refine_one = searched(lambda x: x[:, None] / 2, GridSearch(2, include_estimate=True, steps=1))
    references = (gains * mixture)[:, None]
    chunks = chunks_of(refine_one, mixture, references, overlap=0)
    ratios = [chunk.ratios.item() for chunk in chunks]
    assert ratios[:2] == [0.0, 0.5]
    assert math.isnan(ratios[2])
    waveforms, statistics = joined(refine_one, mixture, references, overlap=0)
    torch.testing.assert_close(waveforms[0], mixture[:, None] / 2)
    torch.testing.assert_close(waveforms[-1], references)
    assert statistics.ratios.item() == 0.25
    # ratios 0.5 and 0 cost a call each, ratio 1 none
    assert statistics.evaluations.item() == 3


def test_scores_are_means_over_the_samples_of_chunks_that_have_one() -> None:
    length = 2 * HOP + SEGMENT - 5
    mixture = torch.zeros(1, 1, length)
    mixture[..., 0], mixture[..., -1] = 3.0, 7.0

    def score(segment: Tensor) -> float:
        return segment.amax().item() or math.nan

    _, statistics = joined(made(torch.clone, score), mixture)
    # chunks of 28, 28 and 35 samples, the second without a score
    assert statistics.lengths == [28, 28, 35]
    assert statistics.scores.item() == pytest.approx((28 * 3 + 35 * 7) / (28 + 35), rel=1e-6)
    assert statistics.unscored.tolist() == [1]
    # three calls on 40 samples are 1.3 calls on 91
    assert statistics.evaluations.item() == 2
    _, silent = joined(made(torch.clone, score), 0 * mixture)
    assert silent.scores.isnan().all()
    assert silent.unscored.tolist() == [3]


@pytest.mark.parametrize("overlap", [OVERLAP, 1, SEGMENT // 2])
def test_a_fade_adds_no_more_than_its_slope_times_the_difference(overlap: int) -> None:
    # estimates that are constant and differ by 1 from segment to segment
    levels = itertools.cycle([0.0, 1.0])
    refine_one = made(lambda part: torch.full_like(part, next(levels)))
    estimate = joined(refine_one, torch.zeros(1, 1, 201), overlap=overlap)[0][-1]
    assert estimate.diff().abs().max() == pytest.approx(1 / overlap if overlap > 1 else 0.5, rel=1e-4)
    assert estimate.amin() == 0
    assert estimate.amax() == 1


def test_draws_depend_on_the_seed_and_not_on_the_workers() -> None:
    mixture = noise(1, 1, 300)
    second_has_drawn = threading.Event()

    def drawn(part: Tensor, references: Tensor | None, generator: Generator | None) -> Chunk:
        if torch.equal(part, mixture[..., :SEGMENT]):
            second_has_drawn.wait(timeout=5)
        ratio = torch.rand(1, generator=generator)
        second_has_drawn.set()
        return Chunk.of(refine_fixed(squash, part, ratio), part)

    def ratios(workers: int, seed: int) -> list[float]:
        # with workers the first segment draws after another one
        second_has_drawn.clear() if workers > 1 else second_has_drawn.set()
        with WorkerPool(workers) as pool:
            generator = Generator().manual_seed(seed)
            chunks = chunks_of(drawn, mixture, pool=pool, generator=generator)
            return [chunk.ratios.item() for chunk in chunks]

    assert ratios(1, 0) == ratios(3, 0) != ratios(1, 1)
    assert len(set(ratios(1, 0))) == len(ratios(1, 0)) == 11


@pytest.mark.parametrize("workers", [1, 3])
def test_segments_are_refined_in_order_when_their_chunks_are_needed_and_not_kept(workers: int) -> None:
    begun: list[int] = []
    alive: list[weakref.ref[Tensor]] = []

    def refine_one(mixture: Tensor, references: Tensor | None, generator: Generator | None) -> Chunk:
        begun.append(int(mixture[0, 0, 0]))
        chunk = made(torch.clone)(mixture, references, generator)
        alive.append(weakref.ref(chunk.waveforms))
        return chunk

    length = 12 * HOP + SEGMENT
    mixture = torch.arange(length, dtype=torch.float32)[None, None]
    with WorkerPool(workers) as pool:
        chunks = chunks_of(refine_one, mixture, pool=pool)
        assert not begun
        most, end = 0 if workers == 1 else workers, 0
        for number, chunk in enumerate(chunks, start=1):
            assert chunk.start == end
            end += chunk.length
            assert len(begun) <= number + most
            del chunk
            assert sum(own() is not None for own in alive) <= most + 1
    assert end == length
    assert sorted(begun) == [own.start for own in segment_bounds(length, segment=SEGMENT, overlap=OVERLAP)]


def test_chunks_hold_no_more_than_their_own_samples() -> None:
    chunks = chunks_of(made(torch.clone), noise(1, 1, 300))
    # one-step and last estimate
    sizes = {chunk.waveforms.untyped_storage().nbytes() // 4 for chunk in chunks}
    assert max(sizes) <= 2 * SEGMENT


@pytest.mark.parametrize("workers", [1, 3])
def test_an_item_that_fails_ends_alone_and_every_item_is_read_once_in_order(workers: int) -> None:
    items = [long_item(noise(1, 1, 200, seed=seed)) for seed in range(4)]
    windows: dict[int, list[tuple[int, int]]] = {number: [] for number in range(4)}

    def watched(number: int, read: Callable[[int, int], Tensor], start: int, stop: int) -> Tensor:
        windows[number].append((start, stop))
        if number == 1 and start >= 2 * HOP:
            raise OSError("the disk is gone")
        return read(start, stop)

    third = items[2].read(0, SEGMENT)
    for number, item in enumerate(items):
        item.read = partial(watched, number, item.read)

    def refine_one(mixture: Tensor, references: Tensor | None, generator: Generator | None) -> Chunk:
        if torch.equal(mixture, third):
            raise ValueError("too loud")
        return fixed(squash, [0.5])(mixture, references, generator)

    found: dict[int, list[Any]] = {number: [] for number in range(4)}
    with WorkerPool(workers) as pool:
        for item, chunk in refine_segments(refine_one, items, pool):
            found[items.index(item)].append(chunk)
    assert list(found) == [0, 1, 2, 3]
    assert [str(found[number][-1]) for number in (1, 2)] == ["the disk is gone", "too loud"]
    assert len(found[1]) == 3
    assert len(found[2]) == 1
    for number in (0, 3):
        expected = [(own.start, own.start + SEGMENT) for own in items[number].bounds]
        assert windows[number] == expected
        whole = torch.cat([chunk.waveforms[-1] for chunk in found[number]], -1)
        assert torch.equal(whole, joined(fixed(squash, [0.5]), noise(1, 1, 200, seed=number))[0][-1])
