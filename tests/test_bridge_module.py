"""Training of bridges."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from bridge_toys import toy_bridge
from separator_toys import noise
from torch import Tensor
from toys import Shrink, toy_data, toy_trainer

from encore.callbacks.bridge_probe import BridgeProbe
from encore.lightning_modules.bridge import BridgeModule
from encore.lightning_modules.data_mixing import DataMixing
from encore.lightning_modules.losses import CompressedL2, FixedOrder, negative_snr


def module(**options) -> BridgeModule:
    separator = options.pop("separator", None) or toy_bridge(domain=options.pop("domain", "waveform"))
    loss = options.pop("loss", None) or FixedOrder(CompressedL2(16000))
    optimizer = partial(torch.optim.Adam, lr=3e-3)
    return BridgeModule(separator, loss=loss, optimizer=optimizer, **options)


def losses_at(trained: BridgeModule, t: Tensor, mixture: Tensor, references: Tensor) -> Tensor:
    return trained._losses_at(t, mixture, references, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("domain", ["waveform", "compressed"])
def test_training_lowers_the_loss_along_the_whole_path_and_is_probed(
    domain: str, tmp_path: Path, corpus: Path
) -> None:
    trained, data = module(domain=domain, loss=FixedOrder(negative_snr)), toy_data(corpus)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))

    def losses() -> list[float]:
        trained.eval()
        times = (torch.full((2,), t) for t in (0.05, 0.5, 1.0))
        signals = batch["mixture"], batch["references"]
        with torch.no_grad():
            return [float(losses_at(trained, t, *signals).mean()) for t in times]

    before = losses()
    probe = BridgeProbe(every_n_epochs=12, items=2, ratios=(0.5,))
    trainer = toy_trainer(tmp_path, max_steps=25, callbacks=[probe])
    trainer.fit(trained, data)
    after = losses()
    assert all(late < early - 0.5 for late, early in zip(after, before, strict=True)), (before, after)
    assert {"val/loss", "val/one_step_loss", "train/loss"} <= set(trainer.callback_metrics)
    # a bridge is conditioned on the time
    assert {"val/bridge/conditioned_error_r50", "val/bridge/error_r50"} <= set(trainer.callback_metrics)
    frame = pd.read_parquet(tmp_path / "bridge_path.parquet")
    assert set(frame["what"]) == {"separator", "linear", "input", "bridge", "bridge_mean", "constant"}


def test_states_have_the_moments_of_the_bridge() -> None:
    """A network that gives its state back shows what training gives it."""
    trained = module()
    seen: list[torch.Tensor] = []
    trained.separator.estimate = lambda state, t, end, level, time: seen.append(state) or state
    mixture, source = noise(1, 1, 200_000), noise(1, 1, 200_000, seed=1)
    t = torch.tensor([0.3])
    losses_at(trained, t, mixture, source[:, None])
    level = float(mixture.square().mean().sqrt())
    rest = seen[0] * level - 0.7 * source - 0.3 * mixture
    assert float(rest.std()) / level == pytest.approx(0.5 * (0.3 * 0.7) ** 0.5, rel=0.01)
    assert abs(float((rest * source).mean())) < 1e-4


def test_weights_are_those_of_the_preconditioning() -> None:
    node = {"_target_": "encore.models.denoisers.preconditioning.LinearEstimate"}
    separator = toy_bridge(preconditioning=node)
    mixture, source, t = noise(2, 1, 2000), noise(2, 1, 1, 2000, seed=1), torch.tensor([0.2, 0.8])
    plain, weighted = (
        losses_at(module(separator=separator, weighted=on), t, mixture, source) for on in (False, True)
    )
    _, out, _ = separator.preconditioning(separator.bridge, t)
    torch.testing.assert_close(weighted, plain / out.square())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"separator": Shrink()}, "model=Shrink"),
        ({"mixing": DataMixing(unroll=1)}, "unroll=1"),
        ({"t_min": 1.0}, "t_min=1.0"),
        ({"weighted": True}, "weighted=true"),
    ],
)
def test_what_does_not_fit_is_named(options: dict, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        module(**options)
