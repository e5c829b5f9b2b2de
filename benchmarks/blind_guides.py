"""Which blind measure knows what helps a stem: its rank correlation with the gain in SI-SDR, over the steps.

    python benchmarks/blind_guides.py SEPARATOR --data datasets/songs [--songs 5] [--seconds 12] [-o OUT]

In every step the candidates of a grid are scored by the oracle, which chooses, and by every blind measure.
Printed are, for each stem, the Spearman correlations within a song, over the candidates of all steps and over
those of the first step alone, their mean over songs with its 95 % bootstrap interval; and how much of the
oracle's gain each measure leaves if it chooses among the same candidates in the first step.

``mixture_consistency`` is ``-||x_0 - sum_k f(x)^(k)||`` of the estimates of a candidate's blend.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from encore.cli.memory import keep_freed_memory
from encore.data.datamodule import SeparationData
from encore.data.music_corpora import musdb18_hq
from encore.inference import GridSearch, Lanes, refine
from encore.inference.execution import usual_lanes
from encore.metrics import Quality, get_quality
from encore.metrics.self_consistency import SELF_CHECKS
from encore.metrics.summary import summarise
from encore.models import load_separator
from encore.models.types import LoadedSeparator, Separator
from encore.reporting.tables import to_markdown

CONSISTENCY = "mixture_consistency"


class Remembering:
    """A separator that knows of its last estimates how far all together were from a mixture."""

    def __init__(self, separate: Separator, mixture: Tensor) -> None:
        self.separate, self.mixture = separate, mixture
        self._given: list[tuple[Tensor, Tensor]] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        estimates = self.separate(inputs)
        self._given = [*self._given[-40:], *zip(estimates, estimates.sum(1), strict=True)]
        return estimates

    def consistency(self, estimate: Tensor) -> float:
        """Of one estimate ``(c, t)``."""
        for estimates, total in reversed(self._given):
            if any(torch.equal(own, estimate) for own in estimates):
                return -float((self.mixture - total).norm())
        raise LookupError("the separator never gave this estimate")


class Recording(Quality):
    """The oracle, which writes down what every blind measure says of each candidate."""

    name, needs_reference = "recording", True

    def __init__(self, oracle: Quality, blind: Sequence[Quality], separator: Remembering) -> None:
        self.oracle, self.blind, self.separator = oracle, list(blind), separator
        self.sample_rate = oracle.sample_rate
        self.separator_calls = sum(measure.separator_calls for measure in blind)
        self.rows: list[dict[str, float]] = []
        self._lock = Lock()

    def bound_to(self, ask: Any) -> Quality:
        """The same records, with the separator at hand."""
        self.blind = [measure.bound_to(ask) for measure in self.blind]
        return self

    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        consistency = [self.separator.consistency(own) for own in estimate]
        score = self.oracle(estimate, reference=reference, mixture=mixture, one_step=one_step)
        values = {m.name: m(estimate, mixture=mixture, one_step=one_step) for m in self.blind}
        with self._lock:
            for row in range(len(estimate)):
                own = {name: float(value[row]) for name, value in values.items()}
                self.rows.append({"oracle": float(score[row]), CONSISTENCY: consistency[row]} | own)
        return score


def candidates_of(
    separator: LoadedSeparator, mixture: Tensor, references: Tensor, target: int, options: argparse.Namespace
) -> pd.DataFrame:
    """Every candidate of one stem of one song: the oracle's score, the blind ones, the step."""
    rate = separator.sample_rate
    # an estimate is recognised by its samples: the separator, not refine, minds its level
    remembering = Remembering(separator, mixture)
    blind = [get_quality(name, sample_rate=rate) for name in options.measures]
    recording = Recording(get_quality("si_sdr", sample_rate=rate), blind, remembering)
    refine(
        remembering,
        mixture[None],
        source=target,
        steps=options.steps,
        search=GridSearch(options.candidates, include_estimate=True),
        quality=recording,
        reference=references[target][None],
        max_batch=1,
    )
    rows = pd.DataFrame(recording.rows)
    # the first is the one-step estimate, which share 1 gives in every step without another score
    rows["step"] = [0, *(1 + np.arange(len(rows) - 1) // options.candidates)]
    return rows


def correlations(rows: pd.DataFrame, measure: str) -> dict[str, float]:
    """Of one stem of one song."""
    first = rows[rows["step"] <= 1]
    chosen = first.loc[first[measure].idxmax(), "oracle"]
    start, best = rows["oracle"].iloc[0], first["oracle"].max()
    return {
        "all steps": float(spearmanr(rows["oracle"], rows[measure]).statistic),
        "first step": float(spearmanr(first["oracle"], first[measure]).statistic),
        "gain (dB)": float(chosen - start),
        "oracle's gain (dB)": float(best - start),
    }


def main() -> None:
    """Print a row for every stem and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("separator", help="what infer.py --separator takes")
    parser.add_argument("--data", type=Path, required=True, help="folder in the MUSDB18-HQ layout")
    parser.add_argument("--songs", type=int, default=None, help="evenly spread (default: all of test)")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each song, where all stems sound")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--measures", nargs="+", default=list(SELF_CHECKS))
    parser.add_argument("-o", "--out", type=Path, help="folder for candidates.parquet and table.md")
    options = parser.parse_args()
    keep_freed_memory()
    separator = load_separator(options.separator)
    data = SeparationData(
        test=lambda: musdb18_hq(options.data, "test"),
        sources=separator.sources,
        sample_rate=separator.sample_rate,
        channels=separator.channels,
        limit_test=options.songs,
        test_seconds=options.seconds,
        crop="active",
        rebuild_mixture=True,
    )
    songs = data.test_dataloader().dataset
    jobs = [(place, target) for place in range(len(songs)) for target in range(len(separator.sources))]

    def work(job: tuple[int, int]) -> pd.DataFrame:
        sample = songs[job[0]]
        rows = candidates_of(separator, sample["mixture"], sample["references"], job[1], options)
        return rows.assign(song=sample["name"], stem=separator.sources[job[1]])

    with Lanes(usual_lanes(torch.device("cpu"))) as lanes:
        found = pd.concat(tqdm(lanes.map(work, jobs), total=len(jobs), unit="stem"), ignore_index=True)
    table = to_markdown(summary_table(found, [CONSISTENCY, *options.measures]))
    print(table)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        found.to_parquet(options.out / "candidates.parquet", index=False)
        (options.out / "table.md").write_text(table)


def summary_table(found: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Means over songs, for every stem and for all of them."""
    rows = []
    for stem in (*dict.fromkeys(found["stem"]), "all"):
        own = found if stem == "all" else found[found["stem"] == stem]
        for measure in measures:
            values = pd.DataFrame(
                [correlations(group, measure) for _, group in own.groupby(["song", "stem"], sort=False)]
            )
            cells = {}
            for column in values:
                summary = summarise(values[column])
                sign = "+" if "gain" in column else ""
                cells[column] = f"{summary.mean:{sign}.2f} [{summary.low:.2f}, {summary.high:.2f}]"
            rows.append({"stem": stem, "measure": measure} | cells)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
