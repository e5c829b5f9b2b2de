"""The loss that guides priors, against its sum written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from separator_toys import noise

from encore.inference.reconstruction import ReconstructionLoss


def written_out(estimate: np.ndarray, mixture: np.ndarray, weights: tuple[float, float, float]) -> float:
    """The published loss of one channel, by loops."""
    difference = mixture - estimate
    total = weights[0] * np.sqrt((difference**2).sum())
    for start in range(0, len(difference), 125):
        total += weights[1] * np.sqrt((difference[start : start + 125] ** 2).sum())
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    gap = 0.0
    padded_e, padded_m = np.pad(estimate, 256), np.pad(mixture, 256)
    for start in range(0, len(padded_m) - 511, 256):
        frames = [np.fft.rfft(window * signal[start : start + 512]) for signal in (padded_e, padded_m)]
        gap += ((np.abs(frames[0]) - np.abs(frames[1])) ** 2).sum()
    return float(total + weights[2] * np.sqrt(gap))


@pytest.mark.parametrize("weights", [(1.0, 0.05, 0.1), (2.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 4.0)])
@pytest.mark.parametrize("time", [1000, 1003])
def test_it_is_the_published_sum_of_the_terms_that_have_a_weight(time: int, weights: tuple) -> None:
    estimate, mixture = noise(2, 1, time).double(), noise(2, 1, time, seed=1).double()
    loss = ReconstructionLoss(time=weights[0], chunks=weights[1], spectral=weights[2])
    found = loss(estimate, mixture)
    for item in range(2):
        expected = written_out(estimate[item, 0].numpy(), mixture[item, 0].numpy(), weights)
        assert float(found[item]) == pytest.approx(expected, rel=1e-9)
    if weights == (1.0, 0.05, 0.1):
        assert torch.equal(found, ReconstructionLoss()(estimate, mixture))


def test_gradients_are_finite_where_nothing_is_missing_and_in_silence() -> None:
    mixture = torch.cat((noise(1, 1, 600), torch.zeros(1, 1, 600)), dim=-1)
    estimate = mixture.clone().requires_grad_(True)
    ReconstructionLoss()(estimate, mixture).sum().backward()
    assert bool(torch.isfinite(estimate.grad).all())
