from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from encore.data.synthesis import FloatArray
from encore.data.synthesis.__main__ import main
from encore.data.synthesis.noise import NOISES, draw_noise
from encore.data.synthesis.room import Room, draw_room, impulse_response
from encore.data.synthesis.speech import (
    ENGLISH,
    FOREIGN,
    VARIANTS,
    SynthesisError,
    Voice,
    draw_utterance,
    draw_voice,
    say,
    trim,
)
from encore.data.synthesis.text import VOCABULARY, draw_sentence
from encore.data.synthesis.voicebank_demand import (
    FOLDERS,
    MANIFEST,
    TEST_SPEAKERS,
    TRAIN_SPEAKERS,
    VoicebankDemand,
    make_pair,
    speaker_voices,
    write_corpus,
)

pytest.importorskip("espeakng_loader")

RATE = 16_000
TRAIN, TEST = 30, 6
VOICE = Voice(base="en-us", variant="f3", rate=170, pitch=50, span=50, shift=1.0, tilt=0.0)
TEXT = "The quick brown fox jumps over the lazy dog near forty two houses."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vb") / "corpus"
    arguments = ["voicebank_demand", str(out), "--train", str(TRAIN), "--test", str(TEST), "--seed", "3"]
    assert main([*arguments, "--workers", "2"]) == 0
    return out


def entries(root: Path, split: str | None = None) -> list[dict]:
    lines = (root / MANIFEST).read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if split in (None, entry["split"])]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def energy_db(signal: FloatArray) -> float:
    return 10 * float(np.log10((signal**2).sum()))


def test_layout_and_names(corpus: Path) -> None:
    for split, size, speakers in (("train", TRAIN, TRAIN_SPEAKERS), ("test", TEST, TEST_SPEAKERS)):
        clean, noisy = ({path.name for path in (corpus / folder).iterdir()} for folder in FOLDERS[split])
        assert clean == noisy == {entry["file"] for entry in entries(corpus, split)}
        assert len(clean) == size
        assert {name[:4] for name in clean} == set(speakers[:size])
    assert {path.name for path in corpus.iterdir()} == {*FOLDERS["train"], *FOLDERS["test"], MANIFEST}
    assert (corpus / "clean_trainset_28spk_wav" / "p226_002.wav").exists()


def test_the_real_speakers() -> None:
    assert len(set(TRAIN_SPEAKERS)) == 28
    assert TRAIN_SPEAKERS[:2] == ("p226", "p287")
    assert not set(TRAIN_SPEAKERS) & set(TEST_SPEAKERS)


def test_files_are_pcm_of_two_to_six_seconds(corpus: Path) -> None:
    for entry in entries(corpus):
        for folder in FOLDERS[entry["split"]]:
            info = soundfile.info(corpus / folder / entry["file"])
            assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
            assert info.frames == entry["frames"]
            assert 2 * RATE <= info.frames <= 6 * RATE


def test_levels_are_the_manifests(corpus: Path) -> None:
    for entry in entries(corpus):
        clean, noisy = (
            soundfile.read(corpus / folder / entry["file"])[0] for folder in FOLDERS[entry["split"]]
        )
        assert energy_db(clean) - energy_db(noisy - clean) == pytest.approx(entry["snr_db"], abs=0.1)
        assert energy_db(clean) - 10 * np.log10(clean.size) == pytest.approx(entry["level_db"], abs=0.1)
        low, high = (-5, 15) if entry["split"] == "train" else (0, 10)
        assert low <= entry["snr_db"] <= high
        assert max(np.abs(clean).max(), np.abs(noisy).max()) <= 0.9901


def test_same_bytes_for_any_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    write_corpus(VoicebankDemand(out=tmp_path, train=4, test=2, seed=3), workers=1)
    again, large = contents(tmp_path), contents(corpus)
    again.pop(MANIFEST)
    assert len(again) == 12
    assert all(large[name] == data for name, data in again.items())  # a small corpus is part of a larger one


def test_other_seed_other_files(corpus: Path, tmp_path: Path) -> None:
    write_corpus(VoicebankDemand(out=tmp_path, train=1, test=1, seed=4), workers=1)
    large = contents(corpus)
    assert all(large.get(name) != data for name, data in contents(tmp_path).items())


def test_nothing_of_the_test_set_is_in_the_training_set(corpus: Path) -> None:
    train, test = entries(corpus, "train"), entries(corpus, "test")
    for key in ("noise_seed", "text"):
        assert not {entry[key] for entry in train} & {entry[key] for entry in test}
        assert len({entry[key] for entry in train + test}) == TRAIN + TEST
    assert not {e["voice"]["variant"] for e in train} & {e["voice"]["variant"] for e in test}


@pytest.mark.parametrize("seed", range(20))
def test_every_speaker_has_a_variant_of_its_own(seed: int) -> None:
    voices = speaker_voices(seed)
    assert len({voice.variant for voice in voices.values()}) == len(voices) == 30
    assert [voices[name].variant[0] for name in TEST_SPEAKERS] == ["m", "f"]
    assert {voices[name].base for name in TEST_SPEAKERS} <= set(ENGLISH)


def test_babble_leaves_out_the_target_and_the_test_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    crowds: list[tuple[str, ...]] = []

    def silent_noise(
        kind: str, frames: int, rate: int, rng: np.random.Generator, variants: tuple[str, ...]
    ) -> FloatArray:
        crowds.append(variants)
        return rng.standard_normal(frames)

    monkeypatch.setattr("encore.data.synthesis.voicebank_demand.draw_noise", silent_noise)
    settings = VoicebankDemand(out=Path("unused"))
    _, _, entry = make_pair(settings, "train", 0)
    voices = speaker_voices(0)
    hidden = {voices[name].variant for name in (*TEST_SPEAKERS, entry["speaker"])}
    assert set(crowds[0]) == set(VARIANTS) - hidden


def test_kinds_of_noise_are_dealt_evenly(corpus: Path) -> None:
    first_block = [entry["noise"] for entry in entries(corpus, "train")][: len(NOISES)]
    assert sorted(first_block) == sorted(NOISES)


@pytest.mark.parametrize("sample_rate", [16_000, 48_000])
@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_finite_loud_and_new_with_each_seed(kind: str, sample_rate: int) -> None:
    frames = 2 * sample_rate + 7
    first, again, other = (
        draw_noise(kind, frames, sample_rate, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (frames,)
    assert np.isfinite(first).all()
    assert first.mean() == pytest.approx(0, abs=1e-9)
    assert (first**2).mean() == pytest.approx(1)
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2


@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_neither_white_nor_below_speech(kind: str) -> None:
    flatness, audible = [], []
    for seed in range(3):
        noise = draw_noise(kind, 3 * RATE, RATE, np.random.default_rng(seed))
        power = (np.abs(np.fft.rfft(noise)) ** 2).reshape(-1)[1:].reshape(-1, 50).mean(1)  # bands of 16.7 Hz
        flatness.append(np.exp(np.log(power).mean()) / power.mean())
        audible.append(power[5:].sum() / power.sum())  # above 83 Hz
    assert np.median(flatness) < 0.7  # white noise: 0.98 and more
    assert np.median(audible) > 0.7


def test_unknown_noise_is_named() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of alarm, .* not 'silence'"):
        draw_noise("silence", 100, RATE, np.random.default_rng(0))


@pytest.mark.parametrize("variant", ["f1", "klatt6", "f5", "f4"])  # flutter, C's rand, breath, echo
def test_speech_does_not_depend_on_what_was_said_before(variant: str) -> None:
    voice = Voice(base="en-us", variant=variant, rate=180, pitch=40, span=60, shift=1.05, tilt=-1.0)
    first = say(TEXT, voice, RATE)
    say("Something else entirely.", VOICE, RATE)
    time.sleep(1.01)  # espeak-ng seeds its breath by the clock
    np.testing.assert_array_equal(say(TEXT, voice, RATE), first)


@pytest.mark.parametrize(("field", "low", "high"), [("pitch", 20, 80), ("shift", 0.9, 1.12)])
def test_pitch_and_shift_raise_the_fundamental(field: str, low: float, high: float) -> None:
    def fundamental(value: float) -> float:
        values = {
            "base": "en-us",
            "variant": "m3",
            "rate": 170,
            "pitch": 50,
            "span": 10,
            "shift": 1.0,
            "tilt": 0.0,
        }
        speech = say(TEXT, Voice(**{**values, field: value}), RATE)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(speech, 2 * speech.size)) ** 2)
        lags = np.arange(RATE // 250, RATE // 60)
        return RATE / float(lags[np.argmax(correlation[lags])])

    ratio = fundamental(high) / fundamental(low)
    assert ratio == pytest.approx(high / low, rel=0.05) if field == "shift" else ratio > 1.1


def test_shift_leaves_the_tempo() -> None:
    lengths = [
        say(TEXT, Voice(base="en", variant="m3", rate=170, pitch=50, span=50, shift=shift, tilt=0), RATE).size
        for shift in (0.88, 1.0, 1.15)
    ]
    assert lengths == pytest.approx([lengths[1]] * 3, rel=0.06)


def test_sample_rate_changes_the_frames_only() -> None:
    low, high = (say(TEXT, VOICE, rate) for rate in (RATE, 3 * RATE))
    assert high.size == pytest.approx(3 * low.size, rel=0.01)


@pytest.mark.parametrize("base", ENGLISH + FOREIGN)
def test_every_base_voice_speaks(base: str) -> None:
    voice = Voice(base=base, variant="m1", rate=170, pitch=50, span=50, shift=1.0, tilt=0.0)
    assert say(TEXT, voice, RATE).size > 2 * RATE


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_speaks(variant: str) -> None:
    voice = Voice(base="en-us", variant=variant, rate=170, pitch=50, span=50, shift=1.0, tilt=0.0)
    speech = say(TEXT, voice, RATE)
    assert speech.size > 2 * RATE
    assert np.abs(speech).max() == pytest.approx(1)


def test_unknown_voice_is_named() -> None:
    voice = Voice(base="xx", variant="m1", rate=170, pitch=50, span=50, shift=1.0, tilt=0.0)
    with pytest.raises(SynthesisError, match=r"no voice 'xx\+m1'"):
        say(TEXT, voice, RATE)


def test_a_deep_installation_folder_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import espeakng_loader

    deep = tmp_path.joinpath(*["a" * 60] * 4) / "espeak-ng-data"
    shutil.copytree(espeakng_loader.get_data_path(), deep)
    expected = say(TEXT, VOICE, RATE)
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep))
    np.testing.assert_array_equal(say(TEXT, VOICE, RATE), expected)


def test_utterances_fit_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        _, speech = draw_utterance(draw_voice(rng), RATE, rng, shortest_seconds=3, longest_seconds=4)
        assert 3 * RATE <= speech.size <= 4 * RATE
    monkeypatch.setattr("encore.data.synthesis.speech._ATTEMPTS", 3)
    with pytest.raises(SynthesisError, match="widen the limits"):
        draw_utterance(VOICE, RATE, rng, shortest_seconds=0.0, longest_seconds=0.01)


def test_trim_keeps_a_margin() -> None:
    tone = np.concatenate([np.zeros(RATE), np.ones(RATE), np.zeros(RATE)])
    assert trim(tone, RATE).size == RATE + 2 * RATE // 20
    assert trim(np.zeros(RATE), RATE).size == 0


def test_sentences_are_many() -> None:
    rng = np.random.default_rng(0)
    sentences = [draw_sentence(rng) for _ in range(2000)]
    assert VOCABULARY > 700
    assert len(set(sentences)) > 1990
    assert not any("{" in sentence or "  " in sentence for sentence in sentences)
    assert all(3 <= len(sentence.split()) <= 40 for sentence in sentences)


def test_room_has_its_decay_and_direct_to_reverberant_ratio() -> None:
    room = Room(rt60=0.5, direct_to_reverberant_db=4.0, seed=1)
    response = impulse_response(room, RATE)
    assert response[0] == 1
    assert -10 * np.log10((response[1:] ** 2).sum()) == pytest.approx(4.0)
    decay = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])  # Schroeder's backward integral
    late = np.arange(int(0.06 * RATE), int(0.3 * RATE))
    slope = np.polyfit(late / RATE, decay[late], 1)[0]
    assert -60 / slope == pytest.approx(0.5, rel=0.15)


def test_rooms_are_drawn_within_their_range() -> None:
    rooms = [draw_room(np.random.default_rng(seed)) for seed in range(200)]
    assert all(0.15 <= room.rt60 <= 0.6 for room in rooms)
    assert len({room.seed for room in rooms}) == 200


def test_in_a_room_the_reference_stays_dry() -> None:
    dry = make_pair(VoicebankDemand(out=Path("unused")), "test", 0)
    wet = make_pair(VoicebankDemand(out=Path("unused"), room=1.0), "test", 0)
    assert dry[2]["room"] is None
    assert wet[2]["room"] is not None
    correlation = np.corrcoef(dry[0], wet[0])[0, 1]
    assert correlation == pytest.approx(1)
    assert energy_db(wet[1] - wet[0]) - energy_db(wet[0]) > energy_db(dry[1] - dry[0]) - energy_db(dry[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--sample-rate", "44100"], "sample_rate must be 16000 or 48000 Hz, not 44100"),
        (["--train", "-1"], "train must not be negative, not -1"),
        (["--room", "1.5"], "room must be a share from 0 to 1, not 1.5"),
        (["--workers", "0"], "workers must be at least 1, not 0"),
        (["--synthesiser", "festival"], "synthesiser must be espeak or flite, not 'festival'"),
        (
            ["--synthesiser", "flite", "--sample-rate", "48000"],
            "sample_rate must be 16000 Hz with synthesiser flite, not 48000; only espeak has both rates",
        ),
    ],
)
def test_command_line_refuses_in_one_line(
    options: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "corpus"
    assert main(["voicebank_demand", str(out), *options]) == 1
    assert capsys.readouterr().err == f"error: {reason}\n"
    assert not out.exists()


def test_command_line_needs_a_known_corpus(tmp_path: Path) -> None:
    for arguments in ([], ["wsj0", str(tmp_path)]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2


def test_a_full_folder_is_kept_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    tiny = ["voicebank_demand", str(tmp_path), "--train", "2", "--test", "2", "--workers", "1"]
    assert main(tiny) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert main([*tiny, "--overwrite"]) == 0
    assert main([*tiny, "--overwrite", "--seed", "1", "--train", "1"]) == 0
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert len(list(tmp_path.rglob("*.wav"))) == 6


def test_missing_espeak_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str) -> Callable[[], None]:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("encore.data.synthesis.speech.importlib.import_module", refuse)
    assert main(["voicebank_demand", str(tmp_path / "corpus")]) == 1
    assert "pip install 'encore-separation[synthesis]'" in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()


def test_missing_flite_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["voicebank_demand", str(tmp_path / "corpus"), "--synthesiser", "flite"]) == 1
    message = capsys.readouterr().err
    assert "install the package 'flite'" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "corpus").exists()
