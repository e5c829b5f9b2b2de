"""Recordings of stems by stem, for `encore.data.dataset.PoolDataset`.

As in `encore.data.corpora`, a missing folder or file is a ``FileNotFoundError`` and any other mistake a
``ValueError``. Every function returns a mapping of source names to sorted files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from encore.data.corpora import audio_files, existing_folder, parts_of, subfolders
from encore.data.music_corpora import MUSIC_SOURCES, song_folders


def song_pools(root: str | Path, sources: Sequence[str] = MUSIC_SOURCES) -> dict[str, list[Path]]:
    """List the files of each stem over all songs.

    Unlike `encore.data.song_dataset.SongDataset` this does not keep which song a file is of; a stem that is a
    folder adds its files one by one.

    Args:
        root: The folder of the songs' folders.
        sources: Names of the stems.
    """
    items = song_folders(root, {source: (source,) for source in sources})
    return {
        source: sorted(file for item in items for file in parts_of(item.references[source]))
        for source in sources
    }


def stem_folders(path: str | Path, sources: Sequence[str] | None = None) -> dict[str, list[Path]]:
    """List a folder per stem.

    Args:
        path: The folder of the stems' folders, searched with their subfolders.
        sources: Names of the folders; all if None.

    Source: type 2 of data sets in Music-Source-Separation-Training.
    """
    base = existing_folder(path, "the folder of the stems' folders", "path")
    present = [folder.name for folder in subfolders(base)]
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
    """Read lists of files with their stems.

    Args:
        path: A CSV file with the columns ``instrum`` and ``path``, or several; paths are absolute or
            relative to the list's own folder.
        sources: Names of the stems; all if None.

    Source: type 3 of data sets in Music-Source-Separation-Training.
    """
    pools: dict[str, list[Path]] = {}
    for name in [path] if isinstance(path, str | Path) else path:
        table = Path(name).expanduser()
        if not table.is_file():
            raise FileNotFoundError(f"{table} is not a file: give a CSV file with columns instrum and path")
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                line = f"{table}, line {reader.line_num}"
                if not (row.get("instrum") and row.get("path")):
                    raise ValueError(f"{line}: instrum or path is missing: fill in both columns")
                file = table.parent / Path(row["path"]).expanduser()
                if not file.is_file():
                    raise FileNotFoundError(f"{line}: {file} is missing: correct the path")
                pools.setdefault(row["instrum"], []).append(file)
    if not pools:
        raise ValueError(f"path={path} lists no files: expected lines under the columns instrum and path")
    if absent := sorted(set(sources or ()) - set(pools)):
        raise ValueError(
            f"sources: {path} lists no {absent[0]}; it has {', '.join(sorted(pools))}: name some of these"
        )
    return {source: sorted(pools[source]) for source in sources or sorted(pools)}
