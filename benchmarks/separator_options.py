"""What mixed precision and compiling buy: a separator's calls with each option against none, in turn.

    python benchmarks/separator_options.py [--separator URI ...] [--device cuda] [--batches 1 4]

Printed is the ratio of the median times without and with the option, smallest and largest of a repetition in
brackets, how long the first call took, and by how much the estimates differ. On a CPU the calls use one
thread, as the lanes of a refinement do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from typing import Any

import pandas as pd
import torch
from measure_cost import faster, in_turns
from torch import Tensor

from encore.cli.memory import keep_freed_memory
from encore.models import load_separator
from encore.models.acceleration import accelerate
from encore.models.types import LoadedSeparator
from encore.reporting.tables import to_markdown

OPTIONS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "compiled": {"compiled": True},
    "compiled, bf16": {"precision": "bf16", "compiled": True},
}


def waiting(separator: LoadedSeparator, mixture: Tensor) -> Tensor:
    """One call that has really ended."""
    with torch.inference_mode():
        estimates = separator(mixture)
    if mixture.is_cuda:
        torch.cuda.synchronize()
    return estimates


def rows(uri: str | None, options: argparse.Namespace) -> list[dict[str, str]]:
    """A row per option and batch size."""
    plain = load_separator(uri, device=options.device)
    frames = round(options.seconds * plain.sample_rate)
    table = []
    for name, chosen in OPTIONS.items():
        changed = load_separator(uri, device=options.device)
        accelerate(changed, **chosen)
        for batch in options.batches:
            generator = torch.Generator().manual_seed(batch)
            mixture = 0.1 * torch.randn(batch, plain.channels, frames, generator=generator)
            mixture = mixture.to(options.device)
            start = time.perf_counter()
            estimates = waiting(changed, mixture)
            first = time.perf_counter() - start
            expected = waiting(plain, mixture)
            calls = [partial(waiting, separator, mixture) for separator in (changed, plain)]
            ours, theirs = in_turns(calls, options.repeats)
            table.append(
                {
                    "separator": type(plain).__name__,
                    "option": name,
                    "batch": str(batch),
                    "without": f"{1000 * statistics.median(theirs):.1f} ms",
                    "faster": faster(ours, theirs),
                    "first call": f"{first:.1f} s",
                    "estimates differ by": f"{float((estimates - expected).norm() / expected.norm()):.1e}",
                }
            )
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--separator", nargs="+", default=[None], help="checkpoints; the shipped one by default"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    table = [row for uri in options.separator for row in rows(uri, options)]
    print(to_markdown(pd.DataFrame(table)))


if __name__ == "__main__":
    main()
