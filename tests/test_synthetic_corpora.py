"""Laws of the synthetic corpora: seeds, layouts that our readers find, levels, splits and commands."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from encore.data.corpus_writer import write_corpus
from encore.data.pools import librimix_pools
from encore.data.source_corpora import FSD_CLASSES, Recording, fsdkaggle2018, vctk
from encore.data.speaker_corpora import TASKS, librimix
from encore.synthetic_corpora import speech
from encore.synthetic_corpora import speech_corpora as corpora
from encore.synthetic_corpora.__main__ import main
from encore.synthetic_corpora.noise import NOISES
from encore.synthetic_corpora.song import STEMS
from encore.synthetic_corpora.sound_corpora import FsdKaggle2018, Musdb18Hq
from encore.synthetic_corpora.speech import FLITE, Voice
from encore.synthetic_corpora.speech_corpora import LibriMix, Vctk, VoicebankDemand

pytest.importorskip("espeakng_loader")

RATE = 16_000
UNUSED = Path("unused")
VOICEBANK_HELD_OUT = corpora.VOICEBANK_SPEAKERS["test"]
LIBRIMIX_HELD_OUT = corpora.LIBRIMIX_SPEAKERS["test"] + corpora.LIBRIMIX_SPEAKERS["valid"]


def power_db(signal: np.ndarray) -> float:
    return 10 * float(np.log10((signal.astype(float) ** 2).mean()))


def entries(listing: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0].astype(np.int64)


LAYOUTS = {
    "voicebank_demand": "--train {size} --test 1",
    "librimix": "--train {size} --valid 0 --test 0 --seconds 2",
    "vctk": "--speakers 3 --test-speakers 1 --utterances {size}",
    "musdb18_hq": "--train {size} --test 0 --seconds 12 --sample-rate 22050",
    "fsdkaggle2018": "--train {size} --test 1 --classes Knock Gong",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_depend_on_the_seed_but_not_on_workers_or_size(layout: str, tmp_path: Path) -> None:
    def write(name: str, options: str) -> dict[str, bytes]:
        assert main([layout, str(tmp_path / name), *options.split()]) == 0
        files = [path for path in (tmp_path / name).rglob("*.*") if path.is_file()]
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    large = write("large", LAYOUTS[layout].format(size=2) + " --seed 3 --workers 2")
    (command,) = re.findall(f"encore.synthetic_corpora {layout} OUT (.*)", large["README.md"].decode())
    assert write("again", f"{command} --workers 1") == large
    for seed in (3, 4):
        small = write(str(seed), LAYOUTS[layout].format(size=1) + f" --seed {seed} --workers 1")
        audio = {name: data for name, data in small.items() if name.endswith((".wav", ".flac"))}
        assert audio
        assert all((large.get(name) == data) is (seed == 3) for name, data in audio.items())


def test_voicebank_demand_has_its_layout_levels_and_splits(tmp_path: Path) -> None:
    train, test = len(NOISES) + 1, 3
    assert main(f"voicebank_demand {tmp_path} --train {train} --test {test} --seed 3".split()) == 0
    made = entries(tmp_path / "manifest.jsonl")
    assert sorted(entry["noise"] for entry in made[: len(NOISES)]) == sorted(NOISES)  # dealt evenly
    assert all(len({entry[key] for entry in made}) == train + test for key in ("noise_seed", "text"))
    for entry in made:
        assert entry["file"][:4] == entry["speaker"] in corpora.VOICEBANK_SPEAKERS[entry["split"]]
        paths = [tmp_path / folder / entry["file"] for folder in corpora.VOICEBANK_FOLDERS[entry["split"]]]
        for info in map(soundfile.info, paths):
            assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
            assert 2 * RATE <= info.frames == entry["frames"] <= 6 * RATE
        clean, noisy = (soundfile.read(path)[0] for path in paths)
        assert power_db(clean) - power_db(noisy - clean) == pytest.approx(entry["snr_db"], abs=0.1)
        assert power_db(clean) == pytest.approx(entry["level_db"], abs=0.1)
        assert abs(entry["snr_db"] - 5) <= (10 if entry["split"] == "train" else 5)
        assert max(np.abs(clean).max(), np.abs(noisy).max()) <= 0.9901
    again = VoicebankDemand(out=UNUSED).make("train", 28)[1]  # by the first of 28 speakers
    assert again["file"] == "p226_002.wav"


def test_held_out_speakers_have_timbres_of_their_own() -> None:
    voicebank, libri = VoicebankDemand(out=UNUSED, seed=1), LibriMix(out=UNUSED, seed=1)
    for corpus, held_out, trained in (
        (voicebank, VOICEBANK_HELD_OUT, 28),
        (replace(voicebank, synthesiser=FLITE), VOICEBANK_HELD_OUT, 2),
        (libri, LIBRIMIX_HELD_OUT, 30),
        (Vctk(out=UNUSED, speakers=110), corpora.VCTK_SPEAKERS[-10:], 43),
    ):
        voices = corpus.voices()
        own = {voices[speaker].timbre for speaker in held_out}
        others = {voice.timbre for speaker, voice in voices.items() if speaker not in held_out}
        assert (len(own), len(others)) == (len(held_out), trained)
        assert not own & others
        assert len(set(voices.values())) == len(voices)
        assert replace(corpus, seed=9).voices() != voices


def test_babble_has_neither_held_out_timbres_nor_those_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(rng: np.random.Generator, timbres: list[str]) -> Voice:
        used.update(timbres)
        return Voice(base="en-us", timbre="m3")

    monkeypatch.setattr("encore.synthetic_corpora.noise.draw_voice", choose)
    voicebank, libri = VoicebankDemand(out=UNUSED), LibriMix(out=UNUSED, seconds=2)
    for corpus, held_out in ((voicebank, VOICEBANK_HELD_OUT), (libri, LIBRIMIX_HELD_OUT)):
        used: set[str] = set()
        made = (corpus.make("train", index)[1] for index in range(len(NOISES)))
        entry, voices = next(entry for entry in made if entry["noise"] == "babble"), corpus.voices()
        speakers = entry.get("speakers") or [entry["speaker"]]
        assert used == set(speech.VARIANTS) - {voices[name].timbre for name in (*held_out, *speakers)}


@pytest.fixture(scope="module")
def libri(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("libri") / "corpus"
    assert main(f"librimix {out} --train 3 --valid 1 --test 1 --seconds 2 --seed 3".split()) == 0
    return out


def test_librimix_is_found_by_our_reader_in_every_task_by_its_tables(libri: Path) -> None:
    base = libri / "Libri2Mix" / "wav8k" / "min"
    for split, subset in corpora.LIBRIMIX_SUBSETS.items():
        made = [entry for entry in entries(libri / "manifest.jsonl") if entry["subset"] == subset]
        listed = sorted(entry["mixture_ID"] for entry in made)
        assert len(listed) == {"train": 3, "valid": 1, "test": 1}[split]
        for task in TASKS:
            items = librimix(libri, split, task=task)  # type: ignore[arg-type]
            assert [item.name for item in items] == listed
            assert all(file.parent.parent == base / subset for item in items for file in item.files)
    tables = {path.name: path.read_text().splitlines() for path in (base / "metadata").iterdir()}
    assert len(tables) == 9
    for kind, parts in (("clean", "source_2"), ("both", "source_2_path,noise"), ("single", "noise")):
        head, row = tables[f"mixture_dev_mix_{kind}.csv"]
        assert head == f"mixture_ID,mixture_path,source_1_path,{parts}_path,length"
        infos = [soundfile.info(libri / path) for path in row.split(",")[1:-1]]
        assert {(info.frames, info.samplerate) for info in infos} == {(int(row.split(",")[-1]), 8000)}


def test_mixtures_of_librimix_are_sums_to_the_bit_of_different_speakers_at_their_levels(libri: Path) -> None:
    spoken = []
    for entry in entries(libri / "manifest.jsonl"):
        folder, name = libri / "Libri2Mix" / "wav8k" / "min" / entry["subset"], f"{entry['mixture_ID']}.wav"
        one, two, noise = (samples(folder / part / name) for part in ("s1", "s2", "noise"))
        assert one.size == two.size == noise.size == entry["frames"]
        assert 2 * 8000 <= one.size <= 4 * 8000
        for kind, total in (("clean", one + two), ("both", one + two + noise), ("single", one + noise)):
            np.testing.assert_array_equal(samples(folder / f"mix_{kind}" / name), total)
        for sound, level in zip((one, two, noise), entry["levels_db"], strict=True):
            assert power_db(sound / 32768) == pytest.approx(level, abs=0.05)
            assert level <= (-30 if sound is noise else -25)
        assert entry["voices"][0]["timbre"] != entry["voices"][1]["timbre"]
        assert entry["texts"][0] != entry["texts"][1]
        assert [part.split("-")[0] for part in entry["mixture_ID"].split("_")] == entry["speakers"]
        (split,) = (key for key, subset in corpora.LIBRIMIX_SUBSETS.items() if subset == entry["subset"])
        assert set(entry["speakers"]) <= set(corpora.LIBRIMIX_SPEAKERS[split])
        spoken += entry["speakers"] if split == "train" else []
    pools: Any = librimix_pools(libri)["speaker1"]
    assert {speaker: len(files) for speaker, files in pools.items()} == {s: spoken.count(s) for s in spoken}
    files, entry = LibriMix(out=UNUSED, speakers=3, seconds=2).make("train", 0)
    assert len(files) == 7
    assert len({voice["timbre"] for voice in entry["voices"]}) == 3


def test_a_peak_above_the_largest_scales_all_parts_of_librimix_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LibriMix(out=UNUSED, seconds=2)
    _, plain = settings.make("valid", 0)
    monkeypatch.setattr(LibriMix, "largest_peak", 0.01)
    files, scaled = settings.make("valid", 0)
    moved = np.subtract(scaled["levels_db"], plain["levels_db"])
    assert moved == pytest.approx([moved[0]] * 3)
    assert moved[0] < -10
    assert max(np.abs(np.asarray(sound)).max() for sound in files.values()) <= 0.01 * 32768 + 2


def test_vctk_is_found_by_our_reader_with_speakers_levels_and_texts(tmp_path: Path) -> None:
    assert main(f"vctk {tmp_path} --speakers 4 --test-speakers 2 --utterances 2 --seed 3".split()) == 0
    made = {Path(entry["file"]).name: entry for entry in entries(tmp_path / "utterances.jsonl")}
    found: list[Recording] = []
    for split in ("train", "valid", "test"):
        found += vctk(tmp_path, split, test_speakers=2, valid_every=2)  # type: ignore[arg-type]
    names = [f"p{speaker}_00{number}" for number in (1, 2) for speaker in (225, 226)]
    assert [recording.name for recording in found] == [*names, "p227_001", "p227_002", "p228_001", "p228_002"]
    for recording in found:
        entry, sound = made[recording.path.name], samples(recording.path) / 32768
        assert (soundfile.info(recording.path).samplerate, sound.size) == (RATE, entry["frames"])
        assert 2 <= sound.size / RATE <= 6
        assert power_db(sound) == pytest.approx(entry["level_db"], abs=0.1)
        # noise fills the pauses
        blocks = np.square(sound[: sound.size // 800 * 800].reshape(-1, 800)).mean(1)
        assert 10 * np.log10(blocks.min()) > entry["level_db"] + entry["noise_db"] - 4
        text = tmp_path / "txt" / str(recording.speaker) / f"{recording.name}.txt"
        assert text.read_text(encoding="utf-8").strip() == entry["text"]
    head, *rows = [line.split() for line in (tmp_path / "speaker-info.txt").read_text().splitlines()]
    assert head[:3] == ["ID", "AGE", "GENDER"]
    assert [(row[0], row[2]) for row in rows] == [("p225", "F"), ("p226", "M"), ("p227", "F"), ("p228", "M")]
    known = corpora.VCTK_SPEAKERS
    assert list(known) == sorted(set(known))
    assert len(known) == 110
    assert {"p315", "p376", "s5"} < set(known)
    assert not {"p235", "p242", "p296", "p309"} & set(known)


def test_fsdkaggle2018_is_found_by_our_reader_by_zenodos_tables(tmp_path: Path) -> None:
    classes = ("Knock", "Hi-hat", "Cowbell", "Bass_drum")
    sizes = "--train 5 --test 2 --seed 3 --classes"
    assert main(["fsdkaggle2018", str(tmp_path), *sizes.split(), *classes]) == 0
    parts = {split: fsdkaggle2018(tmp_path, split, valid_every=5) for split in ("train", "valid", "test")}  # type: ignore[arg-type]
    assert {split: len(part) for split, part in parts.items()} == {"train": 16, "valid": 4, "test": 8}
    assert fsdkaggle2018(tmp_path, verified_only=True, valid_every=5) == parts["train"]
    truth = {Path(entry["fname"]).stem: entry["label"] for entry in entries(tmp_path / "clips.jsonl")}
    found = [recording for part in parts.values() for recording in part]
    assert {recording.name: recording.label for recording in found} == truth
    for info in (soundfile.info(recording.path) for recording in found):
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert 0.3 <= info.duration <= 5
    names = ("train_post_competition.csv", "test_post_competition_scoring_clips.csv")
    train, test = (list(csv.DictReader((tmp_path / "FSDKaggle2018.meta" / name).open())) for name in names)
    assert list(train[0]) == ["fname", "label", "manually_verified", "freesound_id", "license"]
    assert list(test[0]) == ["fname", "label", "usage", "freesound_id", "license"]
    # sorted by name, which does not depend on the class
    assert [row["fname"] for row in train] == sorted(row["fname"] for row in train)
    assert len({row["label"] for row in train[:8]}) >= 3


def test_names_of_clips_differ_and_so_do_seeds_and_parts() -> None:
    first, second = (FsdKaggle2018(out=Path(), seed=seed) for seed in (0, 1))
    places = [(split, index) for split in ("train", "test") for index in (0, 1, 1 << 19)]
    assert len({first.clip_name(*place, label) for place in places for label in FSD_CLASSES}) == 6 * 41
    made = [(first, "train", 0), (first, "test", 0), (first, "train", 1), (second, "train", 0)]
    clips = [next(iter(corpus.make(split, index, "Knock")[0].values())) for corpus, split, index in made]
    assert len({np.asarray(clip).tobytes() for clip in clips}) == 4


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, Any]]:
    """Two songs to train and one to test, 12 s each, at 22.05 kHz."""
    out = tmp_path_factory.mktemp("songs")
    write_corpus(Musdb18Hq(out=out, train=2, test=1, seconds=12, sample_rate=22050, seed=5), workers=1)
    made = entries(out / "songs.jsonl")
    assert sorted(out.glob("*/*")) == sorted(out / entry["split"] / entry["name"] for entry in made)
    return {out / entry["split"] / entry["name"]: entry for entry in made}


def test_songs_have_the_layout_of_musdb18_hq_and_mixtures_are_sums(songs: dict[Path, dict[str, Any]]) -> None:
    assert [entry["split"] for entry in songs.values()] == ["train", "train", "test"]
    for folder, entry in songs.items():
        assert {"tempo", "tonic", "mode", "beats"} <= set(entry)
        assert folder.name.count(" - ") == 1
        assert {path.name for path in folder.iterdir()} == {f"{stem}.wav" for stem in (*STEMS, "mixture")}
        for info in map(soundfile.info, folder.iterdir()):
            assert (info.subtype, info.channels, info.samplerate) == ("PCM_16", 2, 22050)
            assert info.frames == 12 * 22050
        stems, mixture = [samples(folder / f"{stem}.wav") for stem in STEMS], samples(folder / "mixture.wav")
        # a sum in int16 that wrapped round would differ from this one in int64
        np.testing.assert_array_equal(mixture, sum(stems))
        assert max(np.abs(sound).max() for sound in (mixture, *stems)) < 0.91 * 32768
    assert len({(folder / "vocals.wav").read_bytes() for folder in songs}) == 3
    assert all(len({entry[key] for entry in songs.values()}) == 3 for key in ("tempo", "name"))


def test_every_stem_sounds_soon_and_for_half_of_the_song_in_stereo(songs: dict[Path, Any]) -> None:
    for folder in songs:
        levels = []
        for stem in STEMS:
            sound = samples(folder / f"{stem}.wav") / 32768
            blocks = np.square(sound[: len(sound) // 11025 * 11025]).reshape(-1, 22050).mean(1)
            loud = blocks > 1e-4 * blocks.max()
            assert np.argmax(loud) * 0.5 < 10, stem
            assert loud.mean() >= 0.5, stem
            assert np.abs(sound.mean(0)).max() < 1e-4, "no offset"
            assert stem == "bass" or np.abs(sound[:, 0] - sound[:, 1]).max() > 1e-3
            levels.append(power_db(sound))
        assert min(levels) > -60
        assert max(levels) - min(levels) < 15


def test_drums_keep_the_listed_tempo(songs: dict[Path, dict[str, Any]]) -> None:
    for folder, entry in songs.items():
        sound = samples(folder / "drums.wav") / 32768
        size = 220
        power = np.square(sound[: len(sound) // size * size]).reshape(-1, size * 2).mean(1)
        rises = np.maximum(0, np.diff(10 * np.log10(power + 1e-6)))  # of the level in dB
        times, ratios = np.arange(len(rises)) * size / 22050, np.linspace(0.93, 1.07, 141)
        # how regular the hits are in beats and halves of beats, at any phases
        hertz = entry["tempo"] / 60 * ratios[:, None, None] * np.array([[1.0], [2.0]])
        strength = np.abs(((rises - rises.mean()) * np.exp(-2j * np.pi * hertz * times)).sum(-1)).sum(-1)
        assert ratios[int(strength.argmax())] == pytest.approx(1, abs=0.01), entry


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("voicebank_demand --sample-rate 44100", "sample_rate must be 16000 or 48000, not 44100"),
        ("voicebank_demand --train -1", "train=-1: must be at least 0"),
        ("voicebank_demand --room 1.5", "room=1.5: must be from 0 to 1"),
        ("voicebank_demand --workers 0", "workers must be at least 1, not 0"),
        ("voicebank_demand --synthesiser festival", "synthesiser must be espeak or flite, not 'festival'"),
        ("librimix --seconds 0", "seconds=0.0: must be at least 0.5"),
        ("vctk --speakers 10", "test_speakers must be below 10, not 10"),
        ("musdb18_hq --seconds nan", "seconds=nan: must be at least 12"),
        ("fsdkaggle2018 --classes Gong Gong", "not ('Gong', 'Gong')"),
    ],
)
def test_command_line_refuses_in_one_line(
    arguments: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, *options = arguments.split()
    assert main([layout, str(tmp_path / "corpus"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(reason)
    assert not (tmp_path / "corpus").exists()


def test_a_full_folder_is_kept_without_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    tiny = f"fsdkaggle2018 {tmp_path} --train 2 --test 2 --workers 1 --classes Knock".split()
    assert main(tiny) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert main([*tiny, "--overwrite"]) == 0
    assert main([*tiny, "--overwrite", "--seed", "1", "--train", "1"]) == 0
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert len(list(tmp_path.rglob("*.wav"))) == 3


def test_missing_espeak_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert main(["vctk", str(tmp_path / "corpus")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'needs the package espeakng_loader: pip install "encore-separation[synthesis]"' in line
    assert not (tmp_path / "corpus").exists()
