"""Folders that a command writes a whole corpus into, and the listing that says that it is finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path


def prepare_folder(out: Path, folders: Iterable[str], *, overwrite: bool, listing: str) -> None:
    """Make folders below ``out``, deleting them and the listing of an earlier corpus, and nothing else ever.

    Raises:
        ValueError: If ``out`` is a file, or not empty without ``overwrite``.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out must be a folder, not the file {out}")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"out is not empty: {out}; choose another folder or give --overwrite")
    for folder in folders:
        if (out / folder).exists():
            shutil.rmtree(out / folder)
        (out / folder).mkdir(parents=True)
    (out / listing).unlink(missing_ok=True)


def write_listing(path: Path, entries: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object per line, once all entries exist: the listing means a finished corpus."""
    path.write_text("".join([json.dumps(entry) + "\n" for entry in entries]), encoding="utf-8")
