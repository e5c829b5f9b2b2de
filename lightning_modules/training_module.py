"""Skip optimizer steps with non-finite gradients, and clip gradients on any hardware."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

NonFinite = Literal["raise", "skip"]


class NonFiniteGuard(LightningModule):
    """Base of the training modules: logs the loss, guards and clips the gradients.

    Args:
        nonfinite: ``"raise"`` makes a non-finite training loss an error; ``"skip"`` skips optimizer steps
            with non-finite gradients, on all processes together, and logs their number as ``train/skipped``.
        skip_limit: This many skipped steps in a row are an error.

    Raises:
        ValueError: If ``nonfinite`` is neither, or ``skip_limit`` not positive.
    """

    def __init__(self, *, nonfinite: NonFinite = "raise", skip_limit: int = 10) -> None:
        super().__init__()
        if nonfinite not in ("raise", "skip") or skip_limit < 1:
            raise ValueError(
                f"nonfinite={nonfinite!r}, skip_limit={skip_limit}: use 'raise' or 'skip', and 1 or more"
            )
        self.nonfinite, self.skip_limit = nonfinite, skip_limit
        self._skipped, self._skipped_in_a_row = 0, 0

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

    def step_seed(self, seed: int, batch_index: int) -> int:
        """Return a seed from the run's seed, rank and step only, so that resuming repeats no draw."""
        step = self.trainer.current_epoch * 1_000_003 + batch_index
        step = step * self.trainer.world_size + self.global_rank
        return (seed * 2_147_483_647 + step) % 2**63

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
        """Clip by the norm over all weights, or by value.

        Lightning refuses sharded weights, and fused optimizers in every mixed precision, though only the loss
        scaling of float16 excludes them.
        """
        if not gradient_clip_val:
            return
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        root = self.trainer.strategy.model
        if scaled or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif isinstance(root, FullyShardedDataParallel):
            root.clip_grad_norm_(gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)


def optimizers(
    weights: Iterable[nn.Parameter],
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None,
) -> Any:
    """Build the return value of ``configure_optimizers``: the optimizer and, if given, its scheduler."""
    built = optimizer(weights)
    if scheduler is None:
        return built
    return {"optimizer": built, "lr_scheduler": {"scheduler": scheduler(built), "interval": "step"}}
