"""Constants and bounds on maps where they are known, and what a refinement guarantees."""

from __future__ import annotations

import math

import pytest
import torch
from prior_toys import generator
from separator_toys import close, noise
from torch import Tensor

from encore.inference import GridSearch, Trajectory, refine, refine_fixed
from encore.inference.probing import band_levels, layer_statistics, linear_probe
from encore.inference.theory import (
    check_refinement,
    guide_error,
    ideal_linear_errors,
    norms,
    path_errors,
    secant,
    worst_gain,
)
from encore.metrics import get_metric


def test_errors_along_the_path_of_a_gain_are_written_out() -> None:
    reference, mixture = noise(1, 2, 500), noise(1, 2, 500, seed=1)
    ratios = [0.0, 0.4, 1.0]
    found = path_errors(lambda x: 0.8 * x, reference, mixture, ratios)
    expected = [
        (0.8 * (reference + r * (mixture - reference)) - reference).norm() / reference.norm() for r in ratios
    ]
    close(found.float(), torch.stack(expected))


def test_the_ideal_filter_is_wieners_for_white_noise_and_perfect_apart() -> None:
    """Sources in other bands cost nothing; white ones of power 1 and r^2 g leave r^2 g / (1 + r^2 g)."""
    white, other = noise(1, 1, 200_000), noise(1, 1, 200_000, seed=1)
    errors = ideal_linear_errors(white, white + 2 * other, [0.0, 0.5, 1.0], window=64)
    assert float(errors[0]) < 1e-6
    for error, gain in zip(errors[1:], (1.0, 4.0), strict=True):
        assert float(error) ** 2 == pytest.approx(gain / (1 + gain), rel=0.01)
    time = torch.arange(16000) / 16000
    low, high = (
        torch.sin(2 * math.pi * 500 * time)[None, None],
        torch.sin(2 * math.pi * 4000 * time)[None, None],
    )
    assert float(ideal_linear_errors(low, low + high, [1.0])[0]) < 0.02


@pytest.mark.parametrize("shape", [(1, 1, 40), (3, 2, 20)])
def test_the_worst_gain_is_the_largest_singular_value(shape: tuple[int, ...]) -> None:
    size = shape[1] * shape[2]
    matrix = torch.randn(size, size, generator=generator())
    matrix = matrix @ torch.diag(torch.tensor([3.0, *[0.5] * (size - 1)])) @ torch.linalg.qr(matrix)[0]

    def f(x: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix.T).reshape(x.shape)

    found = worst_gain(f, noise(*shape), iterations=30, generator=generator())
    largest = torch.linalg.svdvals(matrix)[0]
    torch.testing.assert_close(found.float(), largest.expand(shape[0]), rtol=1e-3, atol=0)


def test_the_worst_gain_of_a_curve_is_its_steepest_slope_where_it_stands() -> None:
    found = worst_gain(torch.tanh, torch.tensor([[[0.0, 2.0]]]), iterations=20, generator=generator())
    assert float(found) == pytest.approx(1, rel=1e-4)


def test_a_secant_of_a_gain_is_the_gain() -> None:
    x = noise(2, 1, 50)
    torch.testing.assert_close(
        secant(lambda x: -3 * x, x, noise(2, 1, 50, seed=1)).float(), torch.full((2,), 3.0)
    )
    assert bool(secant(lambda x: x, x, x).isnan().all())


def uneven(x: Tensor) -> Tensor:
    """Folds and saturates: anything but linear."""
    return 0.6 * x + 0.3 * (4 * x).sin() / 4 + 0.1 * x.roll(3, -1).abs()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("candidates", [2, 3, 6])
def test_bounds_hold_on_an_uneven_map(seed: int, candidates: int) -> None:
    reference = noise(1, 2, 64, seed=seed) * 10
    mixture = reference + noise(1, 2, 64, seed=seed + 100) * 8
    checks = checked(uneven, mixture, reference, candidates, keep_best=seed % 2 == 0)
    assert len(checks) == 3
    for check in checks:
        assert check.score >= check.grid_bound - 1e-6
        assert check.score <= check.best + 1e-6
        if not math.isnan(check.ratio):
            assert check.error <= check.signal_bound * (1 + 1e-6)
            assert check.error == pytest.approx(10 ** (-check.score / 20), rel=1e-5)


def checked(f, mixture: Tensor, reference: Tensor, candidates: int, steps: int = 3, keep_best: bool = True):
    search = GridSearch(candidates - 1, include_estimate=True, steps=steps, keep_best=keep_best)
    trajectory = Trajectory()
    refined = refine(
        lambda x: f(x)[:, None],
        mixture,
        get_metric("usdr", sample_rate=16000).bind(references=reference[:, None]),
        search,
        callback=trajectory,
    )
    estimates = [estimates[:, 0] for estimates in (refined.one_step, *trajectory.estimates)]
    ratios = refined.ratios[:, 0].tolist()
    return check_refinement(f, estimates, ratios, mixture, reference, candidates=candidates)


def test_the_grid_bound_is_nearly_attained_by_a_kink_between_the_ratios() -> None:
    """The error has its smallest value in the middle, which a grid of two ends never tries."""
    reference, mixture = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.31]]])

    def f(x: Tensor) -> Tensor:
        return torch.stack((torch.ones_like(x[..., 0]), 0.1 + 0.1 * (x[..., 1] - 0.21).abs()), dim=-1)

    (check,) = checked(f, mixture, reference, 2, steps=1)
    allowed, missed = check.best - check.grid_bound, check.best - check.score
    assert missed == pytest.approx(20 * math.log10(1.1), rel=1e-4)
    assert 0.9 * allowed < missed < allowed


def test_constants_of_a_gain_are_known() -> None:
    reference, mixture = noise(1, 1, 100), noise(1, 1, 100, seed=1)
    (check,) = checked(lambda x: 0.5 * x, mixture, reference, 3, steps=1)
    assert check.lipschitz == pytest.approx(0.5, rel=1e-4)
    assert check.secant == pytest.approx(0.5, rel=1e-4)
    shrinks = 0.5 * (1 - check.ratio)
    far = float(norms(mixture - reference) / norms(reference))
    assert check.limit == pytest.approx((0.5 + 0.5 * check.ratio * far) / (1 - shrinks), rel=1e-4)


def in_noise(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return references and mixtures ``(b, 1, 30)`` in float64."""
    reference, other = torch.randn(2, batch, 1, 30, generator=generator(seed), dtype=torch.float64)
    return reference, reference + 0.7 * other


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_scores_rise_and_truth_falls_by_no_more_than_twice_the_qualitys_error(error: float) -> None:
    reference, mixture = in_noise(40, seed=1)

    def truth(estimates: Tensor) -> Tensor:
        return -norms((estimates[..., 0, :, :] - reference).flatten(0, -3)).unflatten(0, estimates.shape[:-3])

    def score(estimates: Tensor) -> Tensor:
        return truth(estimates) + error * torch.sin(1e4 * truth(estimates))  # an error that looks random

    falls = []
    for keep_best in (True, False):
        steps, search = Trajectory(), GridSearch(10, steps=10, keep_best=keep_best)
        found = refine(lambda x: torch.tanh(0.8 * x)[:, None], mixture, score, search, callback=steps)
        true = torch.stack([truth(estimates) for estimates in (found.one_step, *steps.estimates)])
        assert (found.scores >= found.scores[0]).all()
        assert (true >= true[0] - 2 * error - 1e-6).all()
        if keep_best:
            assert (found.scores.diff(dim=0) >= 0).all()
            # in total, from any step to any later one
            assert (true >= true.cummax(dim=0).values - 2 * error - 1e-6).all()
        falls.append(float((true.cummax(dim=0).values - true).max()))
    assert (falls[0] > error / 2) == (error > 0)


def test_a_constant_ratio_ends_within_the_limit_and_the_limit_is_attained() -> None:
    """``limsup ||e_t|| <= (delta + L_f r ||n||) / (1 - q)``, ``q = L_f (1 - r) < 1``."""
    ratio, ratios = 0.4, torch.full((300,), 0.4)
    reference, mixture = in_noise(8, seed=3)
    for gain in (0.9, 1.5):

        def steep(x: Tensor, gain: float = gain) -> Tensor:
            return torch.tanh(gain * x)[:, None]

        delta = norms(steep(reference)[:, 0] - reference)
        limit = (delta + gain * ratio * norms(mixture - reference)) / (1 - gain * (1 - ratio))
        assert (norms(refine_fixed(steep, mixture, ratios).estimates[:, 0] - reference) <= limit).all()
    # f(x) = L x with s = 0 has delta = 0 and reaches it
    found = refine_fixed(lambda x: 1.5 * x[:, None], mixture, ratios).estimates[:, 0]
    limit = 1.5 * ratio * norms(mixture) / (1 - 1.5 * (1 - ratio))
    torch.testing.assert_close(norms(found), limit, rtol=1e-6, atol=0)


def test_the_constant_must_hold_between_inputs_and_reference_too() -> None:
    """``f(x) = 5 min(x, 1)``, s = 0, x_0 = 2, y = 1: flat on the inputs, yet the error is not 0."""
    x0, r = torch.full((1, 1, 1), 2.0), torch.linspace(0, 1, 101)[:, None, None]

    def separate(x: Tensor) -> Tensor:
        return 5 * x.clamp_max(1)[:, None]

    # delta = 0 and a slope of 0 would promise the truth itself; a secant that reaches to s does not
    assert (separate(r * x0 + (1 - r)) == 5).all()
    assert (5 * (r * x0 + (1 - r)) >= 5).all()
    assert (refine_fixed(separate, x0, torch.full((4,), 0.5)).estimates == 5).all()


def test_the_error_of_a_guide_is_the_distance_from_the_best_line() -> None:
    true = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert guide_error(3 * true + 1, true) == pytest.approx(0, abs=1e-9)
    assert guide_error(-true, true) == pytest.approx(1.5)
    assert guide_error(true + torch.tensor([0.1, -0.1, -0.1, 0.1]), true) == pytest.approx(0.1, rel=0.2)


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    drawn = generator()
    items = [item for item in range(20) for _ in range(5)]
    target = torch.rand(100, generator=drawn)
    known = torch.cat((target[:, None] * 3, torch.randn(100, 30, generator=drawn)), dim=1)
    assert linear_probe(known, target, items).explained > 0.95
    assert linear_probe(torch.randn(100, 30, generator=drawn), target, items).explained < 0.1
    with pytest.raises(ValueError, match="items: 1 in folds=20"):
        linear_probe(known[:5], target[:5], items[:5])


def test_layers_are_recorded_once_in_their_order() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.LSTM(4, 2))
    found = layer_statistics(network, torch.ones(3, 4))
    assert found.shape == (6,)
    given = network[0](torch.ones(3, 4)).detach().double()
    size = float(given.square().mean().sqrt())
    assert found[:2].tolist() == pytest.approx([float(given.mean()) / size, float(given.abs().mean()) / size])
    assert not any(layer._forward_hooks for layer in network)


def test_band_levels_ignore_the_level() -> None:
    x = noise(1, 2, 4000)
    close(band_levels(5 * x), band_levels(x))
    assert band_levels(x).shape == (24,)
