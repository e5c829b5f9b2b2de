"""Tiny corpora of tones, written on the spot; every stem of every song has a pitch of its own."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from encore.data.music_corpora import VALID_SONGS
from encore.data.sound_classes import FSD_CLASSES

RATE = 8000
SOURCES = ("vocals", "drums", "bass", "other")
KINDS = ("mix_clean", "mix_both", "mix_single", "s1", "s2", "noise")
MIXTURES = ("103-1-1_26-2-2", "26-1-1_587-3-3")
TITLES = ("Ana - One", "Bob - Two", "Cat - Three", "Dan - Four", "Eve - Five")


def hertz(song: int, stem: int) -> float:
    """The pitch that tells a stem of a song from all others; whole periods fit into 800 samples at 8 kHz."""
    return 500.0 + 40 * song + 400 * stem


def tone(frequency: float, frames: int, channels: int = 1, lead: int = 0) -> np.ndarray:
    """``(time, channel)`` at level 0.1, of which the first ``lead`` samples are zeros."""
    waveform = 0.1 * np.sin(2 * np.pi * frequency * np.arange(frames) / RATE)
    waveform[:lead] = 0
    return np.repeat(waveform[:, None], channels, axis=1)


def write(file: Path, waveform: np.ndarray, rate: int = RATE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, waveform, rate, subtype="FLOAT" if file.suffix == ".wav" else None)
    return file


def audio(file: Path, frames: int = 80, frequency: float = 1000.0) -> Path:
    """A file with a tone."""
    return write(file, tone(frequency, frames))


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """A CSV file with the columns of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def names(listed: Iterable[Any]) -> list[str]:
    """The names of items or recordings."""
    return [one.name for one in listed]


def touch(folder: Path, *names: str) -> None:
    """Empty files, for listing only."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def tree(base: Path, folders: Iterable[str], names: Iterable[str], frames: int = 80) -> None:
    """The same names in every folder."""
    for folder in folders:
        for name in names:
            audio(base / folder / f"{name}.wav", frames)


def libri2mix(root: Path, frames: int = 80) -> None:
    """Two training mixtures, and one in each other subset, in LibriMix's layout, without tables."""
    base = root / "Libri2Mix" / "wav8k" / "min"
    tree(base / "train-100", KINDS, MIXTURES, frames)
    for subset, name in (("train-360", "9-1-1_8-1-1"), ("dev", "7-1-1_6-1-1"), ("test", "5-1-1_4-1-1")):
        tree(base / subset, KINDS, [name], frames)


def song(
    folder: Path,
    number: int,
    *,
    stems: Sequence[str] = SOURCES,
    frames: int = 2400,
    channels: int = 1,
    leads: Mapping[str, int] | None = None,
    mixture: bool = True,
    rate: int = RATE,
    suffix: str = ".wav",
) -> None:
    """A folder with a file per stem and, if wanted, their sum."""
    total = np.zeros((frames, channels))
    for place, stem in enumerate(stems):
        waveform = tone(hertz(number, place), frames, channels, (leads or {}).get(stem, 0))
        write(folder / f"{stem}{suffix}", waveform, rate)
        total += waveform
    if mixture:
        write(folder / f"mixture{suffix}", total, rate)


def songs(base: Path, names: Iterable[str], first: int = 0, **options: object) -> None:
    """A folder per song; the numbers of the songs, which set their pitches, count from ``first``."""
    for number, name in enumerate(names, first):
        song(base / name, number, **options)  # type: ignore[arg-type]


def musdb(root: Path, **options: object) -> None:
    """Four training songs and a test song, none of them of MUSDB18."""
    songs(root / "train", TITLES[:4], **options)
    songs(root / "test", TITLES[4:], 4, **options)


def moises(root: Path, name: str, stems: Mapping[str, Sequence[int]], channels: int = 1) -> None:
    """A song of MoisesDB: a folder per stem with a file per length, and ``data.json``."""
    for place, (stem, lengths) in enumerate(stems.items()):
        for number, frames in enumerate(lengths):
            write(root / name / stem / f"{place}{number}-id.wav", tone(500 + 100 * place, frames, channels))
    (root / name / "data.json").write_text('{"song": "a title"}')


def of_config(config: str, root: Path, frames: int = 1600) -> None:
    """The corpus that a config of ``configs/data`` reads when only its root is set."""
    splits = ("train", "valid", "test")
    if config == "musdb18_hq":
        songs(root / "train", [*VALID_SONGS, *TITLES[:4]], frames=frames)
        songs(root / "test", TITLES[4:], frames=frames)
    elif config == "moisesdb":
        for number in range(50):
            moises(root, f"{number:02d}", {stem: [frames] for stem in ("vocals", "drums", "bass", "guitar")})
    elif config in ("song_folders", "stem_folders"):
        songs(root / "valid", TITLES[4:], frames=frames)
        if config == "song_folders":
            songs(root / "train", TITLES[:4], frames=frames)
        for stem in SOURCES if config == "stem_folders" else ():
            tree(root / "train", [stem], ["one"], frames)
    elif config == "voicebank_demand":
        for kind in ("clean", "noisy"):
            tree(root, [f"{kind}_trainset_28spk_wav"], [f"{p}_001" for p in ("p225", "p226", "p287")], frames)
            tree(root, [f"{kind}_testset_wav"], ["p232_001"], frames)
    elif config == "dns":
        tree(root, ("noisy", "clean", "noise"), [f"fileid_{number}" for number in range(3)], frames)
        tree(root / "test_set/synthetic/no_reverb", ("noisy", "clean"), ["fileid_5"], frames)
    elif config == "librimix":
        libri2mix(root, frames)
    elif config in ("wsj0_mix", "wham"):
        base, mixture = (root / "2speakers", "mix") if config == "wsj0_mix" else (root, "mix_both")
        for split in ("tr", "cv", "tt"):
            tree(base / "wav8k" / "min" / split, (mixture, "s1", "s2"), ["one"], frames)
    elif config == "mixed_speakers":
        tree(root, [f"{split}/{name}" for split in splits for name in ("p225", "p226")], ["one"], frames)
    elif config == "vctk":
        for speaker in (f"p{number}" for number in range(225, 236)):
            tree(root / "wav48", [speaker], [f"{speaker}_{number:03d}" for number in range(20)], frames)
    elif config == "fsdkaggle2018":
        clips = [
            (f"{place}_{number}", label) for place, label in enumerate(FSD_CLASSES) for number in range(10)
        ]
        tree(root, ["audio_train"], [name for name, _ in clips], frames)
        rows = [f"{name}.wav,{label},1" for name, label in clips]
        (root / "train.csv").write_text("\n".join(["fname,label,manually_verified", *rows]))
    else:  # paired_folders, mixed_folders, manifest
        for split in splits:
            tree(root / split, ("noisy", "clean", "speech", "noise"), ["one"], frames)
            table = f"mixture,speech\n{split}/noisy/one.wav,{split}/clean/one.wav\n"
            (root / f"{split}.csv").write_text(table)
