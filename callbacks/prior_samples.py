"""Samples of a source prior, as audio and pictures, while it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Generator, Tensor

from encore.callbacks.media import log_media
from encore.callbacks.validation_items import ValidationCallback
from encore.inference.guidance import Unguided
from encore.inference.posterior import Ancestral, SeparationProblem, Start
from encore.inference.source_priors import SourcePrior
from encore.models.denoisers.diffusion_prior import DiffusionPrior
from encore.reporting.examples import write_example


class PriorSamples(ValidationCallback):
    """Sample a prior and keep the samples as audio and spectrograms.

    Writes ``prior_samples/<step>_<name>.wav`` and ``prior_samples/<step>.png`` into the run folder, and
    logs both to Weights & Biases and TensorBoard where they are loggers. Of a prior with classes each sample
    is of the next class. Logs ``val/prior/level_db``, their mean RMS, which should be that of the training
    data.

    Args:
        every_n_epochs: Epochs between measurements; 0 measures only when training ends.
        count: Number of samples, 1 or more.
        seconds: Length of each, above 0.
        levels: Levels of the chain, evenly spaced; None for all.
        seed: Of the noise: the same in every epoch.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        every_n_epochs: int = 0,
        count: int = 4,
        seconds: float = 2.0,
        levels: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        if count < 1 or not seconds > 0:
            raise ValueError(f"count={count}, seconds={seconds}: use 1 or more, and a number above 0")
        self.count, self.seconds, self.levels, self.seed = count, seconds, levels, seed

    @torch.no_grad()
    def measure(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Sample, write and log; every process draws the same, the first one writes."""
        prior: Any = module.prior
        assert isinstance(prior, DiffusionPrior)
        count = 1 if trainer.fast_dev_run else self.count  # type: ignore[attr-defined]
        classes = len(prior.classes)
        labels = [number % classes if classes else None for number in range(count)]
        kinds = [prior.source if label is None else prior.classes[label] for label in labels]
        drawn = self._draw(prior, labels, module.device).cpu()
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            samples = {f"{number}_{kind}": drawn[number] for number, kind in enumerate(kinds)}
            folder, step = Path(trainer.default_root_dir) / "prior_samples", trainer.global_step
            title = f"{prior.source}, step {step}"
            picture, audio = write_example(folder, f"{step:07d}", samples, prior.sample_rate, heading=title)
            log_media(trainer, "val/prior", pictures={"spectrograms": picture}, audio={"audio": audio})
        power = float(drawn.square().mean().clamp_min(1e-12))
        return {"val/prior/level_db": 10 * torch.tensor(power).log10().item()}

    def _draw(self, prior: DiffusionPrior, labels: list[int | None], device: torch.device) -> Tensor:
        """Sample ``(n, 1, time)``, as the sources of a mixture that guides nothing."""
        frames = max(1, round(self.seconds * prior.sample_rate))
        problem = SeparationProblem(
            priors=[SourcePrior(model=prior, label=label) for label in labels],
            mixture=torch.zeros(1, 1, frames, device=device),
            levels=prior.diffusion.levels(self.levels),
            generator=Generator().manual_seed(self.seed),
            start=Start(kind="noise"),
        )
        sample = Ancestral(guidance=Unguided())(problem)
        return sample.estimates[0]
