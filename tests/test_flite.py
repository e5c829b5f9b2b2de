"""The second synthesiser: what needs the program flite is skipped without it, the rest runs on a stand-in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from encore.data.synthesis import FloatArray, flite
from encore.data.synthesis.flite import FliteVoice, check_flite, draw_utterance, draw_voice, say, vary_prosody
from encore.data.synthesis.speech import SynthesisError
from encore.data.synthesis.voicebank_demand import (
    FOLDERS,
    MANIFEST,
    TRAIN_SPEAKERS,
    VoicebankDemand,
    flite_voices,
    make_pair,
    write_corpus,
)

RATE = flite.SAMPLE_RATE
TEXT = "The quick brown fox sat near my kitchen on Monday."
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="needs the program flite")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *, voices: str, act: str) -> None:
    """Put a program flite in the path that lists ``voices`` and, asked to speak, does ``act``."""
    program = folder / "flite"
    lines = ("#!/bin/sh", f'[ "$1" = -lv ] && echo "Voices available: {voices} " && exit', act)
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def fundamental(speech: FloatArray, low: float, high: float) -> float:
    """Median over the loud frames of the lag, between ``low`` and ``high`` Hz, that repeats best; Hz."""
    frames = speech[: speech.size // 800 * 800].reshape(-1, 800)
    frames = frames[(frames**2).mean(1) > 0.5 * (speech**2).mean()] * np.hanning(800)
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(800), 1600)) ** 2)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 1600)) ** 2) / np.maximum(window, 1e-3)
    lags = np.arange(int(RATE / high), int(RATE / low))
    return RATE / float(np.median(lags[correlation[:, lags].argmax(1)]))


def test_voices_are_drawn_from_their_names_and_ranges() -> None:
    rng = np.random.default_rng(0)
    voices = [draw_voice(rng) for _ in range(200)]
    assert {voice.name for voice in voices} == set(flite.VOICES)
    assert len({voice.rate for voice in voices}) > 100
    assert all(0.85 <= voice.rate <= 1.2 and 0.85 <= voice.pitch <= 1.15 for voice in voices)
    assert {voice.pitch for voice in voices if voice.name == "rms"} == {1.0}
    assert draw_voice(np.random.default_rng(7)) == draw_voice(np.random.default_rng(7))
    assert draw_voice(rng, ("slt",)).name == "slt"


def test_moods_move_tempo_and_pitch_by_their_share_at_most() -> None:
    rng = np.random.default_rng(0)
    moods = [vary_prosody(FliteVoice(name="slt", rate=1.1, pitch=0.9), rng) for _ in range(100)]
    assert {mood.name for mood in moods} == {"slt"}
    assert max(abs(mood.rate / 1.1 - 1) for mood in moods) == pytest.approx(0.1, abs=0.01)
    assert max(abs(mood.pitch / 0.9 - 1) for mood in moods) == pytest.approx(0.1, abs=0.01)
    assert vary_prosody(FliteVoice(name="rms"), rng).pitch == 1
    assert vary_prosody(FliteVoice(name="rms"), rng).rate != 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "kal"}, "name must be one of awb, kal16, rms, slt, not 'kal'"),
        ({"name": "slt", "rate": 0.0}, r"rate=0.0 and pitch=1.0 are factors"),
        ({"name": "slt", "pitch": -1.0}, r"pitch=-1.0 are factors"),
        ({"name": "rms", "pitch": 1.1}, r"pitch must be 1 for the voice rms, .* not 1.1"),
    ],
)
def test_voices_that_flite_would_pass_over_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        FliteVoice(**options)
    assert "\n" not in str(error.value)


def test_a_missing_program_or_voice_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SynthesisError, match="install the package 'flite'"):
        say(TEXT, FliteVoice(name="slt"))
    stand_in(tmp_path, monkeypatch, voices="kal awb_time kal16 rms", act="")
    with pytest.raises(SynthesisError, match="has no voice awb, slt; install a flite built with it"):
        check_flite()


def test_a_flite_that_writes_nothing_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, voices="awb kal16 rms slt", act="echo the disk is full >&2")
    with pytest.raises(SynthesisError, match=r"^the disk is full$"):
        say(TEXT, FliteVoice(name="slt"))


def test_settings_reach_flite_and_offset_and_silence_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 500 / RATE * np.arange(2 * RATE))
    spoken = 0.02 + np.concatenate([np.zeros(RATE), tone, np.zeros(RATE)])
    soundfile.write(tmp_path / "spoken.wav", spoken, RATE, subtype="PCM_16")
    act = f'echo "$@" > {tmp_path}/asked; for last; do :; done; cp {tmp_path}/spoken.wav "$last"'
    stand_in(tmp_path, monkeypatch, voices="awb kal16 rms slt", act=act)
    speech = say(TEXT, FliteVoice(name="slt", rate=0.8, pitch=1.1))
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith(
        f"-voice slt --setf duration_stretch=1.250000 --setf f0_shift=1.100000 -t {TEXT} -o "
    )
    assert speech.size == pytest.approx(2 * RATE + 2 * RATE // 20, abs=RATE // 50)
    assert np.abs(speech).max() == pytest.approx(1)
    assert speech.mean() == pytest.approx(0, abs=1e-3)  # the offset was 0.067 of the peak


def test_utterances_grow_or_are_drawn_anew_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, rng = FliteVoice(name="awb"), np.random.default_rng(0)
    monkeypatch.setattr(flite, "say", lambda text, _: np.ones(len(text.split()) * RATE // 4))
    lengths = []
    for _ in range(30):
        text, speech = draw_utterance(voice, rng, shortest_seconds=3, longest_seconds=4)
        assert speech.size == len(text.split()) * RATE // 4
        lengths.append(speech.size / RATE)
    assert 3 <= min(lengths) < max(lengths) <= 4
    with pytest.raises(SynthesisError, match=r"no text of 0.0 to 0.01 s .*; widen the limits"):
        draw_utterance(voice, rng, shortest_seconds=0.0, longest_seconds=0.01)


def test_the_test_speakers_have_voices_to_themselves() -> None:
    voices = flite_voices(3)
    assert (voices["p232"].name, voices["p257"].name) == ("rms", "slt")
    assert [voices[speaker].name for speaker in TRAIN_SPEAKERS] == ["awb", "kal16"] * 14
    assert len({(voice.rate, voice.pitch) for voice in voices.values()}) == 30
    assert voices == flite_voices(3) != flite_voices(4)


def test_a_pair_says_its_synthesiser_and_babble_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    crowds = []

    def silent_noise(*arguments: object) -> FloatArray:
        crowds.append(arguments[4])
        return np.random.default_rng(0).standard_normal(3 * RATE)

    def hum(*_: object) -> tuple[str, FloatArray]:
        return "Hm.", np.sin(np.arange(3 * RATE))

    monkeypatch.setattr("encore.data.synthesis.voicebank_demand.draw_noise", silent_noise)
    monkeypatch.setattr("encore.data.synthesis.voicebank_demand.draw_utterance", hum)
    monkeypatch.setattr(flite, "draw_utterance", hum)
    flites, espeaks = (
        make_pair(VoicebankDemand(out=Path("unused"), synthesiser=name), "test", 3)[2]
        for name in ("flite", "espeak")
    )
    assert flites["synthesiser"] == "flite"
    assert flites["voice"]["name"] == "slt"
    assert crowds[0] == crowds[1]
    assert flites["noise"] == espeaks["noise"]
    # as in the corpora of before: their bytes stay
    assert set(flites) - set(espeaks) == {"synthesiser"}


@needs_flite
@pytest.mark.parametrize("name", flite.VOICES)
def test_every_voice_speaks_in_its_tempo_and_pitch(name: str) -> None:
    plain = say(TEXT, FliteVoice(name=name))
    assert np.abs(plain).max() == pytest.approx(1)
    np.testing.assert_array_equal(say(TEXT, FliteVoice(name=name)), plain)
    assert say(TEXT, FliteVoice(name=name, rate=1.25)).size == pytest.approx(plain.size / 1.25, rel=0.03)
    if name in flite.OWN_PITCH_ONLY:
        return
    high = say(TEXT, FliteVoice(name=name, pitch=1.25))
    assert high.size == pytest.approx(plain.size, rel=0.02)
    low, top = {"awb": (90, 180), "kal16": (65, 130), "slt": (120, 240)}[name]
    ratio = fundamental(high, 1.25 * low, 1.25 * top) / fundamental(plain, low, top)
    assert ratio == pytest.approx(1.25, rel=0.08)


@needs_flite
def test_a_corpus_is_whole_and_its_bytes_its_seeds(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    once, again = tmp_path / "once", tmp_path / "again"
    for out, train, test in ((once, 3, 4), (again, 2, 1)):
        corpus = VoicebankDemand(out=out, train=train, test=test, seed=1, synthesiser="flite")
        write_corpus(corpus, workers=1)
    files = [path.relative_to(again) for path in again.rglob("*.wav")]
    assert len(files) == 6
    assert all((once / file).read_bytes() == (again / file).read_bytes() for file in files)
    entries = [json.loads(line) for line in (once / MANIFEST).read_text().splitlines()]
    assert [entry["voice"]["name"] for entry in entries] == [*("awb", "kal16", "awb"), *("rms", "slt") * 2]
    assert {entry["synthesiser"] for entry in entries} == {"flite"}
    for entry in entries:
        clean, noisy = (
            soundfile.read(once / folder / entry["file"])[0] for folder in FOLDERS[entry["split"]]
        )
        assert 2 * RATE <= clean.size == entry["frames"] <= 6 * RATE
        snr = 10 * np.log10((clean**2).sum() / ((noisy - clean) ** 2).sum())
        assert snr == pytest.approx(entry["snr_db"], abs=0.1)
