"""Averages of the weights over training steps, of use from the first step on."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class ExponentialAverage(WeightAveraging):
    """Average weights over the last steps: they are validated and saved, the trained ones kept beside them.

    ``average <- d average + (1 - d) weights`` after optimizer step ``n``, from 1 on, with
    ``d = min(decay, (1 + n) / (10 + n))``: a constant decay keeps the initial weights for about
    ``1 / (1 - decay)`` steps.

    Source of the rise: ``num_updates`` of TensorFlow's ``tf.train.ExponentialMovingAverage``.

    Args:
        decay: In [0, 1).

    Raises:
        ValueError: If ``decay`` is out of range.
    """

    def __init__(self, decay: float = 0.995) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: use a number from 0 to below 1")

        def average(averages: Any, weights: Any, updates: Tensor | int) -> None:
            step = int(updates) + 1  # the first update copies, without this
            weight = 1 - min(decay, (1 + step) / (10 + step))
            if averages[0].is_floating_point() or averages[0].is_complex():
                torch._foreach_lerp_(averages, weights, weight)
            else:
                torch._foreach_copy_(averages, weights)

        super().__init__(multi_avg_fn=average)
        self._in_place = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the module, whose weights are the trained ones."""
        super().setup(trainer, pl_module, stage)
        self._in_place = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the averages in place, and keep the trained weights for checkpoints."""
        self._swap_models(pl_module)
        self._in_place = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save averages as ``state_dict`` and trained weights as ``current_model_state``, in place or not."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._in_place:
            names = ("state_dict", "current_model_state")
            checkpoint |= dict(zip(names, [checkpoint[name] for name in reversed(names)], strict=True))
