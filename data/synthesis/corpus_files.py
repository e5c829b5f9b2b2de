"""What the writers of corpora share: seeds by branch, dealt kinds of noise, processes, and a clean folder."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from tqdm import tqdm

from encore.data.synthesis import FloatArray, flite
from encore.data.synthesis.noise import NOISES
from encore.data.synthesis.speech import check_espeak

Job = TypeVar("Job")
Entry = TypeVar("Entry")

SYNTHESISERS = ("espeak", "flite")
"""Of speech."""


def generator(seed: int, *branch: int) -> np.random.Generator:
    """Return the generator of one branch of a corpus's seed, independent of all other branches."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=branch))


def deal_noise(seed: int, index: int, *branch: int) -> str:
    """Deal the kinds of noise like cards: a block of as many files has each once, in an order of its own.

    Args:
        seed: Of the corpus.
        index: Number of the file within its split.
        branch: Of the seed, for this split.

    Returns:
        One of `encore.data.synthesis.noise.NOISES`.
    """
    kinds = list(NOISES)
    block, place = divmod(index, len(kinds))
    return kinds[int(generator(seed, *branch, block).permutation(len(kinds))[place])]


def check_choices(
    *, sample_rate: int, rates: Sequence[int], seed: int, synthesiser: str | None = None
) -> None:
    """Check what all corpora are given.

    Args:
        sample_rate: Hz.
        rates: Those that the corpus can have.
        seed: From 0 up.
        synthesiser: One of `SYNTHESISERS`; None where nobody speaks.

    Raises:
        ValueError: If one of them will not do.
    """
    if sample_rate not in rates:
        *others, last = map(str, rates)
        raise ValueError(f"sample_rate must be {', '.join(others)} or {last} Hz, not {sample_rate}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, not {seed}")
    if synthesiser is not None and synthesiser not in SYNTHESISERS:
        raise ValueError(f"synthesiser must be {' or '.join(SYNTHESISERS)}, not {synthesiser!r}")


def check_rate_of_flite(synthesiser: str, sample_rate: int) -> None:
    """Check that flite is not asked for a rate that it does not have.

    Raises:
        ValueError: If it is.
    """
    if synthesiser == "flite" and sample_rate != flite.SAMPLE_RATE:
        raise ValueError(
            f"sample_rate must be {flite.SAMPLE_RATE} Hz with synthesiser flite, not {sample_rate};"
            " only espeak has both rates"
        )


def check_workers(workers: int) -> None:
    """Check a number of processes.

    Raises:
        ValueError: If it is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")


def check_tools(synthesiser: str, workers: int) -> None:
    """Check that a corpus can be written here, before anything of it is.

    Args:
        synthesiser: Of the speech; with flite, espeak-ng still speaks the babble.
        workers: Processes.

    Raises:
        ValueError: If ``workers`` is below 1.
        SynthesisError: If espeak-ng or flite is missing or fails.
    """
    check_workers(workers)
    check_espeak()
    if synthesiser == "flite":
        flite.check_flite()


def write_listing(path: Path, entries: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line, once all entries are there: the listing means a finished corpus."""
    lines = [json.dumps(entry) + "\n" for entry in entries]
    path.write_text("".join(lines), encoding="utf-8")


def run_jobs(
    write: Callable[[Job], Entry], jobs: Sequence[Job], *, workers: int, name: str
) -> Iterator[Entry]:
    """Write files in any order, yielding what each job returns in the jobs' order, with a progress bar.

    Args:
        write: A function of a module, so that processes can find it; one job to one entry.
        jobs: Its arguments.
        workers: Processes; 1 stays in this one.
        name: Of the corpus, for the bar.
    """
    yield from tqdm(_map(write, jobs, workers), total=len(jobs), desc=name, unit="file")


def prepare_folder(out: Path, folders: Iterable[str], *, overwrite: bool, listing: str) -> None:
    """Make the folders of a corpus, deleting an earlier corpus's if told to, and nothing else ever.

    Args:
        out: The corpus's folder, new, empty, or with ``overwrite`` any.
        folders: Paths below it.
        overwrite: Whether ``out`` may hold files.
        listing: File in ``out`` that only a finished corpus has; deleted.

    Raises:
        ValueError: If ``out`` is a file, or not empty without ``overwrite``.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out must be a folder, not the file {out}")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"out is not empty: {out}; choose another folder or give --overwrite")
    for folder in (out / inside for inside in folders):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    (out / listing).unlink(missing_ok=True)


def pcm(signal: FloatArray) -> np.ndarray:
    """Round a signal of full scale 1 to 16-bit samples."""
    return np.round(signal * 32768).astype(np.int16)


def write_pcm(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write 16-bit samples ``(time,)`` or ``(time, channel)`` as they are."""
    soundfile.write(path, samples, sample_rate, subtype="PCM_16")


def _map(write: Callable[[Job], Entry], jobs: Sequence[Job], workers: int) -> Iterator[Entry]:
    if workers == 1:
        yield from map(write, jobs)
        return
    # spawned, because a fork of a process that has run torch's threads can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(write, jobs, chunksize=max(1, min(4, len(jobs) // (4 * workers))))
