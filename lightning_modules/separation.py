"""Training of one-step separators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from encore.data.mixing import blend, path_gains, random_ratios
from encore.inference.permutation import reference_order, reorder
from encore.lightning_modules.data_mixing import DataMixing
from encore.lightning_modules.training_module import TrainingModule
from encore.models.types import interchangeable

Batch = dict[str, Any]
"""``mixture`` ``(b, c, t)``, ``references`` ``(b, s, c, t)`` (absent for blind items), ``names``."""


class SeparationModule(TrainingModule):
    """Train a separator on mixtures that are augmented in every step.

    Args:
        separator: Maps ``(b, c, t)`` to ``(b, s, c, t)``; saved under the prefix ``separator.``.
        loss: Maps estimates and references ``(b, s, c, t)`` to ``(b,)``, lower is better.
        mixing: Data mixing of training batches; validation mixtures are not changed.
        **options: As of `TrainingModule`.
    """

    def __init__(
        self,
        separator: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        mixing: DataMixing | None = None,
        **options: Any,
    ) -> None:
        super().__init__(separator, **options)
        self.separator, self.loss, self.mixing = separator, loss, mixing or DataMixing()
        self.interchangeable = interchangeable(getattr(separator, "sources", ()))

    def forward(self, mixture: Tensor) -> Tensor:
        """Separate ``(b, c, t)`` into ``(b, s, c, t)``."""
        estimates: Tensor = self.separator(mixture)
        return estimates

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Augment, separate (once, or unrolled over steps) and return the mean loss over items and passes."""
        generator = self.step_generator(batch_index, self.device)
        mixture, references = self.mixing(
            batch["mixture"],
            batch["references"],
            separate=self.separator,
            interchangeable=self.interchangeable,
            generator=generator,
        )
        loss = self._batch_loss(mixture, references, generator)
        return self.log_loss(loss, batch["names"])

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the loss of the one-step estimates; callbacks log metrics."""
        if "references" in batch:
            loss = self.loss(self.separator(batch["mixture"]), batch["references"]).mean()
            self.log_validation({"val/loss": loss}, len(batch["mixture"]))

    def _batch_loss(self, mixture: Tensor, references: Tensor, generator: Generator) -> Tensor:
        """Return the weighted mean loss of one-step estimates and ``mixing.unroll`` refinement steps.

        Each step separates a mix of the mixture and the last estimate at a random ratio; an item refines one
        random source throughout.
        """
        count, first = len(mixture), self.mixing.first_weight
        source = torch.randint(references.shape[1], (count,), generator=generator, device=generator.device)
        source = source.to(mixture.device)
        estimates = self.separator(mixture)
        loss, weight = first * self.loss(estimates, references).mean(), first
        for _ in range(self.mixing.unroll):
            if self.interchangeable:
                estimates = reorder(estimates, reference_order(estimates.detach(), references))
            estimate = estimates[torch.arange(count, device=mixture.device), source]
            drawn = [
                random_ratios(count, self.mixing.ratio_beta, generator=generator, device=mixture.device)
                for _ in range(self.mixing.candidates)
            ]

            def step(ratio: Tensor, estimate: Tensor = estimate) -> tuple[Tensor, Tensor]:
                gains = path_gains(source, ratio, references.shape[1])[:, :, None, None]
                estimates = self.separator(blend(mixture, estimate, ratio))
                return estimates, self.loss(estimates, references * gains)

            estimates, losses = step(_best(drawn, step))
            loss, weight = loss + losses.mean(), weight + 1
        return loss / weight


def _best(ratios: Sequence[Tensor], step: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Return the ratio with the smallest loss, item by item, as a quality would choose it."""
    if len(ratios) == 1:
        return ratios[0]
    with torch.no_grad():
        losses = torch.stack([step(ratio)[1] for ratio in ratios])
    return torch.stack(list(ratios)).gather(0, losses.argmin(0, keepdim=True))[0]
