"""Keep a checkpoint of the latest step to resume from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class LastCheckpoint(Callback):
    """Write ``last.ckpt`` every ``every_n_steps`` steps, after every validation and when training ends.

    Lightning's ``ModelCheckpoint(save_last=True)`` with a monitored value writes its last checkpoint only
    when the best one improved, and not at all for the steps after the last validation: a run that
    ``max_steps`` cuts within an epoch, or a preempted one, loses them.

    Put it after averaging callbacks, so that the average of a step is in its checkpoint.

    Args:
        folder: Where to write.
        every_n_steps: Steps between two writes; 0 writes after validations and at the end only.
    """

    def __init__(self, folder: str | Path, *, every_n_steps: int = 500) -> None:
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps={every_n_steps}: use 0 or more")
        self.path = Path(folder) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._written_step = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write where the step is due."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write after a validation within training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        # a trial run leaves no files, and one step is written once
        if trainer.fast_dev_run or trainer.global_step == self._written_step:  # type: ignore[attr-defined]
            return
        self._written_step = trainer.global_step
        trainer.save_checkpoint(self.path)
