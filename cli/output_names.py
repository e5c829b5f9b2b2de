"""Name the outputs of an input."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import soundfile

from encore.cli.overrides import UserError
from encore.data.audio import AUDIO_SUFFIXES
from encore.data.audio_writing import CONTAINERS

# old versions of libsndfile read these or not, and write them or not
_COMPRESSED = {".mp3": ("MP3", "MPEG_LAYER_III"), ".ogg": ("OGG", "VORBIS")}
_FIELDS = ("folder", "track", "source", "ext")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputNames:
    """Names of the outputs of every input.

    Args:
        sources: Of the separator.
        residual: Whether what the estimates leave of the input is written too.
        template: Path below the output folder with ``{source}``, the input's ``{track}`` (its name without
            the suffix), ``{folder}`` (where it was below the place that was named) and ``{ext}``; None for
            the input's own relative path, which becomes a folder where there are several outputs.
        container: Suffix such as ``"flac"`` for all files; None for each input's own, or WAV where that
            cannot be written.

    Raises:
        UserError: If the template or the container will not do.
    """

    sources: Sequence[str]
    residual: bool = False
    template: str | None = None
    container: str | None = None

    def __post_init__(self) -> None:
        if self.container is not None and not is_writable(Path(f"x.{self.container}")):
            known = ", ".join(suffix[1:] for suffix in CONTAINERS)
            raise UserError(f"--format {self.container}: cannot be written, use one of {known}")
        if self.template is not None:
            _check(self.template, several=len(self.names) > 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is written of every input: its sources, and the residual."""
        if not self.residual:
            return tuple(self.sources)
        rest = f"no_{self.sources[0]}" if len(self.sources) == 1 else "residual"
        return (*self.sources, rest)

    def paths(self, relative: Path, out: Path) -> tuple[Path, ...]:
        """Return the output paths of one input.

        Args:
            relative: The input's path below the place that was named.
            out: The output folder.
        """
        track = without_suffix(relative)
        suffix = f".{self.container}" if self.container else relative.suffix
        if self.template is not None:
            if not is_writable(Path(f"x{suffix}")):
                suffix = ".wav"
            fields = {"folder": relative.parent.as_posix(), "track": track.name, "ext": suffix[1:]}
            return tuple(out / Path(self.template.format(source=name, **fields)) for name in self.names)
        whole = track.with_name(track.name + suffix) if self.container else relative
        if not is_writable(whole):
            whole = whole.with_name(whole.name + ".wav")
        if len(self.names) == 1:
            return (out / whole,)
        return tuple(out / track / f"{name}{whole.suffix}" for name in self.names)


def is_writable(path: Path) -> bool:
    """Return whether files with this suffix can be written; others become ``<name>.wav``."""
    suffix = path.suffix.lower()
    return suffix in AUDIO_SUFFIXES and (
        suffix not in _COMPRESSED or soundfile.check_format(*_COMPRESSED[suffix])
    )


def without_suffix(path: Path) -> Path:
    """Return the path without an audio suffix; ``take.1`` has none."""
    return path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path


def _check(template: str, *, several: bool) -> None:
    """Refuse a template that is no relative path of an audio file, or gives two outputs one name."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise UserError(f"--filename {template}: {error}; write {{track}}/{{source}}.wav") from error
    if unknown := sorted(fields - set(_FIELDS)):
        known = ", ".join(f"{{{name}}}" for name in _FIELDS)
        raise UserError(f"--filename {template}: {{{unknown[0]}}} is unknown, use {known}")
    if several and "source" not in fields:
        raise UserError(f"--filename {template}: several outputs would have one name, write {{source}} in it")
    path = PurePosixPath(template)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"--filename {template}: must stay below -o, write {{track}}/{{source}}.wav")
    if not template.endswith(".{ext}") and not is_writable(Path(template)):
        raise UserError(f"--filename {template}: is no audio file, end it in .wav, .flac or .{{ext}}")
