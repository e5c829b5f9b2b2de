"""Write corpora: a corpus is a dataclass of options, which its command takes, and makes files job by job."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile
from tqdm import tqdm

from encore.data.corpus_folder import prepare_folder, write_listing

Rng = np.random.Generator

Entry = dict[str, Any]
"""A line of a corpus's listing."""
Files = dict[str, np.ndarray | str]
"""16-bit samples ``(time,)`` or ``(time, channel)``, or text, by path below the corpus's folder."""


def option(
    default: Any, help: str, least: float = -np.inf, most: float = np.inf, choices: Sequence[Any] = ()
) -> Any:
    """Declare an option of a corpus: its default, its line of help and its valid values."""
    return field(default=default, metadata={"help": help, "bounds": (least, most), "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What makes a corpus; the same values give the same bytes. A subclass is one layout."""

    name: ClassVar[str]  # on the command line
    source: ClassVar[str]  # of the layout, in words
    command: ClassVar[str]  # the module that writes it
    content: ClassVar[str]  # what its sounds are, a sentence
    listing: ClassVar[str]  # file with one JSON object per recording; only a finished corpus has it
    splits: ClassVar[tuple[str, ...]] = ("train", "test")  # options that count recordings
    out: Path
    sample_rate: int
    seed: int = option(0, "same seed, same bytes", least=0)

    def __post_init__(self) -> None:
        """Check each option against its declaration."""
        for item in fields(self)[1:]:
            value, (least, most) = getattr(self, item.name), item.metadata["bounds"]
            choices, chosen = item.metadata["choices"], value if isinstance(value, tuple) else (value,)
            if isinstance(value, str) and not choices:
                continue
            if choices and not (chosen and len(chosen) == len(set(chosen) & set(choices))):
                raise ValueError(f"{item.name} must be {' or '.join(map(str, choices))}, not {value!r}")
            if not choices and not least <= value <= most:
                bounds = f"at least {least}" if most == float("inf") else f"from {least} to {most}"
                raise ValueError(f"{item.name}={value}: must be {bounds}")

    @property
    def folders(self) -> tuple[str, ...]:
        """The layout's folders, which are deleted before they are written again."""
        raise NotImplementedError

    def check(self) -> None:
        """Check that what the corpus is made of is there."""

    def jobs(self) -> list[tuple[Any, ...]]:
        """List the arguments of `make` for each recording."""
        return [(split, index) for split in self.splits for index in range(getattr(self, split))]

    def make(self, *job: Any, **_: Any) -> tuple[Files, Entry]:
        """Make the files of one job, and its line of the listing."""
        raise NotImplementedError

    def tables(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Return the texts of the layout's tables by path."""
        return {}

    def generator(self, *branch: int) -> Rng:
        """Return the generator of one branch of the seed, independent of all other branches."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=branch))

    def readme(self) -> str:
        """Describe the corpus, with the command that writes it again."""
        command = f"python -m {self.command} {self.name} OUT"
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            values = " ".join(value) if isinstance(value, tuple) else value
            command += f" --{item.name.replace('_', '-')} {values}"
        text = f"{self.content}, in the layout of {self.source}. Written by"
        return f"# {self.name}\n\n{text}\n\n    {command}\n\n`{self.listing}` describes each file.\n"


def write_corpus(corpus: Corpus, *, workers: int = 2, overwrite: bool = False) -> None:
    """Write the files of a corpus's jobs, its tables, a README, and last its listing.

    The bytes do not depend on the number of processes. With ``overwrite`` a corpus in the folder is replaced.

    Raises:
        ValueError: If the folder is not empty and ``overwrite`` is not given, or ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    corpus.check()
    prepare_folder(corpus.out, corpus.folders, overwrite=overwrite, listing=corpus.listing)
    write, jobs = partial(_write_files, corpus), corpus.jobs()
    # spawned, because a fork of a process that has run torch's threads can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = map(write, jobs) if workers == 1 else pool.map(write, jobs)
        entries = list(tqdm(done, total=len(jobs), desc=corpus.name, unit="file"))
    for path, text in {**corpus.tables(entries), "README.md": corpus.readme()}.items():
        (corpus.out / path).parent.mkdir(exist_ok=True)
        (corpus.out / path).write_text(text, encoding="utf-8")
    write_listing(corpus.out / corpus.listing, entries)


def pcm(signal: np.ndarray) -> np.ndarray:
    """Round a signal of full scale 1 to 16-bit samples."""
    return np.round(signal * 32768).astype(np.int16)


def _write_files(corpus: Corpus, job: tuple[Any, ...]) -> Entry:
    files, entry = corpus.make(*job)
    for name, content in files.items():
        path = corpus.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            soundfile.write(path, content, corpus.sample_rate, subtype="PCM_16")
    return {**entry, "sample_rate": corpus.sample_rate, "seed": corpus.seed}


def run(corpora: Sequence[type[Corpus]], arguments: Sequence[str] | None, description: str) -> int:
    """Run a command of corpora; return 0, or 1 with one line on standard error for invalid input.

    Args:
        corpora: Classes, each a subcommand.
        arguments: Of the command line; the process's if None.
        description: Of the command.
    """
    parser = argparse.ArgumentParser(f"python -m {corpora[0].command}", description=description)
    layouts = parser.add_subparsers(required=True, metavar="CORPUS")
    for corpus in corpora:
        layout = layouts.add_parser(corpus.name, help=corpus.source, description=corpus.__doc__)
        layout.set_defaults(corpus=corpus)
        layout.add_argument("out", type=Path, metavar="OUT", help="folder to write, empty or new")
        layout.add_argument("--workers", type=int, default=2, help="processes (2)")
        layout.add_argument("--overwrite", action="store_true", help="replace the corpus in OUT")
        for item in fields(corpus)[1:]:
            many, default = isinstance(item.default, tuple), item.default
            kind: dict[str, Any] = {"nargs": "+"} if many else {"type": type(default)}
            choices = " or ".join(map(str, item.metadata["choices"]))
            text = (
                f"{item.metadata['help']}{choices and ': '}{choices} (default {'all' if many else default})"
            )
            layout.add_argument(f"--{item.name.replace('_', '-')}", default=default, help=text, **kind)
    options = vars(parser.parse_args(arguments))
    chosen, workers, overwrite = (options.pop(name) for name in ("corpus", "workers", "overwrite"))
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    try:
        write_corpus(chosen(**options), workers=workers, overwrite=overwrite)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
