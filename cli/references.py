"""Find the clean files of the inputs by their relative paths, and check them."""

from __future__ import annotations

from pathlib import Path

from encore.cli.inputs import Job
from encore.cli.output_names import without_suffix
from encore.common.dsp import resampled_length
from encore.data.audio import AUDIO_SUFFIXES, AudioFileError, AudioInfo, audio_info


def find_references(job: Job, folder: Path, sources: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the reference file of every source.

    Args:
        job: The input.
        folder: Holds ``<relative path>`` for a separator of one source; ``<source>/<relative path>`` or, as
            the outputs lie, ``<relative path without suffix>/<source>.<suffix>`` for any; for an input called
            ``mixture``, as songs lie in their corpora, ``<its folder>/<source>.<suffix>``. Another audio
            suffix will do too. With one source it may be the reference file itself.
        sources: The separator's sources.

    Returns:
        One file for each source, in order.

    Raises:
        AudioFileError: If one is missing.
    """
    if folder.is_file() and len(sources) == 1:
        return (folder,)
    found = []
    for source in sources:
        places = [folder / source / job.relative, folder / without_suffix(job.relative) / f"{source}.wav"]
        if len(sources) == 1:
            places.insert(0, folder / job.relative)
        if without_suffix(job.relative).name == "mixture":
            places.insert(0, folder / job.relative.parent / f"{source}.wav")
        # an input below the folder of references is not its own one
        matches = [
            match for place in places for match in _with_any_suffix(place) if not match.samefile(job.path)
        ]
        if not matches:
            wanted = " or ".join(str(place) for place in places[: 1 if len(sources) == 1 else 2])
            raise AudioFileError(f"{job.path}: has no reference {wanted}: check --reference")
        found.append(matches[0])
    return tuple(found)


def check_references(job: Job, references: tuple[Path, ...], info: AudioInfo) -> None:
    """Check that references fit their input, and that no output would overwrite one.

    Args:
        job: The input.
        references: From `find_references`.
        info: The input's header.

    Raises:
        AudioFileError: If one cannot be read, or has another length or number of channels.
    """
    outputs = {output.resolve() for output in job.outputs}
    for reference in references:
        if reference.resolve() in outputs:
            raise AudioFileError(f"{job.path}: its output would overwrite {reference}: give another -o")
        own = audio_info(reference)
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


def _with_any_suffix(path: Path) -> list[Path]:
    bare = without_suffix(path)
    others = [bare.with_name(bare.name + suffix) for suffix in AUDIO_SUFFIXES]
    return [place for place in (path, *others) if place.is_file()]


def _duration(info: AudioInfo) -> str:
    return f"{info.frames / info.sample_rate:.3f} s ({info.frames} samples at {info.sample_rate} Hz)"
