"""Corpora as they lie on disk, turned into lists of items: no corpus is copied or renamed to be used.

Every function returns its items sorted by name, so that a list depends on the files alone. A folder that
does not look as expected is a ``ValueError`` or ``FileNotFoundError`` of one line with the folder, what was
expected and the fix. Lists kept in CSV or JSON lines are read by `encore.data.manifest`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encore.data.audio import AUDIO_SUFFIXES

Split = Literal["train", "valid", "test"]

Pool = Sequence[Path] | Mapping[str, Sequence[Path]]
"""Files of one source; or those of each speaker, of whom a mixture of several pools hears none twice."""

Reference = Path | tuple[Path, ...]
"""The recording of a source alone; or the recordings that add up to it, none of them for silence."""

_SHOWN = 3  # names in a message


def spread(count: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` of ``count`` items, evenly spread; all of them if None.

    >>> spread(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or limit >= count:
        return list(range(count))
    return [place * count // limit for place in range(limit)]


def parts_of(reference: Reference) -> tuple[Path, ...]:
    """The recordings that add up to a reference."""
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
        """Every file that the item names, each once, the mixture first."""
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
    """VoiceBank-DEMAND, as published or in sgmse's layout; the one source is ``"speech"``.

    Published: ``{clean,noisy}_trainset_28spk_wav`` and ``{clean,noisy}_testset_wav``, which have no
    validation part, so two speakers of the training part are kept for it. sgmse:
    ``{train,valid,test}/{clean,noisy}``, used as it is.

    Args:
        root: The folder with these folders.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        valid_speakers: Speakers of the published training part that make up ``"valid"`` and are absent from
            ``"train"``; the default is the choice of sgmse, ESPnet and TUSS.
        speakers: Which published training part, of 28 or of 56 speakers.

    Returns:
        Items named like ``p232_001``.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If ``split`` is unknown, files do not pair, or no file or no validation speaker is found.

    Source: C. Valentini-Botinhao et al., "Investigating RNN-based speech enhancement methods", 2016.
    """
    base = existing_folder(root, "the VoiceBank-DEMAND folder", "data.root")
    check_choice("split", split, ("train", "valid", "test"))
    if (base / "train" / "clean").is_dir():
        return paired_folders(base / split / "noisy", base / split / "clean")
    part = "testset_wav" if split == "test" else f"trainset_{speakers}_wav"
    items = paired_folders(base / f"noisy_{part}", base / f"clean_{part}")
    if split == "test":
        return items
    held_out = [item for item in items if item.name.split("_")[0] in valid_speakers]
    present = {item.name.split("_")[0] for item in held_out}
    if absent := sorted(set(valid_speakers) - present):
        raise ValueError(
            f"valid_speakers: {', '.join(absent)} have no files in {base / f'clean_{part}'}: "
            "name speakers that have, or set valid_speakers=[]"
        )
    if split == "valid":
        return held_out
    return [item for item in items if item.name.split("_")[0] not in valid_speakers]


def dns(
    root: str | Path,
    split: Literal["train", "valid", "test", "blind"] = "train",
    *,
    valid_every: int = 100,
    reverb: bool = False,
) -> list[Item]:
    """The DNS challenge: synthesised training pairs, synthetic test set, recordings without references.

    Pairs are matched by the ``fileid_<n>`` at the end of their names. ``"train"`` and ``"valid"`` are read
    from ``noisy``, ``clean`` and, where it exists, ``noise`` in ``root`` or ``root/training``; ``"test"``
    from ``test_set/synthetic/{no_reverb,with_reverb}/{noisy,clean}``; ``"blind"`` from
    ``test_set/real_recordings``, or if there is none, every audio file below ``root``.

    Args:
        root: The folder that holds these; ``datasets`` inside it is looked into as well.
        split: Which part.
        valid_every: The challenge has no validation part: file ids divisible by this make it up.
        reverb: Whether the test set is the one with reverberation.

    Returns:
        Items named as their noisy files, with references ``"speech"`` and, in training, ``"noise"``.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If ``split`` or ``valid_every`` is out of range, names lack ids, or files do not pair.

    Source: C. Reddy et al., "The INTERSPEECH 2020 deep noise suppression challenge", 2020.
    """
    base = existing_folder(root, "the DNS folder", "data.root")
    check_choice("split", split, ("train", "valid", "test", "blind"))
    if valid_every < 1:
        raise ValueError(f"valid_every={valid_every} is not positive: keep every 100th file, for example")
    if split == "blind":
        return blind_folder(_first_folder(base, ("test_set/real_recordings",)) or base)
    if split == "test":
        return _dns_test(base, "with_reverb" if reverb else "no_reverb")
    noisy = _first_folder(base, ("noisy", "training/noisy", "train/noisy"))
    if noisy is None:
        raise FileNotFoundError(
            f"{base} has no folder noisy, training/noisy or train/noisy: run the synthesiser, or mend root"
        )
    folders = {"speech": noisy.parent / "clean"}
    if (noisy.parent / "noise").is_dir():
        folders["noise"] = noisy.parent / "noise"
    items = pair_sources(noisy, folders, _file_id)
    kept_out = split == "valid"
    chosen = [
        item
        for item in items
        if item.mixture is not None and (int(_file_id(item.mixture)) % valid_every == 0) == kept_out
    ]
    if not chosen:
        raise ValueError(
            f"valid_every={valid_every} leaves no file of {noisy} for {split!r}: choose another number"
        )
    return chosen


def paired_folders(
    noisy: str | Path, clean: str | Path, *, source: str = "speech", noise: str | Path | None = None
) -> list[Item]:
    """Mixtures in one folder and their references in another, under the same names (suffixes may differ).

    Args:
        noisy: Folder of mixtures, searched with its subfolders.
        clean: Folder of references.
        source: Name of the source that ``clean`` holds.
        noise: Folder of the noise alone, the reference of source ``"noise"``.

    Returns:
        Items named by their path below ``noisy`` without the suffix.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If a folder has no audio or files do not pair.
    """
    noisy = Path(noisy)
    folders = {source: Path(clean)}
    if noise is not None:
        folders["noise"] = Path(noise)
    return pair_sources(noisy, folders)


def pair_sources(
    mixtures: Path, folders: Mapping[str, Path], key: Callable[[Path], str] | None = None
) -> list[Item]:
    """Mixtures in one folder and the references of any number of sources in a folder each.

    Args:
        mixtures: Folder of mixtures, searched with its subfolders.
        folders: Source name to the folder of its references.
        key: What a mixture's path has in common with its references'; the path below the folder, without
            suffix, by default.

    Returns:
        Items named by their path below ``mixtures`` without the suffix.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If a folder has no audio or files do not pair.
    """
    found = _by_key(mixtures, key)
    references = {source: _by_key(folder, key) for source, folder in folders.items()}
    for source, files in references.items():
        _check_same(found, mixtures, files, folders[source])
    items = [
        Item(
            name=file.relative_to(mixtures).with_suffix("").as_posix(),
            mixture=file,
            references={source: files[label] for source, files in references.items()},
        )
        for label, file in found.items()
    ]
    return sorted(items, key=lambda item: item.name)


def blind_folder(folder: str | Path) -> list[Item]:
    """Every audio file below a folder as a mixture without references.

    Args:
        folder: Searched with its subfolders.

    Returns:
        Items named by their path below ``folder`` without the suffix.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If it has no audio.
    """
    files = _by_key(Path(folder), None)
    return [Item(name=name, mixture=file, references={}) for name, file in sorted(files.items())]


def mixed_folders(folders: Mapping[str, str | Path | Sequence[str | Path]]) -> dict[str, list[Path]]:
    """A folder, or several, per source, whose files `encore.data.dataset.PoolDataset` mixes on the fly.

    Args:
        folders: Source name to folder or folders, such as ``{"speech": "clean", "noise": ["DEMAND",
            "MUSAN"]}``.

    Returns:
        Source name to its audio files, sorted.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If a folder has no audio, or no source is given.
    """
    if not folders:
        raise ValueError("folders is empty: give a folder per source, such as {speech: clean, noise: noise}")
    pools: dict[str, list[Path]] = {}
    for source, value in folders.items():
        places = [value] if isinstance(value, str | Path) else list(value)
        pools[source] = sorted(file for place in places for file in audio_files(place))
    return pools


def audio_files(folder: str | Path) -> list[Path]:
    """All audio files below a folder, sorted; hidden ones, such as macOS leaves behind, are left out.

    Args:
        folder: Searched with its subfolders.

    Returns:
        Paths, at least one.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If it has no audio.
    """
    base = existing_folder(folder, "a folder of audio files", "the path")
    files = sorted(
        file
        for file in base.rglob("*")
        if file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise ValueError(f"{base} has no audio files: expected {', '.join(AUDIO_SUFFIXES)} in it or below")
    return files


def existing_folder(folder: str | Path, what: str, argument: str) -> Path:
    """Return a folder as a path; ``FileNotFoundError`` says what was expected and which argument to mend."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder: {what} was expected there; correct {argument}")
    return path


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Refuse, with a ``ValueError``, a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"{argument}={value!r} is unknown: use one of {', '.join(choices)}")


def _dns_test(base: Path, part: str) -> list[Item]:
    inside = f"test_set/synthetic/{part}"
    folder = _first_folder(base, (inside,))
    if folder is None:
        raise FileNotFoundError(f"{base} has no folder {inside}: point root at the folder with test_set")
    return pair_sources(folder / "noisy", {"speech": folder / "clean"}, _file_id)


def _by_key(folder: Path, key: Callable[[Path], str] | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in audio_files(folder):
        label = file.relative_to(folder).with_suffix("").as_posix() if key is None else key(file)
        if label in found:
            raise ValueError(f"{file} and {found[label]} are both {label!r}: keep one of them, or rename one")
        found[label] = file
    return found


def _check_same(mixtures: Iterable[str], noisy: Path, references: Iterable[str], clean: Path) -> None:
    for present, absent, at, lacking in (
        (mixtures, references, noisy, clean),
        (references, mixtures, clean, noisy),
    ):
        if alone := sorted(set(present) - set(absent)):
            more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
            raise ValueError(
                f"{len(alone)} files of {at} are not in {lacking} ({', '.join(alone[:_SHOWN])}{more}): "
                "add the partners, or move these files away"
            )


def _file_id(file: Path) -> str:
    match = re.search(r"fileid_(\d+)$", file.stem)
    if match is None:
        raise ValueError(
            f"{file} does not end in fileid_<number>: DNS pairs are matched by it; use paired_folders"
        )
    return str(int(match.group(1)))


def _first_folder(base: Path, inside: Sequence[str]) -> Path | None:
    places = (parent / name for parent in (base, base / "datasets") for name in inside)
    return next((place for place in places if place.is_dir()), None)
