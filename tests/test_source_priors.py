"""Priors of several sources in one call: shared models, guidance by class, memory."""

from __future__ import annotations

import torch
from prior_toys import CLASSES, generator, solved, toy_prior
from torch import Tensor

from encore.inference.guidance import LossGuidance, hybrid
from encore.inference.posterior import Ancestral
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
