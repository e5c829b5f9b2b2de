"""The loss that guides priors, against its sum written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from separator_toys import noise

from encore.inference.reconstruction import ReconstructionLoss


def written_out(estimate: np.ndarray, mixture: np.ndarray) -> float:
    """The published loss of one channel, by loops."""
    difference = mixture - estimate
    total = np.sqrt((difference**2).sum())
    for start in range(0, len(difference), 125):
        total += 0.05 * np.sqrt((difference[start : start + 125] ** 2).sum())
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    gap = 0.0
    padded_e, padded_m = np.pad(estimate, 256), np.pad(mixture, 256)
    for start in range(0, len(padded_m) - 511, 256):
        frames = [np.fft.rfft(window * signal[start : start + 512]) for signal in (padded_e, padded_m)]
        gap += ((np.abs(frames[0]) - np.abs(frames[1])) ** 2).sum()
    return float(total + 0.1 * np.sqrt(gap))


@pytest.mark.parametrize("time", [1000, 4000, 1003])
def test_it_is_the_published_sum(time: int) -> None:
    estimate, mixture = noise(2, 1, time).double(), noise(2, 1, time, seed=1).double()
    found = ReconstructionLoss()(estimate, mixture)
    for item in range(2):
        expected = written_out(estimate[item, 0].numpy(), mixture[item, 0].numpy())
        assert float(found[item]) == pytest.approx(expected, rel=1e-9)


def test_terms_can_be_left_out() -> None:
    estimate, mixture = noise(1, 1, 1000), noise(1, 1, 1000, seed=1)
    whole = ReconstructionLoss()(estimate, mixture)
    parts = [
        ReconstructionLoss(**({"time": 0.0, "chunks": 0.0, "spectral": 0.0} | {name: weight}))(
            estimate, mixture
        )
        for name, weight in (("time", 1.0), ("chunks", 0.05), ("spectral", 0.1))
    ]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(parts[0], (estimate - mixture).norm()[None])


def test_gradients_are_finite_where_nothing_is_missing_and_in_silence() -> None:
    mixture = torch.cat((noise(1, 1, 600), torch.zeros(1, 1, 600)), dim=-1)
    estimate = mixture.clone().requires_grad_(True)
    ReconstructionLoss()(estimate, mixture).sum().backward()
    assert bool(torch.isfinite(estimate.grad).all())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"time": -1.0}, r"time=-1\.0"),
        ({"time": 0.0, "chunks": 0.0, "spectral": 0.0}, "one above 0"),
        ({"chunk": 0}, "chunk=0"),
        ({"hop": 600}, "hop=600"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ReconstructionLoss(**options)


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="differ"):
        ReconstructionLoss()(noise(1, 1, 100), noise(1, 1, 99))
