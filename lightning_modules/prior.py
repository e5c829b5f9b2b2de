"""Training of diffusion priors on isolated sources."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from encore.lightning_modules.training_module import TrainingModule
from encore.models.denoisers.diffusion_prior import DiffusionPrior

Batch = dict[str, Any]
"""``source`` ``(b, 1, time)``, ``labels`` ``(b,)``, ``names``."""


class PriorModule(TrainingModule):
    """Train a network to denoise a source at random noise levels.

    The loss is the squared error of the network's own output: of the noise for a discrete chain, of the
    preconditioned output for continuous levels. Validation uses the same levels and noise in every epoch and
    logs ``val/loss`` and, for each of its levels, ``val/loss_level<percent>``, 100 being the noisiest.

    Args:
        prior: Network and diffusion; saved under the prefix ``prior.``.
        label_dropout: Fraction of items in [0, 1] trained without their class, which guidance by class needs.
        validation_levels: Levels, evenly spaced over the chain, at which each validation item is scored.
        **options: As of `TrainingModule`.

    Raises:
        ValueError: If an option is invalid.

    Source: J. Ho et al., "Denoising Diffusion Probabilistic Models", 2020; J. Ho and T. Salimans,
    "Classifier-Free Diffusion Guidance", 2022 (label dropout).
    """

    def __init__(
        self,
        prior: DiffusionPrior,
        *,
        label_dropout: float = 0.1,
        validation_levels: int = 8,
        **options: Any,
    ) -> None:
        if not isinstance(prior, DiffusionPrior):
            raise ValueError(
                f"model={type(prior).__name__}: module=prior trains a diffusion prior; choose a model whose "
                "name begins with prior_, such as model=prior_tiny"
            )
        super().__init__(prior, **options)
        if not 0 <= label_dropout <= 1 or validation_levels < 1:
            raise ValueError(
                f"label_dropout={label_dropout}, validation_levels={validation_levels}: give a fraction in "
                "[0, 1], and 1 or more"
            )
        self.prior = prior
        self.label_dropout, self.validation_levels = label_dropout, validation_levels

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Add noise to each source at a random level and return the mean loss."""
        source, labels = batch["source"], batch["labels"]
        generator = self.step_generator(batch_index)
        alpha_bar = self.prior.diffusion.draw(len(source), generator)
        dropped = (torch.rand(len(source), generator=generator) < self.label_dropout).to(self.device)
        labels = torch.where(dropped, len(self.prior.classes), labels)
        loss = self._losses(source, alpha_bar, labels, _noise(source, generator)).mean()
        return self.log_loss(loss, batch["names"])

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the loss at every validation level, and their mean."""
        chain = self.prior.diffusion.levels()
        number = batch_index * self.trainer.world_size + self.global_rank
        generator = Generator().manual_seed(number)
        source, losses = batch["source"], {}
        for index in chain.indices(self.validation_levels):
            alpha_bar = chain.alpha_bar[index].expand(len(source))
            loss = self._losses(source, alpha_bar, batch["labels"], _noise(source, generator)).mean()
            losses[f"val/loss_level{round(100 * index / max(1, len(chain) - 1)):03d}"] = loss
        mean = torch.stack([*losses.values()]).mean()
        self.log_validation({**losses, "val/loss": mean}, len(source))

    def _losses(self, source: Tensor, alpha_bar: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        """Return mean squared errors ``(b,)`` of the network's output."""
        state = self.prior.add_noise(source, alpha_bar, noise)
        error = self.prior.predict(state, alpha_bar, labels) - self.prior.target(state, alpha_bar, source)
        return error.square().mean(dim=(1, 2))


def _noise(source: Tensor, generator: Generator) -> Tensor:
    """Draw white noise on the CPU, so that every device trains on the same."""
    return torch.randn(source.shape, generator=generator).to(source)
