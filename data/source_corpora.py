"""Corpora of isolated sources: one source per recording, speech of known speakers or sounds of known classes.

They train diffusion priors, and `encore.data.mixture_recipes` makes test mixtures of them. As in
`encore.data.corpora`, lists are sorted by name, a missing folder or file is a ``FileNotFoundError`` and any
other mistake a ``ValueError``.

Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025, for
the choice of the corpora and of 100 training and 10 test speakers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from encore.data.corpora import (
    SPLITS,
    Split,
    check_choice,
    choose,
    existing_folder,
    first_of,
    is_audio,
    read_table,
    subfolders,
)
from encore.data.sound_classes import FSD_CLASSES

Member = TypeVar("Member")

_PADDING = "None"  # label of the clips of Kaggle's test part that were not scored
_VCTK_FOLDERS = ("wav48_silence_trimmed", "wav48")  # of versions 0.92 and 0.80
_FSD_AUDIO = {  # Zenodo's and Kaggle's names
    part: (f"FSDKaggle2018.audio_{part}", f"audio_{part}") for part in ("train", "test")
}
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
        speaker: Its speaker; None for sounds.
    """

    name: str
    path: Path
    label: str | None
    speaker: str | None = None


def vctk(
    root: str | Path,
    split: Split = "train",
    *,
    test_speakers: int | Sequence[str] = 10,
    valid_speakers: int | Sequence[str] = 0,
    valid_every: int = 20,
    microphone: Literal["mic1", "mic2"] = "mic1",
) -> list[Recording]:
    """List VCTK, version 0.92 or 0.80: one sentence of one speaker per recording, without a class.

    0.92: ``wav48_silence_trimmed/p225/p225_001_mic1.flac``, 110 speakers; 0.80: ``wav48/p225/p225_001.wav``,
    109 speakers and one microphone. VCTK has no splits. Test speakers are in ``"test"`` only; the default,
    the last ten by name (of 0.92 ``p347`` to ``p376`` and ``s5``), leaves the 100 training speakers of the
    paper.

    ``"valid"`` is by default every 20th sentence of every training speaker: its loss shows when the model
    memorizes recordings, and no voice is lost for training. To see whether it memorizes voices, give
    ``valid_speakers``, who are then in ``"valid"`` only.

    Args:
        root: The folder with one of these folders, or with ``VCTK-Corpus-0.92`` or ``VCTK-Corpus``.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        test_speakers: Names, or a number: the last ones by name.
        valid_speakers: Names, or a number: the last ones by name before the test speakers; 0 to use
            sentences of the training speakers.
        valid_every: Every n-th sentence of each speaker, by name, is then for validation.
        microphone: Of version 0.92, ``"mic1"`` (omnidirectional) or ``"mic2"``. Recordings without it, with
            ``"mic2"`` all of ``p280``, are left out; the splits of the speakers do not change.

    Returns:
        Recordings named like ``p225_001``, with their speakers.

    Source: J. Yamagishi, C. Veaux, K. MacDonald, "CSTR VCTK Corpus (version 0.92)", 2019.
    """
    check_choice("split", split, SPLITS)
    check_choice("microphone", microphone, ("mic1", "mic2"))
    if valid_every < 2:
        raise ValueError(f"valid_every={valid_every} leaves nothing to train on: give 20, for example")
    base = existing_folder(root, "the VCTK folder", "root")
    outer = (base, base / "VCTK-Corpus-0.92", base / "VCTK-Corpus")
    folder = first_of(outer, _VCTK_FOLDERS, "point root at VCTK's folder")
    speakers = [path.name for path in subfolders(folder)]
    tested = choose("test_speakers", test_speakers, speakers, folder, last=True)
    others = [speaker for speaker in speakers if speaker not in tested]
    validated = choose("valid_speakers", valid_speakers, others, folder, last=True)
    trained = [speaker for speaker in others if speaker not in validated]
    recordings = []
    for speaker in {"train": trained, "valid": validated or trained, "test": tested}[split]:
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
    """List FSDKaggle2018: sounds of 41 classes, one class per recording, 0.3 to 30 s each.

    As on Zenodo, ``FSDKaggle2018.audio_{train,test}`` and ``FSDKaggle2018.meta/train_post_competition.csv``,
    ``test_post_competition_scoring_clips.csv``; or as on Kaggle, ``audio_{train,test}``, ``train.csv`` and
    ``test_post_competition.csv``, without the clips labelled ``None``, which were not scored. There is no
    validation part: it is every 10th training clip of every class by name (names are random).

    Args:
        root: The folder with these.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        classes: Some of `encore.data.sound_classes.FSD_CLASSES`; all if None.
        verified_only: Whether to leave out the training and validation clips whose label was not verified by
            a human: about 60 %, with labels that are right at least 65 % of the time. All of ``"test"`` are
            verified. The choice of validation clips does not change.
        valid_every: Every n-th training clip of a class is for validation.

    Returns:
        Recordings named like ``00044347``, with their classes.

    Source: E. Fonseca et al., "General-purpose tagging of Freesound audio with AudioSet labels", 2018.
    """
    check_choice("split", split, SPLITS)
    labels = FSD_CLASSES if classes is None else classes
    for label in labels:
        check_choice("classes", label, FSD_CLASSES)
    if not labels:
        raise ValueError("classes is empty: name some of FSD_CLASSES, or give null for all")
    if valid_every < 2:
        raise ValueError(f"valid_every={valid_every} leaves nothing to train on: give 10, for example")
    base = existing_folder(root, "the FSDKaggle2018 folder", "root")
    part = "test" if split == "test" else "train"
    table = first_of((base,), _FSD_TABLES[part], "correct root, or complete the corpus")
    folder = first_of((base,), _FSD_AUDIO[part], "correct root, or complete the corpus")
    needs_human = verified_only and part == "train"
    rows = _fsd_rows(table, ("manually_verified",) if needs_human else ())
    chosen = []
    for label in labels:
        files = sorted(file for file in rows if rows[file]["label"] == label)
        if classes and not files:
            raise ValueError(f"classes: {table} lists no {label}: leave it out, or complete the corpus")
        if part == "train":
            files = _every(files, valid_every, taken=split == "valid")
        chosen += [file for file in files if not needs_human or rows[file]["manually_verified"] == "1"]
    if not chosen:
        raise ValueError(
            f"{table} lists no recordings for split={split!r}: change classes, valid_every or verified_only"
        )
    _check_complete(folder, chosen, table)
    return [
        Recording(name=Path(file).stem, path=folder / file, label=rows[file]["label"])
        for file in sorted(chosen)
    ]


def _check_complete(folder: Path, files: Sequence[str], table: Path) -> None:
    """Raise if a folder lacks one of the files that a table lists."""
    if missing := sorted(set(files) - {path.name for path in folder.iterdir()}):
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the files that {table} lists, such as {missing[0]}: "
            "complete the corpus"
        )


def _every(members: Sequence[Member], step: int, *, taken: bool) -> list[Member]:
    """Return the last of every ``step`` members; or if not ``taken``, all others."""
    return [member for index, member in enumerate(members) if (index % step == step - 1) == taken]


def _utterances(folder: Path, speaker: str, microphone: str) -> list[Recording]:
    """List a speaker's recordings by one microphone, sorted by name."""
    two_microphones = folder.name == _VCTK_FOLDERS[0]
    if not two_microphones and microphone != "mic1":
        raise ValueError(f"microphone={microphone!r}: {folder} is VCTK 0.80 with one microphone: use mic1")
    ending = f"_{microphone}" if two_microphones else ""
    files = sorted(
        file for file in (folder / speaker).iterdir() if is_audio(file) and file.stem.endswith(ending)
    )
    return [
        Recording(name=file.stem.removesuffix(ending), path=file, label=None, speaker=speaker)
        for file in files
    ]


def _fsd_rows(table: Path, further_columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read the rows by file name, without those of padding clips."""
    rows: dict[str, dict[str, str]] = {}
    for line, row in read_table(table, ("fname", "label", *further_columns)):
        file, label = row["fname"], row["label"]
        if label == _PADDING:
            continue
        if label not in FSD_CLASSES:
            raise ValueError(
                f"{line}: label {label!r} of fname {file!r} is none of the 41 classes: correct the line"
            )
        if file in rows:
            raise ValueError(f"{line}: {file} is listed twice: remove a line")
        rows[file] = row
    return rows
