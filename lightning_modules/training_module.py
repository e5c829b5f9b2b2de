"""Base of the training modules: optimizer, random draws, logged losses, guarded and clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Generator, Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

NonFinite = Literal["raise", "skip"]


class TrainingModule(LightningModule):
    """Train a network.

    Args:
        network: Whose weights are trained.
        optimizer: Builds the optimizer from the parameters.
        scheduler: Builds a scheduler, stepped once a training step, from the optimizer; optional.
        seed: Seeds all draws, together with step and rank: a resumed run draws the same.
        model_config: Plain configuration of the network, saved in the checkpoint so that it can be rebuilt.
        nonfinite: ``"raise"`` makes a non-finite training loss an error; ``"skip"`` skips optimizer steps
            with non-finite gradients, on all processes together, and logs their number as ``train/skipped``.
        skip_limit: This many skipped steps in a row are an error.

    Raises:
        ValueError: If ``nonfinite`` is neither, or ``skip_limit`` not positive.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
        seed: int = 0,
        model_config: dict[str, Any] | None = None,
        nonfinite: NonFinite = "raise",
        skip_limit: int = 10,
    ) -> None:
        super().__init__()
        if nonfinite not in ("raise", "skip") or skip_limit < 1:
            raise ValueError(
                f"nonfinite={nonfinite!r}, skip_limit={skip_limit}: use 'raise' or 'skip', and 1 or more"
            )
        # not the network itself: subclasses register it under the name that checkpoints have
        self.weights = network.parameters
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.seed, self.nonfinite, self.skip_limit = seed, nonfinite, skip_limit
        self._skipped, self._skipped_in_a_row = 0, 0
        self.save_hyperparameters({"model": model_config, "seed": seed})

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and the scheduler if given."""
        optimizer = self.make_optimizer(self.weights())
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def step_generator(self, batch_index: int, device: torch.device | str = "cpu") -> Generator:
        """Return a generator that depends on seed, rank and step only, so that resuming repeats no draw."""
        step = self.trainer.current_epoch * 1_000_003 + batch_index
        step = step * self.trainer.world_size + self.global_rank
        return Generator(device).manual_seed((self.seed * 2_147_483_647 + step) % 2**63)

    def log_loss(self, loss: Tensor, names: Sequence[str]) -> Tensor:
        """Log the mean training loss of a batch of named items and return it.

        Raises:
            ValueError: If it is not finite, with ``nonfinite="raise"``.
        """
        if self.nonfinite == "raise" and not torch.isfinite(loss):
            raise ValueError(
                f"the training loss is {loss.item()} at step {self.global_step} (items "
                f"{', '.join(names)}): lower optimizer.lr or set trainer.gradient_clip_val"
            )
        self.log("train/loss", loss, prog_bar=True, batch_size=len(names))
        return loss

    def log_validation(self, values: dict[str, Tensor], items: int) -> None:
        """Log means over the validation items of all processes; ``val/loss`` in the progress bar too."""
        for name, value in values.items():
            shown = name == "val/loss"
            self.log(name, value, prog_bar=shown, batch_size=items, on_epoch=True, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clear all gradients if one is not finite, with ``nonfinite="skip"``.

        Gradients, not losses: they are already averaged over processes and summed over accumulated batches.
        """
        if self.nonfinite != "skip":
            return
        gradients = [weight.grad for weight in self.parameters() if weight.grad is not None]
        finite = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        # sharded gradients differ from process to process
        if self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            self._skipped_in_a_row = 0
            return
        self._skipped, self._skipped_in_a_row = self._skipped + 1, self._skipped_in_a_row + 1
        if self._skipped_in_a_row >= self.skip_limit:
            raise ValueError(
                f"{self.skip_limit} steps in a row, up to step {self.global_step}, had gradients that are not"
                " finite: lower optimizer.lr, or find the items with module.nonfinite=raise"
            )
        optimizer.zero_grad()
        self.log("train/skipped", float(self._skipped))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all weights, or by value; log the norm before, and the learning rate.

        Lightning refuses sharded weights, and fused optimizers in every mixed precision, though only the loss
        scaling of float16 excludes them.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        lightnings = bool(gradient_clip_val) and (scaler is not None or gradient_clip_algorithm == "value")
        limit = gradient_clip_val if gradient_clip_val and not lightnings else math.inf
        root = self.trainer.strategy.model
        if isinstance(root, FullyShardedDataParallel):
            norm = root.clip_grad_norm_(limit)
        else:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters(), limit)
        if lightnings:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            norm = norm / scaler.get_scale()  # a fused optimizer divides by it later
        rate = float(optimizer.param_groups[0]["lr"])
        self.log_dict({"train/gradient_norm": norm, "train/learning_rate": rate})
