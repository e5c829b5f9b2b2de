r"""Solvers of the posterior under source priors, side by side on mixtures of a task.

    python -m data.mixture_recipes speech_sound datasets/tasks/speech_sound --speech datasets/vctk \
        --sounds datasets/fsd
    python benchmarks/prior_solvers.py datasets/tasks/speech_sound --speech speech.ckpt \
        --sound sound.ckpt --mixtures 8 --out outputs/priors_speech_sound.csv

A row for every mixture and way is added to the file as soon as it is there, and not made again; then the
table is printed. SI-SDR and PESQ are means over the sources, which are assigned to the estimates where they
are interchangeable; a mixture has failed if its mean SI-SDR is below 0 dB. ``left`` is what the estimates
leave of the mixture over its norm, ``conflict`` the share of steps and sources at which guidance would need a
positive strength to turn a step its way. ``--ways`` names some of the ways, ``--grid`` all of the published
study.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from commands.method_options import load_method
from commands.prior_method import prior_separator
from data.mixture_recipes import TaskMixture, task_mixtures
from data.reading import Reader
from inference.permutation import reference_order, reorder
from inference.prior_separation import PriorSeparator
from metrics import MetricPanel
from models.types import exchangeable
from reporting.tables import number, to_markdown

GUIDANCE = "posterior.solver.guidance"
RULE = "{_target_: inference.guidance.LossGuidance, "
ANCESTRAL = (
    "posterior.solver={_target_: inference.posterior.Ancestral, guidance: {_target_: inference.guidance."
)
FLOW = "posterior.solver={_target_: inference.posterior_flow.SourceFlow, "
WAYS: dict[str, list[str]] = {
    "hybrid": [],
    "noise-proportional": [f"{GUIDANCE}.schedule={{_target_: inference.guidance.proportional}}"],
    "constant (DPS)": [
        f"{GUIDANCE}.schedule={{_target_: inference.guidance.constant, strength: 1.5}}",
        f"{GUIDANCE}.normalise=none",
    ],
    "pseudo-inverse": [f"{ANCESTRAL}PseudoInverse, powers: POWERS}}}}"],
    "projection": [f"{ANCESTRAL}Projection}}}}"],
    "Dirac flow": [f"{FLOW}constrained: 0}}"],
    "Gaussian flow": [f"{FLOW}constrained: null}}"],
    "RED-diff": ["posterior.solver={_target_: inference.red_diff.RedDiff}"],
}
"""Overrides of configs/method/diffusion_prior.yaml."""

GRID: dict[str, list[str]] = {
    **{f"start {place}": [f"posterior.start.at={place / 200}"] for place in (200, 175, 150, 125, 100)},
    **{
        f"start {place}, from there": [
            f"posterior.start.at={place / 200}",
            "posterior.start.whole_chain=false",
        ]
        for place in (150, 100)
    },
    "start in noise": ["posterior.start.kind=noise"],
    **{f"floor {floor}": [f"{GUIDANCE}.schedule.floor={floor}"] for floor in (0.0, 0.001, 0.002, 0.004)},
    "without spectra": [f"{GUIDANCE}.loss.spectral=0"],
    "without chunks": [f"{GUIDANCE}.loss.chunks=0"],
    "spectra only": [f"{GUIDANCE}.loss.time=0", f"{GUIDANCE}.loss.chunks=0"],
    "jointly normalised": [f"{GUIDANCE}.normalise=joint"],
    "50 levels": ["posterior.levels=50"],
    "50 levels, steps of their own": ["posterior.levels=50", f"{GUIDANCE}.shortened=own"],
    "best of 4": ["posterior.draws=4"],
}
"""The published study of the hybrid guidance, and what goes beyond it."""


def main() -> None:
    """Separate what is missing, then print the table."""
    options = parse()
    ways = {name: WAYS.get(name, GRID.get(name)) for name in options.ways}
    rows = read_rows(options.out) if options.out.is_file() else pd.DataFrame(columns=["way", "mixture"])
    found = [*task_mixtures(options.task)[: options.mixtures]]
    done = set(zip(rows["way"], rows["mixture"], strict=True))
    torch.set_num_threads(options.threads)
    todo = [(name, mixture) for mixture in found for name in ways if (name, mixture.name) not in done]
    for name, mixture in tqdm(todo, desc="ways of mixtures"):
        row = {"way": name, "mixture": mixture.name} | separated(options, mixture, ways[name] or [])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([row]).to_csv(options.out, mode="a", header=not options.out.is_file(), index=False)
    rows = read_rows(options.out)
    rows = rows[rows["way"].isin(ways) & rows["mixture"].isin([one.name for one in found])]
    print(f"{len(found)} mixtures of {options.task.name}\n")
    print(to_markdown(table(rows, list(ways))))


def read_rows(path: Path) -> pd.DataFrame:
    """The file; names of mixtures are digits, but no numbers."""
    return pd.read_csv(path, dtype={"mixture": str})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("task", type=Path, help="folder written by data.mixture_recipes")
    add("--speech", help="prior of speech")
    add("--sound", help="prior of sounds")
    add("--mixtures", type=int, default=8, help="the first so many (8)")
    add("--ways", nargs="+", default=list(WAYS), help="names of ways (all solvers)")
    add("--grid", action="store_true", help="the study of start, floor and loss terms instead")
    add("--levels", type=int, help="of the chain, for all ways that do not say (all)")
    add("--published-levels", action="store_true", help="for priors that were trained at any level")
    add("--device", default="cpu")
    add("--threads", type=int, default=1)
    add("--out", type=Path, required=True, help="CSV file of all rows")
    options = parser.parse_args()
    if options.grid:
        options.ways = list(GRID)
    strange = [name for name in options.ways if name not in WAYS and name not in GRID]
    if strange:
        parser.error(f"--ways {' '.join(strange)}: choose among {', '.join([*WAYS, *GRID])}")
    return options


def separated(options: argparse.Namespace, mixture: TaskMixture, overrides: list[str]) -> dict[str, Any]:
    """Scores, time and traces of one way on one mixture."""
    names = [options.speech if label is None else f"{options.sound}:{label}" for label in mixture.labels]
    # at the level that the recipes have
    powers = f"[{', '.join(['0.0056'] * len(names))}]"
    own = [f"method.{override.replace('POWERS', powers)}" for override in overrides]
    if options.levels is not None and not any("posterior.levels" in override for override in own):
        own.append(f"method.posterior.levels={options.levels}")
    if options.published_levels:
        own.append("method.posterior.chain={_target_: models.processes.diffusion.DiscreteDiffusion}")
    method = load_method("diffusion_prior", overrides=own)
    assert method.posterior is not None
    device = torch.device(options.device)
    separator = prior_separator(names, method.posterior, device=device, seed=0)
    separator.progress = None
    audio, references = read(mixture, separator)
    started = time.perf_counter()
    estimates, sample = separator.sample(audio.to(device))
    seconds = time.perf_counter() - started
    estimates = estimates.cpu()
    estimates = reorder(estimates, reference_order(estimates, references, exchangeable(separator.sources)))
    scores = measure(estimates, references, audio, separator.sample_rate)
    conflicts = None if sample.conflicts is None else float((sample.conflicts > 0).float().mean())
    left = float((audio - estimates.sum(1)).norm() / audio.norm())
    return scores | {"left": left, "conflict": conflicts, "seconds": seconds, "steps": sample.steps}


def read(mixture: TaskMixture, separator: PriorSeparator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixture ``(1, 1, t)`` and references ``(1, s, 1, t)``."""
    reader = Reader(separator.sample_rate, 1)
    frames = reader.item_length(mixture.item)
    references = [reader.read(file, 0, frames) for file in mixture.item.references.values()]
    assert mixture.item.mixture is not None
    return reader.read(mixture.item.mixture, 0, frames)[None], torch.stack(references)[None]


def measure(
    estimates: torch.Tensor, references: torch.Tensor, mixture: torch.Tensor, sample_rate: int
) -> dict[str, float]:
    """Means over the sources, and what the mixture itself would have."""
    pesq = "pesq" if sample_rate == 16000 else "pesq_nb"
    panel = MetricPanel(["si_sdr", pesq], sample_rate=sample_rate)
    found = panel(estimates[0], references[0])
    before = panel(mixture[0].expand_as(references[0]), references[0])
    return {
        "si_sdr": float(found["si_sdr"].mean()),
        "improvement": float((found["si_sdr"] - before["si_sdr"]).mean()),
        "pesq": float(found[pesq].nanmean()),
    }


def table(rows: pd.DataFrame, ways: list[str]) -> pd.DataFrame:
    """Means of every way over its mixtures."""
    cells = []
    for way in ways:
        own = rows[rows["way"] == way]
        cells.append(
            {
                "way": way,
                "mixtures": len(own),
                "SI-SDR (dB)": number(float(own["si_sdr"].mean()), 2),
                "over the mixture (dB)": number(float(own["improvement"].mean()), 2),
                "PESQ": number(float(own["pesq"].mean()), 2),
                "failed": f"{100 * float((own['si_sdr'] < 0).mean()):.0f} %",
                "left": number(float(own["left"].mean()), 3),
                "conflict": number(float(own["conflict"].mean()), 2),
                "seconds": number(float(own["seconds"].median()), 1),
            }
        )
    return pd.DataFrame(cells)


if __name__ == "__main__":
    main()
