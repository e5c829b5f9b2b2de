"""The published shares in exact numbers, and what refinement with them guarantees."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from encore.inference.refinement import Refinement, refine
from encore.inference.search import AnnealedGridSearch, FixedSchedule, GridSearch, Search, Trace
from encore.metrics.quality import Quality


def trace(step: int, steps: int, items: int = 2, tried: int = 0) -> Trace:
    ratios = torch.rand(items, tried)
    return Trace(
        step=step,
        steps=steps,
        ratios=ratios,
        scores=ratios,
        slopes=torch.full_like(ratios, torch.nan),
        chosen=torch.empty(step - 1, items),
        history=torch.zeros(step, items),
        mixture=torch.zeros(items, 1, 1, 2),
        estimate=torch.zeros(items, 1, 1, 2),
        calls=torch.ones(items, dtype=torch.long),
        share_calls=1,
        generator=None,
    )


def test_the_fixed_grid_has_the_published_shares() -> None:
    """The paper counts the estimate's share: 0, 0.1 .. 0.9."""
    assert GridSearch(10).shares(7, 20) == pytest.approx([1 - j / 10 for j in range(10)], rel=1e-15)
    assert GridSearch(10, include_estimate=True).shares(1, 20)[-1] == 0
    assert GridSearch().shares(1, 20) == GridSearch(10).shares(20, 20)
    assert GridSearch(1).shares(1, 1) == [1.0]


@pytest.mark.parametrize(("steps", "count"), [(20, 10), (1, 1), (3, 7)])
def test_the_annealed_grid_has_the_published_shares(steps: int, count: int) -> None:
    """The paper counts the estimate's share: ``i/T + j (1 - i/T) / K`` at steps i = 0 .. T - 1."""
    search = AnnealedGridSearch(count)
    for i in range(steps):
        published = [1 - (i / steps + j * (1 - i / steps) / count) for j in range(count)]
        assert search.shares(i + 1, steps) == pytest.approx(published, rel=1e-12)
    # only the first step meets the mixture itself, which costs nothing
    assert [1.0 in search.shares(step, steps) for step in range(1, steps + 1)] == [True] + [False] * (
        steps - 1
    )


def test_schedules_count_the_mixtures_share() -> None:
    assert [FixedSchedule([0.0, 0.25, 1.0]).shares(step, 3) for step in (1, 2, 3)] == [[1.0], [0.75], [0.0]]
    published = FixedSchedule.linear(10)
    assert published.betas == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], rel=1e-15)
    assert published.steps == 9
    assert FixedSchedule.linear(4, last=0.8).betas == pytest.approx([0.2, 0.4, 0.6, 0.8], rel=1e-15)
    assert FixedSchedule.linear(1).betas == [0.0]


SEARCHES: list[Search] = [
    GridSearch(3),
    GridSearch(3, include_estimate=True),
    AnnealedGridSearch(3),
    FixedSchedule([0.1, 0.9]),
]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_every_search_keeps_the_contract(search: Search) -> None:
    steps = search.steps or 5
    for step in range(1, steps + 1):
        shares = search.propose(trace(step, steps))
        assert shares.ndim == 2
        assert len(shares) == 2
        assert shares.shape[1] > 0
        assert bool(((shares >= 0) & (shares <= 1)).all())
        assert shares.dtype == torch.float32
        assert search.propose(trace(step, steps, tried=shares.shape[1])).shape == (2, 0)
    kept = torch.tensor([True, False])
    finished = search.finished(trace(1, steps), kept)
    assert finished.tolist() == ([True, False] if isinstance(search, GridSearch) else [False, False])
    assert search.selects == (not isinstance(search, FixedSchedule))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GridSearch(0), "candidates=0"),
        (lambda: AnnealedGridSearch(-1), "candidates=-1"),
        (lambda: FixedSchedule([]), r"betas=\[\]"),
        (lambda: FixedSchedule([0.5, 1.1]), r"betas=\[0.5, 1.1\]"),
        (lambda: FixedSchedule([math.nan]), "betas="),
        (lambda: FixedSchedule.linear(0), "steps=0"),
        (lambda: FixedSchedule.linear(3, last=2.0), "betas="),
    ],
)
def test_mistakes_are_named(build: Callable[[], Search], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# The guarantees, on separators whose Lipschitz constant is known. Norms are Euclidean, over channel and time.


class Nearness(Quality):
    """``-||y - s||``, of Lipschitz constant 1, with an error of at most ``eps`` that looks random."""

    name, needs_reference, sample_rate = "nearness", True, 8000

    def __init__(self, eps: float = 0.0) -> None:
        self.eps = eps

    def __call__(self, estimate, *, reference=None, mixture=None, one_step=None) -> Tensor:
        true = -norm(estimate - reference)
        return true + self.eps * torch.sin(1e4 * true)


def norm(signal: Tensor) -> Tensor:
    return signal.square().sum((-1, -2)).sqrt()


def steep(gain: float) -> Callable[[Tensor], Tensor]:
    """``tanh(gain x)``, of Lipschitz constant ``gain``."""
    return lambda x: torch.tanh(gain * x)[:, None]


def signals(seed: int, time: int = 30, batch: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference, noise = torch.randn(2, batch, 1, time, generator=generator, dtype=torch.float64)
    return reference + 0.7 * noise, reference


def path(separate: Callable[[Tensor], Tensor], x0: Tensor, y: Tensor, count: int = 2001) -> Tensor:
    """``f(x(r))`` for r from 0 to 1, ``(count, c, t)``, for one item ``(c, t)``."""
    r = torch.linspace(0, 1, count, dtype=x0.dtype)[:, None, None]
    return separate(r * x0 + (1 - r) * y)[:, 0]


@pytest.mark.parametrize("gain", [0.6, 2.0])
@pytest.mark.parametrize(
    ("search", "cell"),
    [(GridSearch(4, include_estimate=True), 1 / 8), (GridSearch(5), 1 / 5), (GridSearch(1), 1.0)],
)
def test_a_grid_misses_the_best_share_by_at_most_its_distance(search, cell, gain) -> None:
    """``R(y_t) >= max_r R(f(x(r))) - L_R L_f ||x_0 - y_{t-1}|| * cell``."""
    separate = steep(gain)
    mixture, reference = signals(0)
    result = refine(
        separate,
        mixture,
        steps=3,
        search=search,
        quality=Nearness(),
        reference=reference,
        keep_previous=False,
        keep_trajectory=True,
    )
    gaps = []
    for previous, after in zip(result.trajectory[:-1], result.trajectory[1:], strict=True):
        for item in range(len(mixture)):
            best = -norm(path(separate, mixture[item], previous[item]) - reference[item]).min()
            gap = best + norm(after[item] - reference[item])
            bound = gain * norm(mixture[item] - previous[item]) * cell
            assert gap <= bound
            gaps.append(float(gap))
    assert max(gaps) > 0


@pytest.mark.parametrize(
    ("search", "cell", "best_at"),
    [(GridSearch(2, include_estimate=True), 1 / 4, 0.25), (GridSearch(2), 1 / 2, 0.0)],
)
def test_that_distance_is_attained(search, cell, best_at) -> None:
    """``f(x) = |x - m| - |1 - m|`` gives 0 for the mixture 1, so share r is x = r, and is best at r = m."""

    def separate(x: Tensor) -> Tensor:
        return ((x - best_at).abs() - abs(1 - best_at))[:, None]

    mixture = torch.ones(1, 1, 1)
    reference = separate(torch.full_like(mixture, best_at))[:, 0]
    result = refine(separate, mixture, steps=1, search=search, quality=Nearness(), reference=reference)
    assert result.one_step == 0
    assert result.scores[1].tolist() == pytest.approx([-cell])


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_scores_rise_and_truth_falls_by_no_more_than_twice_the_measures_error(eps: float) -> None:
    falls = []
    for keep_previous in (True, False):
        mixture, reference = signals(1, batch=40)
        result = refine(
            steep(0.8),
            mixture,
            steps=10,
            search=GridSearch(10),
            quality=Nearness(eps),
            reference=reference,
            keep_previous=keep_previous,
            keep_trajectory=True,
        )
        truth = -norm(result.trajectory - reference)
        assert (result.scores >= result.scores[0]).all()
        assert (truth >= truth[0] - 2 * eps - 1e-6).all()
        if keep_previous:
            assert (result.scores.diff(dim=0) >= 0).all()
            # in total, from any step to any later one
            assert (truth >= truth.cummax(dim=0).values - 2 * eps - 1e-6).all()
        falls.append(float((truth.cummax(dim=0).values - truth).max()))
    assert (falls[0] > eps / 2) == (eps > 0)


def scheduled(separate: Callable[[Tensor], Tensor], mixture: Tensor, betas: list[float]) -> Refinement:
    return refine(separate, mixture, search=FixedSchedule(betas), keep_trajectory=True)


@pytest.mark.parametrize("gain", [0.6, 1.0, 3.0])
def test_the_error_of_a_step_is_bounded_by_noise_and_last_error(gain: float) -> None:
    """``||e_t|| <= delta + L_f (r ||n|| + (1 - r) ||e_{t-1}||)``."""
    betas = torch.rand(20, generator=torch.Generator().manual_seed(0)).tolist()
    mixture, reference = signals(2)
    result = scheduled(steep(gain), mixture, betas)
    delta = norm(steep(gain)(reference)[:, 0] - reference)
    errors = norm(result.trajectory - reference)
    shares = result.ratios.double()
    bound = delta + gain * (shares * norm(mixture - reference) + (1 - shares) * errors[:-1])
    assert (errors[1:] <= bound).all()


def test_a_constant_share_ends_within_the_limit_and_the_limit_is_attained() -> None:
    """``limsup ||e_t|| <= (delta + L_f r ||n||) / (1 - q)``, ``q = L_f (1 - r) < 1``."""
    share = 0.4
    mixture, reference = signals(3)
    noise = norm(mixture - reference)
    for gain in (0.9, 1.5):
        delta = norm(steep(gain)(reference)[:, 0] - reference)
        limit = (delta + gain * share * noise) / (1 - gain * (1 - share))
        assert (norm(scheduled(steep(gain), mixture, [1 - share] * 300).estimate - reference) <= limit).all()
    # f(x) = L x with s = 0 has delta = 0 and meets it
    result = scheduled(lambda x: 1.5 * x[:, None], mixture, [1 - share] * 300)
    limit = 1.5 * share * norm(mixture) / (1 - 1.5 * (1 - share))
    torch.testing.assert_close(norm(result.estimate), limit, rtol=1e-6, atol=0)


def test_the_constant_must_hold_between_blends_and_reference_too() -> None:
    """``f(x) = 5 min(x, 1)``, s = 0, x_0 = 2, y = 1: flat on the blends, yet the error is not 0."""

    def separate(x: Tensor) -> Tensor:
        return 5 * x.clamp_max(1)[:, None]

    x0, y = torch.full((1, 1), 2.0), torch.ones(1, 1)
    along = path(separate, x0, y)
    on_the_blends = float(along.diff(dim=0).abs().max())
    assert on_the_blends == 0
    # delta = 0: that constant would promise the truth itself
    assert (along == 5).all()
    r = torch.linspace(0, 1, len(along))
    assert (norm(along) <= 5 * (r * norm(x0) + (1 - r) * norm(y)) + 1e-5).all()
    result = scheduled(separate, x0[None], [0.5] * 4)
    assert (result.trajectory == 5).all()
