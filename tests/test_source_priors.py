"""Priors of several sources in one call, and the loss that guides them against its sum written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prior_toys import CLASSES, generator, solved, toy_prior
from separator_toys import noise
from torch import Tensor

from encore.inference.guidance import LossGuidance, hybrid
from encore.inference.posterior import Ancestral
from encore.inference.reconstruction import ReconstructionLoss
from encore.inference.source_priors import PriorBank, SourcePrior


def test_sources_that_share_a_model_are_one_call_with_the_same_result() -> None:
    prior = toy_prior(classes=CLASSES)
    other = toy_prior(seed=1)
    calls: list[int] = []
    plain = prior.forward
    prior.forward = lambda state, *rest: calls.append(len(state)) or plain(state, *rest)
    priors = [
        SourcePrior(model=prior, label=1),
        SourcePrior(model=other),
        SourcePrior(model=prior, label=2, class_guidance=0.5),
        SourcePrior(model=prior),
    ]
    levels = prior.diffusion.levels()
    states, alpha_bar = 0.3 * torch.randn(2, 4, 1, 300), float(levels.alpha_bar[7])
    together = PriorBank(priors)(states, alpha_bar)
    assert calls == [8]
    calls.clear()
    apart = PriorBank(priors, batched=False)(states, alpha_bar)
    assert calls == [2, 4, 2]
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)
    level = torch.full((2,), alpha_bar, dtype=torch.float64)
    with_class = prior(states[:, 2], level, torch.tensor([2, 2]))
    without = prior(states[:, 2], level, torch.tensor([3, 3]))
    torch.testing.assert_close(together[:, 2], 1.5 * with_class - 0.5 * without, atol=1e-5, rtol=1e-4)
    loud = SourcePrior(model=prior, label=1, class_guidance=50.0)
    assert float(PriorBank([loud])(30 * states[:, :1], alpha_bar).abs().max()) == prior.limit
    torch.testing.assert_close(together[:, 3], prior(states[:, 3], level), atol=1e-5, rtol=1e-4)
    assert PriorBank(priors).evaluations == 5


def test_checkpointed_gradients_are_the_same_and_keep_less() -> None:
    prior = SourcePrior(model=toy_prior())
    mixture = 0.1 * torch.randn(1, 1, 300, generator=generator())
    levels = prior.model.diffusion.levels(3)
    kept: dict[bool, int] = {}
    found: dict[bool, Tensor] = {}
    for again in (False, True):
        prior.model.network.checkpointing = again
        sizes: list[int] = []

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        solver = Ancestral(guidance=LossGuidance(schedule=hybrid()))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            sample = solved(solver, [prior, prior], mixture, levels, generator=generator(1))
        kept[again], found[again] = sum(sizes), sample.estimates
    torch.testing.assert_close(found[False], found[True])
    assert kept[True] < 0.5 * kept[False]


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
