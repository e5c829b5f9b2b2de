r"""Solvers of the posterior under source priors, side by side on mixtures of a task.

    python -m encore.data.mixture_recipes speech_sound datasets/tasks/speech_sound --speech datasets/vctk \
        --sounds datasets/fsd
    python benchmarks/prior_solvers.py datasets/tasks/speech_sound --speech speech.ckpt \
        --sound sound.ckpt --mixtures 8 --out outputs/priors_speech_sound.csv

A row for every mixture and way is added to the file as soon as it is there, and not made again; then the
table is printed. SI-SDR and PESQ are means over the sources, which are assigned to the estimates where they
are interchangeable; against the first way they are paired by mixture, with the 95 % interval of the mean. A
mixture has failed if its mean SI-SDR is below 0 dB. ``left`` is what the estimates leave of the mixture over
its norm, *rest shared* the SI-SDR where every source is given an equal share of that, ``conflict`` the share
of steps and sources at which guidance would need a positive strength to turn a step its way. Both are kept
level by level, and drawn. *NFE* are evaluations of a network for a mixture. ``--ways`` names some of the
ways, ``--grid`` all of the published study, ``--beyond`` fewer levels, stopping, several draws, refinement,
and a separator trained on mixtures, alone and as the start of the chain.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from encore.cli.method_options import load_method
from encore.cli.prior_method import prior_separator
from encore.data.mixture_recipes import TaskMixture, task_mixtures
from encore.data.reading import Reader
from encore.inference import GridSearch, Refinement, refine
from encore.inference.consistency import sum_to_mixture
from encore.inference.permutation import reference_order, reorder
from encore.inference.prior_separation import PriorSeparator
from encore.metrics import MetricPanel, get_quality
from encore.metrics.reference import si_sdr
from encore.models import load_separator
from encore.models.types import LoadedSeparator, exchangeable
from encore.reporting.prior_figures import solver_traces_figure
from encore.reporting.summary import statistics
from encore.reporting.tables import number, to_markdown

GUIDANCE = "posterior.solver.guidance"
ANCESTRAL = (
    "posterior.solver={_target_: encore.inference.posterior.Ancestral, "
    "guidance: {_target_: encore.inference.guidance."
)
FLOW = "posterior.solver={_target_: encore.inference.posterior_flow.SourceFlow, "


@dataclass(frozen=True, slots=True)
class Way:
    """How a mixture is separated.

    Args:
        overrides: Of configs/method/diffusion_prior.yaml; ``SEPARATOR`` is filled in.
        asks: ``"priors"``, ``"separator"`` alone, or ``"refined"``: the priors, and again about blends of the
            mixture with their estimate, of which the reference's SI-SDR chooses.
        classes: Whether priors of sounds are told the class of theirs.
    """

    overrides: Sequence[str] = ()
    asks: Literal["priors", "separator", "refined"] = "priors"
    classes: bool = True

    @property
    def needs_separator(self) -> bool:
        """Whether it asks one that was trained on mixtures."""
        return self.asks == "separator" or any("SEPARATOR" in override for override in self.overrides)


WAYS: dict[str, Way] = {
    "hybrid": Way(),
    "noise-proportional": Way([f"{GUIDANCE}.schedule={{_target_: encore.inference.guidance.proportional}}"]),
    "constant (DPS)": Way(
        [
            f"{GUIDANCE}.schedule={{_target_: encore.inference.guidance.constant, strength: 1.5}}",
            f"{GUIDANCE}.normalise=none",
        ]
    ),
    "pseudo-inverse": Way([f"{ANCESTRAL}PseudoInverse}}}}"]),
    "projection": Way([f"{ANCESTRAL}Projection}}}}"]),
    "Dirac flow": Way([f"{FLOW}constrained: 0}}"]),
    "Gaussian flow": Way([f"{FLOW}constrained: null}}"]),
    "RED-diff": Way(["posterior.solver={_target_: encore.inference.red_diff.RedDiff}"]),
}
"""The solvers."""

GRID: dict[str, Way] = {
    **{f"start {place}": Way([f"posterior.start.at={place / 200}"]) for place in (200, 175, 125, 100)},
    **{
        f"start {place}, from there": Way(
            [f"posterior.start.at={place / 200}", "posterior.start.whole_chain=false"]
        )
        for place in (150, 100)
    },
    "start in noise": Way(["posterior.start.kind=noise"]),
    **{f"floor {floor}": Way([f"{GUIDANCE}.schedule.floor={floor}"]) for floor in (0.0, 0.001, 0.004)},
    "without spectra": Way([f"{GUIDANCE}.loss.spectral=0"]),
    "without chunks": Way([f"{GUIDANCE}.loss.chunks=0"]),
    "spectra only": Way([f"{GUIDANCE}.loss.time=0", f"{GUIDANCE}.loss.chunks=0"]),
    "jointly normalised": Way([f"{GUIDANCE}.normalise=joint"]),
}
"""The published study of the hybrid guidance, which starts at 150 and has a floor of 0.002."""

FAST = ["posterior.levels=50", "posterior.spacing=log"]
LOWER = [*FAST, "posterior.start.whole_chain=false"]
MEAN = ["posterior.draws=4", "posterior.choose=mean"]
BEYOND: dict[str, Way] = {
    "50 levels": Way(["posterior.levels=50"]),
    "50 levels, steps of their own": Way(["posterior.levels=50", f"{GUIDANCE}.shortened=own"]),
    **{
        f"50 levels, class guidance {strength}": Way(
            ["posterior.levels=50", f"posterior.class_guidance={strength}"]
        )
        for strength in (1, 3)
    },
    "50 levels, no class": Way(["posterior.levels=50"], classes=False),
    "50 levels, logarithmic": Way(FAST),
    "25 levels, logarithmic": Way(["posterior.levels=25", "posterior.spacing=log"]),
    "50 log levels, stop at 0.12": Way([*FAST, "posterior.solver.stop=0.12"]),
    "50 log levels, best of 4": Way([*FAST, "posterior.draws=4"]),
    "50 log levels, mean of 4": Way([*FAST, *MEAN]),
    **{
        f"50 log levels, from {place} on": Way([*LOWER, f"posterior.start.at={place / 200}"])
        for place in (100, 50)
    },
    "50 log levels, from 50 on, mean of 4": Way([*LOWER, *MEAN, "posterior.start.at=0.25"]),
    "Dirac flow, 50 log levels": Way([*FAST, f"{FLOW}constrained: 0}}"]),
    "50 log levels, refined (oracle)": Way(FAST, asks="refined"),
    "supervised separator": Way(asks="separator"),
    **{
        f"50 log levels, its estimate at {place}": Way(
            [
                *LOWER,
                "posterior.start.kind=estimate",
                "posterior.estimate=SEPARATOR",
                f"posterior.start.at={place / 200}",
            ]
        )
        for place in (150, 50, 10)
    },
}
"""What goes beyond it."""

EVERY = WAYS | GRID | BEYOND


def main() -> None:
    """Separate what is missing, then print the table."""
    options = parse()
    rows = read_rows(options.out) if options.out.is_file() else pd.DataFrame(columns=["way", "mixture"])
    found = [*task_mixtures(options.task)[: options.mixtures]]
    done = set(zip(rows["way"], rows["mixture"], strict=True))
    torch.set_num_threads(options.threads)
    todo = [(name, mixture) for mixture in found for name in options.ways if (name, mixture.name) not in done]
    traces = options.out.with_name(f"{options.out.stem}_traces.csv")
    for name, mixture in tqdm(todo, desc="ways of mixtures"):
        scores, trace = separated(options, mixture, EVERY[name])
        key = {"way": name, "mixture": mixture.name}
        append(traces, [key | point for point in trace])
        append(options.out, [key | scores])
    rows = read_rows(options.out)
    names = [one.name for one in found]
    rows = rows[rows["way"].isin(options.ways) & rows["mixture"].isin(names)]
    print(f"{len(found)} mixtures of {options.task.name}\n")
    print(to_markdown(table(rows, options.ways)))
    if traces.is_file():
        points = read_rows(traces)
        points = points[points["way"].isin(options.ways) & points["mixture"].isin(names)]
        solver_traces_figure(points).savefig(traces.with_suffix(".png"), dpi=150)


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if rows:
        pd.DataFrame(rows).to_csv(path, mode="a", header=not path.is_file(), index=False)


def read_rows(path: Path) -> pd.DataFrame:
    """The file; names of mixtures are digits, but no numbers."""
    return pd.read_csv(path, dtype={"mixture": str})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("task", type=Path, help="folder written by encore.data.mixture_recipes")
    add("--speech", help="prior of speech")
    add("--sound", help="prior of sounds")
    add("--separator", help="supervised separator of the same sources, for the ways that name one")
    add("--mixtures", type=int, default=8, help="the first so many (8)")
    add("--ways", nargs="+", default=list(WAYS), help="names of ways (all solvers)")
    add("--grid", action="store_true", help="the published study of start, floor and loss terms instead")
    add("--beyond", action="store_true", help="what goes beyond it instead")
    add(
        "--levels",
        type=int,
        help="of the chain, for all ways that do not say (all); in a file apart",
    )
    add("--spacing", default="even", help="of these levels, even or log (even)")
    add("--device", default="cpu")
    add("--threads", type=int, default=1)
    add("--out", type=Path, required=True, help="CSV file of all rows; traces and their figure beside it")
    options = parser.parse_args()
    if options.grid or options.beyond:
        options.ways = ["hybrid", *(GRID if options.grid else {}), *(BEYOND if options.beyond else {})]
    for name in options.ways:
        if name not in EVERY:
            parser.error(f"--ways {name}: choose among {', '.join(EVERY)}")
        if options.separator is None and EVERY[name].needs_separator:
            parser.error(f"--separator is missing: give a separator of {options.task}, for way {name!r}")
    return options


def separated(
    options: argparse.Namespace, mixture: TaskMixture, way: Way
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Scores and time of one way on one mixture, and its trace, level by level."""
    separator: Any = (
        load_separator(options.separator, device=options.device)
        if way.asks == "separator"
        else prior_of(options, mixture, way)
    )
    audio, references = read(mixture, separator)
    sample, evaluations = None, 1
    started = time.perf_counter()
    if way.asks == "separator":
        with torch.inference_mode():
            estimates = separator(audio.to(options.device))
    elif way.asks == "refined":
        found = refined(separator, audio.to(options.device), references.to(options.device))
        estimates, evaluations = found.estimate, int(found.evaluations) * separator.evaluations
    else:
        estimates, sample = separator.sample(audio.to(options.device))
        evaluations = sample.evaluations
    estimates = estimates.cpu()
    seconds = time.perf_counter() - started
    estimates = reorder(estimates, reference_order(estimates, references, exchangeable(separator.sources)))
    scores = measure(estimates, references, audio, separator.sample_rate)
    scores["shared"] = float(si_sdr(sum_to_mixture(estimates, audio), references).mean())
    scores["left"] = float((audio - estimates.sum(1)).norm() / audio.norm())
    scores["seconds"] = seconds
    scores |= {"conflict": None, "steps": None, "evaluations": evaluations}
    if sample is None:
        return scores, []
    conflicts = None if sample.conflicts is None else (sample.conflicts > 0).double().mean(dim=(1, 2))
    scores["conflict"] = None if conflicts is None else float(conflicts.mean())
    scores["steps"] = sample.steps
    levels = separator.levels.signal.flip(0)[-separator.steps :]
    trace = [
        {
            "signal": float(levels[step]),
            "left": float(sample.residuals[step].mean()),
            "conflict": float("nan") if conflicts is None else float(conflicts[step]),
        }
        for step in range(sample.steps)
    ]
    return scores, trace


def prior_of(options: argparse.Namespace, mixture: TaskMixture, way: Way) -> PriorSeparator:
    """The priors of a mixture's sources, under a way."""
    told = {label: f"{options.sound}:{label}" if way.classes else options.sound for label in mixture.labels}
    names = [options.speech if label is None else told[label] for label in mixture.labels]
    own = [f"method.{override}".replace("SEPARATOR", str(options.separator)) for override in way.overrides]
    if options.levels is not None and not any("posterior.levels" in override for override in own):
        own += [f"method.posterior.levels={options.levels}", f"method.posterior.spacing={options.spacing}"]
    method = load_method("diffusion_prior", overrides=own)
    assert method.posterior is not None
    separator = prior_separator(names, method.posterior, device=torch.device(options.device), seed=0)
    separator.progress = None
    return separator


def refined(separator: PriorSeparator, audio: Tensor, references: Tensor) -> Refinement:
    """All sources after one step under the reference's SI-SDR, of four ratios."""
    return refine(
        separator,
        audio,
        source="all",
        steps=1,
        search=GridSearch(4),
        quality=get_quality("si_sdr", sample_rate=separator.sample_rate),
        reference=references,
        interchangeable=exchangeable(separator.sources),
        max_batch=1,
    )


def read(mixture: TaskMixture, separator: LoadedSeparator) -> tuple[Tensor, Tensor]:
    """Mixture ``(1, 1, t)`` and references ``(1, s, 1, t)``."""
    reader = Reader(separator.sample_rate, 1)
    frames = reader.item_length(mixture.item)
    references = [reader.read(file, 0, frames) for file in mixture.item.references.values()]
    assert mixture.item.mixture is not None
    return reader.read(mixture.item.mixture, 0, frames)[None], torch.stack(references)[None]


def measure(estimates: Tensor, references: Tensor, mixture: Tensor, sample_rate: int) -> dict[str, float]:
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
    """Means of every way over its mixtures, and over the first way where both have a mixture."""
    cells = []
    scores = rows.pivot(index="mixture", columns="way", values="si_sdr")
    for way in ways:
        own = rows[rows["way"] == way]
        gain = statistics(scores[way] - scores[ways[0]])
        cells.append(
            {
                "way": way,
                "mixtures": len(own),
                "SI-SDR (dB)": number(float(own["si_sdr"].mean()), 2),
                "rest shared (dB)": number(float(own["shared"].mean()), 2),
                f"over {ways[0]} (dB)": f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]",
                "over the mixture (dB)": number(float(own["improvement"].mean()), 2),
                "PESQ": number(float(own["pesq"].mean()), 2),
                "failed": f"{100 * float((own['si_sdr'] < 0).mean()):.0f} %",
                "left": number(float(own["left"].mean()), 3),
                "conflict": number(float(own["conflict"].mean()), 2),
                "levels": number(float(own["steps"].mean()), 0),
                "NFE": number(float(own["evaluations"].mean()), 0),
                "seconds": number(float(own["seconds"].median()), 1),
            }
        )
    return pd.DataFrame(cells)


if __name__ == "__main__":
    main()
