"""Lists of items kept in a file (CSV or JSON lines), and the check of any list against the files it names.

Columns: ``name``, ``mixture``, and one per source, holding paths that are absolute or relative to the
list's own folder. An empty ``mixture`` means the sum of all references, an empty source that the item has
no such reference. JSON lines with ``noisy_filepath`` and ``clean_filepath`` (NeMo) are read as well.
Columns that hold no path are named in ``IGNORED``.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data.audio import AudioFileError, AudioInfo, audio_info
from data.corpora import Item

IGNORED = ("duration", "length", "sample_rate", "snr", "speaker", "split", "text")
"""Columns that say something of an item without naming a file."""

_NEMO = {"noisy_filepath": "mixture", "clean_filepath": "speech", "noise_filepath": "noise"}
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSummary:
    """What :func:`validate` found.

    Attributes:
        items: Number of items.
        seconds: Their total length.
        sample_rates: Rates in Hz that occur, ascending.
        channels: Channel counts that occur, ascending.
        sources: Names of the references that occur, sorted.
    """

    items: int
    seconds: float
    sample_rates: tuple[int, ...]
    channels: tuple[int, ...]
    sources: tuple[str, ...]


def manifest(path: str | Path) -> list[Item]:
    """Read a list of items.

    Args:
        path: A ``.csv``, ``.jsonl`` or ``.json`` file (JSON: one object a line), UTF-8.

    Returns:
        Items sorted by name; a line without a name takes its mixture's (or first reference's) file name.

    Raises:
        FileNotFoundError: If the list or a file that it names is missing.
        ValueError: If a line cannot be understood, a name occurs twice, or the list is empty.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: give a manifest in CSV or JSON lines")
    items: dict[str, Item] = {}
    for number, row in _rows(path):
        item = _item(row, path, number)
        if item.name in items:
            raise ValueError(f"{path}, line {number}: name {item.name!r} occurs twice: make it unique")
        items[item.name] = item
    if not items:
        raise ValueError(f"{path} lists no items: expected columns name, mixture and one per source")
    return [items[name] for name in sorted(items)]


def write_manifest(path: str | Path, items: Iterable[Item]) -> None:
    """Write a list of items that :func:`manifest` reads back as it was.

    Args:
        path: Ends in ``.csv``, ``.jsonl`` or ``.json``. Files below its folder are named relative to it,
            others absolutely.
        items: What to list.

    Raises:
        ValueError: If the suffix is none of these.
    """
    path = Path(path).expanduser()
    items = list(items)
    sources = list(dict.fromkeys(source for item in items for source in item.references))
    rows = [
        {
            "name": item.name,
            "mixture": _relative(item.mixture, path.parent) if item.mixture is not None else "",
            **{source: _relative(file, path.parent) for source, file in item.references.items()},
        }
        for item in items
    ]
    suffix = _suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            if suffix == ".csv":
                writer = csv.DictWriter(file, ["name", "mixture", *sources], restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def validate(items: Sequence[Item], *, progress: bool = True) -> CorpusSummary:
    """Check by their headers that every file can be read and that the files of an item match.

    Args:
        items: What to check.
        progress: Whether to show a bar.

    Returns:
        What the corpus holds.

    Raises:
        ValueError: If files are damaged, or the files of an item differ in rate, length or channels; it
            says how many items fail and shows the first ones.
    """
    if not items:
        raise ValueError("items is empty: there is nothing to validate")
    problems: list[str] = []
    firsts: list[AudioInfo] = []
    for item in tqdm(items, desc="checking files", disable=not progress):
        try:
            infos = {file: audio_info(file) for file in _files(item)}
        except AudioFileError as error:
            problems.append(str(error))
            continue
        first = next(iter(infos.values()))
        firsts.append(first)
        problems += [_difference(file, info, first) for file, info in infos.items() if _differ(info, first)][
            :1
        ]
    if problems:
        shown = "; ".join(problems[:_SHOWN]) + ("; ..." if len(problems) > _SHOWN else "")
        raise ValueError(f"{len(problems)} of {len(items)} items are unusable: {shown}: mend or remove them")
    return CorpusSummary(
        items=len(items),
        seconds=sum(info.frames / info.sample_rate for info in firsts),
        sample_rates=tuple(sorted({info.sample_rate for info in firsts})),
        channels=tuple(sorted({info.channels for info in firsts})),
        sources=tuple(sorted({source for item in items for source in item.references})),
    )


def _files(item: Item) -> list[Path]:
    return [*([item.mixture] if item.mixture is not None else []), *item.references.values()]


def _differ(info: AudioInfo, first: AudioInfo) -> bool:
    return (info.frames, info.sample_rate, info.channels) != (first.frames, first.sample_rate, first.channels)


def _difference(file: Path, info: AudioInfo, first: AudioInfo) -> str:
    return (
        f"{file} has {info.frames} frames at {info.sample_rate} Hz in {info.channels} channels, "
        f"its partner {first.frames} at {first.sample_rate} Hz in {first.channels}"
    )


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".json"):
        raise ValueError(f"path={str(path)!r} is no known kind of manifest: use .csv, .jsonl or .json")
    return suffix


def _rows(path: Path) -> list[tuple[int, dict[str, object]]]:
    rows: list[tuple[int, dict[str, object]]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        if _suffix(path) == ".csv":
            reader = csv.DictReader(file, restkey="")
            for row in reader:
                if "" in row:
                    raise ValueError(f"{path}, line {reader.line_num}: more cells than columns: quote commas")
                rows.append((reader.line_num, dict(row)))
            return rows
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not JSON ({error.msg}): write an object a line"
                ) from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: {row!r} is no object: write one object a line")
            rows.append((number, row))
    return rows


def _item(row: Mapping[str, object], path: Path, number: int) -> Item:
    if row.get("offset") not in (None, "", "0", 0, 0.0):
        raise ValueError(f"{path}, line {number}: offset={row['offset']} is not read: cut the files instead")
    files: dict[str, Path] = {}
    for column, value in row.items():
        if column in ("name", "offset", *IGNORED) or value in (None, ""):
            continue
        if not isinstance(value, str):
            raise ValueError(
                f"{path}, line {number}: {column}={value!r} is no path: remove the column, "
                f"or name it as one of {', '.join(IGNORED)}"
            )
        file = path.parent / Path(value).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"{path}, line {number}: {column} {file} is missing: correct the path")
        files[_NEMO.get(column, column)] = file
    if not files:
        raise ValueError(f"{path}, line {number}: names no file: fill in mixture or a source")
    name = str(row.get("name") or next(iter(files.values())).stem)
    return Item(name=name, mixture=files.pop("mixture", None), references=files)


def _relative(file: Path, folder: Path) -> str:
    # resolve() would follow the symbolic links that corpora are often made of
    absolute, base = Path(os.path.abspath(file)), Path(os.path.abspath(folder))  # noqa: PTH100
    return (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()
