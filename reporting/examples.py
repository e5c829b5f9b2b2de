"""Write and read examples: audio and spectrograms of the items that a method improved most and least."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from encore.data.audio_writing import write_audio
from encore.reporting.figures import save_png
from encore.reporting.labels import axis_label, decimals, title, unit
from encore.reporting.scores import column_name
from encore.reporting.spectrograms import spectrogram_figure
from encore.reporting.summary import final_steps, guided, pair_scores
from encore.reporting.tables import number

EXAMPLES_FILE = "examples.json"
SECONDS = 10.0
"""Longest excerpt, from the middle of an item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """An item of a run, with what it gained by one method.

    Attributes:
        rank: ``"best"``, ``"median"`` or ``"worst"`` by the gain.
        item: Its name.
        method: Name of the method.
        kind: Of the method, see `encore.reporting.scores.KINDS`.
        metric: In which the gain is stated.
        scores: Of the mixture, one step and the method.
        picture: File of the spectrograms, in the folder of the examples; empty as long as there is none.
        audio: Files by name of the signal, there too.
    """

    rank: str
    item: str
    method: str
    kind: str
    metric: str
    scores: Mapping[str, float]
    picture: str = ""
    audio: Mapping[str, str] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        """Item, method and scores, in one line."""
        places = decimals(self.metric)
        values = ", ".join(f"{name} {value:.{places}f}" for name, value in self.scores.items())
        column = column_name(self.method, self.kind)
        return f"{self.rank} by {column}: {self.item}, {axis_label(self.metric)}: {values}"

    @property
    def gain(self) -> str:
        """Item and its gain over one step by the method, in one line."""
        value = self.scores["refined"] - self.scores["one step"]
        words = {"best": "gained most", "median": "is the median", "worst": "gained least"}[self.rank]
        gain = f"{number(value, decimals(self.metric), signed=True)} {unit(self.metric)}".strip()
        return f"{self.item} {words}, {gain} {title(self.metric)} by {column_name(self.method, self.kind)}"


def choose_examples(scores: pd.DataFrame, main: str) -> list[Example]:
    """Return the items that gained most, least and the median in the main metric, without audio.

    The method is the first blind one of the table, else the first oracle, else the first schedule. None is
    returned where no method has a gain.
    """
    rows = guided(pair_scores(scores[scores["metric"] == main])).dropna(subset="gain")
    for kind in ("blind", "oracle", "fixed"):
        of_kind = rows[rows["kind"] == kind]
        if len(of_kind):
            break
    else:
        return []
    own = final_steps(of_kind[of_kind["column"] == of_kind["column"].iloc[0]])
    own = own.sort_values(["gain", "item"], ignore_index=True)
    ranks = {"best": len(own) - 1, "median": len(own) // 2, "worst": 0}
    chosen: dict[int, str] = {}
    for rank, place in ranks.items():
        chosen.setdefault(place, rank)
    examples = []
    for place, rank in chosen.items():
        row: dict[str, Any] = dict(own.loc[place])
        values = {"mixture": row["mixture_value"], "one step": row["one_step"], "refined": row["value"]}
        known = {name: value for name, value in values.items() if value == value}
        same = {name: row[name] for name in ("item", "method", "kind", "metric")}
        examples.append(Example(rank=rank, scores=known, **same))
    return examples


def write_examples(
    folder: Path,
    examples: list[Example],
    waveforms: Callable[[str, str], Mapping[str, Tensor]],
    sample_rate: int,
) -> list[Example]:
    """Write audio and spectrograms of examples, and a file that lists them.

    Args:
        folder: Made if there is none; earlier examples there are replaced.
        examples: From `choose_examples`.
        waveforms: Returns the signals ``(c, t)`` of an item and a method, by name.
        sample_rate: In Hz.

    Returns:
        The examples with their files.
    """
    found = []
    for example in examples:
        signals = waveforms(example.item, example.method)
        picture, audio = write_example(folder, example.rank, signals, sample_rate, heading=example.caption)
        names = {name: path.name for name, path in audio.items()}
        found.append(replace(example, picture=picture.name, audio=names))
    if found:
        listed = json.dumps([asdict(example) for example in found], indent=2)
        (folder / EXAMPLES_FILE).write_text(listed + "\n", encoding="utf-8")
    return found


def read_examples(folder: Path) -> list[Example]:
    """Read the examples of a folder; none if it lists none."""
    path = folder / EXAMPLES_FILE
    return [Example(**own) for own in json.loads(path.read_text("utf-8"))] if path.is_file() else []


def write_example(
    folder: Path, name: str, waveforms: Mapping[str, Tensor], sample_rate: int, *, heading: str
) -> tuple[Path, dict[str, Path]]:
    """Write ``<name>.png``, the spectrograms of waveforms, and ``<name>_<waveform>.flac`` for each of them.

    Args:
        folder: Made if there is none.
        name: Of the example.
        waveforms: ``(c, t)`` by name; the middle `SECONDS` are written, at one common level that does not
            clip.
        sample_rate: In Hz.
        heading: Of the figure.

    Returns:
        The path of the figure, and those of the audio by the waveforms' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    length = next(iter(waveforms.values())).shape[-1]
    start = max(0, (length - int(SECONDS * sample_rate)) // 2)
    cut = {own: waveform[..., start : length - start] for own, waveform in waveforms.items()}
    peak = max(1.0, *(float(waveform.abs().max()) for waveform in cut.values()))
    audio = {own: folder / f"{file_name(f'{name}_{own}')}.flac" for own in cut}
    for own, path in audio.items():
        write_audio(path, cut[own] / peak, sample_rate, subtype="PCM_16")
    figure = spectrogram_figure(cut, sample_rate, title=heading)
    return save_png(figure, folder / f"{file_name(name)}.png"), audio


def file_name(text: str) -> str:
    """Keep letters, digits and a few signs only, for file names and log keys alike."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)
