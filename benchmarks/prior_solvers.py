r"""Compare solvers of the posterior under source priors on mixtures of a task.

    python -m encore.data.mixture_recipes speech_sound datasets/tasks/speech_sound --speech datasets/vctk \
        --sounds datasets/fsd
    python benchmarks/prior_solvers.py datasets/tasks/speech_sound --speech speech.ckpt \
        --sound sound.ckpt --mixtures 8 --out outputs/priors/speech_sound.parquet

The variants are those of ``prior_variants.yaml``; what is in the file is not computed again. SI-SDR and PESQ
are means over the sources, in the best order where they are interchangeable; differences from the first
variant are paired by mixture. A mixture has failed if its mean SI-SDR is below 0 dB. ``residual`` is the norm
of the mixture minus the estimates over the mixture's, *consistent* the SI-SDR with the residual divided
equally among the sources, ``conflict`` the fraction of steps and sources at which guidance needs a positive
strength to cancel a step. Both are stored level by level, and plotted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from shared import command_line, print_table, timed
from torch import Tensor
from tqdm import tqdm

from encore.cli.evaluation import Table
from encore.cli.method_options import load_method
from encore.data.corpora import Item
from encore.data.dataset import SegmentDataset
from encore.data.manifest import manifest
from encore.data.mixture_recipes import LISTING, MANIFEST
from encore.inference import GridSearch, RefineOptions
from encore.inference.consistency import sum_to_mixture
from encore.inference.permutation import reference_order, reorder
from encore.inference.posterior import PosteriorSample
from encore.metrics import MetricPanel
from encore.metrics.reference import si_sdr
from encore.models import load_separator
from encore.models.types import permutation_groups
from encore.reporting.plots import solver_traces_figure
from encore.reporting.statistics import statistics
from encore.reporting.tables import interval_cell, number

GROUPS: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("prior_variants.yaml").read_text()
)
VARIANTS = {name: variant for group in GROUPS.values() for name, variant in group.items()}
COLUMNS = (
    ("SI-SDR (dB)", "si_sdr", 2),
    ("over the mixture (dB)", "improvement", 2),
    ("consistent (dB)", "consistent", 2),
    ("PESQ", "pesq", 2),
    ("residual", "residual", 3),
    ("conflict", "conflict", 2),
    ("levels", "steps", 0),
    ("NFE", "evaluations", 0),
    ("seconds", "seconds", 1),
)


def separator_of(options: argparse.Namespace, labels: Sequence[str | None], variant: dict[str, Any]) -> Any:
    """Return the separator, or the priors of sources of some classes as one, under a variant."""
    if variant.get("model") == "separator":
        return load_separator(options.separator, device=options.device)
    sound = "{}:{}" if variant.get("classes", True) else "{}"
    names = [options.speech if label is None else sound.format(options.sound, label) for label in labels]
    own = [*options.set, *variant.get("overrides", ())]
    overrides = [f"method.posterior.{each.replace('SEPARATOR', str(options.separator))}" for each in own]
    posterior = load_method("diffusion_prior", overrides=overrides).posterior
    assert posterior is not None
    separator = posterior(names, device=torch.device(options.device), seed=0)
    separator.progress = iter
    return separator


def separated(
    options: argparse.Namespace, item: Item, labels: Sequence[str | None], variant: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return scores and time of one variant on one mixture, and its trace, level by level."""
    separator = separator_of(options, labels, variant)
    audio: dict[str, Any] = {"sample_rate": separator.sample_rate, "channels": 1, "segment": None, "seed": 0}
    [read] = SegmentDataset([item], sources=list(item.references), **audio)
    given, references = read["mixture"][None], read["references"][None]

    def separate(given: Tensor) -> tuple[Tensor, PosteriorSample | None, int]:
        if variant.get("model") == "separator":
            return separator(given), None, 1
        if variant.get("model") == "refined":
            method = RefineOptions(guide="si_sdr", search=GridSearch(4, steps=1), max_batch=1)
            refined = method(separator, given, references=references.to(given.device))
            return refined.estimates, None, int(refined.evaluations) * separator.evaluations
        estimates, sample = separator.sample(given)
        return estimates, sample, sample.evaluations

    with torch.no_grad():
        seconds, (estimates, sample, evaluations) = timed(separate, given.to(options.device))
    estimates, groups = estimates.cpu(), permutation_groups(separator.sources)
    estimates = reorder(estimates, reference_order(estimates, references, groups))
    scores = measure(estimates, references, given, separator.sample_rate)
    scores |= {"seconds": seconds, "conflict": torch.nan, "steps": torch.nan, "evaluations": evaluations}
    if sample is None:
        return scores, []
    conflicts = torch.full((sample.steps,), torch.nan)
    if sample.conflicts is not None:
        conflicts = (sample.conflicts > 0).double().mean(dim=(1, 2))
    levels = separator.levels.alpha_bar.flip(0)[-separator.steps :][: sample.steps]
    columns = {"alpha_bar": levels, "residual": sample.residuals.mean(1), "conflict": conflicts}
    trace = pd.DataFrame({name: own.cpu() for name, own in columns.items()}).to_dict("records")
    return scores | {"conflict": float(conflicts.mean()), "steps": sample.steps}, trace


def measure(estimates: Tensor, references: Tensor, mixture: Tensor, sample_rate: int) -> dict[str, float]:
    """Return means over the sources, the improvement over the mixture, and what the estimates leave of it."""
    pesq = "pesq" if sample_rate == 16000 else "pesq_nb"
    panel = MetricPanel(["si_sdr", pesq], sample_rate=sample_rate)
    found = panel(estimates[0], references[0])
    before = si_sdr(mixture[0].expand_as(references[0]), references[0]).mean(-1)
    return {
        "si_sdr": float(found["si_sdr"].mean()),
        "improvement": float((found["si_sdr"] - before).mean()),
        "pesq": float(found[pesq].nanmean()),
        "consistent": float(si_sdr(sum_to_mixture(estimates, mixture), references).mean()),
        "residual": float((mixture - estimates.sum(1)).norm() / mixture.norm()),
    }


def cells(rows: pd.DataFrame, variants: list[str]) -> list[dict[str, str]]:
    """Return means of every variant over its mixtures, and differences from the first where both have one."""
    scores, table = rows.pivot(index="mixture", columns="variant", values="si_sdr"), []
    for variant in variants:
        own = rows[rows["variant"] == variant]
        gain = statistics(scores[variant] - scores[variants[0]]).interval
        row = {"variant": variant, "mixtures": str(len(own))}
        row |= {f"over {variants[0]} (dB)": interval_cell(gain, 2)}
        row |= {title: number(float(own[column].mean()), digits) for title, column, digits in COLUMNS}
        table.append(row | {"failed": f"{float((own['si_sdr'] < 0).mean()):.0%}"})
    return table


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("task", type=Path, help="folder written by encore.data.mixture_recipes")
    add("--speech", help="prior of speech")
    add("--sound", help="prior of sounds")
    add("--separator", help="supervised separator of the same sources, for the variants that use one")
    add("--mixtures", type=int, default=8, help="number of mixtures (8)")
    add("--variants", nargs="+", help="names of variants (all of the groups)")
    add("--groups", nargs="+", choices=GROUPS, default=["solvers"], help="groups of variants, beside hybrid")
    add("--set", nargs="+", default=[], help="overrides before a variant's own: levels=50; use another --out")
    add("--device", default="cpu")
    add("--out", type=Path, required=True, help="Parquet file of all rows; traces and their figure beside it")
    options = parser.parse_args()
    grouped = [name for group in options.groups for name in GROUPS[group] if name != "hybrid"]
    options.variants = options.variants or ["hybrid", *grouped]
    for name in options.variants:
        if name not in VARIANTS:
            parser.error(f"--variants {name}: choose among {', '.join(VARIANTS)}")
        if options.separator is None and "separator" in str(VARIANTS[name]).lower():
            parser.error(f"--separator is missing: give a separator of {options.task}, for {name!r}")
    return options


def main() -> None:
    """Separate what is missing, then print the table."""
    options = parse()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows, traces = Table(options.out), Table(options.out.with_name(f"{options.out.stem}_traces.parquet"))
    torch.set_num_threads(1)
    by_name = {item.name: item for item in manifest(options.task / MANIFEST)[: options.mixtures]}
    labels = pd.read_json(options.task / LISTING, lines=True, dtype=False).set_index("name")["labels"]
    keys = [{"variant": name, "mixture": mixture} for mixture in by_name for name in options.variants]
    done = rows.frame.reindex(columns=list(keys[0])).to_dict("records")
    for key in tqdm([key for key in keys if key not in done], desc="mixtures"):
        name = key["mixture"]
        scores, trace = separated(options, by_name[name], labels[name], VARIANTS[key["variant"]])
        traces.add([key | level for level in trace])
        rows.add([key | scores])
    print(f"{len(by_name)} mixtures of {options.task.name}\n")
    print_table(cells(rows.frame.merge(pd.DataFrame(keys)), options.variants))
    if not traces.frame.empty:
        figure = solver_traces_figure(traces.frame.merge(pd.DataFrame(keys)))
        figure.savefig(traces.path.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
