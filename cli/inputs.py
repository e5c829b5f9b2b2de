"""Find the files that the arguments of a command line name."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encore.cli.output_names import OutputNames
from encore.data.audio import AUDIO_SUFFIXES


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input file.

    Attributes:
        path: Where it is.
        relative: Its path below the place that was named: what its outputs are called.
    """

    path: Path
    relative: Path


@dataclass(frozen=True, slots=True)
class Job:
    """A file to be processed and its outputs.

    Attributes:
        path: The input.
        relative: Its path below the place that was named.
        outputs: One file for each source, in the separator's order, then that of the residual, if any.
    """

    path: Path
    relative: Path
    outputs: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The relative path as text that any file can hold: the item's name in score tables."""
        return os.fsencode(self.relative.as_posix()).decode("utf-8", "backslashreplace")

    @property
    def done(self) -> bool:
        """Whether all outputs exist; an output is written whole or not at all."""
        return all(output.is_file() for output in self.outputs)


@dataclass(slots=True)
class Plan:
    """Jobs, and a line for each input that cannot be processed."""

    jobs: list[Job] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def plan_jobs(arguments: Sequence[str], out: Path, names: OutputNames) -> Plan:
    """Find the inputs and decide on every output, before anything is processed.

    Args:
        arguments: Files, folders, globs, ``@list.txt``.
        out: The output folder; files in it are no inputs unless they are named themselves.
        names: What the outputs are called.

    Returns:
        The jobs in order, each input once, and a line for each argument or file that cannot be used: nothing
        found, an output that is an input, two inputs with one output (both are left out).
    """
    plan = Plan()
    files: dict[tuple[Path, Path], InputFile] = {}
    for argument in arguments:
        try:
            for file in find_inputs(argument, out):
                files.setdefault((file.path.resolve(), file.relative), file)
        except (OSError, ValueError) as error:
            plan.faults.append(_reason(argument, error))
    jobs = [Job(file.path, file.relative, names.paths(file.relative, out)) for file in files.values()]
    by_output = defaultdict(list)
    for job in jobs:
        for output in job.outputs:
            by_output[output].append(job)
    inputs = {job.path.resolve(): job for job in jobs}
    for job in jobs:
        fault = _fault(job, by_output, inputs)
        if fault is None:
            plan.jobs.append(job)
        else:
            plan.faults.append(fault)
    return plan


def find_inputs(argument: str, out: Path) -> list[InputFile]:
    """Return the files that one argument names; see `plan_jobs`.

    Raises:
        ValueError: If it stands for none.
        OSError: If a list cannot be read.
    """
    path = Path(argument)
    if path.is_file():
        return [InputFile(path, Path(path.name))]
    if path.is_dir():
        if path.resolve() == out.resolve():
            raise ValueError(
                f"{argument}: is the output folder too, inputs would be overwritten: give another -o"
            )
        return _required(_in_folder(path, path, out), argument, "holds no audio file")
    if argument.startswith("@"):
        return _required(_in_list(Path(argument[1:]), out), argument, "lists no file")
    if glob.has_magic(argument):
        return _required(_in_glob(argument, out), argument, "matches no audio file")
    # nothing there: reading it names the reason, as for every other bad file
    return [InputFile(path, Path(path.name))]


def is_audio_name(path: Path) -> bool:
    """Return whether a search of folders takes a file: an audio suffix, and not hidden."""
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def _in_folder(folder: Path, base: Path, out: Path) -> Iterator[InputFile]:
    """Yield audio files below a folder in sorted order, links followed, the output folder left out."""
    seen, hidden = set(), out.resolve()
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root)
        seen.add(here.resolve())
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() not in (*seen, hidden)
        )
        for name in sorted(names):
            path = here / name
            if is_audio_name(path):
                yield InputFile(path, path.relative_to(base))


def _in_list(path: Path, out: Path) -> Iterator[InputFile]:
    """Yield files and folders of a list, named relative to the deepest folder that holds them all."""
    # names may hold any character but the line's end, and need not be UTF-8
    lines = [line.rstrip("\r") for line in path.read_text("utf-8-sig", "surrogateescape").split("\n")]
    entries = [
        Path(line) for line in lines if line.strip() and (not line.startswith("#") or Path(line).exists())
    ]
    folders = [os.path.abspath(entry if entry.is_dir() else entry.parent) for entry in entries]  # noqa: PTH100
    if not entries:
        return
    base = Path(os.path.commonpath(folders))
    for entry in entries:
        # not resolved: a link is called what the list calls it
        place = Path(os.path.abspath(entry))  # noqa: PTH100
        if entry.is_dir():
            yield from _in_folder(place, base, out)
        else:
            yield InputFile(entry, place.relative_to(base))


def _in_glob(pattern: str, out: Path) -> Iterator[InputFile]:
    """Yield audio files, and those of folders, that a pattern matches, named below its fixed part."""
    fixed = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    base, hidden = Path(*fixed), out.resolve()
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute pattern
        path = Path(match)
        if hidden in path.resolve().parents or path.resolve() == hidden:
            continue
        if path.is_dir():
            yield from _in_folder(path, base, out)
        elif is_audio_name(path):
            yield InputFile(path, path.relative_to(base))


def _required(files: Iterator[InputFile], argument: str, reason: str) -> list[InputFile]:
    found = list(files)
    if not found:
        raise ValueError(f"{argument}: {reason} ({' '.join(AUDIO_SUFFIXES)}): check the path")
    return found


def _fault(job: Job, by_output: dict[Path, list[Job]], inputs: dict[Path, Job]) -> str | None:
    """Return why a job cannot be done, or None."""
    for output in job.outputs:
        others = [other for other in by_output[output] if other is not job]
        if others:
            return (
                f"{job.path}: would be written to {output} like {others[0].path}: "
                "give their common folder, a --filename that tells them apart, or another -o each"
            )
        victim = inputs.get(output.resolve())
        if victim is not None:
            return f"{job.path}: its output {output} would overwrite the input {victim.path}: give another -o"
    return None


def _reason(argument: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{argument}: cannot be read ({error.strerror or error}): check the path"
    return str(error)
