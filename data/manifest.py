"""Read lists of items in CSV or JSON lines.

Columns: ``name``, ``mixture``, and one per source, with paths that are absolute or relative to the list's
folder. An empty ``mixture`` means the sum of all references, an empty source that the item has no such
reference. A cell with ``|`` is a reference that is the sum of several files, such as
``guitar.wav|piano.wav``; ``|`` alone is silence, and ``piano.wav|`` one file that may be shorter than the
item (see `encore.data.corpora.Item`). JSON lines with ``noisy_filepath`` and ``clean_filepath`` (NeMo) are
read as well. Columns named in ``IGNORED`` hold no path.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from encore.data.corpora import Item, Reference, read_table

IGNORED = ("duration", "length", "sample_rate", "snr", "speaker", "split", "text")
"""Columns that describe an item and hold no path."""

_SEPARATOR = "|"  # of the files of a sum
_NEMO = {"noisy_filepath": "mixture", "clean_filepath": "speech", "noise_filepath": "noise"}


def manifest(path: str | Path) -> list[Item]:
    """Read a list of items.

    Args:
        path: A ``.csv``, ``.jsonl`` or ``.json`` file (JSON: one object a line), UTF-8.

    Returns:
        Items sorted by name; the name defaults to the file name of the mixture or the first reference.

    Raises:
        FileNotFoundError: If the list or a file that it names is missing.
        ValueError: If a line is invalid, a name occurs twice, a mixture is a sum of files, or the
            list is empty.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: give a manifest in CSV or JSON lines")
    items: dict[str, Item] = {}
    for line, row in _rows(path):
        item = _item(row, path.parent, line)
        if item.name in items:
            raise ValueError(f"{line}: name {item.name!r} occurs twice: make it unique")
        items[item.name] = item
    if not items:
        raise ValueError(f"{path} lists no items: expected columns name, mixture and one per source")
    return [items[name] for name in sorted(items)]


def _rows(path: Path) -> list[tuple[str, Any]]:
    """Return the rows of a list, each with its place for messages."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".json"):
        raise ValueError(f"path={str(path)!r} is no known kind of manifest: use .csv, .jsonl or .json")
    if suffix == ".csv":
        return read_table(path)
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    numbered = [(f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    return [(line, _parsed(text, line)) for line, text in numbered]


def _parsed(text: str, line: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{line}: not JSON ({error.msg}): write an object a line") from error


def _item(row: Any, folder: Path, line: str) -> Item:
    """Check a row and make its item."""
    if not isinstance(row, dict):
        raise ValueError(f"{line}: {row!r} is no object: write one object a line")
    if None in row:
        raise ValueError(f"{line}: more cells than columns: quote commas")
    if row.get("offset") not in (None, "", "0", 0, 0.0):
        raise ValueError(f"{line}: offset={row['offset']} is not read: cut the files instead")
    mixture: Path | None = None
    references: dict[str, Reference] = {}
    for column, value in row.items():
        if column in ("name", "offset", *IGNORED) or value in (None, ""):
            continue
        if not isinstance(value, str):
            raise ValueError(
                f"{line}: {column}={value!r} is no path: remove the column, "
                f"or name it as one of {', '.join(IGNORED)}"
            )
        files = tuple(folder / Path(part).expanduser() for part in value.split(_SEPARATOR) if part)
        if missing := [file for file in files if not file.is_file()]:
            raise FileNotFoundError(f"{line}: {column} {missing[0]} is missing: correct the path")
        source: str = _NEMO.get(column) or column
        if source != "mixture":
            references[source] = files if _SEPARATOR in value else files[0]
        elif _SEPARATOR in value:
            raise ValueError(
                f"{line}: {column}={value!r} is a sum of files: name one file, or leave "
                "it empty for the sum of the references"
            )
        else:
            mixture = files[0]
    item = Item(name=str(row.get("name") or ""), mixture=mixture, references=references)
    if not item.files:
        raise ValueError(f"{line}: names no file: fill in mixture or a source")
    return item if item.name else replace(item, name=item.files[0].stem)
