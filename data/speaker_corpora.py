"""Corpora of simultaneous speakers.

The sources are ``"speaker1"``, ``"speaker2"`` .., and ``"speech"`` where the task is enhancement. With
``task="sep_noisy"`` the noise is the rest of the mixture: ``data.residual=noise``. As in
`encore.data.corpora`, lists are sorted by name, a missing folder or file is a ``FileNotFoundError`` and any
other mistake a ``ValueError``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from encore.data.corpora import (
    SPLITS,
    Item,
    Split,
    check_choice,
    existing_folder,
    first_of,
    pair_sources,
    present,
    read_table,
    subfolders,
)

Task = Literal["sep_clean", "sep_noisy", "enh_single", "enh_both"]
TASKS = ("sep_clean", "sep_noisy", "enh_single", "enh_both")
"""Separate clean or noisy mixtures into speakers; denoise the first speaker alone, or all of them at once."""

Mode = Literal["min", "max"]
"""Mixtures as long as their shortest or longest utterance."""

_LIBRIMIX_TRAINING = ("train-100", "train-360")
_WSJ0_SPLITS = {"train": "tr", "valid": "cv", "test": "tt"}


def librimix(
    root: str | Path,
    split: Split = "train",
    *,
    subsets: Sequence[str] = ("train-100",),
    speakers: int = 2,
    sample_rate: int = 8000,
    mode: Mode = "min",
    task: Task = "sep_clean",
) -> list[Item]:
    """List LibriMix or MiniLibriMix.

    ``Libri2Mix/wav8k/min/{train-100,train-360,dev,test}/{mix_clean,mix_both,mix_single,s1,s2,noise}``; the
    mixtures are those of ``metadata/mixture_<subset>_<mixture>.csv`` where it exists, else all. Its paths
    are those of the machine that generated the corpus, so files are searched below ``root`` first.
    MiniLibriMix has ``train`` and ``val`` with the same folders, two speakers at 8 kHz, and no test part.

    Args:
        root: The folder with ``Libri2Mix`` (``Libri3Mix``, ``MiniLibriMix``), or that folder itself.
        split: ``"train"``, ``"valid"`` (LibriMix's ``dev``) or ``"test"``.
        subsets: The parts of ``"train"``: ``"train-100"``, ``"train-360"`` or both.
        speakers: Per mixture, 2 or 3.
        sample_rate: 8000 or 16000 Hz.
        mode: See `Mode`.
        task: One of `TASKS`, asteroid's names.

    Returns:
        Items named like ``4077-13754-0001_5142-33396-0065``.

    Source: J. Cosentino et al., "LibriMix: An Open-Source Dataset for Generalizable Speech Separation", 2020;
    MiniLibriMix as ``asteroid.data.LibriMix`` reads it.
    """
    check_choice("split", split, SPLITS)
    mixture, references = _task_folders(task, speakers)
    outer = _outer_folder(root, f"Libri{speakers}Mix", "MiniLibriMix")
    if (outer / "val").is_dir():
        if (speakers, sample_rate, mode) != (2, 8000, "min") or split == "test":
            raise ValueError(
                f"{outer} is MiniLibriMix, without speakers={speakers}, sample_rate={sample_rate}, "
                f"mode={mode!r}, split={split!r}: it has 2, 8000, 'min', 'train' and 'valid' (data.test=null)"
            )
        return _listed(outer, "val" if split == "valid" else "train", mixture, references)
    base = _rate_folder(outer, sample_rate, mode)
    for subset in subsets:
        check_choice("subsets", subset, _LIBRIMIX_TRAINING)
    if not subsets:
        raise ValueError(f"subsets is empty: name {' or '.join(_LIBRIMIX_TRAINING)}, or both")
    chosen = {"train": tuple(subsets), "valid": ("dev",), "test": ("test",)}[split]
    items = [item for subset in chosen for item in _listed(base, subset, mixture, references)]
    return sorted(items, key=lambda item: item.name)


def wsj0_mix(
    root: str | Path,
    split: Split = "train",
    *,
    speakers: int = 2,
    sample_rate: int = 8000,
    mode: Mode = "min",
) -> list[Item]:
    """List WSJ0-2mix or WSJ0-3mix: ``2speakers/wav8k/min/{tr,cv,tt}/{mix,s1,s2}``.

    ``root`` is the folder with ``2speakers`` (``3speakers``), or that folder itself; other arguments are
    those of `librimix`. Items are named as their files, like ``011a0101_1.3_20do010c_-1.3``.

    Source: J. R. Hershey et al., "Deep clustering: Discriminative embeddings for segmentation and
    separation", 2016.
    """
    check_choice("split", split, SPLITS)
    references = _task_folders("sep_clean", speakers)[1]
    base = _rate_folder(_outer_folder(root, f"{speakers}speakers"), sample_rate, mode)
    return _paired(base / _WSJ0_SPLITS[split], "mix", references)


def wham(
    root: str | Path,
    split: Split = "train",
    *,
    sample_rate: int = 8000,
    mode: Mode = "min",
    task: Task = "sep_clean",
    reverb: Literal["anechoic", "reverb"] | None = None,
    dereverberate: bool = False,
) -> list[Item]:
    """List WHAM! or WHAMR!: ``wav8k/min/{tr,cv,tt}/{mix_clean,mix_both,mix_single,s1,s2,noise}``.

    WHAMR! has each of them but the noise twice, as ``mix_clean_anechoic``, ``mix_clean_reverb`` and so on.
    ``root`` is the folder with ``wav8k`` or ``wav16k``; ``reverb`` is the half of WHAMR!, None
    for WHAM!; with ``dereverberate`` the references of reverberant mixtures are the anechoic ones. Other
    arguments are those of `librimix`.

    Source: G. Wichern et al., "WHAM!: Extending Speech Separation to Noisy Environments", 2019;
    M. Maciejewski et al., "WHAMR!: Noisy and Reverberant Single-Channel Speech Separation", 2020.
    """
    check_choice("split", split, SPLITS)
    if reverb is not None:
        check_choice("reverb", reverb, ("anechoic", "reverb"))
    if dereverberate and reverb != "reverb":
        raise ValueError(
            f"dereverberate=True needs reverb='reverb', not {reverb!r}: set it, or leave both out"
        )
    mixture, references = _task_folders(task, 2)
    suffix = "" if reverb is None else f"_{reverb}"
    wanted = "_anechoic" if dereverberate else suffix
    base = _rate_folder(existing_folder(root, "the WHAM! folder", "data.root"), sample_rate, mode)
    folders = {source: f"{folder}{wanted}" for source, folder in references.items()}
    return _paired(base / _WSJ0_SPLITS[split], f"{mixture}{suffix}", folders)


def _task_folders(task: Task, speakers: int) -> tuple[str, dict[str, str]]:
    """Return the folder of the mixtures, and that of each source's references."""
    check_choice("task", task, TASKS)
    check_choice("speakers", str(speakers), ("2", "3"))
    everyone = {f"speaker{number}": f"s{number}" for number in range(1, speakers + 1)}
    return {
        "sep_clean": ("mix_clean", everyone),
        "sep_noisy": ("mix_both", everyone),
        "enh_single": ("mix_single", {"speech": "s1"}),
        "enh_both": ("mix_both", {"speech": "mix_clean"}),
    }[task]


def _outer_folder(root: str | Path, *names: str) -> Path:
    base = existing_folder(root, f"the folder with {' or '.join(names)}", "data.root")
    return next(present((base,), names), base)


def _rate_folder(outer: Path, sample_rate: int, mode: str) -> Path:
    check_choice("sample_rate", str(sample_rate), ("8000", "16000"))
    check_choice("mode", mode, ("min", "max"))
    inside = f"wav{sample_rate // 1000}k/{mode}"
    return first_of((outer,), (inside,), "correct data.root, sample_rate or mode")


def _listed(base: Path, subset: str, mixture: str, references: Mapping[str, str]) -> list[Item]:
    """List the mixtures in LibriMix's table of a subset, or without a table, all of its folder."""
    table = base / "metadata" / f"mixture_{subset}_{mixture}.csv"
    if not table.is_file():
        return _paired(base / subset, mixture, references)
    speakers = [f"source_{folder[1:]}_path" for folder in (mixture, *references.values()) if folder[0] == "s"]
    rows = read_table(table, ("mixture_ID", "mixture_path", *speakers))
    if not rows:
        raise ValueError(
            f"{table} lists no mixtures: generate it again, or delete it to use all of {base / subset}"
        )
    items = []
    for _, row in rows:
        files = {
            folder: _found(base / subset / folder, _stated(row, folder, mixture), table)
            for folder in (mixture, *references.values())
        }
        sources = {source: files[folder] for source, folder in references.items()}
        items.append(Item(name=row["mixture_ID"], mixture=files[mixture], references=sources))
    return sorted(items, key=lambda item: item.name)


def _stated(row: Mapping[str, str], folder: str, mixture: str) -> Path:
    """Return the path that a mixture's row states for its file in a folder."""
    if folder.startswith("s"):
        return Path(row[f"source_{folder[1:]}_path"])
    file = Path(row["mixture_path"])
    # another kind of mixture has a table of its own, but the same file name
    return file if folder == mixture else file.parent.parent / folder / file.name


def _found(folder: Path, stated: Path, table: Path) -> Path:
    """Return the stated file in a folder of this corpus, or else at its stated path."""
    here = folder / stated.name
    if here.is_file():
        return here
    # a relative path would depend on the working directory
    if stated.is_absolute() and stated.is_file():
        return stated
    raise FileNotFoundError(
        f"{here} is missing, and so is {stated}, as {table} names it: complete the corpus"
    )


def _paired(part: Path, mixture: str, references: Mapping[str, str]) -> list[Item]:
    """Pair mixtures and references of the same name; the error lists the folders where one is missing."""
    existing_folder(part, "a part of the corpus", "data.root")
    there = [folder.name for folder in subfolders(part)]
    for folder in (mixture, *references.values()):
        if folder not in there:
            raise FileNotFoundError(
                f"{part} has no folder {folder}; it has {', '.join(there) or 'none'}: "
                "change task, speakers or reverb, or complete the corpus"
            )
    return pair_sources(part / mixture, {source: part / folder for source, folder in references.items()})
