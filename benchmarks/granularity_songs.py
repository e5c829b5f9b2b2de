"""One stem of songs refined segment by segment against as a whole: uSDR of what `infer.py` wrote.

    python benchmarks/granularity_songs.py REFERENCES STEM one_step=FOLDER segment=FOLDER item=FOLDER

Folders hold ``<song>/mixture.wav``, REFERENCES ``<song>/<STEM>.wav``. Gains are over the first folder, paired
by song, with their 95 % bootstrap intervals.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from encore.data.audio import read_audio
from encore.metrics.music import usdr
from encore.metrics.summary import summarise, summarise_gain
from encore.reporting.tables import to_markdown


def main() -> None:
    """Print a row for every song, and their means."""
    references, stem = Path(sys.argv[1]), sys.argv[2]
    folders = dict(argument.split("=", 1) for argument in sys.argv[3:])
    names = list(folders)
    songs = sorted(path.parent.name for path in Path(folders[names[0]]).glob("*/mixture.wav"))
    scores = pd.DataFrame(
        [
            {
                name: score(Path(folder, song, "mixture.wav"), references / song / f"{stem}.wav")
                for name, folder in folders.items()
            }
            for song in songs
        ],
        index=songs,
    )
    first = names[0]
    rows = [
        {"song": song, first: f"{own[first]:.2f}"}
        | {name: f"{own[name] - own[first]:+.2f}" for name in names[1:]}
        for song, own in scores.iterrows()
    ]
    means = {"song": "mean", first: f"{summarise(scores[first]).mean:.2f}"}
    for name in names[1:]:
        gain = summarise_gain(scores[name], scores[first])
        means[name] = f"{gain.mean:+.2f} [{gain.low:.2f}, {gain.high:.2f}]"
    print(to_markdown(pd.DataFrame([*rows, means])))


def score(estimate: Path, reference: Path) -> float:
    """uSDR of a file in dB."""
    (found, _), (true, _) = read_audio(estimate), read_audio(reference)
    return float(usdr(found[None].double(), true[None].double()))


if __name__ == "__main__":
    main()
