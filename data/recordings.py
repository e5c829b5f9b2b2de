"""Write corpora of recordings: ``python -m encore.data.recordings CORPUS OUT``; see ``--help``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from encore.common.packages import require
from encore.data.corpus_writer import Corpus, Entry, Files, Rng, option, pcm, run
from encore.data.recording_effects import Signal, at_rms, coloured_noise, damaged, reverberate, tiled
from encore.data.recording_sources import (
    G722,
    SAMPLE,
    Kind,
    Recording,
    by_group,
    find_recordings,
    read_at,
    recording_size,
)

_FILES, _NOISE_ORDER = 0, 1  # branches of the seed
_SHORTEST = 1.5  # seconds of a noise by itself; shorter ones are events, for training only
_BABBLE, _COLOURED = "babble", "coloured"
_LIBRIMIX_SUBSETS = {"train": "train-100", "valid": "dev", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class RecordedCorpus(Corpus):
    """A corpus of recordings, whose voices and noises are split."""

    command = "encore.data.recordings"
    content = "Recordings"
    listing = "recordings.jsonl"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    sample_rate: int = option(16_000, "Hz", choices=(16_000, 48_000))
    root: str = option(
        str(SAMPLE), "folder of recordings with their table, or of unpacked packages, or / for installed ones"
    )

    def check(self) -> None:
        """Check that all packages are there, and voices enough in each split that is written."""
        if any(recording.path.suffix == G722 for recording in _recordings(self.root)):
            require("av", needed_by=f"root={self.root}", extra="recordings")
        least = getattr(self, "speakers", 1)
        for split in self.splits:
            if len(voices := self.voices(split)) < least and getattr(self, split, False):
                raise ValueError(
                    f"root={self.root}: '{split}' has {len(voices)} voices at {self.sample_rate} Hz, but "
                    f"{least} are needed: add some, or give --{split} 0"
                )

    def voices(self, split: str) -> dict[str, list[Recording]]:
        """Return the recordings of a split's voices, but for empty ones and those of less than its rate."""
        least = min(self.sample_rate, 44_100)  # Hz
        voices: dict[str, list[Recording]] = {}
        for voice, members in self._groups("speech", split).items():
            for member in members:
                frames, rate = _size(member)
                if frames and rate >= least:
                    voices.setdefault(voice, []).append(member)
        return voices

    def noises(self, split: str) -> list[Recording]:
        """Return the noises and music of a split that are long enough to be a noise by themselves."""
        groups = {**self._groups("noise", split), **self._groups("music", split)}
        members = (member for group in groups.values() for member in group)
        return [member for member in members if _seconds(member) >= _SHORTEST]

    def utterance(self, members: Sequence[Recording], rng: Rng, seconds: float) -> tuple[Signal, list[str]]:
        """Join consecutive recordings of a voice, from a random one on, with pauses of 0.1 to 0.4 s.

        Returns:
            Samples ``(time,)`` of at least so many seconds with the last pause, which is left out, and the
            names of the recordings.
        """
        at, names = int(rng.integers(len(members))), []
        parts: list[Signal] = []
        while sum(len(part) for part in parts) < seconds * self.sample_rate:
            recording = members[at % len(members)]
            at += 1
            if len(samples := self.read(recording)):
                names.append(recording.name)
                parts += [samples, np.zeros(int(rng.uniform(0.1, 0.4) * self.sample_rate), np.float32)]
        return np.concatenate(parts[:-1]), names

    def babble(self, voices: dict[str, list[Recording]], frames: int, rng: Rng) -> Signal:
        """Mix four to eight utterances of voices, or fewer, because one voice speaks at most twice."""
        crowd, names = np.zeros(frames, np.float32), rng.permutation(2 * list(voices))
        for voice in names[: int(rng.integers(4, 9))]:
            speech, _ = self.utterance(voices[voice], rng, 4.0)
            crowd += at_rms(tiled(speech, frames, rng)) * 10 ** (rng.uniform(-6, 0) / 20)
        return crowd

    def noise(
        self, split: str, index: int, frames: int, rng: Rng, speakers: Sequence[str]
    ) -> tuple[str, Signal]:
        """Return the name and samples of a noise: all of a split in turn, in a random order.

        Two in a turn are babble of the voices other than ``speakers``, if there are any.
        """
        others = {name: members for name, members in self.voices(split).items() if name not in speakers}
        kinds: list[Recording | str] = [*self.noises(split), *([_BABBLE, _BABBLE] if others else [])]
        if not kinds:
            raise ValueError(f"root={self.root}: '{split}' has no noise of {_SHORTEST} s or more: add one")
        block, place = divmod(index, len(kinds))
        order = self.generator(_NOISE_ORDER, self.splits.index(split), block).permutation(len(kinds))
        chosen = kinds[int(order[place])]
        if isinstance(chosen, str):
            return chosen, self.babble(others, frames, rng)
        return chosen.name, tiled(self.read(chosen), frames, rng)

    def read(self, recording: Recording) -> Signal:
        """Return the samples ``(time,)`` of a recording, peaks within full scale."""
        samples = read_at(recording, self.sample_rate).numpy()
        return samples / max(1.0, float(np.abs(samples).max(initial=0)) / 0.99)

    def _groups(self, kind: Kind, split: str) -> dict[str, list[Recording]]:
        return _grouped(self.root, kind, split)


@dataclass(frozen=True, kw_only=True)
class Pools(RecordedCorpus):
    """Folders of speech and of noise and music, to be mixed while training with ``data=mixed_folders``.

    Recordings of a voice, of an origin and short events of a package are joined to files of four seconds.
    Further noises are babble of the voices of a split, if it has several, and for training coloured noise of
    a random spectrum and swell, which is not recorded.
    """

    name = "pools"
    source = "{train,valid}/{speech,noise}, for data=mixed_folders"
    folders = ("train", "valid")
    splits = ("train", "valid")
    babbles: int = option(60, "files of babble for training, a tenth of them for validation", least=0)
    coloured: int = option(120, "files of coloured noise for training", least=0)

    def jobs(self) -> list[tuple[Any, ...]]:
        """List voices, origins and packages of all splits and kinds, and the files of made noise."""
        groups: list[tuple[Any, ...]] = [
            (split, kind, group)
            for split in self.splits
            for kind in ("speech", "noise", "music")
            for group in self._files_of(kind, split)
        ]
        counts = {"train": self.babbles, "valid": self.babbles // 10}
        babbles = [
            (split, _BABBLE, i)
            for split, count in counts.items()
            if len(self.voices(split)) > 1
            for i in range(count)
        ]
        return groups + babbles + [("train", _COLOURED, i) for i in range(self.coloured)]

    def make(self, split: str, kind: Any, group: Any) -> tuple[Files, Entry]:
        """Make the files of one voice or origin, or one file of noise."""
        entry: Entry = {"split": split, "kind": kind, "group": group}
        if kind in (_BABBLE, _COLOURED):
            rng = self.generator(_FILES, self.splits.index(split), (_BABBLE, _COLOURED).index(kind), group)
            frames = 10 * self.sample_rate
            noise = (
                self.babble(self.voices(split), frames, rng)
                if kind == _BABBLE
                else coloured_noise(frames, rng)
            )
            noise *= 0.3 / np.abs(noise).max()
            return {f"{split}/noise/{kind}/{group:04d}.flac": pcm(noise)}, entry
        recordings, files = self._files_of(kind, split)[group], Files()
        folder = f"{split}/{'speech' if kind == 'speech' else 'noise'}/{group.replace('/', '_')}"
        parts: list[Signal] = []
        for recording in recordings:
            parts.append(self.read(recording))
            if sum(len(part) for part in parts) >= 4 * self.sample_rate or recording is recordings[-1]:
                if len(samples := np.concatenate(parts)):
                    files[f"{folder}/{len(files):04d}.flac"] = pcm(samples)
                parts = []
            elif kind == "speech":
                parts.append(np.zeros(self.sample_rate // 4, np.float32))
        return files, {**entry, "recordings": [recording.name for recording in recordings]}

    def _files_of(self, kind: Kind, split: str) -> dict[str, list[Recording]]:
        """Return what files are made of: voices, and origins of noise, events of a package as one."""
        if kind == "speech":
            return self.voices(split)
        groups: dict[str, list[Recording]] = {}
        for group, members in self._groups(kind, split).items():
            for member in members:
                events = _seconds(member) < _SHORTEST
                groups.setdefault(f"{group.split('/')[0]}/events" if events else group, []).append(member)
        return groups


@dataclass(frozen=True, kw_only=True)
class VoicebankDemand(RecordedCorpus):
    """Noisy speech and its clean reference, in sgmse's layout of VoiceBank-DEMAND.

    SNRs are energy ratios over the file, from -5 to 15 dB for training and 0 to 10 dB for validation and
    test. In a room the reference is the direct path alone, which is the dry speech.
    """

    name = "voicebank_demand"
    source = "VoiceBank-DEMAND, {train,valid,test}/{clean,noisy}"
    folders = ("train", "valid", "test")
    train: int = option(0, "training files", least=0)
    valid: int = option(40, "validation files", least=0)
    test: int = option(240, "test files", least=0)
    seconds: float = option(4.0, "shortest file, to within a pause", least=1.0)
    room: float = option(0.0, "fraction of the files in rooms (needs pyroomacoustics)", least=0, most=1)
    damage: float = option(0.0, "fraction of the noisy files clipped, band-limited or coded", least=0, most=1)
    silent: float = option(0.0, "fraction of the files without speech", least=0, most=1)

    def check(self) -> None:
        """Check besides that rooms can be computed."""
        super().check()
        if self.room:
            require("pyroomacoustics", needed_by="room", extra="recordings")

    def make(self, split: str, index: int) -> tuple[Files, Entry]:
        """Make a clean and a noisy file."""
        rng, voices = self.generator(_FILES, self.splits.index(split), index), self.voices(split)
        # a voice of four times as many recordings speaks twice as often
        weights = np.sqrt([len(members) for members in voices.values()])
        speaker = str(rng.choice(list(voices), p=weights / weights.sum()))
        speech, names = self.utterance(voices[speaker], rng, self.seconds)
        noise_name, noise = self.noise(split, index, len(speech), rng, [speaker])
        snr_db = float(rng.uniform(*((-5, 15) if split == "train" else (0, 10))))
        room, reverberant = None, speech
        if rng.random() < self.room:
            room, reverberant = reverberate(speech, self.sample_rate, rng)
        noise = at_rms(noise) * np.sqrt((reverberant**2).mean()) * 10 ** (-snr_db / 20)
        silent = bool(rng.random() < self.silent)
        if silent:
            speech, reverberant = np.zeros_like(speech), np.zeros_like(reverberant)
        noisy, damage = reverberant + noise, None
        if rng.random() < self.damage:
            damage, noisy = damaged(noisy, self.sample_rate, rng)
        gain = 0.99 / max(0.99, float(np.abs([speech, noisy]).max()))
        file = f"{speaker}_{index:04d}.wav"
        entry: Entry = {"file": file, "split": split, "speaker": speaker, "noise": noise_name}
        entry |= {"snr_db": snr_db, "room": room, "damage": damage, "silent": silent, "recordings": names}
        pair = {"clean": speech, "noisy": noisy}
        return {f"{split}/{folder}/{file}": pcm(gain * signal) for folder, signal in pair.items()}, entry


@dataclass(frozen=True, kw_only=True)
class LibriMix(RecordedCorpus):
    """Speakers at once, and noise: all mixtures, sources and tables of LibriMix's ``min`` mode.

    A mixture ends with its shortest utterance and is the exact sum of its 16-bit sources. As in LibriMix,
    levels are -33 to -25 dB for each speaker and -38 to -30 dB for the noise, here as RMS of full scale
    instead of loudness.
    """

    name = "librimix"
    source = "LibriMix (J. Cosentino et al., 2020)"
    largest_peak = 0.9
    sample_rate: int = option(8_000, "Hz", choices=(8_000, 16_000))
    train: int = option(400, "mixtures in train-100", least=0)
    valid: int = option(40, "mixtures in dev", least=0)
    test: int = option(60, "mixtures in test", least=0)
    seconds: float = option(3.0, "shortest utterance, to within a pause", least=0.5)
    speakers: int = option(2, "in a mixture", choices=(2, 3))

    @property
    def folders(self) -> tuple[str]:
        """The folder of a number of speakers and a sample rate."""
        return (f"Libri{self.speakers}Mix/wav{self.sample_rate // 1000}k/min",)

    @property
    def mixtures(self) -> dict[str, list[str]]:
        """The sources of each kind of mixture."""
        speakers = [f"s{number}" for number in range(1, self.speakers + 1)]
        return {"mix_clean": speakers, "mix_both": [*speakers, "noise"], "mix_single": ["s1", "noise"]}

    def make(self, split: str, index: int) -> tuple[Files, Entry]:
        """Make the sources of a mixture, rounded first, and their sums."""
        rng, voices = self.generator(_FILES, self.splits.index(split), index), self.voices(split)
        chosen = [str(name) for name in rng.permutation(list(voices))[: self.speakers]]
        spoken = [self.utterance(voices[name], rng, self.seconds) for name in chosen]
        frames = min(len(speech) for speech, _ in spoken)
        noise_name, noise = self.noise(split, index, frames, rng, chosen)
        signals = [*(speech[:frames] for speech, _ in spoken), noise]
        levels = [*rng.uniform(-33, -25, self.speakers), rng.uniform(-38, -30)]
        parts = [at_rms(signal) * 10 ** (level / 20) for signal, level in zip(signals, levels, strict=True)]
        gain = self.largest_peak / max(self.largest_peak, float(np.abs(parts).sum(0).max()))
        rounded = [pcm(gain * part) for part in parts]
        files = dict(zip(self.mixtures["mix_both"], rounded, strict=True))
        for mixture, held in self.mixtures.items():
            files[mixture] = np.asarray(np.sum([files[part] for part in held], axis=0, dtype=np.int16))
        # readers of LibriMix tell the speakers by the _ and - of a name
        name = "_".join(re.sub(r"[\W_]", "", speaker) + f"-{index:04d}" for speaker in chosen)
        entry: Entry = {"mixture_ID": name, "subset": _LIBRIMIX_SUBSETS[split], "speakers": chosen}
        entry |= {"noise": noise_name, "frames": frames, "recordings": [names for _, names in spoken]}
        return {self._path(entry, kind): samples for kind, samples in files.items()}, entry

    def tables(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Return LibriMix's tables, with paths relative to ``out``, where LibriMix has absolute ones."""
        tables = {}
        for subset in _LIBRIMIX_SUBSETS.values():
            for mixture, held in self.mixtures.items():
                columns = ["noise_path" if part == "noise" else f"source_{part[1:]}_path" for part in held]
                rows = [["mixture_ID", "mixture_path", *columns, "length"]]
                for entry in entries:
                    if entry["subset"] == subset:
                        paths = [self._path(entry, kind) for kind in (mixture, *held)]
                        rows.append([entry["mixture_ID"], *paths, str(entry["frames"])])
                text = "".join(",".join(row) + "\n" for row in rows)
                tables[f"{self.folders[0]}/metadata/mixture_{subset}_{mixture}.csv"] = text
        return tables

    def _path(self, entry: Entry, kind: str) -> str:
        return f"{self.folders[0]}/{entry['subset']}/{kind}/{entry['mixture_ID']}.wav"


@dataclass(frozen=True, kw_only=True)
class Vctk(RecordedCorpus):
    """One voice at a time and nothing else, in the layout of VCTK 0.92 with one microphone, ``mic1``.

    Speakers are numbered: the voices for training, then those for validation, and last those for test. So
    `encore.data.source_corpora.vctk` tests on the latter if its ``test_speakers`` is their number, which
    ``speaker-info.txt`` shows. Nobody knows what is said: the texts are the names of the recordings.
    """

    name = "vctk"
    source = "VCTK 0.92 (J. Yamagishi, C. Veaux, K. MacDonald, 2019)"
    folders = ("wav48_silence_trimmed", "txt")
    seconds: float = option(1.0, "shortest recording", least=0)

    def jobs(self) -> list[tuple[Any, ...]]:
        """List numbers of speakers with their splits and voices."""
        voices = [(split, voice) for split in self.splits for voice in self.voices(split)]
        return [(number, *voice) for number, voice in enumerate(voices, start=1)]

    def make(self, number: int, split: str, voice: Any) -> tuple[Files, Entry]:
        """Make the files of one voice."""
        speaker, files, names = f"p{number:03d}", Files(), list[str]()
        for recording in self.voices(split)[voice]:
            samples = self.read(recording)
            if len(samples) >= max(1, self.seconds * self.sample_rate):
                names.append(recording.name)
                file = f"{speaker}/{speaker}_{len(names):03d}"
                files[f"{self.folders[0]}/{file}_mic1.flac"] = pcm(samples)
                files[f"{self.folders[1]}/{file}.txt"] = f"{recording.name}\n"
        return files, {"speaker": speaker, "split": split, "voice": voice, "recordings": names}

    def tables(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Return the table of the speakers that have files: ID, split and voice."""
        rows = [[e["speaker"], e["split"], e["voice"]] for e in entries if e["recordings"]]
        return {
            "speaker-info.txt": "".join("  ".join(row) + "\n" for row in [["ID", "SPLIT", "VOICE"], *rows])
        }


@cache
def _recordings(root: str) -> list[Recording]:
    return find_recordings(Path(root))


@cache
def _grouped(root: str, kind: Kind, split: str) -> dict[str, list[Recording]]:
    return by_group(item for item in _recordings(root) if (item.kind, item.split) == (kind, split))


@cache
def _size(recording: Recording) -> tuple[int, int]:
    return recording_size(recording)


def _seconds(recording: Recording) -> float:
    frames, rate = _size(recording)
    return frames / rate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `encore.data.corpus_writer.run`."""
    return run((Pools, VoicebankDemand, LibriMix, Vctk), arguments, "Write a corpus of recordings.")


if __name__ == "__main__":
    sys.exit(main())
