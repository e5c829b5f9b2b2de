"""Synthetic corpora of speech in the layouts of VoiceBank-DEMAND, LibriMix and VCTK.

The timbres of test speakers (espeak-ng's variants, flite's voices) are used nowhere in training, babble
included. A speaker's rate and pitch vary by 10 % between utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.signal import fftconvolve

from encore.data.corpus_writer import Entry, Files, option, pcm
from encore.synthetic_corpora import FloatArray, Rng, SyntheticCorpus, dsp
from encore.synthetic_corpora.noise import NOISES, draw_noise
from encore.synthetic_corpora.speech import (
    FLITE,
    WOMEN,
    Voice,
    assign_voices,
    check_espeak,
    check_flite,
    draw_utterance,
    draw_voice,
)

_VOICES, _NOISE_ORDER, _FILES = 0, 1, 2  # branches of the seed


def _runs(text: str) -> list[str]:
    """List the speakers of runs of three-digit numbers."""
    return [f"p{n}" for run in text.split() for n in range(int(run[:3]), int(run[-3:]) + 1)]


# the two usual validation speakers come first, so that the smallest corpus has them
_TRAINED = "226 287 227-228 230-231 233 236 239 243-244 250 254 256 258-259 267-270 273-274 276-279 282 286"
VOICEBANK_SPEAKERS = {"train": _runs(_TRAINED), "test": ["p232", "p257"]}
VOICEBANK_FOLDERS = {  # clean and noisy
    "train": ("clean_trainset_28spk_wav", "noisy_trainset_28spk_wav"),
    "test": ("clean_testset_wav", "noisy_testset_wav"),
}
LIBRIMIX_SUBSETS = {"train": "train-100", "valid": "dev", "test": "test"}
LIBRIMIX_SPEAKERS = {
    split: [str(first + number) for number in range(count)]
    for split, first, count in (("train", 1001, 40), ("valid", 2001, 4), ("test", 3001, 6))
}
_VCTK = """225-234 236-241 243-288 292-295 297-308 310-318 323 326 329-330 333-336 339-341 343 345 347 351
    360-364 374 376"""
VCTK_SPEAKERS = (*_runs(_VCTK), "s5")


class SpeechCorpus(SyntheticCorpus):
    """A corpus that espeak-ng speaks, and flite where an option says so."""

    def check(self) -> None:
        """Check that the synthesisers are installed.

        Raises:
            SynthesisError: If one is not.
        """
        check_espeak()
        if getattr(self, "synthesiser", None) == FLITE:
            check_flite()


@dataclass(frozen=True, kw_only=True)
class VoicebankDemand(SpeechCorpus):
    """Noisy speech and its clean reference, with the real corpus's speaker names.

    SNRs are plain energy ratios over the file, drawn from -5 to 15 dB for training (the real corpus: 0, 5,
    10, 15 dB) and 0 to 10 dB for testing (2.5 to 17.5 dB). In a room the reference is the direct path alone,
    which is the dry speech, and the SNR that of the reverberant speech.
    """

    name = "voicebank_demand"
    source = "VoiceBank-DEMAND (C. Valentini-Botinhao et al., 2016)"
    listing = "manifest.jsonl"
    folders = (*VOICEBANK_FOLDERS["train"], *VOICEBANK_FOLDERS["test"])
    train: int = option(400, "training files", least=0)
    test: int = option(60, "test files", least=0)
    sample_rate: int = option(16_000, "Hz", choices=(16_000, 48_000))
    room: float = option(0.0, "fraction of the files in rooms", least=0, most=1)
    synthesiser: str = option("espeak", "of the speech; babble is espeak-ng's", choices=("espeak", FLITE))

    def voices(self) -> dict[str, Voice]:
        """Draw the voices of all speakers, the same for a corpus of any size."""
        rng = self.generator(_VOICES)
        if self.synthesiser == "espeak":
            return assign_voices(rng, VOICEBANK_SPEAKERS["test"], VOICEBANK_SPEAKERS["train"])
        timbres = {"train": ("awb", "kal16"), "test": ("rms", "slt")}
        return {
            speaker: draw_voice(rng, (timbres[split][index % 2],), (FLITE,))
            for split, speakers in VOICEBANK_SPEAKERS.items()
            for index, speaker in enumerate(speakers)
        }

    def make(self, split: str, index: int) -> tuple[Files, Entry]:
        """Make a clean and a noisy file."""
        rng = self.generator(_FILES, self.splits.index(split), index)
        speakers, voices = VOICEBANK_SPEAKERS[split], self.voices()
        speaker = speakers[index % len(speakers)]
        voice = voices[speaker].vary(rng)
        text, speech = draw_utterance(voice, self.sample_rate, rng)
        level_db = float(rng.uniform(-30, -20))
        snr_db = float(rng.uniform(-5, 15) if split == "train" else rng.uniform(0, 10))
        speech = _at_level(speech, level_db)
        hidden = [voices[name] for name in (speaker, *VOICEBANK_SPEAKERS["test"])]
        about, noise = _draw_noise(self, split, index, speech.size, rng, hidden)
        room, reverberant = None, speech
        if rng.random() < self.room:
            room = {"rt60": rng.uniform(0.15, 0.6), "direct_to_reverberant_db": rng.uniform(0, 10)}
            reverberant = fftconvolve(speech, dsp.room_response(self.sample_rate, rng, **room))[: speech.size]
        noisy = reverberant + noise * 10 ** (-snr_db / 20) * np.sqrt((reverberant**2).mean())
        gain = min(1.0, 0.99 / float(np.abs([speech, noisy]).max()))
        file = f"{speaker}_{index // len(speakers) + 1:03d}.wav"
        entry: Entry = {"file": file, "split": split, "speaker": speaker, "text": text, **about}
        level_db += 20 * float(np.log10(gain))
        entry |= {"voice": asdict(voice), "snr_db": snr_db, "level_db": level_db, "room": room}
        pair = zip(VOICEBANK_FOLDERS[split], (speech, noisy), strict=True)
        return {f"{folder}/{file}": pcm(gain * signal) for folder, signal in pair}, entry


@dataclass(frozen=True, kw_only=True)
class LibriMix(SpeechCorpus):
    """Speakers at once, and noise: all mixtures, sources and tables of the ``min`` mode.

    A mixture ends with its shortest utterance and is the exact sum of its 16-bit sources. As in LibriMix,
    levels are -33 to -25 dB for each speaker and -38 to -30 dB for the noise, here as RMS of full scale
    instead of loudness. The speakers of a mixture have different timbres; those of dev and test are used in
    no other subset.
    """

    name = "librimix"
    source = "LibriMix (J. Cosentino et al., 2020)"
    listing = "manifest.jsonl"
    splits = ("train", "valid", "test")
    largest_peak = 0.9
    train: int = option(400, "mixtures in train-100", least=0)
    valid: int = option(40, "mixtures in dev", least=0)
    test: int = option(60, "mixtures in test", least=0)
    seconds: float = option(3.0, "shortest mixture; the longest is 2 s more", least=0.5)
    sample_rate: int = option(8_000, "Hz", choices=(8_000, 16_000))
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

    def voices(self) -> dict[str, Voice]:
        """Draw the voices of all speakers, the same for a corpus of any size."""
        held_out = LIBRIMIX_SPEAKERS["test"] + LIBRIMIX_SPEAKERS["valid"]
        return assign_voices(self.generator(_VOICES), held_out, LIBRIMIX_SPEAKERS["train"])

    def make(self, split: str, index: int) -> tuple[Files, Entry]:
        """Make the sources of a mixture, rounded first, and their sums."""
        rng, voices = self.generator(_FILES, self.splits.index(split), index), self.voices()
        different: dict[str, str] = {}  # timbre to speaker
        for speaker in rng.permutation(LIBRIMIX_SPEAKERS[split]):
            different.setdefault(voices[speaker].timbre, str(speaker))
        chosen = list(different.values())[: self.speakers]
        spoken, seconds = [voices[speaker].vary(rng) for speaker in chosen], (self.seconds, self.seconds + 2)
        utterances = [draw_utterance(voice, self.sample_rate, rng, seconds) for voice in spoken]
        frames = min(speech.size for _, speech in utterances)
        hidden = [voices[name] for name in (*LIBRIMIX_SPEAKERS["test"], *LIBRIMIX_SPEAKERS["valid"], *chosen)]
        about, noise = _draw_noise(self, split, index, frames, rng, hidden)
        levels = [*rng.uniform(-33, -25, self.speakers).tolist(), float(rng.uniform(-38, -30))]
        signals = [*(speech[:frames] for _, speech in utterances), noise]
        parts = [_at_level(signal, level) for signal, level in zip(signals, levels, strict=True)]
        gain = min(1.0, self.largest_peak / float(np.abs(parts).sum(0).max()))
        rounded = [pcm(gain * part) for part in parts]
        files = dict(zip(self.mixtures["mix_both"], rounded, strict=True))
        for mixture, held in self.mixtures.items():
            files[mixture] = np.asarray(np.sum([files[part] for part in held], axis=0, dtype=np.int16))
        name = "_".join(f"{speaker}-{index}-{place:04d}" for place, speaker in enumerate(chosen, start=1))
        entry: Entry = {"mixture_ID": name, "subset": LIBRIMIX_SUBSETS[split], "speakers": chosen, **about}
        entry |= {"voices": [asdict(voice) for voice in spoken], "texts": [text for text, _ in utterances]}
        entry["levels_db"] = [level + 20 * float(np.log10(gain)) for level in levels]
        return {self._path(entry, kind): samples for kind, samples in files.items()}, entry

    def tables(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Return LibriMix's tables, with paths relative to ``out``, where LibriMix has absolute ones."""
        tables = {}
        for subset in LIBRIMIX_SUBSETS.values():
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
class Vctk(SpeechCorpus):
    """Many speakers, one at a time, in a quiet studio with one microphone, ``mic1``.

    Speakers have the real corpus's names, in its order. The last ``test_speakers``, with whom
    `encore.data.source_corpora.vctk` tests, have timbres that no other speaker has. The microphone's noise is
    50 to 65 dB below the speech.
    """

    name = "vctk"
    source = "VCTK 0.92 (J. Yamagishi, C. Veaux, K. MacDonald, 2019)"
    listing = "utterances.jsonl"
    folders = ("wav48_silence_trimmed", "txt")
    speakers: int = option(20, "from the first on", least=1, most=110)
    utterances: int = option(40, "of each speaker", least=1, most=999)
    test_speakers: int = option(10, "with timbres that no other has, the last ones", least=0, most=20)
    sample_rate: int = option(16_000, "Hz", choices=(16_000, 48_000))

    def __post_init__(self) -> None:
        """Check that training speakers remain."""
        super().__post_init__()
        if self.test_speakers >= self.speakers:
            raise ValueError(f"test_speakers must be below {self.speakers}, not {self.test_speakers}")

    def voices(self) -> dict[str, Voice]:
        """Draw the voices of all speakers, women and men in turn."""
        names, trained = VCTK_SPEAKERS[: self.speakers], self.speakers - self.test_speakers
        voices = assign_voices(self.generator(_VOICES), names[trained:], names[:trained])
        return {name: voices[name] for name in names}

    def jobs(self) -> list[tuple[str, int]]:
        """List speakers with the numbers of their utterances."""
        numbers = range(1, self.utterances + 1)
        return [(speaker, number) for speaker in VCTK_SPEAKERS[: self.speakers] for number in numbers]

    def make(self, speaker: str, number: int) -> tuple[Files, Entry]:
        """Make a recording and its text."""
        rng = self.generator(_FILES, VCTK_SPEAKERS.index(speaker), number)
        voice = self.voices()[speaker].vary(rng)
        text, speech = draw_utterance(voice, self.sample_rate, rng)
        level_db, noise_db = float(rng.uniform(-30, -20)), float(rng.uniform(-65, -50))
        # a pause of zeros would be the one place where a model of waveforms can be infinitely sure
        noise = dsp.shaped(speech.size, self.sample_rate, rng, -4.0)
        speech = _at_level(speech, 0.0) + 10 ** (noise_db / 20) * noise
        gain = min(10 ** (level_db / 20), 0.99 / float(np.abs(speech).max()))
        name = f"{speaker}/{speaker}_{number:03d}"
        file = f"{self.folders[0]}/{name}_mic1.flac"
        entry: Entry = {"file": file, "speaker": speaker, "text": text, "voice": asdict(voice)}
        entry |= {"frames": speech.size, "level_db": 20 * float(np.log10(gain)), "noise_db": noise_db}
        return {file: pcm(gain * speech), f"{self.folders[1]}/{name}.txt": f"{text}\n"}, entry

    def tables(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Return VCTK's table of speakers, whose accent is espeak-ng's language and age 0."""
        rows = [
            f"{speaker}  0  {'F' if voice.timbre in WOMEN else 'M'}  {voice.base}\n"
            for speaker, voice in self.voices().items()
        ]
        return {"speaker-info.txt": "".join(["ID  AGE  GENDER  ACCENTS\n", *rows])}


def _at_level(signal: FloatArray, level_db: float) -> FloatArray:
    """Scale a signal to an RMS in dB of full scale."""
    return np.asarray(signal * (10 ** (level_db / 20) / np.sqrt((signal**2).mean())))


def _draw_noise(
    corpus: SpeechCorpus, split: str, index: int, frames: int, rng: Rng, hidden: Sequence[Voice]
) -> tuple[Entry, FloatArray]:
    """Draw the noise of a file, without the timbres of ``hidden`` voices in babble.

    Kinds are dealt like cards: each block of as many files of a split has each kind once.
    """
    block, place = divmod(index, len(NOISES))
    order = corpus.generator(_NOISE_ORDER, corpus.splits.index(split), block).permutation(len(NOISES))
    kind, seed = list(NOISES)[int(order[place])], int(rng.integers(2**63))
    timbres = {voice.timbre for voice in hidden}
    noise = draw_noise(kind, frames, corpus.sample_rate, np.random.default_rng(seed), timbres)
    return {"noise": kind, "noise_seed": seed, "frames": frames}, noise
