"""Synthetic corpora of songs and of sound events in the layouts of MUSDB18-HQ and FSDKaggle2018."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from encore.data.corpus_writer import Entry, Files, option, pcm
from encore.data.sound_classes import FSD_CLASSES
from encore.synthetic_corpora import SyntheticCorpus, dsp
from encore.synthetic_corpora.events import EVENTS, draw_event
from encore.synthetic_corpora.song import STEMS, compose, play

_LEVELS_DB = {"vocals": (-1.5, 1.5), "drums": (-3.5, 1.0), "bass": (-7.0, -2.0), "other": (-8.0, -2.5)}
# of FSDKaggle2018: name of a split's table, its further columns, and what they state of each clip
_TABLES = {
    "train": ("train_post_competition", "manually_verified,freesound_id,license", "1,0,synthetic"),
    "test": ("test_post_competition_scoring_clips", "usage,freesound_id,license", "Private,0,synthetic"),
}


@dataclass(frozen=True, kw_only=True)
class Musdb18Hq(SyntheticCorpus):
    """Songs in four stereo stems, whose 16-bit sum is the mixture.

    Songs of the two splits have no seed in common, and so no sound, chords or tempo.
    """

    name = "musdb18_hq"
    source = "MUSDB18-HQ (Z. Rafii et al., 2019)"
    listing = "songs.jsonl"
    folders = ("train", "test")
    train: int = option(20, "songs in train", least=1)
    test: int = option(5, "songs in test", least=0)
    seconds: float = option(60.0, "length of each song", least=12)
    sample_rate: int = option(44_100, "Hz", choices=(22_050, 44_100, 48_000))

    def make(self, split: str, index: int) -> tuple[Files, Entry]:
        """Make the stems of a song and their sum, which stays within full scale."""
        branch = (self.splits.index(split), index)
        song, rng = compose(self.seconds, self.generator(*branch, 0)), self.generator(*branch, 1)
        stems = {}
        for place, stem in enumerate(STEMS):
            sound = play(song, stem, self.sample_rate, self.generator(*branch, 2 + place))
            gain = 10 ** (rng.uniform(*_LEVELS_DB[stem]) / 20)
            stems[stem] = gain * dsp.unit(sound - sound.mean(0))
        peak = np.abs([*stems.values(), np.sum(list(stems.values()), axis=0)]).max()
        fade = np.minimum(1, np.arange(len(sound))[::-1, None] / (0.02 * self.sample_rate))  # 20 ms
        fade *= rng.uniform(0.5, 0.9) / peak
        samples = {stem: pcm(fade * sound) for stem, sound in stems.items()}
        samples["mixture"] = np.asarray(np.sum(list(samples.values()), axis=0, dtype=np.int16))
        name = f"{song.mode.title()} Machine {index + 1} - {split.title()} Song {index + 1}"
        entry: Entry = {"name": name, "split": split, "tempo": round(song.tempo, 3)}
        entry |= {"beats": song.beats, "tonic": song.scale[0], "mode": song.mode, "seconds": self.seconds}
        return {f"{split}/{name}/{stem}.wav": sound for stem, sound in samples.items()}, entry


@dataclass(frozen=True, kw_only=True)
class FsdKaggle2018(SyntheticCorpus):
    """Sound events, one class per clip, all labels verified; their ``freesound_id`` is 0."""

    name = "fsdkaggle2018"
    source = "FSDKaggle2018 as Zenodo has it (E. Fonseca et al., 2018)"
    listing = "clips.jsonl"
    folders = ("FSDKaggle2018.audio_train", "FSDKaggle2018.audio_test", "FSDKaggle2018.meta")
    train: int = option(60, "training clips of each class", least=0, most=1 << 20)
    test: int = option(10, "test clips of each class", least=0, most=1 << 20)
    sample_rate: int = option(16_000, "Hz", choices=(16_000, 44_100))
    classes: tuple[str, ...] = option(tuple(EVENTS), "of FSDKaggle2018", choices=tuple(EVENTS))

    def jobs(self) -> list[tuple[str, int, str]]:
        """List split, number and class of each clip; a clip does not depend on the other classes."""
        return [(*job, label) for job in super().jobs() for label in self.classes]

    def clip_name(self, split: str, index: int, label: str) -> str:
        """Return 8 hexadecimal digits, different for each clip and without the order of classes."""
        number = (self.splits.index(split) << 30) + (FSD_CLASSES.index(label) << 20) + index
        # an odd factor permutes the numbers of 32 bits
        return f"{(number * 2_654_435_761 + crc32(str(self.seed).encode())) % (1 << 32):08x}"

    def make(self, split: str, index: int, label: str) -> tuple[Files, Entry]:
        """Make a clip."""
        rng = self.generator(self.splits.index(split), FSD_CLASSES.index(label), index)
        sound, file = draw_event(label, self.sample_rate, rng), f"{self.clip_name(split, index, label)}.wav"
        entry = {"fname": file, "label": label, "split": split, "index": index, "frames": sound.size}
        return {f"FSDKaggle2018.audio_{split}/{file}": pcm(sound)}, entry

    def tables(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Return the tables of both splits, sorted by name."""
        tables = {}
        for split, (name, columns, values) in _TABLES.items():
            rows = sorted(
                f"{entry['fname']},{entry['label']},{values}" for entry in entries if entry["split"] == split
            )
            tables[f"FSDKaggle2018.meta/{name}.csv"] = "\n".join([f"fname,label,{columns}", *rows, ""])
        return tables
