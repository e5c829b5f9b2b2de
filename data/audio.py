"""Read audio files, whole or in segments.

Full scale is 1.0, nothing is normalized, and channels are kept: an integer of ``b`` bits is read as
``q / 2 ** (b - 1)``. `encore.data.audio_writing` writes it back.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from encore.common.dsp import resample, resampled_length, resampler

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
"""Suffixes that folder scans treat as audio; `read_audio` reads all that libsndfile does."""

_STREAM_SIZE = 0x7FFFF000
"""Programs that write to a pipe declare at least this many bytes; they cannot know the length."""


class AudioFileError(ValueError):
    """A file cannot be used as audio; the message names the file, the reason and the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioInfo:
    """The header of a file.

    Attributes:
        frames: Samples per channel.
        sample_rate: In Hz.
        channels: Number of channels.
        format: libsndfile's name of the container, such as ``"WAV"``.
        subtype: libsndfile's name of the encoding, such as ``"PCM_16"``: pass it to
            `encore.data.audio_writing.write_audio` to write a file as this one was.
    """

    frames: int
    sample_rate: int
    channels: int
    format: str
    subtype: str


def audio_info(path: str | Path) -> AudioInfo:
    """Read a file's header.

    Raises:
        AudioFileError: If the file is missing, empty, not audio, truncated or holds no samples.
    """
    with _open(Path(path)) as file:
        return AudioInfo(
            frames=file.frames,
            sample_rate=file.samplerate,
            channels=file.channels,
            format=file.format,
            subtype=file.subtype,
        )


def read_audio(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    start: int = 0,
    frames: int | None = None,
) -> tuple[Tensor, int]:
    """Read a file, or only a segment of it.

    Args:
        path: An audio file.
        sample_rate: Rate in Hz to resample to; the file's own if None.
        start: First frame, counted at the returned rate.
        frames: How many frames, counted at the returned rate; up to the end if None.

    Returns:
        Waveform ``(channel, time)``, float32, full scale 1.0, and its rate in Hz. A segment equals that
        part of the whole file, bit for bit at the file's own rate.

    Raises:
        AudioFileError: If the file is missing, empty, not audio, truncated, or holds no or non-finite
            samples.
        ValueError: If ``start`` and ``frames`` reach outside the file, or ``sample_rate`` is not positive.
    """
    path = Path(path)
    with _open(path) as file:
        rate = file.samplerate if sample_rate is None else sample_rate
        if rate < 1:
            raise ValueError(f"sample_rate={rate} is not positive: give a rate in Hz, such as 16000")
        total = resampled_length(file.frames, file.samplerate, rate)
        count = total - start if frames is None else frames
        if start < 0 or count < 1 or start + count > total:
            raise ValueError(
                f"start={start}, frames={frames} reach outside {path} of {total} frames at {rate} Hz: "
                f"give frames within 0 to {total}"
            )
        return _read_segment(file, path, rate, start, count), rate


def read_blocks(path: str | Path, frames: int) -> Iterator[Tensor]:
    """Read a file once, from its beginning to its end, at its own rate.

    Yields:
        ``(channel, frames)``, float32, full scale 1.0; the last block may be shorter.

    Raises:
        AudioFileError: As of `read_audio`.
    """
    path = Path(path)
    with _open(path) as file:
        for start in range(0, file.frames, frames):
            yield _read_frames(file, path, start, min(start + frames, file.frames))


class StreamResampler:
    """Resamples a waveform part by part, with the same result as `encore.common.dsp.resample`.

    Args:
        from_rate: Rate in Hz of the input.
        to_rate: Rate in Hz of the output.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        divisor = gcd(from_rate, to_rate)
        self._old, self._new = from_rate // divisor, to_rate // divisor
        self._width = 0 if self._old == self._new else resampler(self._old, self._new).width
        self._kept: Tensor | None = None
        self._kept_block = self._done_blocks = 0

    def push(self, part: Tensor, *, last: bool = False) -> Tensor:
        """Resample the next part ``(..., time)``, of any length.

        Args:
            part: The part.
            last: Whether it is the last one.

        Returns:
            The next samples ``(..., time)`` of the result that are final; may be empty.
        """
        if self._old == self._new:
            return part
        kept = part if self._kept is None else torch.cat((self._kept, part), dim=-1)
        offset = (self._done_blocks - self._kept_block) * self._new
        if last:
            self._kept = None
            return resample(kept, self._old, self._new)[..., offset:].contiguous()
        # a block of the result depends on the filter's width to either side of its own samples
        known = max(0, (kept.shape[-1] - self._width) // self._old) + self._kept_block
        done = max(known, self._done_blocks)
        count = (done - self._done_blocks) * self._new
        result = kept[..., :0]
        if count:
            end = (done - self._kept_block) * self._old + self._width
            result = resample(kept[..., :end], self._old, self._new)[..., offset : offset + count]
        self._done_blocks = done
        first = max(self._kept_block, done - ceil(self._width / self._old))
        self._kept = kept[..., (first - self._kept_block) * self._old :].clone()
        self._kept_block = first
        return result.contiguous()


def _read_segment(file: soundfile.SoundFile, path: Path, rate: int, start: int, count: int) -> Tensor:
    if rate == file.samplerate:
        return _read_frames(file, path, start, start + count)
    # Output k of block j = k // new depends on the source frames j * old - width to (j + 1) * old + width.
    divisor = gcd(file.samplerate, rate)
    old, new = file.samplerate // divisor, rate // divisor
    width = resampler(old, new).width
    first_block = max(0, start // new - ceil(width / old))
    last = min(file.frames, ((start + count - 1) // new + 1) * old + width)
    source = _read_frames(file, path, first_block * old, last)
    offset = start - first_block * new
    return resample(source, old, new)[:, offset : offset + count].contiguous()


def _read_frames(file: soundfile.SoundFile, path: Path, first: int, last: int) -> Tensor:
    try:
        file.seek(first)
        data = file.read(last - first, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioFileError(
            f"{path}: damaged near frame {first} ({error.error_string}): copy it again"
        ) from error
    if len(data) != last - first:
        raise AudioFileError(
            f"{path}: truncated, only {len(data)} of {last - first} frames from frame {first} on exist: "
            "copy it again"
        )
    if bad := int((~np.isfinite(data)).sum()):
        raise AudioFileError(
            f"{path}: {bad} samples are NaN or infinite: write the file again from its source"
        )
    return torch.from_numpy(np.ascontiguousarray(data.T))


@contextmanager
def _open(path: Path) -> Iterator[soundfile.SoundFile]:
    if not path.exists():
        raise AudioFileError(f"{path}: no such file: check the path")
    if not path.is_file():
        raise AudioFileError(f"{path}: a folder, not a file: give an audio file")
    if path.stat().st_size == 0:
        raise AudioFileError(f"{path}: empty (0 bytes): copy it again")
    with path.open("rb") as raw:
        _check_complete(path, raw)
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise AudioFileError(
            f"{path}: not audio that libsndfile reads ({error.error_string}): convert it to WAV or FLAC"
        ) from error
    with file:
        if file.frames < 1:
            raise AudioFileError(
                f"{path}: no samples: record it again, or if it came through a pipe, repair its header with "
                f"'ffmpeg -i {path.name} -c copy repaired{path.suffix}'"
            )
        yield file


def _check_complete(path: Path, raw: BinaryIO) -> None:
    """Raise if a file holds less than it declares, which libsndfile ignores for WAV and Ogg."""
    magic = raw.read(12)
    size = raw.seek(0, os.SEEK_END)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64") and magic[8:] == b"WAVE":
        declared = _declared_data_bytes(raw, size, big_endian=magic[:4] == b"RIFX")
        if declared is not None and declared[1] > size - declared[0]:
            held = size - declared[0]
            raise AudioFileError(
                f"{path}: truncated, its header declares {declared[1]} bytes of samples and it holds {held}: "
                "copy it again"
            )
    elif magic[:4] == b"OggS":
        raw.seek(max(0, size - (1 << 17)))  # a page has at most 65 307 bytes
        tail = raw.read()
        page = tail.rfind(b"OggS")
        # bit 2 marks the last page of a stream
        if page < 0 or len(tail) < page + 6 or not tail[page + 5] & 4:
            raise AudioFileError(f"{path}: truncated, its last Ogg page is missing: copy it again")


def _declared_data_bytes(raw: BinaryIO, size: int, *, big_endian: bool) -> tuple[int, int] | None:
    """Return the offset of a WAV file's samples and their declared bytes; None if not declared."""
    order = ">" if big_endian else "<"
    wide: int | None = None
    position = 12
    while position + 8 <= size:
        raw.seek(position)
        name, length = struct.unpack(f"{order}4sI", raw.read(8))
        if name == b"ds64":
            wide = struct.unpack(f"{order}QQ", raw.read(16))[1]
        if name == b"data":
            if length == 0xFFFFFFFF and wide is not None:
                return position + 8, wide
            return None if length >= _STREAM_SIZE else (position + 8, length)
        position += 8 + length + length % 2
    return None
