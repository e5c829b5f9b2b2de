"""The loop against a second one, written plainly: one item at a time, float64, nothing reused or skipped."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from encore.inference.refinement import refine
from encore.inference.search import AnnealedGridSearch, FixedSchedule, GridSearch, Trace
from encore.metrics.quality import Quality
from encore.models.types import Separator

STEPS, K = 6, 5


class Closeness(Quality):
    """Oracle: negative mean square distance to the reference."""

    name, needs_reference, sample_rate = "closeness", True, 8000

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None) -> Tensor:
        return -(estimate - reference).square().mean((1, 2))


class Liveliness(Quality):
    """Blind, with many local maxima."""

    name, needs_reference, sample_rate = "liveliness", False, 8000

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None) -> Tensor:
        return torch.sin(7 * estimate).mean((1, 2)) + 0.1 * (estimate - one_step).abs().mean((1, 2))


def linear(x: Tensor) -> Tensor:
    return (0.8 * x + 0.15 * x.roll(1, -1))[:, None]


def squash(x: Tensor) -> Tensor:
    return (1.3 * torch.tanh(x))[:, None]


def shrink(x: Tensor) -> Tensor:
    """Soft threshold with an error that looks random but depends on the sample alone."""
    return (x.sign() * (x.abs() - 0.3).clamp_min(0) + 0.1 * torch.sin(1000 * x))[:, None]


def two_sources(x: Tensor) -> Tensor:
    return torch.stack((torch.tanh(0.9 * x), 0.6 * x.flip(-1) - 0.2 * x.sin()), dim=1)


class CoarseToFine:
    """Three shares, then both neighbours of the best: a search of two rounds."""

    steps, selects, wants_slopes = None, True, False

    def propose(self, trace: Trace) -> Tensor:
        items, tried = trace.ratios.shape
        if tried == 0:
            return torch.tensor([1.0, 0.5, 0.0]).expand(items, 3)
        if tried > 3:
            return torch.empty(items, 0)
        best = trace.ratios.gather(1, trace.scores.nan_to_num(-math.inf).argmax(1, keepdim=True))
        around = best + torch.tensor([0.25, -0.25])
        return around.where((around >= 0) & (around <= 1), torch.nan)

    def finished(self, trace: Trace, kept: Tensor) -> Tensor:
        assert trace.ratios.shape[1] == 5
        return kept


def coarse_to_fine(step: int, tried: list[tuple[float, float]]) -> list[float]:
    if not tried:
        return [1.0, 0.5, 0.0]
    if len(tried) > 3:
        return []
    best = max(tried, key=lambda pair: pair[1])[0]
    return [r for r in (best + 0.25, best - 0.25) if 0 <= r <= 1]


def once(shares: Callable[[int], list[float]]) -> Callable[[int, list], list[float]]:
    return lambda step, tried: [] if tried else shares(step)


BETAS = [0.1, 0.3, 0.8, 0.0, 1.0]
SEARCHES = {
    "grid": (GridSearch(K), once(lambda step: [1 - j / K for j in range(K)])),
    "grid_0": (GridSearch(K, include_estimate=True), once(lambda step: [1 - j / K for j in range(K + 1)])),
    "annealed": (
        AnnealedGridSearch(K),
        once(lambda step: [1 - ((i := step - 1) / STEPS + j * (1 - i / STEPS) / K) for j in range(K)]),
    ),
    "fixed": (FixedSchedule(BETAS), once(lambda step: [1 - BETAS[step - 1]])),
    "two_rounds": (CoarseToFine(), coarse_to_fine),
}
SEPARATORS = {"linear": linear, "squash": squash, "shrink": shrink, "two_sources": two_sources}


def plain(
    separate: Separator,
    mixture: Tensor,
    sources: list[int],
    propose: Callable[[int, list[tuple[float, float]]], list[float]],
    steps: int,
    score_of: Callable[[list[Tensor], list[Tensor]], float],
    keep_previous: bool,
    state_form: bool,
) -> tuple[list[list[Tensor]], list[float], list[float]]:
    """Trajectory, scores and ratios of one item ``(c, t)``; ``keep_previous`` False never keeps."""

    def separated(blends: list[Tensor]) -> list[Tensor]:
        return [separate(blend[None])[0, k] for blend, k in zip(blends, sources, strict=True)]

    states = [mixture for _ in sources]
    one_step = estimates = separated(states)
    score = score_of(estimates, one_step)
    trajectory, scores, ratios = [estimates], [score], []
    for step in range(1, steps + 1):
        tried: list[tuple[float, float]] = []
        found: list[tuple[float, float, list[Tensor], list[Tensor]]] = []
        while shares := propose(step, tried):
            for share in shares:
                ratio = torch.tensor(share, dtype=torch.float32)  # shares are in single precision
                r, rest = float(ratio), float(1 - ratio)
                blends = [r * x + rest * y for x, y in zip(states, estimates, strict=True)]
                candidates = separated(blends)
                tried.append((share, score_of(candidates, one_step)))
                found.append((tried[-1][1], r, candidates, blends))
        best = max(found, key=lambda candidate: candidate[:2])
        if keep_previous and not best[0] > score:
            ratios.append(math.nan)
        else:
            score, r, estimates, blends = best
            ratios.append(r)
            states = blends if state_form else states
        trajectory.append(estimates)
        scores.append(score)
    return trajectory, scores, ratios


def signals(seed: int, sources: int = 1, batch: int = 3, channels: int = 2, time: int = 40) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, sources, channels, time)
    references = torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn((batch, channels, time), generator=generator, dtype=torch.float64)
    return references.sum(1) + noise, references


@pytest.mark.parametrize("form", ["endpoint", "state"])
@pytest.mark.parametrize("keep_previous", [True, False])
@pytest.mark.parametrize("search_name", SEARCHES)
@pytest.mark.parametrize(
    ("name", "source"),
    [("linear", 0), ("squash", 0), ("shrink", 0), ("two_sources", 1), ("two_sources", "all")],
)
@pytest.mark.parametrize("quality", [Closeness(), Liveliness()], ids=lambda quality: quality.name)
def test_it_computes_what_the_plain_loop_computes(name, source, search_name, keep_previous, form, quality):
    separate = SEPARATORS[name]
    search, propose = SEARCHES[search_name]
    sources = [0, 1] if source == "all" else [source]
    steps = search.steps or STEPS
    mixture, references = signals(0, sources=2 if name == "two_sources" else 1)
    wanted = references[:, sources]
    result = refine(
        separate,
        mixture,
        source=source,
        steps=STEPS,
        search=search,
        quality=quality,
        reference=wanted if source == "all" else wanted[:, 0],
        keep_previous=keep_previous,
        blend=form,
        keep_trajectory=True,
    )
    for item in range(len(mixture)):

        def score_of(estimates: list[Tensor], one_step: list[Tensor], targets=wanted[item]) -> float:
            each = [
                quality(y[None], reference=s[None], one_step=y0[None])
                for y, s, y0 in zip(estimates, targets, one_step, strict=True)
            ]
            return float(torch.cat(each).mean().float())  # scores are compared in single precision

        keep = keep_previous and search.selects
        trajectory, scores, ratios = plain(
            separate, mixture[item], sources, propose, steps, score_of, keep, form == "state"
        )
        expected = torch.stack([torch.stack(estimates) for estimates in trajectory])
        expected = expected if source == "all" else expected[:, 0]
        close = {"rtol": 1e-9, "atol": 1e-9}
        torch.testing.assert_close(result.trajectory[:, item], expected, **close)
        torch.testing.assert_close(result.estimate[item], expected[-1], **close)
        torch.testing.assert_close(result.one_step[item], expected[0], **close)
        torch.testing.assert_close(result.scores[:, item], torch.tensor(scores), rtol=1e-6, atol=0)
        torch.testing.assert_close(
            result.ratios[:, item], torch.tensor(ratios), rtol=0, atol=0, equal_nan=True
        )


def test_the_cases_above_reach_every_branch() -> None:
    """Items move, stay and stop in one batch, and the forms differ, so the comparison can fail."""
    mixture, references = signals(0)
    result, state = (
        refine(
            shrink,
            mixture,
            steps=STEPS,
            search=GridSearch(K, include_estimate=True),
            quality=Closeness(),
            reference=references[:, 0],
            blend=form,
        )
        for form in ("endpoint", "state")
    )
    assert result.ratios.isnan().any()
    assert (result.ratios < 1).any()
    assert not torch.equal(result.estimate, state.estimate)
    assert result.evaluations.min() < 1 + STEPS * K
