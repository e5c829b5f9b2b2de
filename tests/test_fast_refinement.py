"""The fast loop against the readable one in random cases, its slopes, and schedules written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, sin
from typing import Any

import pytest
import torch
from refinement_toys import (
    NOISE,
    NOISE_SEED,
    PATHS,
    SEARCHES,
    Counting,
    TwoRounds,
    check_slopes,
    closeness,
    crosstalk,
    in_parts,
    linear,
    liveliness,
    of_sources,
    same,
    shrink,
    signals,
    squash,
    with_steps,
)
from torch import Generator, Tensor

from encore import inference
from encore.inference import (
    Refined,
    Search,
    SearchState,
    Trajectory,
    aligned,
    at_level_of,
    batched,
    mixture_consistent,
    refine,
    refine_fixed,
)
from encore.inference.refinement import refine as readable
from encore.metrics import get_metric, guarded, joint, oracle
from encore.metrics.quality import Quality
from encore.models.types import Separator


@dataclass(frozen=True)
class Ragged(Search):
    """Propose ratios that look random, 0, 1 and none among them, in up to three rounds."""

    def propose(self, state: SearchState) -> Sequence[float]:
        # by a score that is rounded: a difference in the last bit must not change them
        phase = round(100 * state.history[-1]) + 5 * state.step + 3 * state.round
        phases = range(phase, phase + 3) if state.round < 3 else ()
        return [min(max(1.4 * sin(37 * p), 0.0), 1.0) for p in phases if cos(11 * p) > -0.3]

    def max_candidates(self) -> int:
        return 9 * self.steps


TRIED = [*(search for search in SEARCHES if not search.needs_gradient), TwoRounds(), Ragged()]


class Conditioned:
    """A separator that is conditioned on the mixing ratio and on the mixture of every item."""

    def __init__(self, separate: Separator, mixture: Tensor) -> None:
        self.separate, self.mixture = separate, mixture

    def __call__(self, x: Tensor) -> Tensor:
        return self.separate(x)

    def at_ratio(self, x: Tensor, ratio: Tensor) -> Tensor:
        return self.separate(x + (1 - ratio)[:, None, None] * self.mixture.roll(3, -1))

    def at(self, items: Tensor) -> Conditioned:
        return Conditioned(self.separate, self.mixture[items])


def with_holes(estimates: Tensor) -> Tensor:
    """Not eligible about once in four, for some of the one-step estimates too."""
    scores = liveliness(estimates)
    return scores.where(torch.sin(5e3 * scores.float().double()) > -0.7, torch.nan)


def draw_case(seed: int) -> tuple[Separator, Tensor, Quality, Any]:
    """Draw a separator, mixtures, a quality and a path."""
    generator = Generator().manual_seed(seed)

    def one_of(*choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    sources, channels, batch = one_of(1, 2, 3), one_of(1, 2), one_of(1, 2, 5)
    mixture, references = signals(seed, batch, sources, channels, time=one_of(24, 41))
    separate: Any = of_sources(one_of(linear, squash, shrink, crosstalk), sources)
    wrapped = one_of("nothing", "level", "speakers", "consistent", "ratio")
    if wrapped == "level":
        separate = at_level_of(separate, mixture)
    if wrapped == "speakers":
        separate = aligned(separate, mixture, [list(range(sources))], references)
    if wrapped == "consistent":
        separate = mixture_consistent(separate, mixture, one_of("uniform", "energy"))
    if wrapped == "ratio":
        separate = Conditioned(separate, mixture)
    close = oracle(closeness, references)
    again = get_metric("fixed_point", sample_rate=1000).bind(mixture=mixture, separate=separate)
    apart = get_metric("disjointness", sample_rate=1000).bind(mixture=mixture)
    quality = one_of(
        liveliness,
        lambda estimates: closeness(estimates, references).mean(1),
        close,
        with_holes,
        again,
        joint([close, apart, again], scales=(0.1, 0.01, 1.0)),
        guarded(liveliness, [close]),
        guarded(again, [joint([again, liveliness], scales=(1.0, 1.0))]),
    )
    return separate, mixture, quality, one_of(*PATHS.values())


@pytest.mark.parametrize("number", range(len(TRIED)))
def test_the_fast_loop_equals_the_readable_one(number: int) -> None:
    taken = 0
    for seed in range(18):
        separate, mixture, quality, path = draw_case(1000 * number + seed)
        search = with_steps(TRIED[number], steps=1 + seed % 5, keep_best=seed % 3 > 0)
        expected = readable(separate, mixture, quality, search, path=path)
        for loop in (refine, in_parts):
            same(loop(separate, mixture, quality, search, path=path), expected, rtol=1e-6, atol=1e-6)
        taken += int((expected.ratios < 1).sum())
    assert taken > 20


def test_searches_by_slopes_do_not_depend_on_parts() -> None:
    """The readable loop has no slopes."""
    for search in (search for search in SEARCHES if search.needs_gradient):
        for path in PATHS.values():
            mixture, references = signals(1, sources=2)
            arguments = (of_sources(squash, 2), mixture, oracle(closeness, references), search)
            whole = refine(*arguments, path=path)
            same(in_parts(*arguments, path=path), whole, rtol=1e-6, atol=1e-6)
            assert (whole.ratios < 1).any()


def test_every_search_of_the_package_is_among_them() -> None:
    public = {
        name
        for name in inference.__all__
        if isinstance(value := getattr(inference, name), type) and issubclass(value, Search)
    }
    assert public - {"Search"} == {type(search).__name__ for search in SEARCHES}


@pytest.mark.parametrize("path", PATHS)
def test_slopes_are_those_of_a_finite_difference(path: str) -> None:
    """The readable loop has none. Scores are in single precision, so that differences are of wide steps."""
    for function, sources in ((squash, 1), (crosstalk, 3), (linear, 2)):
        mixture, references = signals(sources, sources=sources)
        separate, close = of_sources(function, sources), oracle(closeness, references)
        for quality in (close, joint([close, liveliness], scales=(0.5, 2.0)), liveliness):
            for loop in (refine, in_parts):

                def run(search: Search, arguments: Any = (loop, separate, mixture, quality)) -> Refined:
                    loop, *rest = arguments
                    return loop(*rest, search, path=PATHS[path])

                found = check_slopes(run, [0.2, 0.8, 0.5, 1.0], h=1e-3, rtol=1e-2, atol=2e-3)
                assert found.evaluations.tolist() == [1 + 2 * 4 * sources] * 3


@pytest.mark.parametrize("path", PATHS)
def test_a_fixed_schedule_is_its_recursion_written_out(path: str) -> None:
    mixture, _ = signals(1, sources=2)
    separate, ratios = of_sources(shrink, 2), [0.875, 0.75, 1.0, 0.25, 0.0]
    drawn = torch.randn(2, *mixture.shape[1:], generator=Generator().manual_seed(NOISE_SEED)).double()
    level = mixture.square().mean((1, 2)).sqrt()[:, None, None, None]
    anchor, expected = mixture[:, None].expand(-1, 2, -1, -1), [separate(mixture)]
    for r in ratios:
        inputs = r * anchor + (1 - r) * expected[-1]
        if path == "noisy":
            inputs = inputs + float(NOISE * torch.tensor(r * (1 - r)).sqrt()) * level * drawn
        expected.append(torch.stack([separate(inputs[:, k])[:, k] for k in range(2)], dim=1))
        anchor = inputs if path == "state" else anchor
    for wrapped in (separate, batched(separate, 2, workers=2)):
        steps = Trajectory()
        found = refine_fixed(wrapped, mixture, ratios, path=PATHS[path], callback=steps)
        torch.testing.assert_close(
            torch.stack([found.one_step, *steps.estimates]), torch.stack(expected), rtol=1e-7, atol=1e-7
        )
        assert torch.equal(found.estimates, steps.estimates[-1])


def test_a_schedule_needs_no_quality_always_moves_and_counts_its_calls() -> None:
    mixture, separate, ratios = signals(2)[0], of_sources(shrink, 2), [0.75, 1.0, 0.0]
    for size in (None, 2):
        counting = Counting(separate)
        found = refine_fixed(counting if size is None else batched(counting, size), mixture, ratios)
        assert torch.equal(found.ratios, torch.tensor(ratios)[:, None].expand(3, 3))
        assert found.scores.shape == (4, 3)
        assert found.scores.isnan().all()
        assert found.evaluations.tolist() == [1 + 2 * 2] * 3
        assert counting.rows == int(found.evaluations.sum())
