"""Speech, noise and rooms made from a seed, the laws of all corpora and their command line."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from encore.synthetic_corpora import FloatArray, dsp, speech
from encore.synthetic_corpora import speech_corpora as corpora
from encore.synthetic_corpora.__main__ import main
from encore.synthetic_corpora.noise import NOISES, draw_noise
from encore.synthetic_corpora.speech import FLITE, SynthesisError, Voice, draw_utterance
from encore.synthetic_corpora.speech_corpora import LibriMix, Vctk, VoicebankDemand
from encore.synthetic_corpora.text import _WORDS, draw_sentence

pytest.importorskip("espeakng_loader")

RATE = 16_000
VOICE = Voice(base="en-us", timbre="m3")
TEXT = "The quick brown fox jumps over the lazy dog near forty two houses."
UNUSED = Path("unused")
VOICEBANK_HELD_OUT = corpora.VOICEBANK_SPEAKERS["test"]
LIBRIMIX_HELD_OUT = corpora.LIBRIMIX_SPEAKERS["test"] + corpora.LIBRIMIX_SPEAKERS["valid"]
SLT = Voice(base=FLITE, timbre="slt", rate=140.0, pitch=60.0)
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="needs the program flite")


def power_db(signal: np.ndarray) -> float:
    return 10 * float(np.log10((signal.astype(float) ** 2).mean()))


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


def test_layout_levels_and_splits(tmp_path: Path) -> None:
    train, test = len(NOISES) + 1, 3
    assert main(f"voicebank_demand {tmp_path} --train {train} --test {test} --seed 3".split()) == 0
    entries = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert sorted(entry["noise"] for entry in entries[: len(NOISES)]) == sorted(NOISES)  # dealt evenly
    assert all(len({entry[key] for entry in entries}) == train + test for key in ("noise_seed", "text"))
    for entry in entries:
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
        return VOICE

    monkeypatch.setattr("encore.synthetic_corpora.noise.draw_voice", choose)
    voicebank, libri = VoicebankDemand(out=UNUSED), LibriMix(out=UNUSED, seconds=2)
    for corpus, held_out in ((voicebank, VOICEBANK_HELD_OUT), (libri, LIBRIMIX_HELD_OUT)):
        used: set[str] = set()
        entries = (corpus.make("train", index)[1] for index in range(len(NOISES)))
        entry, voices = next(entry for entry in entries if entry["noise"] == "babble"), corpus.voices()
        speakers = entry.get("speakers") or [entry["speaker"]]
        assert used == set(speech.VARIANTS) - {voices[name].timbre for name in (*held_out, *speakers)}


@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_new_with_each_seed_and_neither_white_nor_below_speech(kind: str) -> None:
    rngs = map(np.random.default_rng, (1, 1, 2, 3))
    first, again, *others = (draw_noise(kind, 3 * RATE, RATE, rng) for rng in rngs)
    np.testing.assert_array_equal(first, again)
    flatness, audible = [], []
    for noise in (first, *others):
        assert noise.mean() == pytest.approx(0, abs=1e-9)
        assert (noise**2).mean() == pytest.approx(1)
        power = (np.abs(np.fft.rfft(noise)) ** 2)[1:].reshape(-1, 50).mean(1)  # bands of 16.7 Hz
        flatness.append(np.exp(np.log(power).mean()) / power.mean())
        audible.append(power[5:].sum() / power.sum())  # above 83 Hz
    assert abs(np.corrcoef(first, others[0])[0, 1]) < 0.2
    assert np.median(flatness) < 0.7  # white noise: 0.98 and more
    assert np.median(audible) > 0.7
    with pytest.raises(ValueError, match=rf"kind must be one of .*{kind}.*, not 'silence'"):
        draw_noise("silence", 100, RATE, np.random.default_rng(0))
    assert np.isfinite(draw_noise(kind, 20_000, 48_000, np.random.default_rng(0))).all()


def test_speech_does_not_depend_on_what_was_said_before() -> None:
    # flutter, C's rand, breath, echo
    voices = [Voice(base="en-us", timbre=name, shift=1.05) for name in ("f1", "klatt6", "f5", "f4")]
    first = [voice.say(TEXT, RATE) for voice in voices]
    time.sleep(1.01)  # espeak-ng seeds its breath by the clock
    for voice, expected in zip(voices, first, strict=True):
        np.testing.assert_array_equal(voice.say(TEXT, RATE), expected)


def test_pitch_and_shift_raise_the_fundamental_and_leave_the_tempo() -> None:
    def fundamental(spoken: FloatArray) -> float:
        correlation = np.fft.irfft(np.abs(np.fft.rfft(spoken, 2 * spoken.size)) ** 2)
        lags = np.arange(RATE // 250, RATE // 60)
        return RATE / float(lags[np.argmax(correlation[lags])])

    changes: tuple[dict[str, float], ...] = ({}, {"shift": 1.12}, {"pitch": 80.0})
    plain, shifted, raised = (replace(VOICE, span=10.0, **change).say(TEXT, RATE) for change in changes)
    assert fundamental(shifted) / fundamental(plain) == pytest.approx(1.12, rel=0.05)
    assert fundamental(raised) / fundamental(plain) > 1.05
    assert shifted.size == pytest.approx(plain.size, rel=0.06)
    assert np.abs(plain).max() == pytest.approx(1)
    with pytest.raises(SynthesisError, match=r"no voice 'xx\+m1'"):
        Voice(base="xx", timbre="m1").say(TEXT, RATE)
    assert VOICE.say(TEXT, 3 * RATE).size == pytest.approx(3 * VOICE.say(TEXT, RATE).size, rel=0.01)


def test_a_deep_installation_folder_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import espeakng_loader

    deep = tmp_path.joinpath(*["a" * 60] * 4) / "espeak-ng-data"
    shutil.copytree(espeakng_loader.get_data_path(), deep)
    expected = VOICE.say(TEXT, RATE)
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep))
    np.testing.assert_array_equal(VOICE.say(TEXT, RATE), expected)


def test_utterances_fit_the_limits_and_are_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    spoken = [draw_utterance(speech.draw_voice(rng), RATE, rng, (3, 4))[1] for _ in range(3)]
    assert all(3 * RATE <= said.size <= 4 * RATE for said in spoken)
    monkeypatch.setattr(speech, "_ATTEMPTS", 3)
    with pytest.raises(SynthesisError, match="widen the limits"):
        draw_utterance(VOICE, RATE, rng, (0, 0.01))
    tone = np.concatenate([np.zeros(RATE), np.ones(RATE), np.zeros(RATE)])
    assert speech.trim(tone, RATE).size == RATE + 2 * RATE // 20
    assert speech.trim(np.zeros(RATE), RATE).size == 0


def test_sentences_are_many() -> None:
    rng = np.random.default_rng(0)
    sentences = [draw_sentence(rng) for _ in range(2000)]
    assert len({word for words in _WORDS.values() for word in words.split()}) > 700
    assert len(set(sentences)) > 1990
    assert not any("{" in sentence or "  " in sentence for sentence in sentences)
    assert all(3 <= len(sentence.split()) <= 40 for sentence in sentences)


def test_room_has_its_decay_and_energy_and_the_reference_stays_dry() -> None:
    response = dsp.room_response(RATE, np.random.default_rng(1), 0.5, 4.0)
    assert response[0] == 1
    assert -10 * np.log10((response[1:] ** 2).sum()) == pytest.approx(4.0)
    decay = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])  # Schroeder's backward integral
    late = np.arange(int(0.06 * RATE), int(0.3 * RATE))
    assert -60 / np.polyfit(late / RATE, decay[late], 1)[0] == pytest.approx(0.5, rel=0.15)
    dry, wet = (VoicebankDemand(out=UNUSED, room=room).make("test", 0)[0] for room in (0, 1))
    (clean, noisy), (same, echoing) = dry.values(), wet.values()
    assert np.corrcoef(clean, same)[0, 1] == pytest.approx(1)
    assert power_db(echoing - same) - power_db(same) > power_db(noisy - clean) - power_db(clean)


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


def stand_in(folder: Path, act: str, voices: str = "awb kal16 rms slt") -> None:
    """Write a program flite that lists ``voices`` and, called to speak, does ``act``."""
    lists = f'[ "$1" = -lv ] && echo "Voices available: {voices} " && exit'
    (folder / "flite").write_text(f"#!/bin/sh\n{lists}\n{act}\n")
    (folder / "flite").chmod(0o755)


def test_a_missing_or_failing_flite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SynthesisError, match="install the package 'flite'"):
        SLT.say(TEXT, RATE)
    stand_in(tmp_path, act="", voices="kal awb_time kal16 rms")
    with pytest.raises(SynthesisError, match="has no voice awb, slt; install a flite built with it"):
        speech.check_flite()
    stand_in(tmp_path, act="echo the disk is full >&2")
    with pytest.raises(SynthesisError, match=r"^the disk is full$"):
        SLT.say(TEXT, RATE)


def test_settings_reach_flite_and_offset_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tone = 0.3 * np.sin(2 * np.pi * 500 / RATE * np.arange(2 * RATE))
    spoken = 0.02 + np.concatenate([np.zeros(RATE), tone, np.zeros(RATE)])
    soundfile.write(tmp_path / "spoken.wav", spoken, RATE, subtype="PCM_16")
    act = f'echo "$@" > {tmp_path}/arguments; for last; do :; done; cp {tmp_path}/spoken.wav "$last"'
    stand_in(tmp_path, act=act)
    for rate in (RATE, 8000):
        said = SLT.say(TEXT, rate)
        assert said.size == pytest.approx(2.1 * rate, abs=rate // 50)
        assert np.abs(said).max() == pytest.approx(1)
        assert said.mean() == pytest.approx(0, abs=1e-3)  # the offset was 0.067 of the peak
    settings = f"-voice slt --setf duration_stretch=1.250000 --setf f0_shift=1.060000 -t {TEXT} -o "
    assert (tmp_path / "arguments").read_text().startswith(settings)


@needs_flite
@pytest.mark.parametrize("name", speech.FLITE_VOICES)
def test_every_voice_speaks_in_its_tempo(name: str) -> None:
    plain, again = (Voice(base=FLITE, timbre=name).say(TEXT, RATE) for _ in range(2))
    np.testing.assert_array_equal(plain, again)
    assert np.abs(plain).max() == pytest.approx(1)
    fast = Voice(base=FLITE, timbre=name, rate=218.75, shift=1.1).say(TEXT, RATE)
    assert fast.size == pytest.approx(plain.size / 1.25, rel=0.03)


@needs_flite
def test_a_corpus_has_its_voices_and_its_bytes_its_seed(tmp_path: Path) -> None:
    corpus = VoicebankDemand(out=tmp_path, seed=1, synthesiser=FLITE)
    made = [corpus.make(split, index) for split in ("train", "test") for index in range(2)]
    assert [entry["voice"]["timbre"] for _, entry in made] == ["awb", "kal16", "rms", "slt"]
    for files, entry in made:
        clean, noisy = (np.asarray(samples, float) for samples in files.values())
        assert 2 * RATE <= clean.size <= 6 * RATE
        snr = 10 * np.log10((clean**2).sum() / ((noisy - clean) ** 2).sum())
        assert snr == pytest.approx(entry["snr_db"], abs=0.1)
    for name, samples in corpus.make("train", 0)[0].items():
        np.testing.assert_array_equal(samples, made[0][0][name])
