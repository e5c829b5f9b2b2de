"""Wrappers, separator to separator: what each one guarantees, alone and around others."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from refinement_toys import PATHS, Counting, of_sources, same, squash
from separator_toys import close, noise
from torch import Generator, Tensor

from encore.inference import (
    FixedListSearch,
    GridSearch,
    NoisyPath,
    Refined,
    Trajectory,
    Wiener,
    aligned,
    at_level_of,
    batched,
    mixture_consistent,
    refine,
    refine_fixed,
    wiener_filtered,
)
from encore.inference.bridges import with_ratio
from encore.inference.chunking import overlap_add, shift_average
from encore.inference.consistency import sum_to_mixture
from encore.inference.refinement import refine as readable
from encore.inference.wrappers import Wrapper, separate_each
from encore.metrics import oracle, si_sdr
from encore.models.denoisers.bridge_separator import BridgeSeparator
from encore.models.levels import normalized
from encore.models.types import Separator
from encore.models.wrappers import select

SEARCH = GridSearch(4, include_estimate=True, steps=3)
GROUPS = [[0, 1]]


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


def with_steps(loop: Callable[..., Refined], *arguments: Any) -> tuple[Refined, Tensor]:
    """Refine, and return the estimates ``(steps + 1, b, s, c, t)`` too."""
    steps = Trajectory()
    found = loop(*arguments, callback=steps)
    return found, torch.stack([found.one_step, *steps.estimates])


# Speakers


@pytest.mark.parametrize("beside", [False, True])
def test_permuted_speakers_are_refined_like_ones_in_order(items: tuple[Tensor, Tensor], beside: bool) -> None:
    """Alone, and beside a sound that is not permuted and whose estimate is a speaker's."""
    mixture, references = items
    references = torch.cat((references, mixture[:, None]), dim=1) if beside else references

    def with_sound(separate: Separator) -> Separator:
        return lambda x: torch.cat((separate(x), ordered(x)[:, : int(beside)]), dim=1)

    quality = oracle(si_sdr, references)
    for loop in (refine, readable):
        known, expected = with_steps(loop, with_sound(ordered), mixture, quality, SEARCH)
        separate = aligned(with_sound(unordered), mixture, GROUPS, references)
        found, estimates = with_steps(loop, separate, mixture, quality, SEARCH)
        same(found, known)
        assert torch.equal(estimates, expected)
        assert known.scores[-1].gt(known.scores[0]).any()
    permuted = refine(with_sound(unordered), mixture, quality, SEARCH)
    assert (permuted.scores[0] < known.scores[0] - 20 / references.shape[1]).any()


def test_without_references_the_first_order_is_kept(items: tuple[Tensor, Tensor]) -> None:
    mixture, _ = items
    ratios = [0.8, 0.5, 0.1]
    found, estimates = with_steps(refine_fixed, aligned(unordered, mixture, GROUPS), mixture, ratios)
    assert torch.equal(found.one_step, unordered(mixture))
    known, expected = with_steps(refine_fixed, ordered, mixture, ratios)
    swapped = (found.one_step != known.one_step).flatten(1).any(1)
    assert torch.equal(estimates, expected.flip(2).where(swapped[:, None, None, None], expected))
    assert swapped.any()


def test_the_one_step_estimates_are_in_the_order_of_the_references(items: tuple[Tensor, Tensor]) -> None:
    mixture, references = items
    for order in permutations(range(2)):
        chosen = references[:, list(order)]
        counting = Counting(unordered)
        one_step = aligned(counting, mixture, GROUPS, chosen)(mixture)
        assert si_sdr(one_step, chosen).min() > si_sdr(one_step, chosen.flip(1)).max()
        assert counting.rows == len(mixture)


# Estimates that sum to the mixture


@pytest.mark.parametrize("weighting", ["uniform", "energy"])
def test_every_estimate_sums_to_the_mixture(items: tuple[Tensor, Tensor], weighting: Any) -> None:
    mixture, references = items
    separate = mixture_consistent(ordered, mixture, weighting)
    search = FixedListSearch(ratios=[0.6, 0.3, 0.0], keep_best=False)
    found, estimates = with_steps(refine, separate, mixture, oracle(si_sdr, references), search)
    torch.testing.assert_close(found.one_step, sum_to_mixture(ordered(mixture), mixture, weighting))
    torch.testing.assert_close(estimates.sum(2), mixture.expand(4, -1, -1, -1), rtol=0, atol=1e-5)
    # scored as they are returned
    torch.testing.assert_close(found.scores[-1], si_sdr(found.estimates, references).mean((1, 2)))
    # the first step by hand: every source separated from its own input, then all of them moved
    own = [ordered(0.6 * mixture + 0.4 * found.one_step[:, k])[:, k] for k in range(2)]
    expected = sum_to_mixture(torch.stack(own, dim=1), mixture, weighting)
    torch.testing.assert_close(estimates[1], expected, rtol=1e-4, atol=1e-5)


# Filters and levels


def halved_where_far(estimates: Tensor, inputs: Tensor) -> Tensor:
    return torch.where((estimates - inputs).abs() > 0.5, 0.5 * estimates, estimates)


@pytest.mark.parametrize("sources", [1, 2])
def test_the_filter_gets_every_estimate_with_its_own_input(sources: int) -> None:
    mixture, separate = 8 * noise(2, 1, 200), of_sources(squash, sources)
    wrapped: Any = wiener_filtered(separate, halved_where_far)  # type: ignore[arg-type]
    for outer in (wrapped, batched(wrapped, 1)):
        _, estimates = with_steps(refine_fixed, outer, mixture, [0.7, 0.4])
        for k in range(sources):
            estimate = halved_where_far(separate(mixture)[:, k], mixture)
            close(estimates[0][:, k], estimate, 1e-6)
            for step, ratio in enumerate([0.7, 0.4], start=1):
                x = ratio * mixture + (1 - ratio) * estimate
                estimate = halved_where_far(separate(x)[:, k], x)
                close(estimates[step][:, k], estimate, 1e-6)


def test_inputs_are_normalized_by_the_mixture_and_estimates_brought_back() -> None:
    mixture = torch.cat((0.01 * noise(1, 2, 400), 5 * noise(1, 2, 400, seed=1) + 0.3))
    scaled, mean, deviation = normalized(mixture)
    separate, ratios = of_sources(squash, 2), [0.5, 0.1]
    found, estimates = with_steps(refine_fixed, at_level_of(separate, mixture), mixture, ratios)
    _, expected = with_steps(refine_fixed, separate, scaled, ratios)
    for item in range(2):
        close(estimates[:, item], expected[:, item] * deviation[item] + mean[item], 1e-5)
    assert not torch.allclose(found.estimates, refine_fixed(separate, mixture, ratios).estimates)


# Noise and ratios


def test_noise_has_the_deviation_of_a_brownian_bridge_and_none_at_its_ends() -> None:
    mixture = torch.cat((noise(1, 2, 2, 50_000), 10 * noise(1, 2, 2, 50_000)))
    path, estimate = NoisyPath(0.5, seed=3), 0.3 * mixture
    level = mixture.square().mean(dim=(2, 3)).sqrt()
    for ratio in (0.0, 0.1, 0.5, 0.8, 1.0):
        ratios = torch.full((2,), ratio)
        drawn = path(mixture, estimate, ratios) - (ratio * mixture + (1 - ratio) * estimate)
        if ratio in (0.0, 1.0):
            assert float(drawn.abs().max()) < 1e-5
            continue
        close(drawn.std(dim=(2, 3)), 0.5 * math.sqrt(ratio * (1 - ratio)) * level, 0.01)
        # the same for both items, up to their levels; another one for each source
        close(drawn[1], 10 * drawn[0], 1e-4)
        assert float(torch.corrcoef(drawn[0].flatten(1))[0, 1].abs()) < 0.02


class Bridge(BridgeSeparator):
    """A separator that says what it separates, and takes the ratios and mixtures of its inputs."""

    sources, sample_rate, channels = ("speaker1", "speaker2", "sound"), 8000, 1

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, x: Tensor, ratio: Tensor | None = None, mixture: Tensor | None = None) -> Tensor:
        if ratio is not None and mixture is not None:
            x = x * (1 + ratio)[:, None, None] - 0.1 * mixture.roll(1, -1)
        return of_sources(squash, 3)(x)


@pytest.mark.parametrize("size", [None, 2])
def test_ratios_reach_a_separator_that_is_conditioned_on_them(size: int | None) -> None:
    mixture, bridge, ratios, places = noise(3, 1, 200), Bridge(), [0.6, 1.0, 0.25], [2, 0, 1]
    chosen = select(bridge, "sound", "speaker1", "speaker2")
    separate = batched(with_ratio(chosen, mixture), size)
    found, estimates = with_steps(refine_fixed, separate, mixture, ratios)
    close(found.one_step, bridge(mixture)[:, places], 1e-6)
    for step, number in enumerate(ratios, start=1):
        x = number * mixture[:, None] + (1 - number) * estimates[step - 1]
        ratio = torch.full((3,), number)
        own = [bridge(x[:, k], ratio, mixture)[:, place] for k, place in enumerate(places)]
        close(estimates[step], found.one_step if number == 1 else torch.stack(own, dim=1), 1e-6)
    with pytest.raises(ValueError, match="with_ratio: function was not trained as a bridge"):
        with_ratio(of_sources(squash), mixture)  # type: ignore[arg-type]


# All of them


REFERENCES = noise(4, 3, 1, 300).mul(8)
MIXTURE = REFERENCES.sum(1) + noise(4, 1, 300, seed=5)
WIENER = Wiener(window=64)
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "Wrapper": Wrapper,
    "at_level_of": lambda f: at_level_of(f, MIXTURE),
    "aligned": lambda f: aligned(f, MIXTURE, GROUPS, REFERENCES),
    "wiener_filtered": lambda f: wiener_filtered(f, WIENER),
    "mixture_consistent": lambda f: mixture_consistent(f, MIXTURE),
    "with_ratio": lambda f: with_ratio(f, MIXTURE),
    "batched": lambda f: batched(f, 3, workers=2),
    "overlap_add": lambda f: overlap_add(f, segment=120, overlap=0.2),
    "shift_average": lambda f: shift_average(f, shifts=2, max_shift=9, generator=Generator().manual_seed(0)),
    "aligned, at a level": lambda f: aligned(at_level_of(f, MIXTURE), MIXTURE, GROUPS),
    "consistent and filtered": lambda f: mixture_consistent(
        wiener_filtered(aligned(f, MIXTURE, GROUPS), WIENER), MIXTURE, "energy"
    ),
    "conditioned, in parts": lambda f: batched(with_ratio(f, MIXTURE), 3),
    "filtered and consistent, in parts": lambda f: batched(
        wiener_filtered(mixture_consistent(at_level_of(f, MIXTURE), MIXTURE), WIENER), 2, workers=2
    ),
}
every_wrapper = pytest.mark.parametrize("name", WRAPPERS)


def test_every_wrapper_of_the_package_is_among_them() -> None:
    known = {"Wrapper"} | {kind.__name__ for kind in Wrapper.__subclasses__()}
    assert known == {name for name in WRAPPERS if " " not in name}


@every_wrapper
def test_a_wrapper_of_some_items_gives_the_rows_of_the_whole(name: str) -> None:
    wrapped = WRAPPERS[name](Bridge())
    # candidates of a round repeat items, in any order
    items, ratio = torch.tensor([2, 0, 0, 3]), torch.tensor([0.1, 0.4, 0.7, 0.9])
    inputs = MIXTURE + noise(4, 1, 300, seed=7)
    each = torch.stack((inputs, 0.5 * inputs, inputs.roll(9, -1)), dim=1)
    for known in (inputs, MIXTURE):
        close(wrapped.at(items)(known[items]), wrapped(known)[items], 1e-5)
    close(
        separate_each(wrapped.at(items), each[items], ratio[items]),
        separate_each(wrapped, each, ratio)[items],
    )


@every_wrapper
def test_a_wrapper_says_what_its_separator_says(name: str) -> None:
    wrapped = WRAPPERS[name](Bridge())
    assert (wrapped.sources, wrapped.sample_rate, wrapped.channels) == (Bridge.sources, 8000, 1)
    with pytest.raises(AttributeError, match="has no attribute 'weights'"):
        _ = wrapped.weights
    # of a plain function nothing is known
    assert not hasattr(batched(Wrapper(of_sources(squash))), "sample_rate")


@pytest.mark.parametrize("path", PATHS)
@every_wrapper
def test_wrapped_separators_are_refined_alike_by_both_loops_and_in_parts(name: str, path: str) -> None:
    quality = oracle(si_sdr, REFERENCES)
    options = {"path": PATHS[path]}
    wrapped = WRAPPERS[name](Bridge())
    expected = readable(wrapped, MIXTURE, quality, SEARCH, **options)
    same(refine(wrapped, MIXTURE, quality, SEARCH, **options), expected, rtol=1e-4, atol=1e-5)
    parts = refine(batched(wrapped, 3, workers=2), MIXTURE, quality, SEARCH, **options)
    same(parts, expected, rtol=1e-4, atol=1e-5)
    # one item by itself
    own = torch.tensor([1])
    alone = refine(wrapped.at(own), MIXTURE[own], quality.at(own), SEARCH, **options)
    close(alone.estimates, expected.estimates[own])
