"""Keep a checkpoint of the latest step to resume from, also when a signal ends the training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Interrupted(SystemExit):
    """A signal ended the training; the exit status is 128 and its number."""


class LastCheckpoint(Callback):
    """Write ``last.ckpt`` every ``every_n_steps`` steps, around every validation and when training ends.

    Lightning's ``ModelCheckpoint(save_last=True)`` with a monitored value writes its last checkpoint only
    when the best one improved, and not at all for the steps after the last validation: a run that
    ``max_steps`` cuts within an epoch, or a preempted one, loses them.

    Put it after averaging callbacks, so that the average of a step is in its checkpoint.

    Args:
        folder: Where to write.
        every_n_steps: Steps between two writes; 0 writes at validations and at the end only.

    Attributes:
        step: The step of the checkpoint; 0 before there is one.
        signal: The number of the signal that came, None without one.
    """

    def __init__(self, folder: str | Path, *, every_n_steps: int = 500) -> None:
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps={every_n_steps}: use 0 or more")
        self.path = Path(folder) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.step = 0
        self.signal: int | None = None
        self._seen = 0
        # whether the state is that of `step`, so that nothing is lost by ending at once
        self._saved = False
        # whether weights and counts are those after a step, without gradients that wait for more batches
        self._whole = False

    @contextmanager
    def ends_at_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end a fit after its step, with a checkpoint, by raising `Interrupted`.

        Within a validation they end it at once, for the checkpoint is written before.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {
            number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _: Any) -> None:
        again = self.signal == signal.SIGINT == number
        self.signal = number
        if again or self._saved:
            raise Interrupted(128 + number)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back from Lightning, whose processes might end at different steps."""
        self._seen, self._saved, self._whole = trainer.global_step, False, True
        self.step = trainer.global_step if self.path.exists() else 0
        if signal.getsignal(signal.SIGINT) == self._receive:
            signal.signal(signal.SIGTERM, self._receive)

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Remember that a step is being taken."""
        self._whole = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write where the step is due, and at a signal, of which all processes learn at the same step."""
        self._saved, self._whole = False, trainer.global_step != self._seen
        if not self._whole:  # gradients wait for more batches
            return
        self._seen = trainer.global_step
        ends = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if ends or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self._write(trainer)
        if ends:
            raise Interrupted(128 + (self.signal or signal.SIGTERM))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write before a validation within training, which may take long."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer)
            self._saved = True
            if self.signal is not None:
                raise Interrupted(128 + self.signal)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write again, with the validated values."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._saved, self.step = False, 0
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end."""
        self._write(trainer)
        self._saved = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the other processes of this machine; write if the signal ended workers of the loader first."""
        if self.signal is None:
            return
        if self._whole and trainer.world_size == 1 and not isinstance(exception, Interrupted):
            self._write(trainer)
        kill = getattr(trainer.strategy.launcher, "kill", None)
        if kill is not None:
            kill(signal.SIGTERM)

    def _write(self, trainer: Trainer) -> None:
        # a trial run leaves no files, and one step is written once
        if trainer.fast_dev_run or trainer.global_step == self.step:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self.path)
        self.step = trainer.global_step
