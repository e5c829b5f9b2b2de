"""Error of each posterior solver on Gaussian sources with ideal denoisers, where the posterior is known.

    python benchmarks/gaussian_posterior.py [--draws 4000] [--levels 200]

Three pairs of sources of 32 samples at -23 dB, in mixtures without noise: alike (the same smooth
spectrum), white ones of different power, and a smooth and a rough one. Of one mixture each: the error of the
mean of the draws over the posterior's deviation (root mean square over samples and sources; 1 / sqrt(draws)
for a solver without error), and the variance of the draws over the posterior's (0 for deterministic solvers).
"""

from __future__ import annotations

from typing import Any

import torch
from shared import command_line, print_table

from encore.inference.gaussian_sources import ExactPosterior, GaussianSources
from encore.inference.guidance import LossGuidance, Projection, PseudoInverse, constant, hybrid, proportional
from encore.inference.posterior import Ancestral, SeparationProblem, Solver, Start
from encore.inference.posterior_flow import SourceFlow
from encore.inference.red_diff import RedDiff
from encore.models.processes.diffusion import DiscreteDiffusion
from encore.reporting.tables import number

POWER, LENGTH = 0.005, 32


def main() -> None:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--levels", type=int, default=200)
    options = parser.parse_args()
    rows: dict[str, dict[str, str]] = {}
    for case, sources in cases().items():
        for name, solver in solvers(sources).items():
            off, spread = distance(solver, sources, options.draws, options.levels)
            row = rows.setdefault(name, {"solver": name})
            row |= {f"{case}: mean": number(off, 2), f"{case}: variance": number(spread, 2)}
    print_table(list(rows.values()))


def cases() -> dict[str, GaussianSources]:
    """Return pairs of sources."""
    index = torch.arange(LENGTH, dtype=torch.float64)
    lags, eye = (index[:, None] - index).abs(), torch.eye(LENGTH, dtype=torch.float64)
    pairs = {
        "alike": (0.8**lags, 0.8**lags),
        "white": (eye, 0.1 * eye),
        "smooth and rough": (0.95**lags, torch.tensor(-0.9, dtype=torch.float64) ** lags),
    }
    return {name: GaussianSources(POWER * torch.stack(pair)) for name, pair in pairs.items()}


def solvers(sources: GaussianSources) -> dict[str, Solver]:
    """Return all solvers, those that need powers with the true ones."""
    powers = [float(covariance.diagonal().mean()) for covariance in sources.covariances]
    return {
        "exact kernel": ExactPosterior(sources),
        "projection": Ancestral(guidance=Projection()),
        "pseudo-inverse, powers known": Ancestral(guidance=PseudoInverse(powers=powers)),
        "pseudo-inverse, equal parts": Ancestral(guidance=PseudoInverse()),
        "pseudo-inverse, unit variance": Ancestral(guidance=PseudoInverse(powers=[1.0, 1.0])),
        "hybrid": Ancestral(guidance=LossGuidance(schedule=hybrid())),
        "noise-proportional": Ancestral(guidance=LossGuidance(schedule=proportional())),
        "constant (DPS)": Ancestral(guidance=LossGuidance(schedule=constant(), normalise="none")),
        "Dirac flow": SourceFlow(constrained=0),
        "Gaussian flow": SourceFlow(),
        "RED-diff": RedDiff(rate=0.005),
    }


def distance(solver: Any, sources: GaussianSources, draws: int, levels: int) -> tuple[float, float]:
    """Return the error of the mean over the posterior's deviation, and the variance over the posterior's."""
    generator = torch.Generator().manual_seed(0)
    total = sources.covariances.sum(dim=0)
    drawn = torch.randn(LENGTH, generator=generator, dtype=torch.float64)
    mixture = (torch.linalg.cholesky(total) @ drawn).expand(draws, 1, LENGTH)
    chain = {
        "levels": DiscreteDiffusion().levels(levels),
        "generator": generator,
        "start": Start(kind="noise"),
    }
    sample = solver(SeparationProblem(priors=sources.priors, mixture=mixture, draws=draws, **chain))
    true = sources.covariance().diagonal()
    off = sample.estimates.mean(dim=0)[:, 0] - sources.mean(mixture[:1])[0, :, 0]
    spread = sample.estimates[:, :, 0].flatten(1).var(dim=0)
    return float((off.flatten().square() / true).mean().sqrt()), float((spread / true).mean())


if __name__ == "__main__":
    main()
