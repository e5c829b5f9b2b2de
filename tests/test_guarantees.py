"""What a refinement guarantees, on separators whose Lipschitz constant is known, and how near it comes to it.

Norms are Euclidean, over source, channel and time.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encore.inference import (
    GridSearch,
    Refined,
    Trajectory,
    refine,
    refine_fixed,
)
from encore.metrics import Metric, oracle
from encore.models.types import Separator


def norm(signal: Tensor) -> Tensor:
    """Return the norms ``(...,)`` of ``(..., s, c, t)``."""
    return signal.square().sum((-1, -2, -3)).sqrt()


def nearness(references: Tensor, error: float = 0.0) -> Metric:
    """Return ``-||y - s||``, of Lipschitz constant 1, and an error up to ``error`` that looks random."""

    def score(estimates: Tensor, references: Tensor) -> Tensor:
        true = -norm((estimates - references)[:, None])
        return true + error * torch.sin(1e4 * true)

    return oracle(score, references)


def steep(gain: float) -> Separator:
    """Return ``tanh(gain x)``, of Lipschitz constant ``gain``."""
    return lambda x: torch.tanh(gain * x)[:, None]


def signals(seed: int, time: int = 30, batch: int = 8) -> tuple[Tensor, Tensor]:
    """Return mixtures ``(b, 1, t)`` and references ``(b, 1, 1, t)``."""
    generator = torch.Generator().manual_seed(seed)
    reference, noise = torch.randn(2, batch, 1, time, generator=generator, dtype=torch.float64)
    return reference + 0.7 * noise, reference[:, None]


def all_candidates(separate: Separator, x0: Tensor, y: Tensor, count: int = 2001) -> Tensor:
    """Return ``f(x(r))`` for r from 0 to 1, ``(count, 1, c, t)``, for one item ``(c, t)``."""
    r = torch.linspace(0, 1, count, dtype=x0.dtype)[:, None, None]
    return separate(r * x0 + (1 - r) * y)


@pytest.mark.parametrize("gain", [0.6, 2.0])
def test_a_grid_misses_the_best_ratio_by_at_most_its_distance(gain) -> None:
    """``R(y_t) >= max_r R(f(x(r))) - L_R L_f ||x_0 - y_{t-1}|| * cell``."""
    separate = steep(gain)
    mixture, references = signals(0)
    for search, cell in (
        (GridSearch(4, include_estimate=True, steps=3, keep_best=False), 1 / 8),
        (GridSearch(5, steps=3, keep_best=False), 1 / 5),
        (GridSearch(1, steps=3, keep_best=False), 1.0),
    ):
        steps = Trajectory()
        result = refine(separate, mixture, nearness(references), search, callback=steps)
        assert steps.numbers == [1, 2, 3]
        gaps = []
        for previous, after in zip([result.one_step, *steps.estimates[:-1]], steps.estimates, strict=True):
            for item in range(len(mixture)):
                candidates = all_candidates(separate, mixture[item], previous[item, 0])
                best = -norm(candidates - references[item]).min()
                gap = best + norm(after[item] - references[item])
                assert gap <= gain * norm((mixture[item] - previous[item, 0])[None]) * cell
                gaps.append(float(gap))
        assert max(gaps) > 0


def test_that_distance_is_attained() -> None:
    """``f(x) = |x - m| - |1 - m|`` gives 0 for the mixture 1, so ratio r is x = r, and is best at r = m."""
    for search, cell, best_at in (
        (GridSearch(2, include_estimate=True, steps=1), 1 / 4, 0.25),
        (GridSearch(2, steps=1), 1 / 2, 0.0),
    ):

        def separate(x: Tensor, best_at: float = best_at) -> Tensor:
            return ((x - best_at).abs() - abs(1 - best_at))[:, None]

        mixture = torch.ones(1, 1, 1)
        references = separate(torch.full_like(mixture, best_at))
        result = refine(separate, mixture, nearness(references), search)
        assert result.one_step == 0
        assert result.scores[1].tolist() == pytest.approx([-cell])


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_scores_rise_and_truth_falls_by_no_more_than_twice_the_qualitys_error(error: float) -> None:
    falls = []
    for keep_best in (True, False):
        mixture, references = signals(1, batch=40)
        steps = Trajectory()
        search = GridSearch(10, steps=10, keep_best=keep_best)
        result = refine(steep(0.8), mixture, nearness(references, error), search, callback=steps)
        truth = -norm(torch.stack([result.one_step, *steps.estimates]) - references)
        assert (result.scores >= result.scores[0]).all()
        assert (truth >= truth[0] - 2 * error - 1e-6).all()
        if keep_best:
            assert (result.scores.diff(dim=0) >= 0).all()
            # in total, from any step to any later one
            assert (truth >= truth.cummax(dim=0).values - 2 * error - 1e-6).all()
        falls.append(float((truth.cummax(dim=0).values - truth).max()))
    assert (falls[0] > error / 2) == (error > 0)


def scheduled(separate: Separator, mixture: Tensor, ratios: Tensor) -> tuple[Refined, Tensor]:
    """Return a refinement and its estimates ``(steps + 1, b, s, c, t)``."""
    steps = Trajectory()
    result = refine_fixed(separate, mixture, ratios, callback=steps)
    return result, torch.stack([result.one_step, *steps.estimates])


def test_the_error_of_a_step_is_bounded_by_noise_and_last_error() -> None:
    """``||e_t|| <= delta + L_f (r ||n|| + (1 - r) ||e_{t-1}||)``."""
    ratios = torch.rand(20, generator=torch.Generator().manual_seed(0))
    mixture, references = signals(2)
    for gain in (0.6, 1.0, 3.0):
        result, estimates = scheduled(steep(gain), mixture, ratios)
        delta = norm(steep(gain)(references[:, 0]) - references)
        errors = norm(estimates - references)
        r, noise = result.ratios.double(), norm(mixture[:, None] - references)
        assert (errors[1:] <= delta + gain * (r * noise + (1 - r) * errors[:-1])).all()


def test_a_constant_ratio_ends_within_the_limit_and_the_limit_is_attained() -> None:
    """``limsup ||e_t|| <= (delta + L_f r ||n||) / (1 - q)``, ``q = L_f (1 - r) < 1``."""
    ratio = 0.4
    ratios = torch.full((300,), ratio)
    mixture, references = signals(3)
    noise = norm(mixture[:, None] - references)
    for gain in (0.9, 1.5):
        delta = norm(steep(gain)(references[:, 0]) - references)
        limit = (delta + gain * ratio * noise) / (1 - gain * (1 - ratio))
        assert (norm(refine_fixed(steep(gain), mixture, ratios).estimates - references) <= limit).all()
    # f(x) = L x with s = 0 has delta = 0 and reaches it
    result = refine_fixed(lambda x: 1.5 * x[:, None], mixture, ratios)
    limit = 1.5 * ratio * norm(mixture[:, None]) / (1 - 1.5 * (1 - ratio))
    torch.testing.assert_close(norm(result.estimates), limit, rtol=1e-6, atol=0)


def test_the_constant_must_hold_between_inputs_and_reference_too() -> None:
    """``f(x) = 5 min(x, 1)``, s = 0, x_0 = 2, y = 1: flat on the inputs, yet the error is not 0."""

    def separate(x: Tensor) -> Tensor:
        return 5 * x.clamp_max(1)[:, None]

    x0, y = torch.full((1, 1), 2.0), torch.ones(1, 1)
    along = all_candidates(separate, x0, y)
    assert float(along.diff(dim=0).abs().max()) == 0
    # delta = 0: that constant would promise the truth itself
    assert (along == 5).all()
    r = torch.linspace(0, 1, len(along))
    assert (norm(along) <= 5 * (r * norm(x0[None]) + (1 - r) * norm(y[None])) + 1e-5).all()
    assert (scheduled(separate, x0[None], torch.full((4,), 0.5))[1] == 5).all()
