"""A synthetic corpus in the layout of FSDKaggle2018 as Zenodo has it: sound events, one class a clip.

    OUT/FSDKaggle2018.audio_{train,test}/<8 hexadecimal digits>.wav
    OUT/FSDKaggle2018.meta/train_post_competition.csv, test_post_competition_scoring_clips.csv
    OUT/clips.jsonl      what every clip is, a line each

There are the classes of `encore.data.synthesis.events.EVENTS`, the same number of clips of each. All labels
are right, so all clips count as verified; their ``freesound_id`` is 0, for they are not on Freesound. No two
clips share a draw, so the parts have no sound in common.

Source: E. Fonseca et al., "General-purpose tagging of Freesound audio with AudioSet labels: task description,
dataset, and baseline", 2018.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from encore.data.sound_classes import FSD_CLASSES
from encore.data.synthesis import FloatArray
from encore.data.synthesis.corpus_files import (
    check_choices,
    check_workers,
    generator,
    pcm,
    prepare_folder,
    run_jobs,
    write_listing,
    write_pcm,
)
from encore.data.synthesis.events import EVENTS, draw_event

LISTING = "clips.jsonl"
SAMPLE_RATES = (16_000, 44_100)

_META = "FSDKaggle2018.meta"
_AUDIO = {"train": "FSDKaggle2018.audio_train", "test": "FSDKaggle2018.audio_test"}
# the tables' names, and what they say of every clip beside its name and label
_TABLES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "train": (
        "train_post_competition.csv",
        {"manually_verified": "1", "freesound_id": "0", "license": "synthetic"},
    ),
    "test": (
        "test_post_competition_scoring_clips.csv",
        {"usage": "Private", "freesound_id": "0", "license": "synthetic"},
    ),
}
_MOST = 1 << 20  # clips of a class in a part, as their names count them


@dataclass(frozen=True, kw_only=True, slots=True)
class FsdKaggle2018:
    """What makes a corpus; the same values give the same bytes.

    Attributes:
        out: Folder to write into.
        train: Training clips of every class; the first ones of a larger corpus are those of a smaller one.
        test: Test clips of every class.
        classes: Which, of `encore.data.synthesis.events.EVENTS`; a clip does not depend on the others.
        sample_rate: 16000 or, as the real corpus has, 44100 Hz.
        seed: Of everything.
    """

    out: Path
    train: int = 60
    test: int = 10
    classes: tuple[str, ...] = tuple(EVENTS)
    sample_rate: int = 16_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(sample_rate=self.sample_rate, rates=SAMPLE_RATES, seed=self.seed)
        for name in ("train", "test"):
            if not 0 <= getattr(self, name) <= _MOST:
                raise ValueError(f"{name} must be 0 to {_MOST}, not {getattr(self, name)}")
        if unknown := sorted(set(self.classes) - set(EVENTS)):
            raise ValueError(f"classes must be some of {', '.join(EVENTS)}, not {unknown[0]!r}")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError("classes must be named, each once")


def write_corpus(corpus: FsdKaggle2018, *, workers: int = 2, overwrite: bool = False) -> None:
    """Write the corpus, its tables, a README, and a line of the listing a clip.

    Args:
        corpus: What to write.
        workers: Processes; the bytes written do not depend on it.
        overwrite: Whether to delete a corpus of this layout that lies in the folder.

    Raises:
        ValueError: If the folder is not empty and ``overwrite`` is not given, or ``workers`` is below 1.
    """
    check_workers(workers)
    prepare_folder(corpus.out, (*_AUDIO.values(), _META), overwrite=overwrite, listing=LISTING)
    jobs = [
        (corpus, split, label, index)
        for split in _AUDIO
        for label in corpus.classes
        for index in range(getattr(corpus, split))
    ]
    entries = list(run_jobs(_write_clip, jobs, workers=workers, name="fsdkaggle2018"))
    for split in _AUDIO:
        _write_table(corpus, split, [entry for entry in entries if entry["split"] == split])
    (corpus.out / "README.md").write_text(_readme(corpus), encoding="utf-8")
    write_listing(corpus.out / LISTING, entries)


def make_clip(corpus: FsdKaggle2018, split: str, label: str, index: int) -> FloatArray:
    """Make one clip.

    Args:
        corpus: Its seed and sample rate matter.
        split: ``"train"`` or ``"test"``.
        label: Its class.
        index: Number of the clip within its class and split.

    Returns:
        ``(time,)``, full scale 1.
    """
    rng = generator(corpus.seed, list(_AUDIO).index(split), FSD_CLASSES.index(label), index)
    return draw_event(label, corpus.sample_rate, rng)


def clip_name(seed: int, split: str, label: str, index: int) -> str:
    """The name of a clip: different for every clip of a corpus, and without the order of classes.

    Args:
        seed: Of the corpus.
        split: ``"train"`` or ``"test"``.
        label: Its class.
        index: Its number within class and split.

    Returns:
        8 hexadecimal digits.
    """
    number = (list(_AUDIO).index(split) << 30) + (FSD_CLASSES.index(label) << 20) + index
    # an odd factor permutes the numbers of 32 bits
    return f"{(number * 2_654_435_761 + crc32(str(seed).encode())) % (1 << 32):08x}"


def _write_clip(job: tuple[FsdKaggle2018, str, str, int]) -> dict[str, object]:
    corpus, split, label, index = job
    sound = make_clip(corpus, split, label, index)
    file = f"{clip_name(corpus.seed, split, label, index)}.wav"
    write_pcm(corpus.out / _AUDIO[split] / file, pcm(sound), corpus.sample_rate)
    return {
        "fname": file,
        "label": label,
        "split": split,
        "index": index,
        "frames": sound.size,
        "sample_rate": corpus.sample_rate,
        "seed": corpus.seed,
    }


def _write_table(corpus: FsdKaggle2018, split: str, entries: Sequence[Mapping[str, object]]) -> None:
    name, further = _TABLES[split]
    with (corpus.out / _META / name).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["fname", "label", *further])
        for fname, label in sorted((str(entry["fname"]), entry["label"]) for entry in entries):
            table.writerow([fname, label, *further.values()])


def _readme(corpus: FsdKaggle2018) -> str:
    options = " ".join(
        f"--{name.replace('_', '-')} {getattr(corpus, name)}"
        for name in ("train", "test", "sample_rate", "seed")
    )
    return f"""# Synthetic FSDKaggle2018

No recordings: sound events made from a seed, in the layout of FSDKaggle2018 (E. Fonseca et al.,
"General-purpose tagging of Freesound audio with AudioSet labels", 2018). Written by

    python -m encore.data.synthesis fsdkaggle2018 OUT {options} --classes {" ".join(corpus.classes)}

{len(corpus.classes)} of the 41 classes, 0.3 to 5 s a clip. `{LISTING}` has the class and number of every
clip.
"""
