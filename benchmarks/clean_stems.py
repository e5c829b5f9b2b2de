"""How near separators are to the identity on clean stems: uSDR of ``f(s)`` against ``s``, in dB.

    python benchmarks/clean_stems.py datasets/songs SEPARATOR [SEPARATOR ...] [--songs 6] [--seconds 12]

What a separator takes from a stem that is alone, it takes again whenever its estimate is fed back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from encore.data.datamodule import SeparationData
from encore.data.music_corpora import musdb18_hq
from encore.metrics import usdr
from encore.models import load_separator
from encore.reporting.tables import to_markdown


def main() -> None:
    """Print a row for every separator."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder in the MUSDB18-HQ layout")
    parser.add_argument("separators", nargs="+", help="what infer.py --separator takes")
    parser.add_argument("--songs", type=int, default=6, help="of test, evenly spread")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each song, where all stems sound")
    options = parser.parse_args()
    rows = []
    for uri in options.separators:
        separator = load_separator(uri)
        data = SeparationData(
            test=lambda: musdb18_hq(options.data, "test"),
            sources=separator.sources,
            sample_rate=separator.sample_rate,
            channels=separator.channels,
            limit_test=options.songs,
            test_seconds=options.seconds,
            crop="active",
        )
        songs = data.test_dataloader().dataset
        found = []
        for place in range(len(songs)):
            stems = songs[place]["references"]
            with torch.no_grad():
                estimates = separator(stems)
            found.append(torch.stack([usdr(estimates[n, n], stem) for n, stem in enumerate(stems)]))
        means = torch.stack(found).nanmean(0).tolist()
        named = {name: f"{value:.2f}" for name, value in zip(separator.sources, means, strict=True)}
        rows.append({"separator": uri} | named)
    print(to_markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
