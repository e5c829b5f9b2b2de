"""The validation items of this process, for callbacks that do more with them than a validation step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lightning import Trainer
from tqdm import tqdm

from data.corpora import spread


@dataclass(frozen=True, slots=True)
class ValidationItem:
    """One of the items that a callback takes.

    Attributes:
        place: Its number among those that are taken, on all processes.
        taken: How many are taken in all.
        sample: A batch of this item alone: ``mixture``, perhaps ``references``, and ``names``.
    """

    place: int
    taken: int
    sample: dict[str, Any]


def validation_items(trainer: Trainer, limit: int | None, what: str) -> Iterator[ValidationItem]:
    """Items that are this process's to work on, each on one process only, with a progress bar.

    Read from the dataset, not the loader: the loader may be in the middle of its epoch.

    Args:
        trainer: In a fit; one item in a ``fast_dev_run``.
        limit: Most items of all processes together, evenly spread; None for all.
        what: Name of the progress bar.
    """
    loaders = trainer.val_dataloaders
    if loaders is None and trainer.datamodule is not None:  # type: ignore[attr-defined]
        loaders = trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
    loader: Any = loaders[0] if isinstance(loaders, list) and loaders else loaders
    if not loader:
        return
    positions = spread(len(loader.dataset), 1 if trainer.fast_dev_run else limit)  # type: ignore[attr-defined]
    mine = list(enumerate(positions))[trainer.global_rank :: trainer.world_size]
    for place, position in tqdm(mine, desc=what, disable=not (trainer.is_global_zero and _bar(trainer))):
        yield ValidationItem(place, len(positions), loader.collate_fn([loader.dataset[position]]))


def _bar(trainer: Trainer) -> bool:
    return trainer.progress_bar_callback is not None and trainer.progress_bar_callback.is_enabled  # type: ignore[attr-defined]
