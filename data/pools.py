"""Files by source, and utterances by speaker, for `encore.data.mixing_dataset.MixingDataset`.

As in `encore.data.corpora`, a missing folder or file is a ``FileNotFoundError`` and any other mistake a
``ValueError``, and lists are sorted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from encore.data.corpora import (
    Pool,
    Split,
    audio_files,
    check_choice,
    existing_folder,
    mixed_folders,
    parts_of,
    read_table,
    some_of,
    subfolders,
)
from encore.data.speaker_corpora import Mode, librimix


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
        for line, row in read_table(table, ("instrum", "path")):
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


def librimix_pools(
    root: str | Path,
    split: Split = "train",
    *,
    subsets: Sequence[str] = ("train-100",),
    speakers: int = 2,
    sample_rate: int = 8000,
    mode: Mode = "min",
    task: Literal["sep_clean", "sep_noisy"] = "sep_clean",
) -> dict[str, Pool]:
    """List the utterances of LibriMix by speaker, for mixtures of different speakers made on the fly.

    The arguments are those of `librimix`. ``mode="max"`` pads utterances with silence, so random segments may
    be silent; ``task="sep_noisy"`` adds a pool of the noises.

    Returns:
        ``"speaker1"``, ``"speaker2"`` .. to the utterances by speaker, and ``"noise"`` to files.
    """
    check_choice("task", task, ("sep_clean", "sep_noisy"))
    items = librimix(
        root, split, subsets=subsets, speakers=speakers, sample_rate=sample_rate, mode=mode, task=task
    )
    by_speaker: dict[str, list[Path]] = {}
    for item in items:
        utterances = item.name.split("_")
        if len(utterances) != speakers:
            raise ValueError(
                f"{item.mixture}: a name like 103-1240-0003_1235-135887-0017 was expected, which identifies "
                f"{speakers} speakers: rename the files, or use speaker_pools"
            )
        for utterance, reference in zip(utterances, item.references.values(), strict=True):
            by_speaker.setdefault(utterance.split("-")[0], []).extend(parts_of(reference))
    pools = _speaker_sources(by_speaker, speakers, root)
    if task == "sep_noisy":
        mixtures = [item.mixture for item in items if item.mixture is not None]
        pools["noise"] = noises = [file.parent.parent / "noise" / file.name for file in mixtures]
        if missing := [file for file in noises if not file.is_file()]:
            raise FileNotFoundError(f"{missing[0]} is missing: add it, or use task=sep_clean")
    return pools


def speaker_pools(
    root: str | Path, *, speakers: int = 2, noise: str | Path | Sequence[str | Path] | None = None
) -> dict[str, Pool]:
    """List a folder per speaker, as in VCTK and LibriSpeech, for mixtures made on the fly.

    Args:
        root: The folder of the speakers' folders, ``<speaker>/*.wav`` or ``<speaker>/<chapter>/*.flac``.
        speakers: Per mixture.
        noise: Folder or folders of noise that is added to every mixture; None for none.

    Returns:
        As `librimix_pools`.
    """
    base = Path(root).expanduser()
    by_speaker: dict[str, list[Path]] = {}
    for file in audio_files(base):
        speaker, *inside = file.relative_to(base).parts
        if not inside:
            raise ValueError(f"{file} is in no speaker's folder: move it into one, or correct data.root")
        by_speaker.setdefault(speaker, []).append(file)
    pools = _speaker_sources(by_speaker, speakers, base)
    return pools if noise is None else {**pools, **mixed_folders({"noise": noise})}


def _speaker_sources(by_speaker: Mapping[str, list[Path]], count: int, root: str | Path) -> dict[str, Pool]:
    if not 2 <= count <= len(by_speaker):
        raise ValueError(
            f"speakers={count}: give 2 or more, at most the {len(by_speaker)} of {root} "
            f"({some_of(sorted(by_speaker))}); change speakers or data.root"
        )
    return {f"speaker{number}": by_speaker for number in range(1, count + 1)}
