"""Distribute validation items over processes, for callbacks that evaluate them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from encore.data.corpora import evenly_spaced
from encore.inference.execution import in_time


@dataclass(frozen=True, slots=True)
class ValidationItem:
    """A validation item of this process.

    Attributes:
        place: Its number among those that are taken, on all processes.
        taken: How many are taken in all.
        sample: A batch of this item alone: ``mixture``, perhaps ``references``, and ``names``.
    """

    place: int
    taken: int
    sample: dict[str, Any]


def validation_items(
    trainer: Trainer,
    limit: int | None,
    what: str,
    *,
    places: Collection[int] | None = None,
    max_seconds: float | None = None,
) -> Iterator[ValidationItem]:
    """Yield this process's items, each on one process only, with a progress bar.

    Read from the dataset, not the loader: the loader may be in the middle of its epoch.

    Args:
        trainer: In a fit; one item in a ``fast_dev_run``.
        limit: Most items of all processes together, evenly spread; None for all.
        what: Name of the progress bar.
        places: Yield these of the items that are taken, on this process; None for its part of all.
        max_seconds: Wall time after which no further item is read; None for no limit.
    """
    loaders = trainer.val_dataloaders
    if loaders is None and trainer.datamodule is not None:  # type: ignore[attr-defined]
        loaders = trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
    loader: Any = loaders[0] if isinstance(loaders, list) and loaders else loaders
    if not loader:
        return
    positions = evenly_spaced(len(loader.dataset), 1 if trainer.fast_dev_run else limit)  # type: ignore[attr-defined]
    taken = list(enumerate(positions))
    mine = taken[trainer.global_rank :: trainer.world_size] if places is None else [taken[n] for n in places]
    shown = places is None and trainer.is_global_zero and _bar(trainer)
    timely = in_time(mine, max_seconds, f"items of the {what}")
    for place, position in tqdm(timely, total=len(mine), desc=what, disable=not shown):
        yield ValidationItem(place, len(positions), loader.collate_fn([loader.dataset[position]]))


def _bar(trainer: Trainer) -> bool:
    return trainer.progress_bar_callback is not None and trainer.progress_bar_callback.is_enabled  # type: ignore[attr-defined]


class ValidationCallback(Callback):
    """Measure at every ``n``-th validation, and always once when training ends.

    Also when ``max_steps`` cuts an epoch, and not twice at one training step. The weights are those that
    validation uses: put averaging callbacks before this one.

    Args:
        every_n_epochs: Epochs between measurements; 0 measures only when training ends.
        items: Validation items to measure, evenly spread; None for all.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, every_n_epochs: int, items: int | None = None) -> None:
        if every_n_epochs < 0 or (items is not None and items < 1):
            raise ValueError(f"every_n_epochs={every_n_epochs}, items={items}: use 0 or more, and 1 or more")
        self.items = items
        self.every_n_epochs = every_n_epochs
        self._last_step = -1

    def measure(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Measure this process's items and gather those of all; returns the values to log."""
        raise TypeError(f"{type(self).__name__} must define measure()")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure where this epoch is due; averaged weights are in place by now, and out again at the end."""
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and trainer.state.fn == "fit" and not trainer.sanity_checking:
            values = self.measure(trainer, pl_module)
            self._last_step = trainer.global_step
            pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure once more, unless this very step was measured already."""
        if self._last_step == trainer.global_step:
            return
        training = pl_module.training
        pl_module.eval()
        values = self.measure(trainer, pl_module)
        self._last_step = trainer.global_step
        pl_module.train(training)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)
                logger.save()


def of_all_processes(own: Any) -> list[Any]:
    """Return the objects of all processes, by rank; the same list on each of them."""
    if not torch.distributed.is_initialized():
        return [own]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return parts
