"""Both loops of refinement against a third one, written plainly: one item at a time, nothing skipped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from refinement_toys import (
    NOISE,
    NOISE_SEED,
    PATHS,
    Counting,
    TwoRounds,
    closeness,
    crosstalk,
    in_parts,
    linear,
    liveliness,
    of_sources,
    shrink,
    signals,
    squash,
)
from torch import Generator, Tensor

from encore.inference import (
    AnnealedGridSearch,
    FixedListSearch,
    GridSearch,
    Refined,
    Search,
    SearchState,
    Trajectory,
    batched,
    refine,
    refine_fixed,
)
from encore.inference.refinement import refine as readable
from encore.metrics import oracle
from encore.models.types import Separator

STEPS, K = 6, 5


LOOPS = [readable, refine, in_parts]


SEARCHES: dict[str, Callable[..., Search]] = {
    "grid": lambda **options: GridSearch(K, **options),
    "grid_0": lambda **options: GridSearch(K, include_estimate=True, **options),
    "annealed": lambda **options: AnnealedGridSearch(K, **options),
    "two_rounds": TwoRounds,
}
FIXED = FixedListSearch(ratios=[0.875, 0.75, 1.0, 0.25, 0.0], keep_best=False)


def plain(
    separate: Separator,
    mixture: Tensor,
    search: Search,
    score_of: Callable[[Tensor], float],
    path: str,
) -> tuple[Tensor, list[float], list[float]]:
    """Return estimates of all steps ``(steps + 1, s, c, t)``, scores and ratios of one item ``(c, t)``."""
    sources = separate(mixture[None]).shape[1]
    noise = torch.randn(sources, *mixture.shape, generator=Generator().manual_seed(NOISE_SEED)).double()
    level = mixture.square().mean().sqrt()

    def separated(inputs: list[Tensor]) -> Tensor:
        return torch.stack([separate(x[None])[0, k] for k, x in enumerate(inputs)])

    anchors = [mixture] * sources
    estimates = separated(anchors)
    score = score_of(estimates)
    trajectory, scores, ratios = [estimates], [score], []
    for step in range(search.steps):
        # as after steps that moved, so that no kept estimate ends anything
        state = SearchState(history=[0.0] * (step + 1), chosen=[1.0] * step)
        found: list[tuple[float, float, Tensor, list[Tensor]]] = []
        while proposed := search.propose(state):
            for number in proposed:
                ratio = torch.tensor(number, dtype=torch.float32)  # ratios are in single precision
                r, rest = float(ratio), float(1 - ratio)
                inputs = [r * x + rest * y for x, y in zip(anchors, estimates, strict=True)]
                if path == "noisy":
                    deviation = float(NOISE * (ratio * (1 - ratio)).sqrt()) * level
                    inputs = [x + deviation * z for x, z in zip(inputs, noise, strict=True)]
                candidates = separated(inputs)
                state.ratios.append(number)
                state.scores.append(score_of(candidates))
                found.append((state.scores[-1], r, candidates, inputs))
            state.round += 1
        best = max(found, key=lambda candidate: candidate[:2])
        if search.keep_best and not best[0] > score:
            ratios.append(math.nan)
        else:
            score, r, estimates, inputs = best
            ratios.append(r)
            anchors = inputs if path == "state" else anchors
        trajectory.append(estimates)
        scores.append(score)
    return torch.stack(trajectory), scores, ratios


def check_plain(
    loop: Callable[..., Refined], arguments: tuple[Any, ...], expected: Callable[[int], tuple], path: str
) -> None:
    steps = Trajectory()
    found = loop(*arguments, path=PATHS[path], callback=steps)
    estimates = torch.stack([found.one_step, *steps.estimates])
    assert torch.equal(estimates[-1], found.estimates)
    for item in range(len(found.estimates)):
        trajectory, scores, ratios = expected(item)
        torch.testing.assert_close(estimates[:, item], trajectory, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(
            found.scores[:, item].float(), torch.tensor(scores), rtol=1e-6, atol=0, equal_nan=True
        )
        torch.testing.assert_close(
            found.ratios[:, item].float(), torch.tensor(ratios), rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SEARCHES)
def test_both_loops_compute_what_the_plain_loop_computes(name: str, path: str) -> None:
    for function, sources, blind in (
        (linear, 1, False),
        (squash, 1, True),
        (shrink, 1, False),
        (shrink, 2, True),
        (crosstalk, 2, False),
    ):
        separate = of_sources(function, sources)
        mixture, references = signals(0, sources=sources)
        quality = liveliness if blind else oracle(closeness, references)

        def score_of(estimates: Tensor, item: int, references: Tensor = references, blind: bool = blind):
            score = liveliness(estimates[None]) if blind else closeness(estimates, references[item]).mean()
            return float(score.float())  # scores are compared in single precision

        for keep in (True, False):
            search = SEARCHES[name](steps=STEPS, keep_best=keep)
            known = [
                plain(separate, mixture[i], search, lambda y, i=i: score_of(y, i), path)
                for i in range(len(mixture))
            ]
            for loop in LOOPS:
                check_plain(loop, (separate, mixture, quality, search), known.__getitem__, path)


@pytest.mark.parametrize("path", PATHS)
def test_a_fixed_schedule_computes_what_the_plain_loop_computes(path: str) -> None:
    mixture, _ = signals(1, sources=2)
    separate = of_sources(shrink, 2)
    known = [plain(separate, x, FIXED, lambda y: math.nan, path) for x in mixture]
    for wrapped in (separate, batched(separate, 2, workers=2)):
        check_plain(refine_fixed, (wrapped, mixture, FIXED.ratios), known.__getitem__, path)


def test_the_cases_above_reach_every_branch() -> None:
    """Items move, stay and stop in one batch, and the paths differ, so that the comparison can fail."""
    mixture, references = signals(0)
    search, quality = GridSearch(K, include_estimate=True, steps=STEPS), oracle(closeness, references)
    found = [refine(of_sources(shrink), mixture, quality, search, path=path) for path in PATHS.values()]
    assert found[0].ratios.isnan().any()
    assert (found[0].ratios < 1).any()
    assert found[0].evaluations.min() < 1 + STEPS * K
    for other in found[1:]:
        assert not torch.allclose(found[0].estimates, other.estimates)


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
        # ratio 1 goes back to the one-step estimate, ratio 0 separates it again
        expected = torch.stack([separate(found.one_step[:, k])[:, k] for k in range(2)], dim=1)
        assert torch.equal(found.estimates, expected)
