"""Write audio files, at once or part by part, with one policy for levels and clipping.

Levels: full scale is 1.0, nothing is normalized. An integer of ``b`` bits is written as
``round(x * 2 ** (b - 1))``, so that an integer file read and written in its own subtype keeps every bit.

Clipping: floating-point files hold any level and are never clipped. All other subtypes hold -1 to 1; samples
outside are counted and clamped (``clip="clamp"``), or the whole file is divided by its peak (``"rescale"``),
or refused (``"error"``).

Files are complete or absent: a file is written under a temporary name and renamed at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

import numpy as np
import soundfile
import torch
from torch import Tensor

ClipMode = Literal["clamp", "rescale", "error"]

CONTAINERS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aiff": "AIFF", ".aif": "AIFF"}
"""libsndfile's name of the format of every suffix that can be written."""

_DEFAULT_SUBTYPES = {
    "WAV": "FLOAT",
    "FLAC": "PCM_24",
    "OGG": "VORBIS",
    "MP3": "MPEG_LAYER_III",
    "AIFF": "FLOAT",
}
_INTEGER_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_BLOCK = 1 << 16  # libsndfile's Vorbis encoder overflows its stack on long single writes
_RIFF_LIMIT = 0xFFFFFFFF - (1 << 16)  # a RIFF header counts bytes in 32 bits


class AudioWriter:
    """Writes a file part by part in a ``with`` block; after an error no file is left.

    With ``clip="rescale"`` or ``"error"`` and a subtype of limited range, the parts are stored in a temporary
    floating-point file until the peak is known.

    Args:
        path: Ends in ``.wav``, ``.flac``, ``.ogg``, ``.mp3`` or ``.aiff``; its folder is created if needed.
        sample_rate: In Hz.
        channels: Number of channels.
        frames: Samples that will be written: a WAV file above 4 GiB becomes RF64.
        subtype: libsndfile's name of the encoding: ``"FLOAT"``, ``"PCM_16"``, ``"PCM_24"``, ...; if None,
            the format's most exact common one (float for WAV and AIFF, 24 bits for FLAC).
        clip: See above.

    Attributes:
        exceeding: Number of samples so far outside -1 to 1; 0 for floating-point files.

    Raises:
        ValueError: If the suffix, subtype or clip mode is not supported.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        channels: int,
        *,
        frames: int,
        subtype: str | None = None,
        clip: ClipMode = "clamp",
    ) -> None:
        self.path = Path(path)
        if clip not in ("clamp", "rescale", "error"):
            raise ValueError(f"clip={clip!r} is unknown: use 'clamp', 'rescale' or 'error'")
        container, self.subtype = _encoding(self.path, subtype)
        self.container = "RF64" if container == "WAV" and frames * channels * 8 > _RIFF_LIMIT else container
        self.sample_rate, self.channels, self.frames, self.clip = sample_rate, channels, frames, clip
        self.limited = self.subtype not in ("FLOAT", "DOUBLE")
        self.exceeding, self._peak = 0, 1.0
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._buffer = self._partial.with_suffix(".buffer") if self.limited and clip != "clamp" else None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self._buffer is None:
                self._file = self._open(self._partial, self.container, self.subtype)
            else:
                self._file = self._open(self._buffer, "RF64", "DOUBLE")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()
            if kind is None:
                if self._buffer is not None:
                    self._write_buffered(self._buffer)
                self._partial.replace(self.path)
        finally:
            self._remove()

    def write(self, part: Tensor) -> None:
        """Write the next samples ``(channel, time)``, full scale 1.0, any number of them.

        Raises:
            ValueError: If samples are NaN or infinite, or cannot be written.
        """
        if not bool(torch.isfinite(part).all()):
            raise ValueError(
                f"waveform for {self.path} has NaN or infinite samples: find their cause; nothing was written"
            )
        wide = torch.float64 if self.subtype in ("DOUBLE", "PCM_32") else torch.float32
        for block in torch.split(part.detach().to("cpu"), _BLOCK, dim=-1):
            samples = block.to(wide).numpy().T
            if self.limited:
                loudness = np.abs(samples)
                self.exceeding += int((loudness > 1).sum())
                self._peak = max(self._peak, float(loudness.max(initial=0.0)))
            with self._named_errors():
                self._file.write(samples if self._buffer is not None else self._encode(samples))

    def _encode(self, samples: np.ndarray) -> np.ndarray:
        """Convert samples ``(time, channel)`` to libsndfile's input."""
        if self.limited:
            samples = np.clip(samples / self._peak if self.clip == "rescale" else samples, -1, 1)
        if self.subtype in _INTEGER_BITS:
            samples = _quantize(samples, _INTEGER_BITS[self.subtype])
        return np.ascontiguousarray(samples)

    def _write_buffered(self, buffered: Path) -> None:
        if self.exceeding and self.clip == "error":
            raise ValueError(
                f"waveform for {self.path} exceeds full scale at {self.exceeding} samples (peak"
                f" {self._peak:.4g}): write subtype='FLOAT', or use clip='clamp' or clip='rescale'"
            )
        with (
            soundfile.SoundFile(buffered) as source,
            self._open(self._partial, self.container, self.subtype) as self._file,
        ):
            for samples in source.blocks(_BLOCK, dtype="float64", always_2d=True):
                with self._named_errors():
                    self._file.write(self._encode(samples))

    def _open(self, path: Path, container: str, subtype: str) -> soundfile.SoundFile:
        shape = (self.sample_rate, self.channels, subtype)
        with self._named_errors():
            return soundfile.SoundFile(path, "w", *shape, format=container)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{self.path} cannot be written as {self.container} {self.subtype}, {self.channels} channels,"
                f" {self.sample_rate} Hz: {error.error_string} choose another subtype, or a WAV file"
            ) from error

    def _remove(self) -> None:
        self._partial.unlink(missing_ok=True)
        if self._buffer is not None:
            self._buffer.unlink(missing_ok=True)


def write_audio(
    path: str | Path,
    waveform: Tensor,
    sample_rate: int,
    *,
    subtype: str | None = None,
    clip: ClipMode = "clamp",
) -> int:
    """Write a file in the format of its suffix, at once or not at all.

    Args:
        path: See `AudioWriter`, as for the other arguments.
        waveform: ``(channel, time)``, full scale 1.0.
        sample_rate: In Hz.
        subtype: The encoding.
        clip: How samples beyond full scale are treated.

    Returns:
        Number of samples outside -1 to 1, which were clamped or rescaled; 0 for floating-point files.

    Raises:
        ValueError: If the shape, suffix, subtype or clip mode is not supported, samples are NaN or
            infinite, or samples exceed full scale with ``clip="error"``.
    """
    if waveform.dim() != 2 or 0 in waveform.shape:
        raise ValueError(f"waveform has shape {tuple(waveform.shape)}: give (channel, time), neither empty")
    channels, frames = waveform.shape
    with AudioWriter(path, sample_rate, channels, frames=frames, subtype=subtype, clip=clip) as writer:
        writer.write(waveform)
    return writer.exceeding


def _encoding(path: Path, subtype: str | None) -> tuple[str, str]:
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise ValueError(
            f"path={str(path)!r} has no suffix that can be written: use one of {', '.join(CONTAINERS)}"
        )
    chosen = subtype or _DEFAULT_SUBTYPES[container]
    if not soundfile.check_format(container, chosen):
        allowed = ", ".join(soundfile.available_subtypes(container))
        raise ValueError(f"subtype={chosen!r} cannot be stored in {container}: use one of {allowed}")
    return container, chosen


def _quantize(samples: np.ndarray, bits: int) -> np.ndarray:
    # libsndfile writes x * (2 ** 15 - 1) but reads q / 2 ** 15: every copy of a file would lose 0.0003 dB
    scale = float(1 << (bits - 1))
    levels = np.clip(np.rint(samples.astype(np.float64) * scale), -scale, scale - 1).astype(np.int64)
    return (levels << (32 - bits)).astype(np.int32)
