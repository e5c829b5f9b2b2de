"""Corpora as stored on disk, as lists of items: no corpus is copied or renamed to be used.

Every function returns its items sorted by name, so that a list depends on the files alone. A missing folder
is a ``FileNotFoundError``, any other mistake a ``ValueError``: one line with the folder, what was expected
and the remedy. Lists kept in CSV or JSON lines are read by `encore.data.manifest`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encore.data.audio import AUDIO_SUFFIXES

Split = Literal["train", "valid", "test"]
SPLITS = ("train", "valid", "test")

Reference = Path | tuple[Path, ...]
"""The recording of a source alone; or the recordings that add up to it, none of them for silence."""

Pool = Sequence[Reference] | Mapping[str, Sequence[Reference]]
"""Files of one source; or those of each speaker, who appears at most once in a mixture of several pools."""


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """Return indices of at most ``limit`` of ``count`` items, evenly spaced; all of them if None.

    >>> evenly_spaced(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


def parts_of(reference: Reference) -> tuple[Path, ...]:
    """Return the recordings that add up to a reference."""
    return (reference,) if isinstance(reference, Path) else reference


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One recording of a corpus.

    An item is as long as the longest of its files, and all have one sampling rate. The mixture and every
    reference that is one path have that length; the parts of a reference that is a tuple may be shorter, and
    end in silence.

    Attributes:
        name: Unique within the corpus; names the item in tables and output files.
        mixture: The mixed recording; None if the mixture is the sum of all references.
        references: Source name to its recording alone, or to those that add up to it (``()`` is silence);
            empty for recordings without references.
    """

    name: str
    mixture: Path | None
    references: Mapping[str, Reference]

    @property
    def files(self) -> list[Path]:
        """All files of the item, each once, the mixture first."""
        mixture = () if self.mixture is None else (self.mixture,)
        parts = (file for reference in self.references.values() for file in parts_of(reference))
        return list(dict.fromkeys((*mixture, *parts)))


def voicebank_demand(
    root: str | Path,
    split: Split = "train",
    *,
    valid_speakers: Sequence[str] = ("p226", "p287"),
    speakers: Literal["28spk", "56spk"] = "28spk",
) -> list[Item]:
    """List VoiceBank-DEMAND, as published or in sgmse's layout; the one source is ``"speech"``.

    Published: ``{clean,noisy}_trainset_28spk_wav`` and ``{clean,noisy}_testset_wav``, without a validation
    part, for which two training speakers are held out. sgmse: ``{train,valid,test}/{clean,noisy}``.

    Args:
        root: The folder with these folders.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        valid_speakers: Speakers of the published training part that make up ``"valid"`` and are absent from
            ``"train"``; the default is the choice of sgmse, ESPnet and TUSS.
        speakers: Which published training part, of 28 or of 56 speakers.

    Returns:
        Items named like ``p232_001``.

    Source: C. Valentini-Botinhao et al., "Investigating RNN-based speech enhancement methods", 2016.
    """
    base = existing_folder(root, "the VoiceBank-DEMAND folder", "data.root")
    check_choice("split", split, SPLITS)
    if (base / split / "clean").is_dir():
        return paired_folders(base / split / "noisy", base / split / "clean")
    part = "testset_wav" if split == "test" else f"trainset_{speakers}_wav"
    items = paired_folders(base / f"noisy_{part}", base / f"clean_{part}")
    if split == "test":
        return items
    if absent := sorted(set(valid_speakers) - {item.name.split("_")[0] for item in items}):
        raise ValueError(
            f"valid_speakers: {', '.join(absent)} have no files in {base / f'clean_{part}'}: "
            "name speakers that have, or set valid_speakers=[]"
        )
    return [item for item in items if (item.name.split("_")[0] in valid_speakers) == (split == "valid")]


def dns(
    root: str | Path,
    split: Literal["train", "valid", "test", "blind"] = "train",
    *,
    valid_every: int = 100,
    reverb: bool = False,
) -> list[Item]:
    """List the DNS challenge: synthetic training pairs and test set, recordings without references.

    Pairs are matched by the ``fileid_<n>`` at the end of their names. ``"train"`` and ``"valid"`` are read
    from ``noisy``, ``clean`` and, where it exists, ``noise`` in ``root`` or ``root/training``; ``"test"``
    from ``test_set/synthetic/{no_reverb,with_reverb}/{noisy,clean}``; ``"blind"`` from
    ``test_set/real_recordings``, or without it, every audio file below ``root``.

    Args:
        root: The folder that holds these, itself or in its folder ``datasets``.
        split: Which part.
        valid_every: File ids divisible by this make up the validation part.
        reverb: Whether to use the test set with reverberation.

    Returns:
        Items named as their noisy files, with references ``"speech"`` and, in training, ``"noise"``.

    Source: C. Reddy et al., "The INTERSPEECH 2020 deep noise suppression challenge", 2020.
    """
    base = existing_folder(root, "the DNS folder", "data.root")
    check_choice("split", split, (*SPLITS, "blind"))
    if valid_every < 1:
        raise ValueError(f"valid_every={valid_every} is not positive: keep every 100th file, for example")
    outer = (base, base / "datasets")
    if split == "blind":
        return blind_folder(next(present(outer, ("test_set/real_recordings",)), base))
    if split == "test":
        inside = f"test_set/synthetic/{'with_reverb' if reverb else 'no_reverb'}"
        folder = first_of(outer, (inside,), "point root at the folder with test_set")
        return pair_sources(folder / "noisy", {"speech": folder / "clean"}, _file_id)
    noisy = first_of(outer, ("noisy", "training/noisy", "train/noisy"), "generate it, or correct root")
    folders = {"speech": noisy.parent / "clean"}
    if (noisy.parent / "noise").is_dir():
        folders["noise"] = noisy.parent / "noise"
    chosen = [
        item
        for item in pair_sources(noisy, folders, _file_id)
        if item.mixture and (int(_file_id(item.mixture)) % valid_every == 0) == (split == "valid")
    ]
    if not chosen:
        raise ValueError(
            f"valid_every={valid_every} leaves no file of {noisy} for {split!r}: choose another number"
        )
    return chosen


def paired_folders(
    noisy: str | Path, clean: str | Path, *, source: str = "speech", noise: str | Path | None = None
) -> list[Item]:
    """Pair the mixtures in one folder with references of the same names (any suffix) in another.

    Args:
        noisy: Folder of mixtures, searched with its subfolders.
        clean: Folder of references.
        source: Name of the source in ``clean``.
        noise: Folder of the noise alone, the reference of source ``"noise"``.

    Returns:
        Items named by their path below ``noisy`` without the suffix.
    """
    folders = {source: Path(clean)} | ({} if noise is None else {"noise": Path(noise)})
    return pair_sources(Path(noisy), folders)


def pair_sources(
    mixtures: Path, folders: Mapping[str, Path], key: Callable[[Path], str] | None = None
) -> list[Item]:
    """Pair the mixtures in one folder with the references in one folder per source.

    Args:
        mixtures: Folder of mixtures, searched with its subfolders.
        folders: Source name to the folder of its references.
        key: Maps a path to the label that pairs it; by default the path below the folder without suffix.

    Returns:
        Items named by their path below ``mixtures`` without the suffix.
    """
    found = _by_key(mixtures, key)
    references = {source: _by_key(folder, key) for source, folder in folders.items()}
    for source, files in references.items():
        _check_same(found, mixtures, files, folders[source])
        _check_same(files, folders[source], found, mixtures)
    items = [
        Item(
            name=_name(file, mixtures),
            mixture=file,
            references={source: files[label] for source, files in references.items()},
        )
        for label, file in found.items()
    ]
    return sorted(items, key=lambda item: item.name)


def blind_folder(folder: str | Path) -> list[Item]:
    """List every audio file below a folder as a mixture without references.

    Returns:
        Items named by their path below ``folder`` without the suffix.
    """
    files = _by_key(Path(folder), None)
    return [Item(name=name, mixture=file, references={}) for name, file in sorted(files.items())]


def mixed_folders(folders: Mapping[str, str | Path | Sequence[str | Path]]) -> dict[str, list[Path]]:
    """List the files of one folder, or several, per source, for `encore.data.mixing_dataset.MixingDataset`.

    Args:
        folders: Such as ``{"speech": "clean", "noise": ["DEMAND", "MUSAN"]}``.

    Returns:
        Source name to its audio files, sorted.
    """
    if not folders:
        raise ValueError("folders is empty: give a folder per source, such as {speech: clean, noise: noise}")
    pools: dict[str, list[Path]] = {}
    for source, value in folders.items():
        several = [value] if isinstance(value, str | Path) else list(value)
        pools[source] = sorted(file for folder in several for file in audio_files(folder))
    return pools


def audio_files(folder: str | Path) -> list[Path]:
    """List all audio files below a folder, sorted, at least one, without hidden ones."""
    base = existing_folder(folder, "a folder of audio files", "the path")
    if not (files := sorted(file for file in base.rglob("*") if is_audio(file))):
        raise ValueError(f"{base} has no audio files: expected {', '.join(AUDIO_SUFFIXES)} in it or below")
    return files


def is_audio(file: Path) -> bool:
    """Return whether a path is named like a visible audio file."""
    return file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith(".")


def existing_folder(folder: str | Path, what: str, argument: str) -> Path:
    """Return a folder as a path; the error says what was expected and which argument to correct."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder: {what} was expected there; correct {argument}")
    return path


def subfolders(folder: Path) -> list[Path]:
    """List the visible folders in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def present(outer: Iterable[Path], inside: Sequence[str]) -> Iterator[Path]:
    """Iterate over the paths that exist among those ``inside`` each outer folder."""
    return (folder / name for folder in outer for name in inside if (folder / name).exists())


def first_of(outer: Sequence[Path], inside: Sequence[str], remedy: str) -> Path:
    """Return the first of these paths that exists; the error ends with the remedy."""
    if (found := next(present(outer, inside), None)) is None:
        raise FileNotFoundError(f"{outer[0]} has no {' or '.join(inside)}: {remedy}")
    return found


def read_table(table: Path, columns: Iterable[str] = ()) -> list[tuple[str, dict[str, str]]]:
    """Read a CSV file, each row with its place for messages; ``columns`` must be filled in."""
    with table.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        rows = [(f"{table}, line {reader.line_num}", row) for row in reader]
    for line, row in rows:
        if missing := [column for column in columns if not row.get(column)]:
            has = ", ".join(filter(None, row))
            raise ValueError(f"{line}: {missing[0]} is missing; the columns are {has}: complete the table")
    return rows


def choose(
    argument: str, wanted: int | Sequence[str], names: Sequence[str], where: Path, *, last: bool = False
) -> list[str]:
    """Return the names of a part of a corpus, sorted: those wanted, or this many of all.

    Args:
        argument: Its name, for messages.
        wanted: Names; or a number, evenly spaced over ``names``.
        names: Those to choose from, sorted.
        where: Their folder, for messages.
        last: Whether a number means the last ones instead.

    Raises:
        ValueError: If a name is not among them, or a number leaves none.
    """
    if isinstance(wanted, str):
        raise ValueError(f"{argument}={wanted!r} is one string: give a list of names, such as [{wanted}]")
    if isinstance(wanted, int):
        if not 0 <= wanted < max(len(names), 1):
            raise ValueError(
                f"{argument}={wanted}, but {where} has {len(names)} to choose from: give 0 to "
                f"{len(names) - 1}, or names"
            )
        return (
            [*names[len(names) - wanted :]]
            if last
            else [names[index] for index in evenly_spaced(len(names), wanted)]
        )
    if absent := sorted(set(wanted) - set(names)):
        raise ValueError(
            f"{argument}: {len(absent)} of {len(wanted)} are not in {where} ({some_of(absent, '; ')}), or in "
            f"another part: name others, or give their number, such as data.train.{argument}=4"
        )
    return sorted(set(wanted))


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ``ValueError`` for a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"{argument}={value!r} is unknown: use one of {', '.join(choices)}")


def some_of(names: Sequence[str], separator: str = ", ", most: int = 3) -> str:
    """Join the first names for a message.

    >>> some_of(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def _by_key(folder: Path, key: Callable[[Path], str] | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in audio_files(folder):
        label = _name(file, folder) if key is None else key(file)
        if label in found:
            raise ValueError(f"{file} and {found[label]} are both {label!r}: keep one of them, or rename one")
        found[label] = file
    return found


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _check_same(present: Iterable[str], folder: Path, expected: Iterable[str], other: Path) -> None:
    if alone := sorted(set(present) - set(expected)):
        raise ValueError(
            f"{len(alone)} files of {folder} are not in {other} ({some_of(alone)}): "
            "add the partners, or move these files away"
        )


def _file_id(file: Path) -> str:
    match = re.search(r"fileid_(\d+)$", file.stem)
    if match is None:
        raise ValueError(
            f"{file} does not end in fileid_<number>, by which DNS pairs are matched: use paired_folders"
        )
    return str(int(match.group(1)))
