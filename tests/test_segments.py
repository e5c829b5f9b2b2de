"""Long items refined in segments: how they are faded together, and what the joined refinement says."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Generator, Tensor

from encore.inference import FixedSchedule, GridSearch, Lanes, Refinement, Trace, refine
from encore.inference.chunking import cut_out, cuts
from encore.inference.segments import join_stretches, refine_in_segments, refined_stretches
from encore.metrics import Quality, get_quality

SEGMENT, OVERLAP = 40, 12
HOP = SEGMENT - OVERLAP
LENGTHS = [1, SEGMENT - 1, SEGMENT, SEGMENT + 1, SEGMENT + OVERLAP]
LENGTHS += [n * SEGMENT - (n - 1) * OVERLAP + more for n in (2, 3, 5) for more in (-1, 0, 1)]
CUTS = [(SEGMENT, OVERLAP), (SEGMENT, 0), (SEGMENT, 1), (SEGMENT, SEGMENT - 1), (7, 5), (1, 0)]
ITEMS = [(length, SEGMENT, OVERLAP) for length in LENGTHS] + [(61, *cut) for cut in CUTS[1:]]


def identity(mixture: Tensor) -> Tensor:
    return mixture[:, None]


def squash(mixture: Tensor) -> Tensor:
    return torch.stack((torch.tanh(mixture), 0.5 * mixture.cos()), dim=1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(sum(shape)))


class Snr(Quality):
    """Oracle, with a gain that counts; a silent reference has no score."""

    name, needs_reference, sample_rate = "snr", True, 8000

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None) -> Tensor:
        return get_quality("snr", sample_rate=8000)(estimate, reference=reference)


def made(
    waveform: Callable[[Tensor], Tensor], scores: Callable[[Tensor], float] = lambda mixture: 0.0
) -> Callable[..., Refinement]:
    """A refinement of no steps whose estimate and score are known functions of the segment."""

    def refine_one(mixture: Tensor, *, reference: Tensor | None, generator: Generator | None) -> Refinement:
        return Refinement(
            estimate=waveform(mixture),
            one_step=mixture,
            trajectory=None,
            scores=torch.tensor([[scores(mixture)]]),
            ratios=torch.empty(0, 1),
            evaluations=torch.ones(1, dtype=torch.long),
        )

    return refine_one


@pytest.mark.parametrize(("length", "segment", "overlap"), ITEMS)
def test_an_identity_gives_the_mixture_back(length: int, segment: int, overlap: int) -> None:
    mixture = noise(2, 2, length)
    search = FixedSchedule([0.5, 0.25])
    for source in (0, "all"):
        refine_one = partial(refine, identity, search=search, source=source, keep_trajectory=True)
        joined = refine_in_segments(refine_one, mixture, segment=segment, overlap=overlap)
        expected = mixture[:, None] if source == "all" else mixture
        assert torch.equal(joined.one_step, expected)
        torch.testing.assert_close(joined.estimate, expected, rtol=0, atol=1e-6)
        assert joined.trajectory is not None
        torch.testing.assert_close(joined.trajectory, torch.stack([expected] * 3), rtol=0, atol=1e-6)
        torch.testing.assert_close(joined.ratios, torch.tensor([[0.5, 0.5], [0.75, 0.75]]))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_memoryless_separator_does_not_know_of_segments(length: int) -> None:
    mixture = noise(1, 2, length)
    refine_one = partial(refine, squash, search=FixedSchedule([0.5, 0.3]), source="all")
    joined = refine_in_segments(refine_one, mixture, segment=SEGMENT, overlap=OVERLAP)
    whole = refine(squash, mixture, search=FixedSchedule([0.5, 0.3]), source="all")
    torch.testing.assert_close(joined.estimate, whole.estimate, rtol=0, atol=1e-6)


@pytest.mark.parametrize("source", [1, "all"])
def test_an_item_that_fits_into_a_segment_is_refined_as_ever(source: int | str) -> None:
    mixture = noise(2, 2, SEGMENT)
    reference = noise(2, 2, 2, SEGMENT) if source == "all" else noise(2, 2, SEGMENT)
    options = {"search": GridSearch(4), "steps": 3, "quality": Snr(), "source": source}
    refine_one = partial(refine, squash, keep_trajectory=True, **options)
    joined = refine_in_segments(
        refine_one, mixture, segment=SEGMENT, overlap=OVERLAP, reference=reference, lanes=2
    )
    plain = refine(squash, mixture, reference=reference, keep_trajectory=True, **options)
    for name in Refinement.__slots__:
        ours, expected = getattr(joined, name), getattr(plain, name)
        torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)


def test_each_segment_is_refined_by_itself_and_chooses_its_own_ratios() -> None:
    mixture = noise(1, 2, 3 * SEGMENT)
    # blends of x and x / 2, halved: x / 4 at share 0, 3 x / 8 at 0.5; x / 2 is the one-step estimate
    gains = torch.tensor([0.25, 0.375, 0.5]).repeat_interleave(SEGMENT)
    refine_one = partial(
        refine,
        lambda mixture: mixture[:, None] / 2,
        search=GridSearch(2, include_estimate=True),
        steps=1,
        quality=Snr(),
        keep_trajectory=True,
    )
    reference = partial(cut_out, gains * mixture)
    options = {"segment": SEGMENT, "overlap": 0, "read_reference": reference}
    stretches = list(refined_stretches(refine_one, partial(cut_out, mixture), 3 * SEGMENT, **options))
    ratios = [stretch.refinement.ratios.item() for stretch in stretches]
    assert ratios[:2] == [0.0, 0.5]
    assert math.isnan(ratios[2])
    joined = join_stretches(stretches, 3 * SEGMENT)
    torch.testing.assert_close(joined.estimate, gains * mixture)
    assert joined.trajectory is not None
    torch.testing.assert_close(joined.trajectory[0], mixture / 2)
    assert joined.ratios.item() == 0.25
    # shares 0.5 and 0 cost a call each, share 1 none
    assert joined.evaluations.item() == 3


def test_scores_are_means_over_the_samples_of_stretches_that_have_one() -> None:
    length = 2 * HOP + SEGMENT - 5
    mixture = torch.zeros(1, 1, length)
    mixture[..., 0], mixture[..., -1] = 3.0, 7.0

    def score(segment: Tensor) -> float:
        return segment.amax().item() or math.nan

    joined = refine_in_segments(made(identity, score), mixture, segment=SEGMENT, overlap=OVERLAP)
    # stretches of 28, 28 and 35 samples, the second without a score
    assert joined.scores.item() == pytest.approx((28 * 3 + 35 * 7) / (28 + 35), rel=1e-6)
    # three calls on 40 samples are 1.3 calls on 91
    assert joined.evaluations.item() == 2
    silent = refine_in_segments(made(identity, score), 0 * mixture, segment=SEGMENT, overlap=OVERLAP)
    assert silent.scores.isnan().all()


def joined_error(error: Tensor, length: int) -> Tensor:
    """What is left of an error of every segment, but for the item's own ends, which only one segment has."""
    refine_one = made(lambda segment: segment + error)
    silence = torch.zeros(1, 1, length)
    joined = refine_in_segments(refine_one, silence, segment=SEGMENT, overlap=OVERLAP)
    return joined.estimate.flatten()[OVERLAP // 2 : length - OVERLAP // 2]


@pytest.mark.parametrize("length", LENGTHS[3:])
def test_what_is_wrong_near_the_ends_of_segments_makes_no_jump(length: int) -> None:
    near = OVERLAP // 2
    sudden, slow = torch.zeros(SEGMENT), torch.zeros(SEGMENT)
    sudden[:near] = sudden[-near:] = 1.0
    slow[:near] = 1 - (torch.arange(near) + 0.5) / near
    slow[-near:] = slow[:near].flip(0)
    # an error of 1 comes in by less than a half, so a jump of 1 too
    assert joined_error(sudden, length).abs().max() < 0.5
    assert joined_error(sudden, length).diff().abs().max() < 0.5
    if (length - OVERLAP) % HOP == 0:
        # where no segment is moved one error begins as the other ends: what is left is the slope of the fade
        assert joined_error(sudden, length).diff().abs().max() <= 1 / OVERLAP + 1e-6
        assert joined_error(sudden, length).max() > 0.45
    # the error's own slope, 2 / overlap, weighted by less than 1 / 2, and the fade's, 1 / overlap
    assert joined_error(slow, length).diff().abs().max() <= 2 / OVERLAP + 1e-6


@pytest.mark.parametrize(("segment", "overlap"), [(SEGMENT, OVERLAP), (SEGMENT, 1), (SEGMENT, SEGMENT // 2)])
def test_a_fade_adds_no_more_than_its_share_of_the_difference(segment: int, overlap: int) -> None:
    # estimates that are constant and differ by 1 from segment to segment
    levels = itertools.cycle([0.0, 1.0])
    refine_one = made(lambda part: torch.full_like(part, next(levels)))
    joined = refine_in_segments(refine_one, torch.zeros(1, 1, 201), segment=segment, overlap=overlap)
    assert joined.estimate.diff().abs().max() == pytest.approx(1 / overlap if overlap > 1 else 0.5, rel=1e-4)
    assert joined.estimate.amin() == 0
    assert joined.estimate.amax() == 1


class Draws:
    """A search that tries one random share."""

    steps, selects, wants_slopes = 1, False, False

    def propose(self, trace: Trace) -> Tensor:
        items, tried = trace.ratios.shape
        return torch.rand(items, 0 if tried else 1, generator=trace.generator)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        return kept


def test_draws_depend_on_the_seed_and_not_on_the_lanes() -> None:
    mixture = noise(1, 1, 300)
    refine_one = partial(refine, squash, search=Draws())

    def ratios(lanes: int, seed: int) -> list[float]:
        with Lanes(lanes) as threads:
            stretches = refined_stretches(
                refine_one,
                partial(cut_out, mixture),
                300,
                segment=SEGMENT,
                overlap=OVERLAP,
                generator=Generator().manual_seed(seed),
                lanes=threads,
            )
            return [stretch.refinement.ratios.item() for stretch in stretches]

    assert ratios(1, 0) == ratios(3, 0) != ratios(1, 1)
    assert len(set(ratios(1, 0))) == len(ratios(1, 0)) == 11


@pytest.mark.parametrize("lanes", [1, 3])
def test_segments_are_made_in_order_when_they_are_asked_for_and_forgotten(lanes: int) -> None:
    begun: list[int] = []
    alive: list[weakref.ref[Tensor]] = []

    def waveform(segment: Tensor) -> Tensor:
        begun.append(int(segment[0, 0, 0]))
        estimate = segment.clone()
        alive.append(weakref.ref(estimate))
        return estimate

    length = 12 * HOP + SEGMENT
    mixture = torch.arange(length, dtype=torch.float32)[None, None]
    with Lanes(lanes) as threads:
        stretches = refined_stretches(
            made(waveform),
            partial(cut_out, mixture),
            length,
            segment=SEGMENT,
            overlap=OVERLAP,
            lanes=threads,
        )
        assert not begun
        most, end = 0 if lanes == 1 else lanes, 0
        for number, stretch in enumerate(stretches, start=1):
            assert stretch.start == end
            end += stretch.length
            assert len(begun) <= number + most
            del stretch
            assert sum(own() is not None for own in alive) <= most + 1
    assert end == length
    assert sorted(begun) == [cut.start for cut in cuts(length, segment=SEGMENT, overlap=OVERLAP)]


def test_stretches_hold_no_more_than_their_own_samples() -> None:
    read = partial(cut_out, noise(1, 1, 300))
    stretches = refined_stretches(made(torch.clone), read, 300, segment=SEGMENT, overlap=OVERLAP)
    sizes = {stretch.refinement.estimate.untyped_storage().nbytes() // 4 for stretch in stretches}
    assert max(sizes) <= SEGMENT


def test_lengths_that_do_not_fit_are_named() -> None:
    mixture = noise(1, 1, 100)
    for segment, overlap in ((0, 0), (4, 4), (4, -1)):
        with pytest.raises(ValueError, match=f"segment={segment}, overlap={overlap}"):
            refine_in_segments(made(torch.clone), mixture, segment=segment, overlap=overlap)
    with pytest.raises(ValueError, match="reference has 101 samples, the mixture 100"):
        refine_in_segments(
            made(torch.clone), mixture, segment=40, overlap=2, reference=torch.zeros(1, 1, 101)
        )
    stretches = list(
        refined_stretches(made(torch.clone), partial(cut_out, mixture), 100, segment=40, overlap=2)
    )
    with pytest.raises(ValueError, match="length=100: the stretches have 38 samples"):
        join_stretches(stretches[:1], 100)


def swapping(segment: Tensor) -> Tensor:
    """Two speakers, one above and one below 0, in an order that the segment's first sample decides."""
    parts = torch.stack((segment.clamp_min(0), segment.clamp_max(0)), dim=1)
    swap = segment[:, 0, 0] > 0
    return torch.where(swap[:, None, None, None], parts.flip(1), parts)


def test_speakers_keep_their_places_from_segment_to_segment() -> None:
    mixture = noise(3, 1, 400)
    refine_one = partial(refine, swapping, search=FixedSchedule([0.5]), source="all", keep_trajectory=True)
    options = {"segment": SEGMENT, "overlap": OVERLAP, "context": 4}
    joined = refine_in_segments(refine_one, mixture, stitched=[[0, 1]], **options)
    expected = swapping(mixture)
    torch.testing.assert_close(joined.one_step, expected)
    torch.testing.assert_close(joined.estimate, expected)
    torch.testing.assert_close(joined.trajectory, torch.stack([expected] * 2))
    mixed_up = refine_in_segments(refine_one, mixture, **options)
    assert not torch.allclose(mixed_up.one_step, expected)
