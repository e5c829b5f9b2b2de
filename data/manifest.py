"""Read, write and validate lists of items in CSV or JSON lines.

Columns: ``name``, ``mixture``, and one per source, with paths that are absolute or relative to the list's
folder. An empty ``mixture`` means the sum of all references, an empty source that the item has no such
reference. A cell with ``|`` is a reference that is the sum of several files, such as
``guitar.wav|piano.wav``; ``|`` alone is silence, and ``piano.wav|`` one file that may be shorter than the
item (see `encore.data.corpora.Item`). JSON lines with ``noisy_filepath`` and ``clean_filepath`` (NeMo) are
read as well. Columns named in ``IGNORED`` hold no path.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from encore.data.audio import AudioFileError, AudioInfo, audio_info
from encore.data.corpora import Item, Reference

IGNORED = ("duration", "length", "sample_rate", "snr", "speaker", "split", "text")
"""Columns that describe an item and hold no path."""

_SEPARATOR = "|"  # of the files of a sum
_NEMO = {"noisy_filepath": "mixture", "clean_filepath": "speech", "noise_filepath": "noise"}
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSummary:
    """The contents of a validated corpus.

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
    for number, row in _rows(path):
        item = _item(row, path, number)
        if item.name in items:
            raise ValueError(f"{path}, line {number}: name {item.name!r} occurs twice: make it unique")
        items[item.name] = item
    if not items:
        raise ValueError(f"{path} lists no items: expected columns name, mixture and one per source")
    return [items[name] for name in sorted(items)]


def write_manifest(path: str | Path, items: Iterable[Item]) -> None:
    """Write a list of items for `manifest`.

    Args:
        path: Ends in ``.csv``, ``.jsonl`` or ``.json``. Files below its folder are named relative to it,
            others absolutely.
        items: The items.

    Raises:
        ValueError: If the suffix is none of these, or a path contains the separator ``|``.
    """
    path = Path(path).expanduser()
    items = list(items)
    sources = list(dict.fromkeys(source for item in items for source in item.references))
    rows = [
        {
            "name": item.name,
            "mixture": _relative(item.mixture, path.parent) if item.mixture is not None else "",
            **{source: _cell(reference, path.parent) for source, reference in item.references.items()},
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
        items: The items.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If files are damaged, or the files of an item differ in rate, length or channels (parts
            of a sum may be shorter, or mono); names the number of items and the first ones.
    """
    if not items:
        raise ValueError("items is empty: there is nothing to validate")
    problems: list[str] = []
    firsts: list[AudioInfo] = []
    for item in tqdm(items, desc="checking files", disable=not progress):
        try:
            infos = {file: audio_info(file) for file in item.files}
        except AudioFileError as error:
            problems.append(str(error))
            continue
        if not infos:
            problems.append(f"{item.name!r} names no file")
            continue
        plain = {file for file in (item.mixture, *item.references.values()) if isinstance(file, Path)}
        whole = {file: info for file, info in infos.items() if file in plain}
        first = next(iter(whole.values()), _largest(infos.values()))
        firsts.append(first)
        problems += [
            _difference(file, info, first)
            for file, info in infos.items()
            if (_differ(info, first) if file in whole else not _fits(info, first))
        ][:1]
    if problems:
        shown = "; ".join(problems[:_SHOWN]) + ("; ..." if len(problems) > _SHOWN else "")
        raise ValueError(f"{len(problems)} of {len(items)} items are invalid: {shown}: repair or remove them")
    return CorpusSummary(
        items=len(items),
        seconds=sum(info.frames / info.sample_rate for info in firsts),
        sample_rates=tuple(sorted({info.sample_rate for info in firsts})),
        channels=tuple(sorted({info.channels for info in firsts})),
        sources=tuple(sorted({source for item in items for source in item.references})),
    )


def _differ(info: AudioInfo, first: AudioInfo) -> bool:
    return (info.frames, info.sample_rate, info.channels) != (first.frames, first.sample_rate, first.channels)


def _fits(part: AudioInfo, first: AudioInfo) -> bool:
    """Return whether a part of a sum can be added to a recording like ``first``."""
    return (
        part.sample_rate == first.sample_rate
        and part.frames <= first.frames
        and part.channels in (1, first.channels)
    )


def _largest(infos: Iterable[AudioInfo]) -> AudioInfo:
    """Return the longest length and the most channels, at the first one's rate."""
    infos = list(infos)
    return replace(
        infos[0],
        frames=max(info.frames for info in infos),
        channels=max(info.channels for info in infos),
    )


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
    mixture: Path | None = None
    references: dict[str, Reference] = {}
    for column, value in row.items():
        if column in ("name", "offset", *IGNORED) or value in (None, ""):
            continue
        if not isinstance(value, str):
            raise ValueError(
                f"{path}, line {number}: {column}={value!r} is no path: remove the column, "
                f"or name it as one of {', '.join(IGNORED)}"
            )
        files = tuple(path.parent / Path(part).expanduser() for part in value.split(_SEPARATOR) if part)
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(
                    f"{path}, line {number}: {column} {file} is missing: correct the path"
                )
        source = _NEMO.get(column, column)
        if source != "mixture":
            references[source] = files if _SEPARATOR in value else files[0]
        elif _SEPARATOR in value:
            raise ValueError(
                f"{path}, line {number}: {column}={value!r} is a sum of files: name one file, or leave "
                "it empty for the sum of the references"
            )
        else:
            mixture = files[0]
    item = Item(name=str(row.get("name") or ""), mixture=mixture, references=references)
    if not item.files:
        raise ValueError(f"{path}, line {number}: names no file: fill in mixture or a source")
    return item if item.name else replace(item, name=item.files[0].stem)


def _cell(reference: Reference, folder: Path) -> str:
    """Write a reference, with a separator if it is a sum, also of one file or none."""
    if isinstance(reference, Path):
        return _relative(reference, folder)
    return _SEPARATOR.join(_relative(file, folder) for file in reference) + _SEPARATOR * (len(reference) < 2)


def _relative(file: Path, folder: Path) -> str:
    # resolve() would follow the symbolic links that corpora are often made of
    absolute, base = Path(os.path.abspath(file)), Path(os.path.abspath(folder))  # noqa: PTH100
    written = (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()
    if _SEPARATOR in written:
        raise ValueError(
            f"{file}: {_SEPARATOR!r} in a path separates the files of a sum: rename the file or folder"
        )
    return written
