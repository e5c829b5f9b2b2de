"""A corpus of composed songs in the layout of MUSDB18-HQ.

    OUT/{train,test}/<Artist - Title>/{mixture,vocals,drums,bass,other}.wav
    OUT/songs.jsonl      what every song is, a line each

Files are 16-bit stereo. There is no mastering: the mixture is the sum of the stems' samples, unclipped. Songs
of the two splits share no seed, and so no sound, chord sequence or tempo.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

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
from encore.data.synthesis.song import STEMS, Song, compose
from encore.data.synthesis.song_bass import bass
from encore.data.synthesis.song_drums import drums
from encore.data.synthesis.song_harmony import harmony
from encore.data.synthesis.song_sounds import level
from encore.data.synthesis.song_titles import artist_and_title
from encore.data.synthesis.song_vocals import vocals

LISTING = "songs.jsonl"
SAMPLE_RATES = (22050, 44100, 48000)
SHORTEST = 12.0  # seconds: an intro and a bar or two of everything

_SPLITS = ("train", "test")
_PLAYERS = {"vocals": vocals, "drums": drums, "bass": bass, "other": harmony}
_LEVELS_DB = {"vocals": (-1.5, 1.5), "drums": (-3.5, 1.0), "bass": (-7.0, -2.0), "other": (-8.0, -2.5)}
_FADE = 0.02  # seconds at the song's end


@dataclass(frozen=True, kw_only=True, slots=True)
class Musdb18Hq:
    """A corpus to write.

    Args:
        out: Its folder.
        train: Songs for training, at least 1.
        test: Songs for the test, 0 or more.
        seconds: Length of every song, at least 12.
        sample_rate: 22050, 44100 or 48000 Hz.
        seed: Same seed, same bytes.

    Raises:
        ValueError: If a number is out of range.
    """

    out: Path
    train: int = 20
    test: int = 5
    seconds: float = 60.0
    sample_rate: int = 44_100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train < 1 or self.test < 0:
            raise ValueError(f"train={self.train}, test={self.test}: give 1 or more, and 0 or more")
        if not self.seconds >= SHORTEST:
            raise ValueError(f"seconds={self.seconds:g} is too short for a song: give {SHORTEST:g} or more")
        check_choices(sample_rate=self.sample_rate, rates=SAMPLE_RATES, seed=self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class SongEntry:
    """A line of the listing."""

    name: str
    split: str
    genre: str
    tempo: float
    beats: int
    tonic: int
    mode: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Job:
    corpus: Musdb18Hq
    split: str
    index: int


def write_corpus(corpus: Musdb18Hq, *, workers: int = 2, overwrite: bool = False) -> list[SongEntry]:
    """Write a corpus, with a progress bar.

    Args:
        corpus: What to write.
        workers: Processes; the bytes do not depend on them.
        overwrite: Whether an earlier corpus in the folder is replaced.

    Returns:
        The listing.

    Raises:
        ValueError: If ``workers`` is below 1, or the folder will not do.
    """
    check_workers(workers)
    prepare_folder(corpus.out, _SPLITS, overwrite=overwrite, listing=LISTING)
    jobs = [_Job(corpus, split, index) for split in _SPLITS for index in range(getattr(corpus, split))]
    entries = list(run_jobs(_write_song, jobs, workers=workers, name="songs"))
    write_listing(corpus.out / LISTING, (asdict(entry) for entry in entries))
    return entries


def render(song: Song, sample_rate: int, seed: int, *branch: int) -> dict[str, FloatArray]:
    """Play all stems of a song, at levels of a mix that does not clip.

    Args:
        song: The composition.
        sample_rate: Hz.
        seed: Of the corpus.
        branch: Of the seed, for this song.

    Returns:
        Stem to ``(time, 2)``, full scale 1; the sum stays within full scale.
    """
    stems = {}
    for place, stem in enumerate(STEMS):
        sound = _PLAYERS[stem](song, sample_rate, generator(seed, *branch, 2 + place))
        stems[stem] = sound - sound.mean(0)
    rng = generator(seed, *branch, 1)
    for stem, sound in stems.items():
        gain = 10 ** (float(rng.uniform(*_LEVELS_DB[stem])) / 20)
        stems[stem] = sound * (gain / level(sound))
    fade = np.minimum(1, np.arange(len(sound))[::-1] / (_FADE * sample_rate))[:, None]
    peak = max(float(np.abs(sound).max()) for sound in (*stems.values(), sum(stems.values())))
    gain = float(rng.uniform(0.5, 0.9)) / peak
    return {stem: gain * fade * sound for stem, sound in stems.items()}


def _write_song(job: _Job) -> SongEntry:
    corpus = job.corpus
    branch = (_SPLITS.index(job.split), job.index)
    song = compose(corpus.seconds, generator(corpus.seed, *branch, 0))
    name = artist_and_title(corpus.seed, _SPLITS.index(job.split), job.index)
    folder = corpus.out / job.split / name
    folder.mkdir(parents=True, exist_ok=True)
    total: np.ndarray | int = 0
    for stem, sound in render(song, corpus.sample_rate, corpus.seed, *branch).items():
        samples = pcm(sound)
        total = total + samples.astype(np.int32)
        write_pcm(folder / f"{stem}.wav", samples, corpus.sample_rate)
    write_pcm(folder / "mixture.wav", np.asarray(total).astype(np.int16), corpus.sample_rate)
    return SongEntry(
        name=name,
        split=job.split,
        genre=song.genre,
        tempo=round(song.tempo, 3),
        beats=song.beats,
        tonic=song.tonic,
        mode=song.mode,
        seconds=corpus.seconds,
    )
