"""Files of any project: recognised by their content, and read without running code from them."""

from __future__ import annotations

import os
import pickle
import socket
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import torch
import yaml
from safetensors import SafetensorError, safe_open

from encore.common.errors import one_line

FileKind = Literal["torchscript", "exported", "onnx", "pickle", "safetensors", "unknown"]
"""``"exported"`` is a program of ``torch.export``, ``"pickle"`` any file of ``torch.save``."""

_TIMEOUT_SECONDS = 20.0
_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_LOCK = RLock()
# the field that follows the version in an ONNX file: producer, domain, model version, text, graph, operators
_AFTER_ONNX_VERSION = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)


def check_file(path: str | Path) -> Path:
    """Return the path of a file that exists.

    Raises:
        FileNotFoundError: If it does not.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"'{path}' does not exist or is not a file: check the path")
    return Path(path)


def file_kind(path: Path) -> FileKind:
    """Recognise a file by its content; nothing in it is run.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    with check_file(path).open("rb") as file:
        start = file.read(9)
    if start[:2] == b"PK":
        return _archive_kind(path)
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return "pickle"
    # the length of the JSON that follows it
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "safetensors"
    # field 1, a small version
    if len(start) == 9 and start[0] == 0x08 and start[1] < 0x80 and start[2] in _AFTER_ONNX_VERSION:
        return "onnx"
    return "unknown"


def _archive_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            # every name begins with the folder that the archive was written as
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return "unknown"
    if "archive_format" in names or any(name.endswith("exported_program.json") for name in names):
        return "exported"
    if any(name.startswith("code/") for name in names):
        return "torchscript"
    return "pickle" if "data.pkl" in names else "unknown"


def read_safely(
    path: str | Path, *, classes: Sequence[type | tuple[Callable[..., Any], str]] = (), mapped: bool = False
) -> Any:
    """Read a file of ``torch.save`` that holds tensors and plain values; nothing in it is run.

    Args:
        path: The file.
        classes: Classes whose instances or names it may hold besides; or functions that it may call, each
            with the name that it has in the file.
        mapped: Map tensors into memory instead of reading them, where the format allows it.

    Returns:
        What was saved, tensors on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, or holds anything else.
    """
    path = check_file(path)
    try:
        with torch.serialization.safe_globals(list(classes)):
            mmap = mapped and zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        # the reason is between two pieces of torch's advice
        text = str(error).rpartition("WeightsUnpickler error:")[2]
        reason = one_line(text or error).partition(". Please")[0]
        raise ValueError(
            f"'{path}' is not a file of tensors and plain values ({reason}): was it cut off, or is it of "
            "another kind?"
        ) from error
    except OSError as error:
        # torch's error for its own files that end too early
        raise ValueError(
            f"'{path}' cannot be read ({one_line(error)}): was it cut off? Copy it anew"
        ) from error


@contextmanager
def opened_safetensors(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file for reading: ``keys()``, ``get_tensor(name)`` and ``metadata()``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file.
    """
    try:
        with safe_open(str(check_file(path)), framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"'{path}' is not a safetensors file: {one_line(error)}") from error


def read_yaml(path: str | Path, remedy: str, *, loader: Any = yaml.SafeLoader) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; nothing in it is run.

    Args:
        path: The file.
        remedy: What to do about another file, for the errors.
        loader: A loader of plain values, if not the usual one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not YAML of plain values, or holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"configuration '{path}' is missing: {remedy}")
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"'{path}' is not YAML of plain values ({reason}): {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds no mapping: {remedy}")
    return content


def download(address: str, path: Path, *, hash_prefix: str | None = None, progress: bool = True) -> None:
    """Download a file by ``torch.hub``, whole or not at all.

    Args:
        address: Its URL.
        path: What to write; its folder is made where needed.
        hash_prefix: First digits of its SHA-256.
        progress: Show a bar.

    Raises:
        OSError: If there is no answer for 20 s, or it cannot be fetched or written.
        RuntimeError: If its hash is another.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # torch.hub waits without end where a firewall drops the packets
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        torch.hub.download_url_to_file(address, str(path), hash_prefix=hash_prefix, progress=progress)
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def tensors_only() -> Iterator[None]:
    """Make every ``torch.load`` inside refuse objects, also in the code of other projects.

    The switch is torch's environment variable, one for the whole process: it also holds for other threads
    that load checkpoints meanwhile.
    """
    with _LOCK:
        before = os.environ.get(_FORCED)
        os.environ[_FORCED] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_FORCED]
            else:
                os.environ[_FORCED] = before
