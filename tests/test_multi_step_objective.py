"""The multi-step objective by hand: a separator that only scales, so that every pass is a number."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from toys import Gain, squared_error

from encore.data.mixing import random_ratios
from encore.lightning_modules.data_mixing import DataMixing
from encore.lightning_modules.losses import PermutationInvariant, negative_snr
from encore.lightning_modules.separation import SeparationModule


def loss_of(policy: DataMixing, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of mixtures of ones whose references are ``wanted`` ``(b,)``, and its gradient by the gain."""
    module = SeparationModule(
        Gain(0.6, torch.float64), squared_error, optimizer=torch.optim.SGD, mixing=policy
    )
    mixture = torch.ones(len(wanted), 1, 5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(7)
    loss = module._batch_loss(mixture, wanted[:, None, None, None] * mixture[:, None], generator)
    (slope,) = torch.autograd.grad(loss, module.separator.weight)
    return loss.detach(), slope


def by_hand(policy: DataMixing, wanted: Tensor) -> tuple[Tensor, Tensor]:
    gain = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    estimate, items = gain.expand(len(wanted)), len(wanted)
    losses, weights = [(estimate - wanted).square()], [policy.first_weight]
    generator = torch.Generator().manual_seed(7)
    torch.randint(1, (items,), generator=generator)  # the source that each item refines
    draw = partial(random_ratios, items, policy.ratio_beta, generator=generator, device=torch.device("cpu"))
    for _ in range(policy.unroll):
        ratios = [draw() for _ in range(policy.candidates)]
        tries = torch.stack([gain * (r + (1 - r) * estimate) for r in ratios])
        best = (tries - wanted).square().argmin(0)
        estimate = tries[best, torch.arange(items)]
        losses.append((estimate - wanted).square())
        weights.append(1.0)
    loss = sum(w * x.mean() for w, x in zip(weights, losses, strict=True)) / sum(weights)
    (slope,) = torch.autograd.grad(loss, gain)
    return loss.detach(), slope


@pytest.mark.parametrize("first_weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("unroll", [1, 3])
def test_loss_and_gradient_are_those_by_hand(unroll, candidates, first_weight) -> None:
    policy = DataMixing(unroll=unroll, candidates=candidates, first_weight=first_weight, ratio_beta=0.5)
    wanted = torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64)
    for ours, expected in zip(loss_of(policy, wanted), by_hand(policy, wanted), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)


class Swapping(nn.Module):
    """Two speakers, scaled, in an order that changes with every call."""

    sources = ("speaker1", "speaker2")

    def __init__(self, steady: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.6))
        self.steady, self.calls = steady, 0

    def forward(self, mixture: Tensor) -> Tensor:
        parts = self.gain * torch.stack((mixture.clamp_min(0), mixture.clamp_max(0)), dim=1)
        self.calls += 1
        return parts if self.steady or self.calls % 2 else parts.flip(1)


def test_speakers_that_change_places_lose_nothing() -> None:
    mixture = torch.randn(3, 1, 40, generator=torch.Generator().manual_seed(1))
    references = torch.stack((mixture.clamp_min(0), mixture.clamp_max(0)), dim=1)
    loss = PermutationInvariant(negative_snr)

    def of(steady: bool) -> Tensor:
        policy = DataMixing(unroll=3, ratio_beta=0.5)
        module = SeparationModule(Swapping(steady), loss, optimizer=torch.optim.SGD, mixing=policy)
        return module._batch_loss(mixture, references, torch.Generator().manual_seed(3)).detach()

    assert of(steady=False).item() == pytest.approx(of(steady=True).item(), rel=1e-6)
