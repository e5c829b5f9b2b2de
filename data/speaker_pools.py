"""Utterances by speaker, which `encore.data.dataset.PoolDataset` mixes on the fly, never a speaker twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from encore.data.corpora import Pool, Split, audio_files, check_choice, mixed_folders, parts_of
from encore.data.speaker_corpora import librimix


def librimix_pools(
    root: str | Path,
    split: Split = "train",
    *,
    subsets: Sequence[str] = ("train-100",),
    speakers: int = 2,
    sample_rate: int = 8000,
    mode: Literal["min", "max"] = "min",
    task: Literal["sep_clean", "sep_noisy"] = "sep_clean",
) -> dict[str, Pool]:
    """The utterances of LibriMix by speaker, for mixtures made on the fly of any two who are not one.

    Args:
        root: As for `librimix`, and so are the others.
        split: Which part.
        subsets: What ``"train"`` is made of.
        speakers: In a mixture.
        sample_rate: In Hz.
        mode: ``"max"`` pads utterances with silence, which random segments may then be.
        task: ``"sep_noisy"`` adds a pool of the noises.

    Returns:
        ``"speaker1"``, ``"speaker2"`` .. to the utterances by speaker, and ``"noise"`` to files, for
        `encore.data.dataset.PoolDataset`.

    Raises:
        FileNotFoundError: If a folder or file is missing.
        ValueError: As `librimix`, and if a name does not say who speaks or too few speak.
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
                f"{item.mixture}: a name like 103-1240-0003_1235-135887-0017 was expected, to tell the "
                f"{speakers} speakers by: rename the files, or use speaker_pools"
            )
        for utterance, reference in zip(utterances, item.references.values(), strict=True):
            by_speaker.setdefault(utterance.split("-")[0], []).extend(parts_of(reference))
    pools = _speaker_sources(by_speaker, speakers, root)
    if task == "sep_noisy":
        mixtures = [item.mixture for item in items if item.mixture is not None]
        noises = [_existing(file.parent.parent / "noise" / file.name) for file in mixtures]
        pools["noise"] = noises
    return pools


def speaker_pools(
    root: str | Path, *, speakers: int = 2, noise: str | Path | Sequence[str | Path] | None = None
) -> dict[str, Pool]:
    """A folder per speaker, as in VCTK and LibriSpeech, for mixtures made on the fly.

    Args:
        root: The folder of the speakers' folders, ``<speaker>/*.wav`` or ``<speaker>/<chapter>/*.flac``.
        speakers: In a mixture.
        noise: Folder or folders of noise that is added to every mixture; None for none.

    Returns:
        As `librimix_pools`.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If a file lies outside the speakers' folders, or too few speak.
    """
    base = Path(root).expanduser()
    by_speaker: dict[str, list[Path]] = {}
    for file in audio_files(base):
        speaker, *inside = file.relative_to(base).parts
        if not inside:
            raise ValueError(f"{file} lies in no speaker's folder: move it into one, or correct data.root")
        by_speaker.setdefault(speaker, []).append(file)
    pools = _speaker_sources(by_speaker, speakers, base)
    return pools if noise is None else {**pools, **mixed_folders({"noise": noise})}


def _speaker_sources(by_speaker: Mapping[str, list[Path]], count: int, root: str | Path) -> dict[str, Pool]:
    if not 2 <= count <= len(by_speaker):
        raise ValueError(
            f"speakers={count} needs 2 or more, and as many to draw from: {root} has {len(by_speaker)} "
            f"({', '.join(sorted(by_speaker)[:3])}..); change speakers or data.root"
        )
    return {f"speaker{number}": by_speaker for number in range(1, count + 1)}


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: add it, or use task=sep_clean")
    return file
