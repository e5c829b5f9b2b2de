"""Small priors for several tests."""

from __future__ import annotations

import torch
from gaussian_sources import GaussianSources
from torch import Tensor

from encore.inference.posterior import PosteriorSample, SeparationProblem, Start
from encore.models.checkpoint import instantiate
from encore.models.denoisers.diffusion_prior import DiffusionPrior
from encore.models.processes.diffusion import DiscreteDiffusion

CLASSES = ["Bark", "Flute", "Gong"]

AUDIO = 0.005
"""Power of sources at the level of the published mixtures, -23 dB."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prior_config(
    *, classes: list[str] | None = None, sample_rate: int = 8000, source: str = "speech"
) -> dict:
    names = classes or []
    return {
        "_target_": "encore.models.denoisers.diffusion_prior.DiffusionPrior",
        "sample_rate": sample_rate,
        "source": source,
        "classes": names,
        "segment_seconds": 0.1,
        "diffusion": {"_target_": "encore.models.processes.diffusion.DiscreteDiffusion", "steps": 20},
        "network": {
            "_target_": "encore.models.denoisers.tf_attention_unet.TFAttentionUNet",
            "classes": names,
            "widths": [8, 16, 8],
            "depths": [1, 1, 1],
            "window": 62,
            "heads": 1,
            "embedding": 32,
            "zero_init": False,
        },
    }


def toy_prior(seed: int = 0, **options) -> DiffusionPrior:
    torch.manual_seed(seed)
    prior = instantiate(prior_config(**options))
    assert isinstance(prior, DiffusionPrior)
    return prior.eval().requires_grad_(False)


def stationary(power: float, correlation: float, length: int = 6) -> Tensor:
    """Covariance of a first-order autoregressive source."""
    index = torch.arange(length, dtype=torch.float64)
    return power * correlation ** (index[:, None] - index).abs()


def unlike_sources(noise: float = 0.1, power: float = 1.0) -> GaussianSources:
    return GaussianSources(torch.stack([stationary(power, 0.9), stationary(0.3 * power, -0.5)]), noise)


def alike_sources(count: int = 2, noise: float = 0.0, power: float = 0.5) -> GaussianSources:
    return GaussianSources(stationary(power, 0.8).expand(count, -1, -1), noise)


def white_sources(*powers: float, noise: float = 0.0, length: int = 6) -> GaussianSources:
    eye = torch.eye(length, dtype=torch.float64)
    return GaussianSources(torch.stack([power * eye for power in powers]), noise)


def smooth_and_rough() -> tuple[GaussianSources, Tensor]:
    """Two sources that a Wiener filter tells apart at the level of audio, and 20 mixtures of them."""
    pair = (stationary(AUDIO, 0.98, 100), stationary(AUDIO, -0.9, 100))
    sources = GaussianSources(torch.stack(pair))
    root = torch.linalg.cholesky(pair[0] + pair[1])
    return sources, (root @ torch.randn(100, 20, generator=generator()).double()).T[:, None]


def solved(solver, priors, mixture: Tensor, levels, **options) -> PosteriorSample:
    return solver(SeparationProblem(priors=priors, mixture=mixture, levels=levels, **options))


def problem(start: Start, estimate: Tensor | None = None, sources: int = 2) -> SeparationProblem:
    """Pose the separation of two drawn mixtures of white sources."""
    return SeparationProblem(
        priors=white_sources(*[1.0] * sources, length=10).priors,
        mixture=torch.randn(2, 1, 10, generator=generator(1)),
        levels=DiscreteDiffusion().levels(),
        generator=generator(),
        start=start,
        estimate=estimate,
    )
