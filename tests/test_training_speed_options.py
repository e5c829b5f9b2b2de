"""What makes training fast or robust changes neither what is learnt nor what is saved."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from toys import Gain, squared_error, toy_trainer

from encore.cli.overrides import CONFIGS
from encore.lightning_modules.schedules import warmup_cosine
from encore.lightning_modules.separation import SeparationModule
from encore.models.acceleration import compile_blocks, has_bfloat16_lstm, wrap_blocks
from encore.models.costs import macs_per_second
from encore.models.separators.bsrnn import BSRNN


def batches(*levels: float) -> DataLoader[Any]:
    """Batches of one item whose reference is 1 where the mixture is the level."""
    items = [
        {"mixture": torch.full((1, 1, 4), level), "references": torch.ones(1, 1, 1, 4), "names": ["a"]}
        for level in levels
    ]
    return DataLoader(items, batch_size=None)


def fitted(module: SeparationModule, loader: DataLoader[Any], **options: Any) -> Trainer:
    trainer = toy_trainer(Path(), max_epochs=-1, **options)
    trainer.fit(module, loader)
    return trainer


def module(**options: Any) -> SeparationModule:
    return SeparationModule(Gain(), squared_error, optimizer=partial(torch.optim.SGD, lr=0.1), **options)


def test_the_schedule_counts_optimiser_steps_not_batches() -> None:
    schedule = partial(warmup_cosine, warmup=0, steps=4)
    trained = module(scheduler=schedule)
    rates = []
    step = trained.optimizer_step

    def watched(*arguments: Any, **options: Any) -> None:
        rates.append(trained.optimizers().param_groups[0]["lr"])
        step(*arguments, **options)

    trained.optimizer_step = watched  # type: ignore[method-assign]
    trainer = fitted(trained, batches(*[1.0] * 12), accumulate_grad_batches=3, max_steps=4)
    assert trainer.global_step == 4
    falls = [0.5 + 0.5 * math.cos(math.pi * step / 4) for step in range(4)]
    assert rates == pytest.approx([0.1 * (0.02 + 0.98 * fall) for fall in falls])


def test_a_step_that_is_not_finite_raises_unless_it_may_be_skipped_but_not_too_many_in_a_row() -> None:
    nan = float("nan")
    with pytest.raises(ValueError, match=r"loss is nan at step 1 \(items a\)"):
        fitted(module(), batches(1.0, nan), max_steps=2)
    alone, trained = module(), module(nonfinite="skip", skip_limit=2)
    fitted(alone, batches(1.0, 1.0), max_steps=2)
    trainer = fitted(trained, batches(nan, 1.0, nan, 1.0), max_steps=4)
    assert torch.equal(trained.separator.weight, alone.separator.weight)
    assert float(trainer.callback_metrics["train/skipped"]) == 2
    with pytest.raises(ValueError, match="2 steps in a row, up to step 2, had gradients"):
        fitted(module(nonfinite="skip", skip_limit=2), batches(1.0, nan, nan), max_steps=3)
    with pytest.raises(ValueError, match="nonfinite='ignore'"):
        module(nonfinite="ignore")


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({"gradient_clip_val": 0.25}, 0.25),
        ({"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}, 0.5),
        ({"gradient_clip_val": None}, 80.0),
    ],
)
def test_gradients_are_clipped_and_their_norm_before_is_logged(options: dict[str, Any], used: float) -> None:
    trained = module()
    trainer = fitted(trained, batches(10.0), max_steps=1, **options)
    # the gradient is 2 x 10 (0.5 x 10 - 1) = 80 before
    assert float(trained.separator.weight.detach()) == pytest.approx(0.5 - 0.1 * used, rel=1e-5)
    assert float(trainer.callback_metrics["train/gradient_norm"]) == pytest.approx(80.0)
    assert float(trainer.callback_metrics["train/learning_rate"]) == pytest.approx(0.1)


def small() -> BSRNN:
    torch.manual_seed(0)
    return BSRNN(features=8, layers=2, sample_rate=8000)


def test_compiled_blocks_learn_the_same_under_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    # what the C++ compiler would be given
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    compiled, plain = small(), small()
    # as train.py does; in the other order nothing would be compiled
    macs_per_second(compiled)
    assert compile_blocks(compiled) == 4
    with pytest.raises(ValueError, match="Gain repeats none of"):
        compile_blocks(Gain())
    assert list(compiled.state_dict()) == list(plain.state_dict())
    # averaging callbacks copy a network before it is trained
    assert list(deepcopy(compiled).state_dict()) == list(plain.state_dict())
    needed = []
    for items, time in ((3, 4000), (2, 5000), (2, 4500)):
        mixture = torch.randn(items, 1, time, generator=torch.Generator().manual_seed(items))
        for network in (compiled, plain):
            network.zero_grad()
            network(mixture).square().mean().backward()
        for (name, ours), theirs in zip(compiled.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
        needed.append(len(graphs))
    assert needed[0] == needed[2] > 0
    assert not any("stft" in str(node.target) for graph in graphs for node in graph.graph.nodes)


@pytest.mark.parametrize(
    "model", ["bsrnn_xtiny", "conv_tasnet_tiny", "dprnn_tasnet_tiny", "dptnet_tiny", "sudormrf_tiny"]
)
def test_every_family_has_blocks_and_gives_float32_in_mixed_precision(model: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        separator = instantiate(compose("train", overrides=[f"model={model}", "data.root=x"]).model)
    wrapped = [part for part in separator.modules() if wrap_blocks(part, False, 0)]
    assert len(wrapped) >= 2
    assert len({type(part) for part in wrapped}) == 1
    if model == "bsrnn_xtiny" and not has_bfloat16_lstm():
        pytest.skip("no LSTM in bfloat16 on this CPU")
    with torch.autocast("cpu", torch.bfloat16):
        estimates = separator(torch.randn(1, 1, 4000))
    assert estimates.dtype == torch.float32


def test_the_fused_global_norm_is_asteroids() -> None:
    from asteroid.masknn.norms import GlobLN

    from encore.models.separators.asteroid import AsteroidSeparator, _GlobalNorm

    torch.manual_seed(0)
    options = {"n_filters": 16, "bn_chan": 8, "hid_chan": 12, "skip_chan": 8, "n_blocks": 2, "n_repeats": 1}
    separator = AsteroidSeparator("ConvTasNet", ["speech"], 8000, options=options)
    assert not any(isinstance(part, GlobLN) for part in separator.modules())
    ours = next(part for part in separator.modules() if isinstance(part, _GlobalNorm))
    theirs = GlobLN(len(ours.gamma)).double()
    with torch.no_grad():
        ours.gamma.normal_()
        ours.beta.normal_()
    theirs.load_state_dict(ours.state_dict())
    for shape in ((3, len(ours.gamma), 50), (2, len(ours.gamma), 5, 7)):
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        given = x.detach().float().requires_grad_()
        expected, found = theirs(x), ours(given)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        weights = torch.randn(shape, dtype=torch.float64)
        (expected * weights).sum().backward()
        (found * weights.float()).sum().backward()
        torch.testing.assert_close(given.grad.double(), x.grad, rtol=1e-4, atol=1e-4)
