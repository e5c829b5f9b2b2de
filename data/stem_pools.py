"""Recordings of stems by stem, whatever song they are of, for `encore.data.dataset.PoolDataset`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from encore.data.corpora import audio_files, existing_folder, parts_of
from encore.data.music_corpora import MUSIC_SOURCES, song_folders


def song_pools(root: str | Path, sources: Sequence[str] = MUSIC_SOURCES) -> dict[str, list[Path]]:
    """The files of each stem over all songs, for `encore.data.dataset.PoolDataset`.

    Unlike `encore.data.song_dataset.SongDataset` it forgets which song a file is of; a stem that is a folder
    gives its files one by one.

    Args:
        root: The folder of the songs' folders.
        sources: Names of the stems.

    Returns:
        Source name to its files, sorted.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If a stem is in no song.
    """
    items = song_folders(root, {source: (source,) for source in sources})
    return {
        source: sorted(file for item in items for file in parts_of(item.references[source]))
        for source in sources
    }


def stem_folders(path: str | Path, sources: Sequence[str] | None = None) -> dict[str, list[Path]]:
    """A folder per stem with any files in it, for `encore.data.dataset.PoolDataset`.

    Args:
        path: The folder of the stems' folders, searched with their subfolders.
        sources: Names of the folders; all there are if None.

    Returns:
        Source name to its files, sorted.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If a folder has no audio, or there are no folders.

    Source: type 2 of data sets in Music-Source-Separation-Training.
    """
    base = existing_folder(path, "the folder of the stems' folders", "path")
    present = sorted(
        place.name for place in base.iterdir() if place.is_dir() and not place.name.startswith(".")
    )
    if not (sources or present):
        raise ValueError(f"{base} has no folders: expected one per stem, such as vocals")
    if absent := sorted(set(sources or ()) - set(present)):
        raise FileNotFoundError(
            f"{base} has no folder {absent[0]}; it has {', '.join(present) or 'none'}: change sources or path"
        )
    return {source: audio_files(base / source) for source in sources or present}


def stem_csv(
    path: str | Path | Sequence[str | Path], sources: Sequence[str] | None = None
) -> dict[str, list[Path]]:
    """Lists of files with their stems, for `encore.data.dataset.PoolDataset`.

    Args:
        path: A CSV file with the columns ``instrum`` and ``path``, or several; paths are absolute or
            relative to the list's own folder.
        sources: Names of the stems; all there are if None.

    Returns:
        Source name to its files, sorted.

    Raises:
        FileNotFoundError: If a list or a file that it names is missing.
        ValueError: If a list lacks a column or a cell, or there is no line of a stem.

    Source: type 3 of data sets in Music-Source-Separation-Training.
    """
    pools: dict[str, list[Path]] = {}
    for place in [path] if isinstance(path, str | Path) else path:
        table = Path(place).expanduser()
        if not table.is_file():
            raise FileNotFoundError(f"{table} is not a file: give a CSV file with columns instrum and path")
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                if not (row.get("instrum") and row.get("path")):
                    raise ValueError(
                        f"{table}, line {reader.line_num}: instrum or path is missing: fill in both columns"
                    )
                file = table.parent / Path(row["path"]).expanduser()
                if not file.is_file():
                    raise FileNotFoundError(
                        f"{table}, line {reader.line_num}: {file} is missing: correct the path"
                    )
                pools.setdefault(row["instrum"], []).append(file)
    if not pools:
        raise ValueError(f"path={path} lists no files: expected lines under the columns instrum and path")
    if absent := sorted(set(sources or ()) - set(pools)):
        raise ValueError(
            f"sources: {path} lists no {absent[0]}; it has {', '.join(sorted(pools))}: name some of these"
        )
    return {source: sorted(pools[source]) for source in sources or sorted(pools)}
