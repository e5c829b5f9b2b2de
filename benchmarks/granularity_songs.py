"""Songs refined segment by segment against as a whole: uSDR of what `infer.py` wrote, song by song.

    python benchmarks/granularity_songs.py REFERENCES one_step=FOLDER segment=FOLDER item=FOLDER

Folders hold ``<song>/mixture/<stem>.wav``, REFERENCES ``<song>/<stem>.wav``. Gains are over the first folder,
paired by song, with their 95 % bootstrap intervals.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from data.audio import read_audio
from metrics.music import usdr
from metrics.summary import summarise, summarise_gain
from reporting.tables import to_markdown


def main() -> None:
    """Print a row for every stem."""
    references = Path(sys.argv[1])
    folders = dict(argument.split("=", 1) for argument in sys.argv[2:])
    first = Path(next(iter(folders.values())))
    paths = [path.relative_to(first) for path in sorted(first.glob("*/mixture/*.wav"))]
    scores = pd.DataFrame(
        [
            {"song": path.parts[0], "stem": path.stem}
            | {
                name: score(Path(folder) / path, references / path.parts[0] / path.name)
                for name, folder in folders.items()
            }
            for path in paths
        ]
    )
    rows = []
    for stem, own in scores.groupby("stem", sort=False):
        names = list(folders)
        cells = {"stem": str(stem), "songs": str(len(own)), names[0]: f"{summarise(own[names[0]]).mean:.2f}"}
        for name in names[1:]:
            gain = summarise_gain(own[name], own[names[0]])
            cells[name] = f"{gain.mean:+.2f} [{gain.low:.2f}, {gain.high:.2f}]"
        between = summarise_gain(own[names[1]], own[names[-1]])
        cells[f"{names[1]} over {names[-1]}"] = f"{between.mean:+.2f} [{between.low:.2f}, {between.high:.2f}]"
        rows.append(cells)
    print(to_markdown(pd.DataFrame(rows)))


def score(estimate: Path, reference: Path) -> float:
    """uSDR of a file in dB."""
    (found, _), (true, _) = read_audio(estimate), read_audio(reference)
    return float(usdr(found[None].double(), true[None].double()))


if __name__ == "__main__":
    main()
