"""How far each solver of the posterior ends from the exact one, on Gaussian sources with ideal denoisers.

    python benchmarks/gaussian_posterior.py [--draws 4000] [--levels 200]

Three pairs of sources of 32 samples at -23 dB, in mixtures without noise: alike (the same smooth
spectrum), white ones of different power, and a smooth and a rough one. Of one mixture each: how far the
mean of the draws is off the posterior's, over its deviation (root mean square over samples and sources; a
solver without error would be at 1 / sqrt(draws)); and the variance of the draws over the posterior's (0
for solvers that draw nothing).
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
import torch

from encore.inference.gaussian_sources import ExactPosterior, GaussianSources
from encore.inference.guidance import LossGuidance, Projection, PseudoInverse, constant, hybrid, proportional
from encore.inference.posterior import Ancestral, Problem, Solver, Start
from encore.inference.posterior_flow import SourceFlow
from encore.inference.red_diff import RedDiff
from encore.models.processes.diffusion import DiscreteDiffusion
from encore.reporting.tables import number, to_markdown

POWER, LENGTH = 0.005, 32


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--levels", type=int, default=200)
    options = parser.parse_args()
    cells: dict[str, dict[str, str]] = {}
    for case, sources in cases().items():
        for name, solver in solvers(sources).items():
            off, spread = distance(solver, sources, options.draws, options.levels)
            row = cells.setdefault(name, {"solver": name})
            row |= {f"{case}: mean": number(off, 2), f"{case}: variance": number(spread, 2)}
    print(to_markdown(pd.DataFrame(cells.values())))


def cases() -> dict[str, GaussianSources]:
    """Pairs of sources."""
    place = torch.arange(LENGTH, dtype=torch.float64)

    def stationary(power: float, correlation: float) -> torch.Tensor:
        return power * correlation ** (place[:, None] - place).abs()

    eye = torch.eye(LENGTH, dtype=torch.float64)
    pairs = {
        "alike": (stationary(POWER, 0.8), stationary(POWER, 0.8)),
        "white": (POWER * eye, 0.1 * POWER * eye),
        "smooth and rough": (stationary(POWER, 0.95), stationary(POWER, -0.9)),
    }
    return {name: GaussianSources(torch.stack(pair)) for name, pair in pairs.items()}


def solvers(sources: GaussianSources) -> dict[str, Solver]:
    """All of them, those that need powers with the true ones."""
    powers = [float(covariance.diagonal().mean()) for covariance in sources.covariances]
    return {
        "exact kernel": ExactPosterior(sources),
        "projection": Ancestral(guidance=Projection()),
        "pseudo-inverse, powers known": Ancestral(guidance=PseudoInverse(powers=powers)),
        "pseudo-inverse, equal shares": Ancestral(guidance=PseudoInverse()),
        "pseudo-inverse, unit variance": Ancestral(guidance=PseudoInverse(powers=[1.0, 1.0])),
        "hybrid": Ancestral(guidance=LossGuidance(schedule=hybrid())),
        "noise-proportional": Ancestral(guidance=LossGuidance(schedule=proportional())),
        "constant (DPS)": Ancestral(guidance=LossGuidance(schedule=constant(), normalise="none")),
        "Dirac flow": SourceFlow(constrained=0),
        "Gaussian flow": SourceFlow(),
        "RED-diff": RedDiff(rate=0.005),
    }


def distance(solver: Any, sources: GaussianSources, draws: int, levels: int) -> tuple[float, float]:
    """Error of the mean over the posterior's deviation, and variance over the posterior's."""
    generator = torch.Generator().manual_seed(0)
    total = sources.covariances.sum(dim=0)
    drawn = torch.randn(LENGTH, generator=generator, dtype=torch.float64)
    mixture = (torch.linalg.cholesky(total) @ drawn).expand(draws, 1, LENGTH)
    problem = Problem(
        priors=sources.priors,
        mixture=mixture,
        levels=DiscreteDiffusion().levels(levels),
        generator=generator,
        start=Start(kind="noise"),
        draws=draws,
    )
    sample = solver(problem)
    true = sources.covariance().diagonal()
    off = sample.estimates.mean(dim=0)[:, 0] - sources.mean(mixture[:1])[0, :, 0]
    spread = sample.estimates[:, :, 0].flatten(1).var(dim=0)
    return float((off.flatten().square() / true).mean().sqrt()), float((spread / true).mean())


if __name__ == "__main__":
    main()
