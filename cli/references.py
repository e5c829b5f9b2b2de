"""Find the clean files of the inputs by their relative paths, and check them."""

from __future__ import annotations

from pathlib import Path

from encore.cli.inputs import Job
from encore.cli.output_names import without_suffix
from encore.common.dsp import resampled_length
from encore.data.audio import AUDIO_SUFFIXES, AudioFileError, AudioInfo, audio_info


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
