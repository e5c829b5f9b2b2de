"""Find the files that the arguments of a command line name, decide on their outputs, and find references."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from encore.cli.output_names import OutputNames, without_suffix
from encore.common.dsp import resampled_length
from encore.data.audio import AUDIO_SUFFIXES, AudioFileError, AudioInfo, audio_info


@dataclass(kw_only=True)
class Job:
    """A file to be processed.

    Attributes:
        path: The input.
        relative: Its path below the place that was named: what its outputs are called.
        outputs: One file for each source, in the separator's order, then that of the residual, if any.
        references: One file for each source; empty without references.
    """

    path: Path
    relative: Path
    outputs: tuple[Path, ...] = ()
    references: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The relative path as text that any file can hold: the item's name in score tables."""
        return os.fsencode(self.relative.as_posix()).decode("utf-8", "backslashreplace")

    @property
    def done(self) -> bool:
        """Whether all outputs exist; an output is written whole or not at all."""
        return all(output.is_file() for output in self.outputs)

    @cached_property
    def info(self) -> AudioInfo:
        """The input's header; see `encore.data.audio.audio_info` for the errors."""
        return audio_info(self.path)

    @property
    def seconds(self) -> float:
        """Duration of the input."""
        return self.info.frames / self.info.sample_rate


def plan_jobs(arguments: Sequence[str], out: Path, names: OutputNames) -> tuple[list[Job], list[str]]:
    """Find the inputs and decide on every output, before anything is processed.

    Args:
        arguments: Files, folders, globs, ``@list.txt``.
        out: The output folder; files in it are no inputs unless they are named themselves.
        names: What the outputs are called.

    Returns:
        The jobs in order, each input once, and a line for each argument or file that cannot be used: nothing
        found, an output that is an input, two inputs with one output (both are left out).
    """
    faults: list[str] = []
    found: dict[tuple[Path, Path], Job] = {}
    for argument in arguments:
        try:
            for job in find_inputs(argument, out):
                found.setdefault((job.path.resolve(), job.relative), job)
        except OSError as error:
            faults.append(f"{argument}: cannot be read ({error.strerror or error}): check the path")
        except ValueError as error:
            faults.append(str(error))
    by_output = defaultdict(list)
    for job in found.values():
        job.outputs = names.paths(job.relative, out)
        for output in job.outputs:
            by_output[output].append(job)
    inputs = {path: job.path for (path, _), job in found.items()}
    collisions = {id(job): _collision(job, by_output, inputs) for job in found.values()}
    faults += filter(None, collisions.values())
    return [job for job in found.values() if collisions[id(job)] is None], faults


def find_inputs(argument: str, out: Path) -> list[Job]:
    """Return the files that one argument names, without outputs; see `plan_jobs`.

    Raises:
        ValueError: If it stands for none.
        OSError: If a list cannot be read.
    """
    path = Path(argument)
    if path.is_dir():
        if path.resolve() == out.resolve():
            raise ValueError(
                f"{argument}: is the output folder too, inputs would be overwritten: give another -o"
            )
        found, reason = list(_in_folder(path, path, out)), "holds no audio file"
    elif argument.startswith("@") and not path.is_file():
        found, reason = list(_in_list(Path(argument[1:]), out)), "lists no file"
    elif glob.has_magic(argument) and not path.is_file():
        found, reason = list(_in_glob(argument, out)), "matches no audio file"
    else:  # if nothing is there: reading it names the reason, as for every other bad file
        return [Job(path=path, relative=Path(path.name))]
    if not found:
        raise ValueError(f"{argument}: {reason} ({' '.join(AUDIO_SUFFIXES)}): check the path")
    return found


def _in_folder(folder: Path, base: Path, out: Path) -> Iterator[Job]:
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
        yield from _audio_files((here / name for name in sorted(names)), base)


def _audio_files(paths: Iterable[Path], base: Path) -> Iterator[Job]:
    """Yield those files that have an audio suffix and are not hidden, named relative to a folder."""
    for path in paths:
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith("."):
            yield Job(path=path, relative=path.relative_to(base))


def _in_list(path: Path, out: Path) -> Iterator[Job]:
    """Yield files and folders of a list, named relative to the deepest folder that holds them all."""
    # names may hold any character but the line's end, and need not be UTF-8
    lines = [line.rstrip("\r") for line in path.read_text("utf-8-sig", "surrogateescape").split("\n")]
    entries = [
        Path(line) for line in lines if line.strip() and (not line.startswith("#") or Path(line).exists())
    ]
    folders = [os.path.abspath(entry if entry.is_dir() else entry.parent) for entry in entries]  # noqa: PTH100
    base = Path(os.path.commonpath(folders)) if folders else Path()
    for entry in entries:
        # not resolved: a link is called what the list calls it
        place = Path(os.path.abspath(entry))  # noqa: PTH100
        if entry.is_dir():
            yield from _in_folder(place, base, out)
        else:
            yield Job(path=entry, relative=place.relative_to(base))


def _in_glob(pattern: str, out: Path) -> Iterator[Job]:
    """Yield audio files, and those of folders, that a pattern matches, named below its fixed part."""
    parts = Path(pattern).parts
    base = Path(*parts[: next(n for n, part in enumerate(parts) if glob.has_magic(part))])
    hidden = out.resolve()
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute pattern
        path = Path(match)
        if hidden in (path.resolve(), *path.resolve().parents):
            continue
        yield from _in_folder(path, base, out) if path.is_dir() else _audio_files([path], base)


def _collision(job: Job, by_output: dict[Path, list[Job]], inputs: dict[Path, Path]) -> str | None:
    """Return why a job would overwrite a file, or None."""
    for output in job.outputs:
        for other in by_output[output]:
            if other is not job:
                return (
                    f"{job.path}: would be written to {output} like {other.path}: "
                    "give their common folder, a --filename that tells them apart, or another -o each"
                )
        if victim := inputs.get(output.resolve()):
            return f"{job.path}: its output {output} would overwrite the input {victim}: give another -o"
    return None


def find_references(job: Job, folder: Path, sources: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the reference file of every source, in order.

    Args:
        job: The input.
        folder: Holds ``<relative path>`` for a separator of one source; ``<source>/<relative path>`` or, as
            the outputs lie, ``<relative path without suffix>/<source>.<suffix>`` for any; for an input called
            ``mixture``, as songs lie in their corpora, ``<its folder>/<source>.<suffix>``. Another audio
            suffix will do too. With one source it may be the reference file itself.
        sources: The separator's sources.

    Raises:
        AudioFileError: If one is missing, cannot be read, would be overwritten by an output, or has another
            length or number of channels than the input.
    """
    if folder.is_file() and len(sources) == 1:
        references = [folder]
    else:
        references = [_find(job, folder, source, alone=len(sources) == 1) for source in sources]
    outputs = {output.resolve() for output in job.outputs}
    for reference in references:
        if reference.resolve() in outputs:
            raise AudioFileError(f"{job.path}: its output would overwrite {reference}: give another -o")
        info, own = job.info, audio_info(reference)
        if own.channels != info.channels:
            raise AudioFileError(
                f"{job.path}: has {info.channels} channels, its reference {reference} {own.channels}: "
                "give a reference of the same channels"
            )
        if resampled_length(own.frames, own.sample_rate, info.sample_rate) != info.frames:
            raise AudioFileError(
                f"{job.path}: lasts {_duration(info)}, its reference {reference} {_duration(own)}: "
                "cut them to the same length"
            )
    return tuple(references)


def _find(job: Job, folder: Path, source: str, *, alone: bool) -> Path:
    bare = without_suffix(job.relative)
    places = [folder / source / job.relative, folder / bare / f"{source}.wav"]
    if alone:
        places.insert(0, folder / job.relative)
    if bare.name == "mixture":
        places.insert(0, folder / job.relative.parent / f"{source}.wav")
    for place in places:
        stem = without_suffix(place)
        for match in (place, *(stem.with_name(stem.name + suffix) for suffix in AUDIO_SUFFIXES)):
            # an input below the folder of references is not its own one
            if match.is_file() and not match.samefile(job.path):
                return match
    wanted = " or ".join(str(place) for place in places[: 1 if alone else 2])
    raise AudioFileError(f"{job.path}: has no reference {wanted}: check --reference")


def _duration(info: AudioInfo) -> str:
    return f"{info.frames / info.sample_rate:.3f} s ({info.frames} samples at {info.sample_rate} Hz)"
