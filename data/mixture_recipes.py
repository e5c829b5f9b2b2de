"""Write test mixtures of isolated sources: ``python -m encore.data.mixture_recipes TASK OUT --speech VCTK``.

    OUT/mix/0000.wav, OUT/s1/0000.wav, OUT/s2/0000.wav ..   32-bit float
    OUT/manifest.jsonl    for encore.data.manifest, one column per source
    OUT/sources.jsonl     classes, speakers, files, positions and levels of every mixture

Each source is placed at random in 4 s, each but the first beginning to sound while the one before it sounds,
at a level drawn from -25 to -20 dB of full scale, RMS over the whole mixture (`encore.data.placement`). The
mixture is their plain sum, neither clipped nor normalized, so short sources have peaks far above 1. The
speakers of a mixture differ, and so do its classes of sound; each speaker and each class is equally likely,
independent of its number of recordings.

Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from encore.data.audio_writing import write_audio
from encore.data.corpora import check_choice
from encore.data.corpus_folder import prepare_folder, write_listing
from encore.data.placement import (
    BLOCK,
    Placement,
    apply_placements,
    draw_integer,
    draw_placements,
    sounding_blocks,
)
from encore.data.reading import Reader
from encore.data.source_corpora import Recording, fsdkaggle2018, vctk

TASKS: Mapping[str, tuple[str, ...]] = {
    "speech_sound": ("speech", "sound"),
    "speech_2sounds": ("speech", "sound1", "sound2"),
    "2sounds": ("sound1", "sound2"),
    "3sounds": ("sound1", "sound2", "sound3"),
    "2speech": ("speaker1", "speaker2"),
}
"""The sources of every task, in the order of their placement."""

MANIFEST, LISTING = "manifest.jsonl", "sources.jsonl"
_MOST = 10_000  # mixtures; names have four digits


def draw_recordings(
    task: str, speech: Sequence[Recording], sounds: Sequence[Recording], generator: Generator
) -> list[Recording]:
    """Draw a recording for every source of a task: different speakers, different classes.

    Args:
        task: One of `TASKS`.
        speech: Recordings with speakers.
        sounds: Recordings with classes.
        generator: Source of the draws.

    Raises:
        ValueError: If the task is unknown, a recording lacks its speaker or class, or there are too few.
    """
    check_choice("task", task, tuple(TASKS))
    count = sum(map(_is_sound, TASKS[task]))
    by_class = _groups("sounds", "class", sounds, count, generator)
    by_speaker = _groups("speech", "speaker", speech, len(TASKS[task]) - count, generator)
    groups = [(by_class if _is_sound(source) else by_speaker).pop(0) for source in TASKS[task]]
    return [group[draw_integer(0, len(group) - 1, generator)] for group in groups]


def write_task(
    task: str,
    out: Path,
    *,
    speech: Sequence[Recording] = (),
    sounds: Sequence[Recording] = (),
    count: int = 400,
    seconds: float = 4.0,
    sample_rate: int = 16_000,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write the mixtures of a task, their sources and both lists, with a progress bar.

    Args:
        task: One of `TASKS`.
        out: Folder to write into.
        speech: Recordings with speakers; not used by tasks without speech.
        sounds: Recordings with classes; not used by tasks without sounds.
        count: Number of mixtures; a mixture does not depend on it.
        seconds: Length of every mixture.
        sample_rate: Rate in Hz to resample to; several channels become their mean.
        seed: The same seed and recordings give the same samples (a file's header holds the time of writing).
        overwrite: Whether to delete a task in the folder.

    Raises:
        AudioFileError: If a recording cannot be read.
        ValueError: If an argument is out of range, recordings are too few or silent, or the folder is not
            empty and ``overwrite`` is False.
    """
    check_choice("task", task, tuple(TASKS))
    frames = round(seconds * sample_rate)
    if not 1 <= count <= _MOST:
        raise ValueError(f"count={count}: give 1 to {_MOST} mixtures")
    if sample_rate < 1 or frames < BLOCK:
        raise ValueError(
            f"seconds={seconds}, sample_rate={sample_rate}: give a positive rate and at least {BLOCK} samples"
        )
    if seed < 0:
        raise ValueError(f"seed={seed} is negative: give 0 or more")
    # too few recordings are an error before a folder is changed
    draw_recordings(task, speech, sounds, Generator())
    parts = ["mix", *(f"s{number}" for number in range(1, len(TASKS[task]) + 1))]
    prepare_folder(out, parts, overwrite=overwrite, listing=LISTING)
    reader, items, entries = Reader(sample_rate, 1), [], []
    for number in tqdm(range(count), desc=task, unit="mixture"):
        generator = Generator().manual_seed(_seed_of(seed, task, number))
        recordings = draw_recordings(task, speech, sounds, generator)
        signals = [_read_sound(reader, recording) for recording in recordings]
        placements = draw_placements(signals, frames=frames, generator=generator)
        sources = apply_placements(signals, placements, frames)
        name = f"{number:04d}"
        files = [f"{part}/{name}.wav" for part in parts]
        for file, signal in zip(files, (sources.sum(0), *sources), strict=True):
            write_audio(out / file, signal[None], sample_rate, subtype="FLOAT")
        items.append({"name": name, **dict(zip(("mixture", *TASKS[task]), files, strict=True))})
        origin = {"name": name, "task": task, "seed": generator.initial_seed()}
        entries.append({**origin, **_entry(recordings, placements)})
    write_listing(out / MANIFEST, items)
    write_listing(out / LISTING, entries)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after an error of one line."""
    options = vars(_parser().parse_args(arguments))
    folders = {kind: options.pop(kind) for kind in ("speech", "sounds")}
    split, speakers, classes = (options.pop(name) for name in ("split", "test_speakers", "classes"))
    task = options["task"]
    try:
        speech: list[Recording] = []
        sounds: list[Recording] = []
        if not all(map(_is_sound, TASKS[task])):
            speech = vctk(_given(folders, "speech", task), split, test_speakers=speakers)
        if any(map(_is_sound, TASKS[task])):
            sounds = fsdkaggle2018(_given(folders, "sounds", task), split, classes=classes)
        write_task(**options, speech=speech, sounds=sounds)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m encore.data.mixture_recipes", description="Write mixtures of isolated sources."
    )
    parser.add_argument("task", choices=tuple(TASKS), metavar="TASK", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, empty or new")
    parser.add_argument("--speech", type=Path, metavar="FOLDER", help="VCTK, for tasks with speech")
    parser.add_argument("--sounds", type=Path, metavar="FOLDER", help="FSDKaggle2018, for tasks with sounds")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"), help="of both (test)")
    parser.add_argument(
        "--test-speakers", type=int, default=10, metavar="N", help="of VCTK, the last ones by name (10)"
    )
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="of FSDKaggle2018 (all)")
    parser.add_argument("--count", type=int, default=400, help="mixtures (400)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a mixture (4)")
    parser.add_argument("--sample-rate", type=int, default=16_000, help="Hz (16000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the task in OUT")
    return parser


def _given(folders: Mapping[str, Path | None], argument: str, task: str) -> Path:
    if (folder := folders[argument]) is None:
        raise ValueError(f"{argument}: task {task} needs it: give --{argument} with the corpus's folder")
    return folder


def _seed_of(seed: int, task: str, number: int) -> int:
    """Return 63 bits for one mixture, independent of all other mixtures."""
    sequence = np.random.SeedSequence(seed, spawn_key=(list(TASKS).index(task), number))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _is_sound(source: str) -> bool:
    return source.startswith("sound")


def _groups(
    argument: str, kind: str, recordings: Sequence[Recording], count: int, generator: Generator
) -> list[list[Recording]]:
    """Draw ``count`` different speakers or classes uniformly, and return their recordings."""
    groups: dict[str, list[Recording]] = {}
    for recording in recordings:
        name = recording.label if kind == "class" else recording.speaker
        if name is None:
            raise ValueError(f"{argument}: {recording.path} has no {kind}: leave it out, or name it")
        groups.setdefault(name, []).append(recording)
    if len(groups) < count:
        kinds = {"class": "classes", "speaker": "speakers"}[kind]
        raise ValueError(
            f"{argument}: {count} different {kinds} are needed, but the corpus has {len(groups)}: "
            "use a larger corpus"
        )
    order = torch.randperm(len(groups), generator=generator)[:count].tolist()
    return [groups[sorted(groups)[index]] for index in order]


def _read_sound(reader: Reader, recording: Recording) -> Tensor:
    """Read a recording ``(time,)``; raise if it is silent."""
    signal = reader.read(recording.path, 0, reader.length(recording.path))[0]
    if not len(sounding_blocks(signal)):
        raise ValueError(f"{recording.path} is silent: leave it out of its corpus")
    return signal


def _entry(recordings: Sequence[Recording], placements: Sequence[Placement]) -> dict[str, object]:
    return {
        "labels": [recording.label for recording in recordings],
        "speakers": [recording.speaker for recording in recordings],
        "files": [recording.path.as_posix() for recording in recordings],
        "first": [own.first for own in placements],
        "frames": [own.frames for own in placements],
        "offsets": [own.offset for own in placements],
        "onsets": [own.onset for own in placements],
        "level_db": [own.level_db for own in placements],
    }


if __name__ == "__main__":
    sys.exit(main())
