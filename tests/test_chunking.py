"""Separators made of segments: where they are cut, how they are faded, and that nothing else tells of it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Generator, Tensor

from encore.inference import FixedSchedule, refine
from encore.inference.chunking import Cut, cuts, fade_in, overlap_add, separated_parts, shifted
from encore.models import load_separator

SEGMENT, OVERLAP, CONTEXT = 40, 8, 3
HOP = SEGMENT - OVERLAP - 2 * CONTEXT
WHOLE = [SEGMENT + n * HOP + more for n in (0, 1, 2, 5) for more in (-1, 0, 1)]
LENGTHS = [1, 2, HOP, SEGMENT // 2, *WHOLE]
WAYS = [
    (SEGMENT, 8, 3),
    (SEGMENT, 0, 0),
    (SEGMENT, 0, 5),
    (SEGMENT, 39, 0),
    (SEGMENT, 1, 19),
    (7, 3, 1),
    (1, 0, 0),
]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(sum(shape)))


def squash(mixture: Tensor) -> Tensor:
    """Without memory: segments make no difference to it."""
    return torch.stack((torch.tanh(mixture), 0.5 * mixture.cos()), dim=1)


def local_mean(mixture: Tensor) -> Tensor:
    """Hears 2 samples to either side, and zeros beyond the ends of what it is given."""
    return torch.nn.functional.avg_pool1d(mixture, 5, 1, padding=2)[:, None]


def wrong_at_the_ends(reach: int):
    """What a network is that was trained on whole segments: useless near their ends."""

    def separate(mixture: Tensor) -> Tensor:
        estimate = mixture.clone()
        estimate[..., :reach] = estimate[..., -reach:] = 9.0
        return estimate[:, None]

    return separate


def swapping(segment: Tensor) -> Tensor:
    """Two speakers, one above and one below 0, in an order that the segment's first sample decides."""
    parts = torch.stack((segment.clamp_min(0), segment.clamp_max(0)), dim=1)
    return torch.where((segment[:, 0, 0] > 0)[:, None, None, None], parts.flip(1), parts)


def test_cuts_are_where_they_should_be() -> None:
    assert cuts(10, segment=4, overlap=1) == [Cut(0, 0, 3), Cut(3, 3, 6), Cut(6, 6, 10)]
    # the last one is moved to the left
    assert cuts(11, segment=4, overlap=1)[-2:] == [Cut(6, 6, 9), Cut(7, 9, 11)]
    assert cuts(14, segment=8, overlap=2, context=1) == [Cut(0, 0, 4), Cut(4, 4, 8), Cut(6, 8, 14)]
    assert cuts(4, segment=4, overlap=3) == [Cut(0, 0, 4)]


@pytest.mark.parametrize(("segment", "overlap", "context"), WAYS)
@pytest.mark.parametrize("length", LENGTHS)
def test_segments_are_of_full_length_and_leave_nothing_out(
    length: int, segment: int, overlap: int, context: int
) -> None:
    places = cuts(length, segment=segment, overlap=overlap, context=context)
    assert places[0].begin == 0
    assert places[-1].end == length
    assert all(before.end == after.begin for before, after in itertools.pairwise(places))
    if length <= segment:
        assert len(places) == 1
        return
    hop = segment - overlap - 2 * context
    assert places[-1].start + segment == length
    steps = [after.start - before.start for before, after in itertools.pairwise(places)]
    assert set(steps[:-1]) <= {hop}
    assert 0 < steps[-1] <= hop
    # no more of them than must be
    assert (len(places) - 2) * hop + segment < length


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("overlap", [1, 2, 3, 12, 1001])
def test_fades_sum_to_one_and_rise_evenly_between_the_contexts(overlap: int, context: int) -> None:
    weights = fade_in(overlap, context)
    torch.testing.assert_close(weights.flip(0), 1 - weights, rtol=0, atol=1e-15)
    rise = weights[context : context + overlap]
    torch.testing.assert_close(
        rise.diff(), torch.full((overlap - 1,), 1 / overlap).double(), rtol=0, atol=1e-7
    )
    assert weights[:context].eq(0).all()
    assert weights[context + overlap :].eq(1).all()


@pytest.mark.parametrize(("segment", "overlap", "context"), WAYS)
@pytest.mark.parametrize("length", LENGTHS)
def test_an_identity_gives_the_mixture_back(length: int, segment: int, overlap: int, context: int) -> None:
    mixture = noise(2, 2, length)
    parts = separated_parts(
        lambda mixture: mixture[:, None],
        lambda start, stop: mixture[..., start:stop],
        length,
        segment=segment,
        overlap=overlap,
        context=context,
    )
    assert torch.equal(torch.cat(list(parts), dim=-1), mixture[:, None])


@pytest.mark.parametrize("max_batch", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_separator_without_memory_does_not_know_of_segments_or_batches(length: int, max_batch: int) -> None:
    mixture = noise(3, 2, length)
    separate = overlap_add(squash, segment=SEGMENT, overlap=0.2, context=CONTEXT, max_batch=max_batch)
    torch.testing.assert_close(separate(mixture), squash(mixture), rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [SEGMENT - 1, SEGMENT + 1, 5 * HOP + SEGMENT])
def test_the_result_is_the_same_for_any_batch_size_and_any_batch_mates(length: int) -> None:
    mixture = noise(3, 1, length)
    one_by_one = overlap_add(local_mean, segment=SEGMENT, max_batch=1)(mixture)
    for max_batch in (2, 3, 4, 64):
        assert torch.equal(overlap_add(local_mean, segment=SEGMENT, max_batch=max_batch)(mixture), one_by_one)
    assert torch.equal(overlap_add(local_mean, segment=SEGMENT, max_batch=4)(mixture[1:2]), one_by_one[1:2])


def test_a_trained_network_gives_the_same_for_any_batch_size() -> None:
    separator = load_separator()
    mixture = 0.1 * noise(1, 1, 9000)
    results = [
        overlap_add(separator, segment=3200, overlap=0.1, context=160, max_batch=size)(mixture)
        for size in (1, 2, 5)
    ]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_calls_hold_as_many_segments_as_allowed_and_no_more(length: int) -> None:
    sizes: list[int] = []

    def counted(mixture: Tensor) -> Tensor:
        sizes.append(len(mixture))
        return squash(mixture)

    overlap_add(counted, segment=SEGMENT, max_batch=4)(noise(2, 1, length))
    assert sum(sizes) == 2 * len(cuts(length, segment=SEGMENT, overlap=SEGMENT // 4))
    assert max(sizes) <= 4


@pytest.mark.parametrize("length", [length for length in WHOLE if length > SEGMENT])
def test_what_is_wrong_near_the_ends_of_segments_is_not_heard_with_context(length: int) -> None:
    mixture = noise(1, 1, length)
    inner = slice(CONTEXT, length - CONTEXT)

    def seam_error(context: int) -> float:
        separate = overlap_add(wrong_at_the_ends(CONTEXT), segment=SEGMENT, overlap=0.2, context=context)
        return (separate(mixture)[:, 0] - mixture)[..., inner].abs().max().item()

    # only the ends of the item itself are left
    assert seam_error(CONTEXT) == 0
    assert seam_error(0) > 1


def test_a_separator_that_hears_less_than_the_context_is_as_good_as_on_the_whole() -> None:
    mixture = noise(1, 2, 333)
    separate = overlap_add(local_mean, segment=SEGMENT, overlap=0.1, context=2)
    torch.testing.assert_close(separate(mixture), local_mean(mixture), rtol=0, atol=1e-6)
    without = overlap_add(local_mean, segment=SEGMENT, overlap=0.1)
    assert (without(mixture) - local_mean(mixture)).abs().max() > 0.01


@pytest.mark.parametrize("max_batch", [1, 3])
def test_speakers_keep_their_places_from_segment_to_segment(max_batch: int) -> None:
    mixture = noise(4, 1, 400)
    options = {"segment": SEGMENT, "overlap": 0.2, "context": 2, "max_batch": max_batch}
    stitched = overlap_add(swapping, stitched=[[0, 1]], **options)(mixture)
    torch.testing.assert_close(stitched, swapping(mixture))
    assert not torch.allclose(overlap_add(swapping, **options)(mixture), swapping(mixture))


def test_only_sources_of_a_group_change_places() -> None:
    """Two speakers around a sound that sounds like the one or the other in turn."""
    mixture = noise(2, 1, 400)

    def separate(segment: Tensor) -> Tensor:
        speakers = swapping(segment)
        return torch.stack((speakers[:, 0], segment.clamp_min(0.1), speakers[:, 1]), dim=1)

    options = {"segment": SEGMENT, "overlap": 0.2, "context": 2}
    found = overlap_add(separate, stitched=[[0, 2]], **options)(mixture)
    # the whole item in the order of its first segment
    torch.testing.assert_close(found, separate(mixture))


def test_shifts_are_a_mean_over_delays_drawn_once() -> None:
    mixture = noise(2, 1, 130)

    def averaged(seed: int, shifts: int = 3) -> Tensor:
        generator = Generator().manual_seed(seed)
        cut = overlap_add(local_mean, segment=SEGMENT, overlap=0)
        separate = shifted(cut, shifts=shifts, most=SEGMENT, generator=generator)
        first = separate(mixture)
        # the same function again: refinement would take another one's noise for progress
        assert torch.equal(separate(mixture), first)
        return first

    assert torch.equal(averaged(0), averaged(0))
    assert not torch.equal(averaged(0), averaged(1))
    error = [
        (estimate - local_mean(mixture)).square().mean() for estimate in (averaged(0, 1), averaged(0, 16))
    ]
    assert error[1] < error[0] / 4
    identity = shifted(lambda x: x[:, None], shifts=3, most=7, generator=Generator())
    torch.testing.assert_close(identity(mixture), mixture[:, None], rtol=0, atol=1e-6)


def test_shifted_speakers_keep_their_places() -> None:
    mixture = noise(4, 1, 200)

    def unsteady(mixture: Tensor) -> Tensor:
        parts = torch.stack((mixture.clamp_min(0), mixture.clamp_max(0)), dim=1)
        return parts.flip(1) if mixture.shape[-1] % 2 else parts

    separate = shifted(unsteady, shifts=5, most=9, stitched=[[0, 1]], generator=Generator().manual_seed(1))
    estimates = separate(mixture)
    upper = estimates.sum((2, 3), keepdim=True) > 0
    torch.testing.assert_close(estimates.where(upper, 0).sum(1), mixture.clamp_min(0))
    torch.testing.assert_close(estimates.where(~upper, 0).sum(1), mixture.clamp_max(0))


def test_it_can_be_asked_again_like_any_separator() -> None:
    mixture = noise(2, 1, 200)
    search = FixedSchedule([0.5, 0.75])
    separate = overlap_add(squash, segment=SEGMENT, max_batch=3)
    ours = refine(separate, mixture, search=search)
    torch.testing.assert_close(ours.estimate, refine(squash, mixture, search=search).estimate)
    assert ours.evaluations.tolist() == [3, 3]


def test_samples_are_read_once_for_each_segment_and_in_order() -> None:
    asked: list[tuple[int, int]] = []
    mixture = noise(1, 1, 5 * HOP + SEGMENT)

    def read(start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        return mixture[..., start:stop]

    parts = separated_parts(
        squash, read, mixture.shape[-1], segment=SEGMENT, overlap=OVERLAP, context=CONTEXT, max_batch=2
    )
    assert not asked
    next(parts)
    assert asked == [(0, SEGMENT), (HOP, HOP + SEGMENT)]
    assert sum(part.shape[-1] for part in parts) == mixture.shape[-1] - HOP
    assert asked == sorted(asked)
    assert len(asked) == 6


def test_what_does_not_fit_is_named() -> None:
    for segment, overlap, context in ((0, 0, 0), (4, 4, 0), (4, -1, 0), (4, 1, -1), (10, 2, 4)):
        with pytest.raises(ValueError, match=f"segment={segment}, overlap={overlap}, context={context}"):
            cuts(100, segment=segment, overlap=overlap, context=context)
    with pytest.raises(ValueError, match="overlap=1"):
        overlap_add(squash, segment=10, overlap=1.0)
    with pytest.raises(ValueError, match="segment=10, overlap=5, context=3"):
        overlap_add(squash, segment=10, overlap=0.5, context=3)
    with pytest.raises(ValueError, match="shifts=0"):
        shifted(squash, shifts=0, most=10, generator=Generator())
    with pytest.raises(ValueError, match="max_batch=0"):
        overlap_add(squash, segment=10, max_batch=0)(noise(1, 1, 30))
    with pytest.raises(ValueError, match="gave 9 samples for 10"):
        overlap_add(lambda x: squash(x)[..., 1:], segment=10)(noise(1, 1, 30))
