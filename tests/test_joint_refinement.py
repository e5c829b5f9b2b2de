"""All sources at once: speakers that change places, and estimates that sum to the mixture."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Generator, Tensor

from encore.inference import FixedSchedule, GridSearch, SlopeSearch, refine
from encore.inference.consistency import sum_to_mixture
from encore.metrics import get_quality
from encore.metrics.reference import si_sdr
from encore.models.types import Separator

STEPS, K = 3, 4
OPTIONS = {"source": "all", "steps": STEPS, "search": GridSearch(K, include_estimate=True)}


def speakers(count: int) -> Tensor:
    """Items of two tones ``(b, 2, 1, t)``, a low and a high one, each with a little of the other."""
    time = torch.arange(400) / 400
    phase, level = torch.rand(2, count, 2, 1, generator=Generator().manual_seed(count))
    tones = (0.5 + level) * torch.sin(6.28 * (torch.tensor([[9.0], [61.0]]) * time + phase))
    return (tones + 0.02 * tones.flip(1))[:, :, None]


def ordered(mixture: Tensor) -> Tensor:
    """Low and high band, with an error that depends on the samples alone."""
    spectrum = torch.fft.rfft(mixture)
    low = torch.fft.irfft(spectrum * (torch.arange(201) < 30), 400)
    return torch.stack((low, mixture - low), dim=1) + 0.1 * torch.tanh(3 * mixture)[:, None]


def unordered(mixture: Tensor) -> Tensor:
    """The same in an order that looks random but depends on the samples alone."""
    swap = (1000 * mixture.abs().sum((1, 2))).long() % 2 == 1
    return torch.where(swap[:, None, None, None], ordered(mixture).flip(1), ordered(mixture))


@pytest.fixture(scope="module")
def items() -> tuple[Tensor, Tensor]:
    references = speakers(8)
    return references.sum(1), references


def test_speakers_that_change_places_are_refined_like_ones_that_do_not(items) -> None:
    mixture, references = items
    quality = get_quality("si_sdr", sample_rate=8000)
    known = refine(ordered, mixture, quality=quality, reference=references, keep_trajectory=True, **OPTIONS)
    found = refine(
        unordered,
        mixture,
        quality=quality,
        reference=references,
        interchangeable=True,
        keep_trajectory=True,
        **OPTIONS,
    )
    assert torch.equal(found.scores, known.scores)
    assert torch.equal(found.trajectory, known.trajectory)
    assert known.scores[-1].gt(known.scores[0]).any()
    mixed_up = refine(unordered, mixture, quality=quality, reference=references, **OPTIONS)
    assert (mixed_up.scores[0] < known.scores[0] - 10).any()


def test_speakers_change_places_beside_a_sound_that_does_not(items) -> None:
    mixture, references = items
    options = {"quality": get_quality("si_sdr", sample_rate=8000), "keep_trajectory": True, **OPTIONS}
    options["reference"] = torch.cat((references, mixture[:, None]), dim=1)

    def beside(separate: Separator) -> Separator:
        # the sound's estimate is a speaker's
        return lambda x: torch.cat((separate(x), ordered(x)[:, :1]), dim=1)

    known = refine(beside(ordered), mixture, **options)
    found = refine(beside(unordered), mixture, interchangeable=[[0, 1]], **options)
    assert torch.equal(found.trajectory, known.trajectory)


def test_without_references_the_first_order_is_kept(items) -> None:
    mixture, _ = items
    schedule = {"source": "all", "search": FixedSchedule([0.2, 0.5, 0.9]), "interchangeable": True}
    found = refine(unordered, mixture, keep_trajectory=True, **schedule)
    assert torch.equal(found.one_step, unordered(mixture))
    known = refine(ordered, mixture, keep_trajectory=True, **schedule)
    for item in range(len(mixture)):
        swapped = not torch.equal(found.one_step[item], known.one_step[item])
        own = known.trajectory[:, item].flip(1) if swapped else known.trajectory[:, item]
        assert torch.equal(found.trajectory[:, item], own)
    assert not torch.equal(found.one_step, known.one_step)


def test_the_order_of_the_first_estimates_is_the_references(items) -> None:
    mixture, references = items
    for way in permutations(range(2)):
        chosen = references[:, list(way)]
        options = {"source": "all", "steps": 0, "search": GridSearch(1), "interchangeable": True}
        one_step = refine(unordered, mixture, reference=chosen, **options).one_step
        assert si_sdr(one_step, chosen).min() > si_sdr(one_step, chosen.flip(1)).max()


@pytest.mark.parametrize("share", ["uniform", "energy"])
def test_every_estimate_sums_to_the_mixture(items, share) -> None:
    mixture, references = items
    quality = get_quality("si_sdr", sample_rate=8000)
    found = refine(
        ordered,
        mixture,
        quality=quality,
        reference=references,
        consistency=share,
        keep_trajectory=True,
        **OPTIONS,
    )
    torch.testing.assert_close(found.one_step, sum_to_mixture(ordered(mixture), mixture, share))
    for estimates in found.trajectory:
        torch.testing.assert_close(estimates.sum(1), mixture, rtol=0, atol=1e-5)
    # scored as they are given out
    torch.testing.assert_close(found.scores[-1], si_sdr(found.estimate, references).mean((1, 2)))
    # the first step by hand: every source separated from its own blend, then all moved
    first = found.trajectory[1]
    for item in range(len(mixture)):
        ratio = found.ratios[0, item]
        if ratio.isnan():
            continue
        x, y = mixture[item : item + 1], found.one_step[item : item + 1]
        own = [ordered(ratio * x + (1 - ratio) * y[:, index])[:, index] for index in range(2)]
        expected = sum_to_mixture(torch.stack(own, dim=1), x, share)
        torch.testing.assert_close(first[item : item + 1], expected, rtol=1e-4, atol=1e-5)


def test_what_is_for_all_sources_is_refused_for_one(items) -> None:
    mixture, references = items
    for options in ({"interchangeable": True}, {"consistency": "uniform"}):
        with pytest.raises(ValueError, match=r'source=0: .* are for source="all"'):
            refine(ordered, mixture, search=FixedSchedule([0.5]), **options)
    with pytest.raises(ValueError, match="SlopeSearch has no slopes"):
        refine(
            ordered,
            mixture,
            source="all",
            search=SlopeSearch(),
            quality=get_quality("si_sdr", sample_rate=8000),
            reference=references,
            interchangeable=True,
        )
