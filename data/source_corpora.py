"""Corpora of isolated sources: one source a recording, speech of known speakers or sounds of known classes.

They train models of one source (diffusion priors) and are what mixtures for tests are made of, by
`data.mixture_recipes`. As in `encore.data.corpora`, lists are sorted by name and a mistake is one line.

Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025, for
the choice of the corpora and of 100 training and 10 test speakers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from encore.data.audio import AUDIO_SUFFIXES
from encore.data.corpora import Split, check_choice, existing_folder
from encore.data.sound_classes import FSD_CLASSES

Member = TypeVar("Member")

_PADDING = "None"  # label of the clips that Kaggle's test part has besides the scored ones
_VCTK_FOLDERS = ("wav48_silence_trimmed", "wav48")  # of versions 0.92 and 0.80
_FSD_AUDIO = {
    part: (f"FSDKaggle2018.audio_{part}", f"audio_{part}") for part in ("train", "test")
}  # Zenodo's and Kaggle's names
_FSD_TABLES = {
    "train": ("FSDKaggle2018.meta/train_post_competition.csv", "train_post_competition.csv", "train.csv"),
    "test": (
        "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv",
        "test_post_competition_scoring_clips.csv",
        "test_post_competition.csv",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One isolated recording.

    Attributes:
        name: Unique within the corpus.
        path: Its audio file.
        label: Its class; None where the corpus is one class.
        speaker: Who speaks; None where nobody is known to.
    """

    name: str
    path: Path
    label: str | None
    speaker: str | None = None


def labels_of(recordings: Iterable[Recording]) -> tuple[str, ...]:
    """The classes that occur, sorted; recordings without one add none."""
    return tuple(sorted({recording.label for recording in recordings if recording.label is not None}))


def vctk(
    root: str | Path,
    split: Split = "train",
    *,
    test_speakers: int | Sequence[str] = 10,
    valid_speakers: int | Sequence[str] = 0,
    valid_every: int = 20,
    microphone: Literal["mic1", "mic2"] = "mic1",
) -> list[Recording]:
    """VCTK, version 0.92 or 0.80: one sentence of one speaker a recording, without a class.

    0.92: ``wav48_silence_trimmed/p225/p225_001_mic1.flac``, 110 speakers; 0.80: ``wav48/p225/p225_001.wav``,
    109 of them and one microphone. VCTK has no parts of its own. The test speakers are heard in ``"test"``
    only; by default they are the last ten by name (of 0.92 ``p347`` to ``p376`` and ``s5``), which leaves the
    100 training speakers of the paper.

    ``"valid"`` is by default every 20th sentence of every training speaker: a loss that rises there while it
    falls in training says that the model memorises recordings, and no voice is lost for training. To see
    instead whether it memorises voices, give ``valid_speakers``, who are then heard in ``"valid"`` only.

    Args:
        root: The folder with one of these folders, or with ``VCTK-Corpus-0.92`` or ``VCTK-Corpus``.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        test_speakers: Their names, or how many, the last ones by name.
        valid_speakers: Their names, or how many, the last ones by name before the test speakers; none to
            take sentences of the training speakers.
        valid_every: Which sentences those are: of each speaker's, by name, every so many-th.
        microphone: Of version 0.92, ``"mic1"`` (omnidirectional) or ``"mic2"``. A recording that lacks it is
            left out, and so all of ``p280`` are with ``"mic2"``; who is in which part does not change.

    Returns:
        Recordings named like ``p225_001``, without a label, with their speakers.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If an argument is out of range, a speaker is unknown or in two parts, or a part would be
            empty.

    Source: J. Yamagishi, C. Veaux, K. MacDonald, "CSTR VCTK Corpus (version 0.92)", 2019.
    """
    check_choice("split", split, ("train", "valid", "test"))
    check_choice("microphone", microphone, ("mic1", "mic2"))
    if valid_every < 2:
        raise ValueError(
            f"valid_every={valid_every} leaves nothing to train on: keep every 20th, for example"
        )
    folder = _vctk_folder(root)
    speakers = sorted(place.name for place in folder.iterdir() if place.is_dir() and place.name[0] != ".")
    tested = _chosen_speakers("test_speakers", test_speakers, speakers, folder)
    others = [speaker for speaker in speakers if speaker not in tested]
    validated = _chosen_speakers("valid_speakers", valid_speakers, others, folder)
    if split == "test":
        chosen = tested
    elif split == "valid" and validated:
        chosen = validated
    else:
        chosen = [speaker for speaker in others if speaker not in validated]
    recordings = []
    for speaker in chosen:
        own = _utterances(folder, speaker, microphone)
        if split != "test" and not validated:
            own = _every(own, valid_every, taken=split == "valid")
        recordings += own
    if not recordings:
        raise ValueError(
            f"{folder} has no recordings for split={split!r}: change test_speakers, valid_speakers, "
            f"valid_every or microphone={microphone!r}"
        )
    return sorted(recordings, key=lambda recording: recording.name)


def fsdkaggle2018(
    root: str | Path,
    split: Split = "train",
    *,
    classes: Sequence[str] | None = None,
    verified_only: bool = False,
    valid_every: int = 10,
) -> list[Recording]:
    """FSDKaggle2018: sounds of 41 classes, one class a recording, 0.3 to 30 s each.

    As on Zenodo, ``FSDKaggle2018.audio_{train,test}`` and ``FSDKaggle2018.meta/train_post_competition.csv``,
    ``test_post_competition_scoring_clips.csv``; or as on Kaggle, ``audio_{train,test}``, ``train.csv`` and
    ``test_post_competition.csv``, whose clips labelled ``None`` were never scored and are left out. There is
    no validation part: of every class, every 10th training clip by name makes it up (names are random).

    Args:
        root: The folder with these.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        classes: Which to use, of `encore.data.sound_classes.FSD_CLASSES`; all that there are if None.
        verified_only: Whether to leave out training and validation clips whose label no human has verified:
            about 60 % of them, whose labels are right at least 65 % of the time. Those of ``"test"`` all are
            verified. Which clips are for validation does not change.
        valid_every: Which training clips are for validation.

    Returns:
        Recordings named like ``00044347``, with their classes.

    Raises:
        FileNotFoundError: If a folder, table or listed file is missing.
        ValueError: If an argument is out of range, a table lacks a column, a class is unknown or has no
            recording, or a file is listed twice.

    Source: E. Fonseca et al., "General-purpose tagging of Freesound audio with AudioSet labels", 2018.
    """
    check_choice("split", split, ("train", "valid", "test"))
    for label in classes or ():
        check_choice("classes", label, FSD_CLASSES)
    if classes is not None and not classes:
        raise ValueError("classes is empty: name some of FSD_CLASSES, or give null for all")
    if valid_every < 2:
        raise ValueError(
            f"valid_every={valid_every} leaves nothing to train on: keep every 10th, for example"
        )
    base = existing_folder(root, "the FSDKaggle2018 folder", "root")
    part: Literal["train", "test"] = "test" if split == "test" else "train"
    table, folder = _first(base, _FSD_TABLES[part]), _first(base, _FSD_AUDIO[part])
    needs_human = verified_only and part == "train"
    rows = _fsd_rows(table, ("manually_verified",) if needs_human else ())
    by_class = {label: sorted(file for file in rows if rows[file]["label"] == label) for label in FSD_CLASSES}
    if empty := [label for label in classes or () if not by_class[label]]:
        raise ValueError(f"classes: {table} lists no {empty[0]}: leave it out, or complete the corpus")
    chosen = []
    for label in classes or FSD_CLASSES:
        files = by_class[label]
        if part == "train":
            files = _every(files, valid_every, taken=split == "valid")
        chosen += [file for file in files if not needs_human or rows[file]["manually_verified"] == "1"]
    if not chosen:
        raise ValueError(
            f"{table} lists no recordings for split={split!r}: change classes, valid_every or verified_only"
        )
    present = {place.name for place in folder.iterdir()}
    if missing := sorted(set(chosen) - present):
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the files that {table} lists, such as {missing[0]}: "
            "complete the corpus"
        )
    return [
        Recording(name=Path(file).stem, path=folder / file, label=rows[file]["label"])
        for file in sorted(chosen)
    ]


def _every(members: Sequence[Member], step: int, *, taken: bool) -> list[Member]:
    """Every ``step``-th of some, the last of each ``step``; or if not ``taken``, all others."""
    return [member for place, member in enumerate(members) if (place % step == step - 1) == taken]


def _vctk_folder(root: str | Path) -> Path:
    base = existing_folder(root, "the VCTK folder", "root")
    places = [
        outer / inside
        for outer in (base, base / "VCTK-Corpus-0.92", base / "VCTK-Corpus")
        for inside in _VCTK_FOLDERS
    ]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise FileNotFoundError(
            f"{base} has no folder {' or '.join(_VCTK_FOLDERS)}: point root at VCTK's folder"
        )
    return found


def _chosen_speakers(argument: str, wanted: int | Sequence[str], known: list[str], folder: Path) -> list[str]:
    """The speakers named, or the last ``wanted`` of those known."""
    if isinstance(wanted, int):
        if not 0 <= wanted < len(known):
            raise ValueError(
                f"{argument}={wanted} of {len(known)} speakers in {folder}: give 0 to {len(known) - 1}, "
                "or names"
            )
        return known[len(known) - wanted :]
    if isinstance(wanted, str):
        raise ValueError(f"{argument}={wanted!r} is one string: give a list of names, such as [{wanted}]")
    if absent := sorted(set(wanted) - set(known)):
        raise ValueError(
            f"{argument}: {', '.join(absent)} are not in {folder} or in another part: name others"
        )
    return sorted(set(wanted))


def _utterances(folder: Path, speaker: str, microphone: str) -> list[Recording]:
    """A speaker's recordings by one microphone, sorted by name."""
    two_microphones = folder.name == _VCTK_FOLDERS[0]
    if not two_microphones and microphone != "mic1":
        raise ValueError(f"microphone={microphone!r}: {folder} is of VCTK 0.80, which has one; use mic1")
    ending = f"_{microphone}" if two_microphones else ""
    files = sorted(
        file
        for file in (folder / speaker).iterdir()
        if file.suffix.lower() in AUDIO_SUFFIXES and file.stem.endswith(ending) and file.name[0] != "."
    )
    return [
        Recording(name=file.stem.removesuffix(ending), path=file, label=None, speaker=speaker)
        for file in files
    ]


def _first(base: Path, inside: Sequence[str]) -> Path:
    """The first of some paths below a folder that exists."""
    found = next((base / name for name in inside if (base / name).exists()), None)
    if found is None:
        raise FileNotFoundError(f"{base} has no {' or '.join(inside)}: correct root, or complete the corpus")
    return found


def _fsd_rows(table: Path, further_columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """File name to its row, without those of padding clips."""
    rows: dict[str, dict[str, str]] = {}
    with table.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = reader.fieldnames or []
        for column in ("fname", "label", *further_columns):
            if column not in columns:
                raise ValueError(
                    f"{table} has no column {column}; it has {', '.join(columns) or 'none'}: take the table "
                    "of the same name from Zenodo"
                )
        for row in reader:
            file, label = row["fname"], row["label"]
            if label == _PADDING:
                continue
            if not file or label not in FSD_CLASSES:
                raise ValueError(
                    f"{table}, line {reader.line_num}: label {label!r} of fname {file!r} is none of the 41 "
                    "classes: mend the line"
                )
            if file in rows:
                raise ValueError(f"{table}, line {reader.line_num}: {file} is listed twice: remove a line")
            rows[file] = row
    return rows
