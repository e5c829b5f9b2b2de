"""Separation by segments: where items are cut, how segments are joined, and that nothing else changes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from encore.inference import overlap_add, shift_average
from encore.inference.chunking import CrossFade, Segment, segment_bounds

SEGMENT, OVERLAP, CONTEXT = 40, 8, 3
HOP = SEGMENT - OVERLAP - 2 * CONTEXT
LENGTHS = [1, HOP, *(SEGMENT + n * HOP + more for n in (0, 1, 5) for more in (-1, 0, 1))]
CUTS = [(SEGMENT, 8, 3), (SEGMENT, 0, 5), (SEGMENT, 39, 0), (SEGMENT, 1, 19), (7, 3, 1), (1, 0, 0)]
every_cut = pytest.mark.parametrize(("segment", "overlap", "context"), CUTS)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(sum(shape) + seed))


def squash(mixture: Tensor) -> Tensor:
    """Separate sample by sample: segments make no difference."""
    return torch.stack((torch.tanh(mixture), 0.5 * mixture.cos()), dim=1)


def local_mean(mixture: Tensor) -> Tensor:
    """Average 2 samples to either side, with zeros beyond the ends of the input."""
    return torch.nn.functional.avg_pool1d(mixture, 5, 1, padding=2)[:, None]


def wrong_at_the_ends(reach: int) -> Callable[[Tensor], Tensor]:
    """Return a separator that is useless near the ends of its input, as networks trained on segments are."""

    def separate(mixture: Tensor) -> Tensor:
        estimate = mixture.clone()
        estimate[..., :reach] = estimate[..., -reach:] = 9.0
        return estimate[:, None]

    return separate


def swapping(segment: Tensor) -> Tensor:
    """Separate two speakers, one above and one below 0, in an order that the first sample decides."""
    parts = torch.stack((segment.clamp_min(0), segment.clamp_max(0)), dim=1)
    return torch.where((segment[:, 0, 0] > 0)[:, None, None, None], parts.flip(1), parts)


def test_segments_are_where_they_should_be() -> None:
    assert segment_bounds(10, segment=4, overlap=1) == [Segment(0, 0, 3), Segment(3, 3, 6), Segment(6, 6, 10)]
    # the last one is moved to the left
    assert segment_bounds(11, segment=4, overlap=1)[-2:] == [Segment(6, 6, 9), Segment(7, 9, 11)]
    expected = [Segment(0, 0, 4), Segment(4, 4, 8), Segment(6, 8, 14)]
    assert segment_bounds(14, segment=8, overlap=2, context=1) == expected
    assert segment_bounds(4, segment=4, overlap=3) == [Segment(0, 0, 4)]


@every_cut
def test_segments_are_of_full_length_and_cover_the_item(segment: int, overlap: int, context: int) -> None:
    for length in LENGTHS:
        bounds = segment_bounds(length, segment=segment, overlap=overlap, context=context)
        assert bounds[0].begin == 0
        assert bounds[-1].end == length
        assert all(before.end == after.begin for before, after in itertools.pairwise(bounds))
        if length <= segment:
            assert len(bounds) == 1
            continue
        hop = segment - overlap - 2 * context
        assert bounds[-1].start + segment == length
        steps = [after.start - before.start for before, after in itertools.pairwise(bounds)]
        assert set(steps[:-1]) <= {hop}
        assert 0 < steps[-1] <= hop
        # no more of them than needed
        assert (len(bounds) - 2) * hop + segment < length


def test_fades_sum_to_one_and_rise_evenly_between_the_contexts() -> None:
    for overlap, context in itertools.product((1, 12, 1001), (0, 2)):
        weights = CrossFade(overlap, context).weights
        torch.testing.assert_close(weights.flip(0), 1 - weights, rtol=0, atol=1e-15)
        rise = weights[context : context + overlap].diff()
        torch.testing.assert_close(rise, torch.full_like(rise, 1 / overlap), rtol=0, atol=1e-7)
        assert weights[:context].eq(0).all()
        assert weights[context + overlap :].eq(1).all()


@every_cut
def test_an_identity_gives_the_mixture_back(segment: int, overlap: int, context: int) -> None:
    options = {"segment": segment, "overlap": overlap / segment, "context": context}
    separate = overlap_add(lambda mixture: mixture[:, None], **options)
    for length in LENGTHS:
        mixture = noise(2, 2, length)
        assert torch.equal(separate(mixture), mixture[:, None])


def test_batches_and_batch_mates_make_no_difference_nor_segments_to_a_separator_without_memory() -> None:
    for length in LENGTHS:
        mixture = noise(3, 2, length)
        for separate in (squash, local_mean):
            one_by_one = overlap_add(separate, segment=SEGMENT, context=CONTEXT)
            in_threes = overlap_add(separate, segment=SEGMENT, context=CONTEXT, max_batch=3)
            assert torch.equal(in_threes(mixture), one_by_one(mixture))
            assert torch.equal(in_threes(mixture[1:2]), one_by_one(mixture)[1:2])
        found = overlap_add(squash, segment=SEGMENT, max_batch=3)(mixture)
        torch.testing.assert_close(found, squash(mixture), rtol=0, atol=1e-6)


def test_calls_hold_as_many_segments_as_allowed_and_no_more() -> None:
    for length in LENGTHS:
        sizes: list[int] = []

        def counted(mixture: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(len(mixture))
            return squash(mixture)

        overlap_add(counted, segment=SEGMENT, max_batch=4)(noise(2, 1, length))
        assert sum(sizes) == 2 * len(segment_bounds(length, segment=SEGMENT, overlap=SEGMENT // 4))
        assert max(sizes) <= 4
        assert len(sizes) == math.ceil(sum(sizes) / 4)


def test_what_is_wrong_near_the_ends_of_segments_is_discarded_with_context() -> None:
    def error(length: int, context: int) -> float:
        mixture = noise(1, 1, length)
        separate = overlap_add(wrong_at_the_ends(CONTEXT), segment=SEGMENT, overlap=0.2, context=context)
        # the ends of the item itself are not compared
        return (separate(mixture)[:, 0] - mixture)[..., CONTEXT : length - CONTEXT].abs().max().item()

    for length in (SEGMENT + 1, SEGMENT + HOP, 333):
        assert error(length, CONTEXT) == 0
        assert error(length, 0) > 1


def test_what_is_wrong_within_half_an_overlap_of_the_ends_comes_in_by_less_than_half_without_a_jump() -> None:
    near, separate = OVERLAP // 2, wrong_at_the_ends(OVERLAP // 2)
    for length in (SEGMENT + 1, 8 * (SEGMENT - OVERLAP) + OVERLAP, 333):
        faded = overlap_add(separate, segment=SEGMENT, overlap=OVERLAP / SEGMENT)(torch.zeros(1, 1, length))
        errors = faded.flatten()[near : length - near]
        assert 9 / 4 < errors.max() < 9 / 2
        assert errors.diff().abs().max() < 9 / 2
        if (length - OVERLAP) % (SEGMENT - OVERLAP) == 0:
            # where no segment is moved one error begins as the other ends: what is left is the fade's slope
            assert errors.diff().abs().max() <= 9 / OVERLAP + 1e-5


@pytest.mark.parametrize("max_batch", [1, 3])
def test_speakers_keep_their_positions_from_segment_to_segment(max_batch: int) -> None:
    mixture = noise(4, 1, 400)
    options = {"segment": SEGMENT, "overlap": 0.2, "context": 2, "max_batch": max_batch}
    in_order = overlap_add(swapping, groups=[[0, 1]], **options)(mixture)
    torch.testing.assert_close(in_order, swapping(mixture))
    assert not torch.allclose(overlap_add(swapping, **options)(mixture), swapping(mixture))


def test_only_sources_of_a_group_are_permuted() -> None:
    """Two speakers around a sound that resembles the one or the other in turn."""
    mixture = noise(2, 1, 400)

    def separate(segment: Tensor) -> Tensor:
        speakers = swapping(segment)
        return torch.stack((speakers[:, 0], segment.clamp_min(0.1), speakers[:, 1]), dim=1)

    options = {"segment": SEGMENT, "overlap": 0.2, "context": 2}
    found = overlap_add(separate, groups=[[0, 2]], **options)(mixture)
    # the whole item in the order of its first segment
    torch.testing.assert_close(found, separate(mixture))


def test_shift_averages_are_means_over_delays_drawn_once() -> None:
    mixture = noise(2, 1, 130)

    def averaged(seed: int, shifts: int = 3) -> Tensor:
        generator = Generator().manual_seed(seed)
        segments = overlap_add(local_mean, segment=SEGMENT, overlap=0)
        separate = shift_average(segments, shifts=shifts, max_shift=SEGMENT, generator=generator)
        first = separate(mixture)
        # the same function again: refinement would take the difference of two draws for progress
        assert torch.equal(separate(mixture), first)
        return first

    assert torch.equal(averaged(0), averaged(0))
    assert not torch.equal(averaged(0), averaged(1))
    few, many = ((averaged(0, n) - local_mean(mixture)).square().mean() for n in (1, 16))
    assert many < few / 4
    identity = shift_average(lambda x: x[:, None], shifts=3, max_shift=7, generator=Generator())
    torch.testing.assert_close(identity(mixture), mixture[:, None], rtol=0, atol=1e-6)


def test_speakers_keep_their_positions_from_shift_to_shift() -> None:
    mixture = noise(4, 1, 200)

    def unsteady(mixture: Tensor) -> Tensor:
        parts = torch.stack((mixture.clamp_min(0), mixture.clamp_max(0)), dim=1)
        return parts.flip(1) if mixture.shape[-1] % 2 else parts

    generator = Generator().manual_seed(1)
    separate = shift_average(unsteady, shifts=5, max_shift=9, groups=[[0, 1]], generator=generator)
    estimates = separate(mixture)
    upper = estimates.sum((2, 3), keepdim=True) > 0
    torch.testing.assert_close(estimates.where(upper, 0).sum(1), mixture.clamp_min(0))
    torch.testing.assert_close(estimates.where(~upper, 0).sum(1), mixture.clamp_max(0))
