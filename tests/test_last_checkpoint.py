from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from toys import Shrink, toy_data, toy_module, toy_trainer
from train_toys import SMALL, interrupted

from encore.callbacks.averaging import ExponentialAverage
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
        callbacks=[ExponentialAverage(decay=0.3), LastCheckpoint(tmp_path, every_n_steps=0), raw],
    )
    trainer.fit(toy_module(rate=0.3), toy_data(corpus))
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["global_step"] == 5
    current = content["current_model_state"]["separator.gain"].item()
    averaged = content["state_dict"]["separator.gain"].item()
    assert current == raw.gains[-1]
    expected = raw.gains[0]
    # 3 / 12, and 4 / 13 would be more than 0.3
    for gain, decay in zip(raw.gains[1:], (0.25, 0.3, 0.3, 0.3), strict=True):
        expected = decay * expected + (1 - decay) * gain
    assert abs(averaged - expected) <= 1e-5 * abs(expected)
    assert averaged != current


def test_it_is_written_every_n_steps(corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    written = []
    last = LastCheckpoint(tmp_path, every_n_steps=3)
    trainer = toy_trainer(tmp_path, max_steps=7, limit_val_batches=0, callbacks=[last])
    monkeypatch.setattr(trainer, "save_checkpoint", lambda path: written.append(trainer.global_step))
    trainer.fit(toy_module(), toy_data(corpus))
    assert written == [3, 6, 7]


def test_the_average_of_a_short_training_is_near_its_weights_and_not_the_first_ones(
    corpus: Path, tmp_path: Path
) -> None:
    module = toy_module(rate=0.01)
    raw, first = Raw(), module.separator.gain.item()
    trainer = toy_trainer(tmp_path, max_steps=20, callbacks=[ExponentialAverage(), raw])
    trainer.fit(module, toy_data(corpus))
    average = module.separator.gain.item()
    moved, behind = raw.gains[-1] - first, raw.gains[-1] - average
    assert abs(moved) > 0.01
    assert abs(behind / moved) < 0.3
    assert torch.equal(module.separator.kernel, Shrink().kernel)
    with pytest.raises(ValueError, match="decay=1: use a number"):
        ExponentialAverage(decay=1)


def test_a_resumed_run_ends_where_one_without_a_break_ends(corpus: Path, tmp_path: Path) -> None:
    """Weights and averages: from within an epoch, from its end with a validation, and from the run's end."""

    def run(folder: Path, steps: int, start: Path | None = None) -> dict[str, Any]:
        callbacks = [ExponentialAverage(decay=0.5), LastCheckpoint(folder, every_n_steps=1)]
        trainer = toy_trainer(tmp_path, max_steps=steps, callbacks=callbacks)
        trainer.fit(toy_module(rate=0.3), toy_data(corpus), ckpt_path=start, weights_only=True)
        return torch.load(folder / "last.ckpt", weights_only=True)

    whole = run(tmp_path / "whole", 5)
    for broken in (1, 2, 3):
        part = run(tmp_path / str(broken), broken)
        assert part["global_step"] == broken
        resumed = run(tmp_path / str(broken), 5, tmp_path / str(broken) / "last.ckpt")
        for key in ("state_dict", "current_model_state", "averaging_state"):
            for name, value in whole[key].items():
                assert torch.equal(resumed[key][name], value), (broken, key, name)


TWO = ("hardware=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true")


@pytest.mark.parametrize(
    ("number", "group", "options"),
    [
        (signal.SIGINT, True, ("data.num_workers=1",)),
        (signal.SIGTERM, False, (*TWO, "data.num_workers=0")),
    ],
)
def test_a_signal_ends_a_run_with_a_checkpoint_and_how_to_go_on(
    number: int, group: bool, options: tuple[str, ...], corpus: Path, tmp_path: Path
) -> None:
    """To a process with a worker as Ctrl-C does, and to one of two processes as ``kill`` does."""
    start = (*SMALL, f"data.root={corpus}", "name=run", "trainer.max_steps=5000", *options)
    done = interrupted(tmp_path, number, *start, "callbacks.last.every_n_steps=3", group=group)
    assert done.returncode == 128 + number
    assert "Traceback" not in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("error")]
    content = torch.load(tmp_path / "outputs" / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    step, command = re.search(
        "interrupted at step ([0-9]+) of 5000: go on with (python .*)", done.stdout
    ).groups()
    assert int(step) == content["global_step"] >= 1
    assert content["averaging_state"]["n_averaged"] == int(step)
    words = shlex.split(command)
    assert words[-1] == "ckpt=last"
    assert set(start) <= set(words)
    record = json.loads((tmp_path / "outputs" / "run" / "run.json").read_text())
    assert (record["training_steps"], record["finished"]) == (int(step), False)
