from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from toys import toy_data, toy_module, toy_trainer

from encore.callbacks.last_checkpoint import LastCheckpoint


class Raw(lightning.Callback):
    """Remembers the weight after each step."""

    def __init__(self) -> None:
        self.gains: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.gains.append(module.separator.gain.item())


def test_the_last_step_of_a_cut_epoch_is_kept_with_raw_and_averaged_weights(
    corpus: Path, tmp_path: Path
) -> None:
    raw = Raw()
    trainer = toy_trainer(
        tmp_path,
        max_steps=5,  # two batches an epoch: the third one is cut
        callbacks=[LastCheckpoint(tmp_path, every_n_steps=0), raw, EMAWeightAveraging(decay=0.9)],
    )
    trainer.fit(toy_module(rate=0.3), toy_data(corpus))
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["global_step"] == 5
    current = content["current_model_state"]["separator.gain"].item()
    averaged = content["state_dict"]["separator.gain"].item()
    assert current == raw.gains[-1]
    expected = raw.gains[0]
    for gain in raw.gains[1:]:
        expected = 0.9 * expected + 0.1 * gain
    assert abs(averaged - expected) <= 1e-5 * abs(expected)
    assert averaged != current


def test_it_is_written_every_n_steps(corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    written = []
    last = LastCheckpoint(tmp_path, every_n_steps=3)
    trainer = toy_trainer(tmp_path, max_steps=7, limit_val_batches=0, callbacks=[last])
    monkeypatch.setattr(trainer, "save_checkpoint", lambda path: written.append(trainer.global_step))
    trainer.fit(toy_module(), toy_data(corpus))
    assert written == [3, 6, 7]
