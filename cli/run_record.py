"""Describe a run of ``infer.py`` in ``run.json``, and archive an earlier run's scores."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encore.cli.file_separation import FileSeparator
from encore.cli.overrides import UserError
from encore.cli.run_folder import RunFolder
from encore.inference.prior_separation import PriorSeparator
from encore.models.costs import macs_per_second, parameters
from encore.models.loading import DEFAULT
from encore.models.types import LoadedSeparator

SETTINGS = ("separator", "priors", "sources", "sample_rate", "method", "seed")
"""Facts in which runs must agree for their scores to stand in one table."""


def describe_run(options: argparse.Namespace, files: FileSeparator) -> dict[str, Any]:
    """Return facts for ``run.json``: what ``report.py`` needs to know about the separator and its cost."""
    separator, uri, model = files.separator, options.separator, "diffusion_prior"
    if files.priors is None:
        uri = uri or DEFAULT
        model = Path(uri).stem.rstrip(":")
    return {
        "name": options.out.resolve().name or "infer",
        "model": model,
        "separator": uri,
        "priors": options.priors,
        "sources": list(separator.sources),
        **costs_of(separator, files.priors),
        "sample_rate": separator.sample_rate,
        "method": files.method.describe(),
        "seed": files.seed,
        "device": str(files.device),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def archive_previous_scores(out: Path, facts: Mapping[str, Any], *, skip_existing: bool) -> Path | None:
    """Archive the scores of an earlier run into the same folder, unless its settings are the same.

    They are renamed: ``scores.1.csv``, ``summary.1.json``, ``run.1.json``.

    Args:
        out: The output folder.
        facts: Of this run.
        skip_existing: Whether outputs of the earlier run count as this one's.

    Returns:
        The renamed table; None if there is none, or it stays.

    Raises:
        UserError: If ``skip_existing`` would mix outputs of both.
    """
    known, new = RunFolder(out).facts(), json.loads(json.dumps(facts))
    differ = [name for name in SETTINGS if known.get(name) != new.get(name)]
    if not differ or not (out / "scores.csv").exists():
        return None
    if skip_existing:
        raise UserError(
            f"--skip-existing: outputs in {out} are of a run with other {', '.join(differ)} "
            f"({out / 'run.json'}): give another -o, or leave it out"
        )
    number = next(number for number in count(1) if not (out / f"scores.{number}.csv").exists())
    for path in (out / "scores.csv", out / "summary.json", out / "run.json"):
        if path.exists():
            path.rename(path.with_name(f"{path.stem}.{number}{path.suffix}"))
    return out / f"scores.{number}.csv"


def costs_of(separator: LoadedSeparator, priors: PriorSeparator | None = None) -> dict[str, float]:
    """Return ``parameters`` and ``macs_per_second`` of a separator; nothing of one that is no network.

    The latter are those of one call; of priors those of all forward evaluations of their networks.
    """
    if not isinstance(separator, nn.Module):
        return {}
    if priors is None:
        cost = macs_per_second(separator)
    else:
        # one evaluation of each is counted, for all of them would take as long as a file
        each = {id(network): macs_per_second(network) for network in priors.models}
        cost = priors.evaluations * sum(each[id(prior.model)] for prior in priors.priors) / len(priors.priors)
    return {"parameters": parameters(separator), "macs_per_second": cost}
