"""The command lines, noisy speech and timing of these scripts."""

from __future__ import annotations

import argparse
import inspect
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from encore.data.corpora import evenly_spaced, voicebank_demand
from encore.data.dataset import SegmentDataset
from encore.data.recording_sources import find_recordings, read_at
from encore.reporting.tables import to_markdown

Pair = tuple[Tensor, Tensor]
"""A mixture and its reference, ``(1, 1, t)``."""


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a module's docstring."""
    shape = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=shape)


def subcommand(subjects: Any, name: str, function: Callable[..., None]) -> None:
    """Add a subcommand that calls a function: its keyword arguments are the options, its docstring the help.

    A default says the type of an option: False that of a switch, a tuple several values, None a text. A
    function with ``*names`` takes any number of texts.
    """
    shape = argparse.RawDescriptionHelpFormatter
    parser = subjects.add_parser(name, description=inspect.getdoc(function), formatter_class=shape)
    for option, parameter in inspect.signature(function).parameters.items():
        flag, default = f"--{option.replace('_', '-')}", parameter.default
        if parameter.kind is parameter.VAR_POSITIONAL:
            parser.add_argument("names", metavar=option.upper(), nargs="*")
        elif default is False:
            parser.add_argument(flag, action="store_true")
        elif isinstance(default, tuple):
            parser.add_argument(flag, nargs="+", type=type(default[0]), default=default)
        else:
            parser.add_argument(flag, type=str if default is None else type(default), default=default)
    parser.set_defaults(function=function)


def run(parser: argparse.ArgumentParser) -> None:
    """Read the command line and call the function of the subcommand."""
    options = vars(parser.parse_args())
    options.pop("function")(*options.pop("names", ()), **options)


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows as Markdown."""
    print(to_markdown(pd.DataFrame(rows)))


def noisy_speech(seed: int, seconds: float, sample_rate: int) -> Pair:
    """Return a mixture and its reference: a test recording of the sample, repeated, in a noise at 5 dB."""
    tested = [own for own in find_recordings() if own.split == "test"]
    kinds = [[own for own in tested if own.kind == kind] for kind in ("speech", "noise")]
    signals = (read_at(own[seed % len(own)], sample_rate).numpy() for own in kinds)
    speech, noise = (np.resize(signal, round(seconds * sample_rate)) for signal in signals)
    speech = 0.05 * speech / np.std(speech)
    noise = noise * np.linalg.norm(speech) / np.linalg.norm(noise) * 10 ** (-5 / 20)
    mixture, reference = (torch.from_numpy(own).float()[None, None] for own in (speech + noise, speech))
    return mixture, reference


def corpus_items(root: Path, split: Any, count: int, sample_rate: int) -> list[Pair]:
    """Return evenly spaced items of a corpus in the layout of VoiceBank-DEMAND."""
    corpus = voicebank_demand(root, split=split)
    chosen = [corpus[place] for place in evenly_spaced(len(corpus), count)]
    audio: dict[str, Any] = {"sample_rate": sample_rate, "channels": 1, "segment": None, "seed": 0}
    samples = SegmentDataset(chosen, sources=("speech",), **audio)
    return [(samples[n]["mixture"][None], samples[n]["references"][:1]) for n in range(len(chosen))]


def timed(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[float, Any]:
    """Return the seconds that a call took, and its result."""
    start = time.perf_counter()
    result = call(*arguments, **keywords)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def in_turns(calls: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Return the seconds of each call in each repetition, in turns, after one that does not count."""
    rounds = [[timed(call)[0] for call in calls] for _ in range(repeats + 1)]
    return [list(own) for own in zip(*rounds[1:], strict=True)]


def faster(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the ratio of the medians, in brackets the smallest and the largest of one repetition."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    ratio = statistics.median(theirs) / statistics.median(ours)
    return f"{ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def milliseconds(seconds: Sequence[float]) -> str:
    """Return the median as a cell."""
    return f"{1000 * statistics.median(seconds):.1f} ms"
