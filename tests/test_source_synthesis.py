from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import stft

from encore.data.source_corpora import FSD_CLASSES, fsdkaggle2018, labels_of, vctk
from encore.data.synthesis import FloatArray, events_shared
from encore.data.synthesis.__main__ import main
from encore.data.synthesis.events import EVENTS, draw_event
from encore.data.synthesis.events_plucked import karplus_strong
from encore.data.synthesis.fsdkaggle2018 import LISTING, FsdKaggle2018, clip_name, make_clip
from encore.data.synthesis.vctk import LISTING as UTTERANCES
from encore.data.synthesis.vctk import SPEAKERS, Vctk, make_utterance, speaker_voices

PROGRAM = "python -m encore.data.synthesis"
RATE = 16_000
CLASSES = ("Knock", "Hi-hat", "Finger_snapping", "Bass_drum")  # quick ones
MEASURED = [
    "Acoustic_guitar",
    "Applause",
    "Bass_drum",
    "Chime",
    "Computer_keyboard",
    "Cowbell",
    "Double_bass",
    "Finger_snapping",
    "Fireworks",
    "Flute",
    "Glockenspiel",
    "Gong",
    "Hi-hat",
    "Keys_jangling",
    "Knock",
    "Snare_drum",
    "Tearing",
    "Telephone",
    "Trumpet",
    "Violin_or_fiddle",
]
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="needs the program flite")


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fsd") / "corpus"
    sizes = ["--train", "5", "--test", "2", "--seed", "3", "--workers", "2"]
    assert main(["fsdkaggle2018", str(out), *sizes, "--classes", *CLASSES]) == 0
    return out


def test_our_reader_finds_every_clip_by_zenodos_tables(sounds: Path) -> None:
    parts = {split: fsdkaggle2018(sounds, split, valid_every=5) for split in ("train", "valid", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 16, "valid": 4, "test": 8}
    assert all(labels_of(part) == tuple(sorted(CLASSES)) for part in parts.values())
    assert len({recording.name for part in parts.values() for recording in part}) == 28
    assert fsdkaggle2018(sounds, verified_only=True, valid_every=5) == parts["train"]
    truth = {Path(entry["fname"]).stem: entry["label"] for entry in _lines(sounds / LISTING)}
    for recording in (*parts["train"], *parts["valid"], *parts["test"]):
        assert truth[recording.name] == recording.label
        info = soundfile.info(recording.path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert 0.3 <= info.duration <= 5


def test_tables_have_the_columns_of_fsdkaggle2018(sounds: Path) -> None:
    meta = sounds / "FSDKaggle2018.meta"
    train, test = (
        list(csv.DictReader((meta / name).open()))
        for name in ("train_post_competition.csv", "test_post_competition_scoring_clips.csv")
    )
    assert list(train[0]) == ["fname", "label", "manually_verified", "freesound_id", "license"]
    assert list(test[0]) == ["fname", "label", "usage", "freesound_id", "license"]
    names = [row["fname"] for row in train]
    assert names == sorted(names)
    assert all(len(name) == 12 and int(name[:8], 16) >= 0 for name in names)
    # the order of names says nothing of the class
    assert len({row["label"] for row in train[:8]}) >= 3


def test_same_bytes_for_any_number_of_workers_and_a_small_corpus_is_part_of_a_large_one(
    sounds: Path, tmp_path: Path
) -> None:
    options = ["--train", "2", "--test", "1", "--seed", "3", "--workers", "1", "--classes", *CLASSES[1:]]
    assert main(["fsdkaggle2018", str(tmp_path), *options]) == 0
    files = list(tmp_path.rglob("*.wav"))
    assert len(files) == 3 * 3
    for path in files:
        assert path.read_bytes() == (sounds / path.relative_to(tmp_path)).read_bytes()


def test_names_differ_and_so_do_seeds_and_parts() -> None:
    everything = {
        clip_name(7, split, label, index)
        for split in ("train", "test")
        for label in FSD_CLASSES
        for index in (0, 1, 2, 1 << 19)
    }
    assert len(everything) == 2 * 41 * 4
    corpora = [FsdKaggle2018(out=Path("unused"), seed=seed) for seed in (0, 1)]
    drawn = [
        make_clip(corpora[0], "train", "Knock", 0),
        make_clip(corpora[0], "test", "Knock", 0),
        make_clip(corpora[0], "train", "Knock", 1),
        make_clip(corpora[1], "train", "Knock", 0),
    ]
    assert len({sound.tobytes() for sound in drawn}) == 4


def _log_mel(sound: FloatArray) -> FloatArray:
    """``(band, frame)`` in dB below the loudest, at least -60: 40 mel bands of 32 ms."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, 42) / 2595) - 1)
    hertz = np.fft.rfftfreq(512, 1 / RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)
    power = np.abs(stft(sound, RATE, nperseg=512, noverlap=256)[2]) ** 2
    decibels = 10 * np.log10(bank / np.maximum(bank.sum(1, keepdims=True), 1e-9) @ power + 1e-12)
    return np.maximum(decibels - decibels.max(), -60.0)


def _statistics(sound: FloatArray) -> FloatArray:
    mel = _log_mel(sound)
    change = np.abs(np.diff(mel, axis=1)).mean(1)
    return np.concatenate((mel.mean(1), mel.std(1), change, np.percentile(mel, 95, axis=1)))


@pytest.fixture(scope="module")
def drawn() -> tuple[FloatArray, FloatArray]:
    """Statistics ``(class, clip, feature)`` of 10 clips of 20 classes to learn from, and of 4 to test."""
    corpus = FsdKaggle2018(out=Path("unused"))
    train, test = (
        np.array(
            [
                [_statistics(make_clip(corpus, split, label, index)) for index in range(count)]
                for label in MEASURED
            ]
        )
        for split, count in (("train", 10), ("test", 4))
    )
    scale = train.std((0, 1))
    return train / scale, test / scale


def test_classes_are_distinct_to_a_nearest_centroid(drawn: tuple[FloatArray, FloatArray]) -> None:
    train, test = drawn
    centroids = train.mean(1)
    within = (train - centroids[:, None]).reshape(-1, train.shape[-1])
    # distances in units of the classes' common covariance, shrunk towards the identity
    values, vectors = np.linalg.eigh(within.T @ within / len(within) + 0.1 * np.eye(train.shape[-1]))
    whitened = vectors / np.sqrt(values)
    away = np.square((test[:, :, None] - centroids) @ whitened).sum(-1)
    right = away.argmin(-1) == np.arange(len(MEASURED))[:, None]
    assert right.mean() > 0.8  # 0.88; chance is 0.05


def test_no_class_is_one_sound(drawn: tuple[FloatArray, FloatArray]) -> None:
    train = drawn[0]
    apart = np.sqrt(np.square(train[:, :, None] - train[:, None]).mean(-1))
    clips = np.triu_indices(train.shape[1], 1)
    within = apart[:, clips[0], clips[1]]
    centroids = train.mean(1)
    between = np.sqrt(np.square(centroids[:, None] - centroids).mean(-1))
    # no two clips are nearly one, and those of any class vary at least a quarter as much as classes do
    assert within.min() > 0.05
    assert within.mean(1).min() > 0.25 * between[np.triu_indices(len(MEASURED), 1)].mean()


@pytest.mark.parametrize("label", EVENTS)
def test_an_event_sounds_from_the_beginning_at_any_rate(label: str) -> None:
    for rate in (16_000, 44_100):
        sound = draw_event(label, rate, np.random.default_rng(5))
        assert np.isfinite(sound).all()
        assert 0.3 <= len(sound) / rate <= 5
        peak = np.abs(sound).max()
        assert 10 ** (-18 / 20) <= peak <= 10 ** (-0.5 / 20)
        start = np.abs(sound[: rate // 4]).max()
        assert start > 10 ** (-40 / 20) * peak


def test_unknown_events_are_refused() -> None:
    with pytest.raises(ValueError, match=r"label must be one of Acoustic_guitar, .*, not 'Oboe'"):
        draw_event("Oboe", RATE, np.random.default_rng(0))
    assert set(EVENTS) <= set(FSD_CLASSES)


def test_a_mode_rings_as_the_closed_form_says() -> None:
    force = np.zeros(8000)
    force[0] = 1.0
    axis = np.arange(8000) / RATE
    two = events_shared.ringing(force, RATE, (440.0, 3000.0, 9000.0), (0.1, 0.05, 1.0), (1.0, 0.5, 9.0))
    # the third lies above 0.45 of the rate
    expected = sum(
        gain * np.exp(-axis / decay) * np.sin(2 * np.pi * hertz * (axis + 1 / RATE))
        for hertz, decay, gain in ((440, 0.1, 1.0), (3000, 0.05, 0.5))
    )
    np.testing.assert_allclose(two, expected, atol=1e-9)


@pytest.mark.parametrize("hertz", [82.41, 196.0, 659.3])
def test_a_plucked_string_has_its_pitch_and_decay(hertz: float) -> None:
    sound = karplus_strong(hertz, 1.0, RATE, np.random.default_rng(1), 1.0, 0.4, 0.2)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.size), 1 << 19))
    near = np.flatnonzero(np.abs(np.fft.rfftfreq(1 << 19, 1 / RATE) / hertz - 1) < 0.05)
    found = np.fft.rfftfreq(1 << 19, 1 / RATE)[near[spectrum[near].argmax()]]
    assert 1200 * np.log2(found / hertz) == pytest.approx(0, abs=4)  # cents
    early, late = (np.sqrt(np.square(sound[begin : begin + 3200]).mean()) for begin in (3200, 9600))
    # the loop gain of exp(-1 / 200) a turn, and no slower
    assert late / early < np.exp(-0.4 * hertz / 200) * 1.1


def test_strikes_have_their_area_and_rows_of_hits_ascend() -> None:
    force = events_shared.struck([0.1, 0.2], [1.0, 0.5], 0.5, RATE, contact=0.003)
    assert force.sum() == pytest.approx(1.5)
    assert np.flatnonzero(force)[0] == 1600
    for seed in range(50):
        rng = np.random.default_rng(seed)
        onsets, velocities = events_shared.hits(rng, single=0.2, most=9, per_second=(1, 8))
        assert onsets[0] == 0.02
        assert (np.diff(onsets) >= 0).all()
        assert onsets[-1] < 5
        assert velocities.shape == onsets.shape
        assert 0.2 <= velocities.min() <= velocities.max() <= 1
        for start, length, hertz in events_shared.melody(rng, 200, 800, most=8, seconds=(0.1, 1), longest=3):
            assert 200 <= hertz <= 801
            assert 0 <= start <= start + length <= 3.001


def test_scattered_onsets_follow_their_rate() -> None:
    rng = np.random.default_rng(0)
    rising = 100 * events_shared.moments(2.0)  # 200 expected, three quarters of them in the second half
    counts = np.array(
        [
            (len(onsets), (onsets > 1).sum())
            for onsets in (events_shared.scattered(rng, 2.0, rising) for _ in range(200))
        ]
    )
    assert counts.mean(0) == pytest.approx([200, 150], rel=0.03)
    assert counts[:, 0].var() == pytest.approx(200, rel=0.3)  # Poisson's


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    out = tmp_path_factory.mktemp("vctk") / "corpus"
    sizes = ["--speakers", "4", "--test-speakers", "2", "--utterances", "2", "--seed", "3"]
    assert main(["vctk", str(out), *sizes, "--workers", "2"]) == 0
    return out


def test_our_reader_finds_every_utterance(voices: Path) -> None:
    train, valid, test = (
        vctk(voices, split, test_speakers=2, valid_every=2) for split in ("train", "valid", "test")
    )
    assert [recording.name for recording in train] == ["p225_001", "p226_001"]
    assert [recording.name for recording in valid] == ["p225_002", "p226_002"]
    assert [recording.name for recording in test] == ["p227_001", "p227_002", "p228_001", "p228_002"]
    entries = {Path(entry["file"]).name: entry for entry in _lines(voices / UTTERANCES)}
    for recording in (*train, *valid, *test):
        entry = entries[recording.path.name]
        samples, rate = soundfile.read(recording.path, dtype="int16")
        assert (rate, samples.size) == (RATE, entry["frames"])
        assert recording.path.suffix == ".flac"
        assert 2 <= samples.size / rate <= 6
        level = 10 * np.log10(np.mean((samples / 32768) ** 2))
        assert level == pytest.approx(entry["level_db"], abs=0.05)
        text = voices / "txt" / str(recording.speaker) / f"{recording.name}.txt"
        assert text.read_text(encoding="utf-8").strip() == entry["text"]
        # noise fills the pauses, as loud as told
        frames = samples[: samples.size // 800 * 800].reshape(-1, 800) / 32768
        quietest = 10 * np.log10(np.square(frames).mean(1).min())
        assert quietest > entry["level_db"] + entry["noise_db"] - 4


def test_the_table_of_speakers_is_vctks(voices: Path) -> None:
    head, *rows = [line.split() for line in (voices / "speaker-info.txt").read_text().splitlines()]
    assert head[:3] == ["ID", "AGE", "GENDER"]
    assert [row[0] for row in rows] == ["p225", "p226", "p227", "p228"]
    assert [row[2] for row in rows] == ["F", "M", "F", "M"]
    assert len(SPEAKERS) == len(set(SPEAKERS)) == 110
    assert list(SPEAKERS) == sorted(SPEAKERS)
    assert {"p315", "p376", "s5"} < set(SPEAKERS)
    assert not {"p235", "p242", "p296", "p309"} & set(SPEAKERS)


def test_few_utterances_are_the_first_of_many(voices: Path, tmp_path: Path) -> None:
    options = [
        "--speakers",
        "4",
        "--test-speakers",
        "2",
        "--utterances",
        "1",
        "--seed",
        "3",
        "--workers",
        "1",
    ]
    assert main(["vctk", str(tmp_path), *options]) == 0
    files = [*tmp_path.rglob("*.flac"), tmp_path / "speaker-info.txt"]
    assert len(files) == 5
    for path in files:
        assert path.read_bytes() == (voices / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("seed", range(5))
def test_test_speakers_have_timbres_of_their_own_and_nobody_another_ones_voice(seed: int) -> None:
    corpus = Vctk(out=Path("unused"), speakers=110, seed=seed)
    drawn_voices = speaker_voices(corpus)
    assert tuple(drawn_voices) == SPEAKERS
    assert len(set(drawn_voices.values())) == 110
    timbres = [voice.variant for voice in drawn_voices.values()]  # type: ignore[union-attr]
    assert len(set(timbres[-10:])) == 10
    assert not set(timbres[-10:]) & set(timbres[:-10])
    assert speaker_voices(Vctk(out=Path("unused"), speakers=110, seed=seed + 9)) != drawn_voices


@needs_flite
def test_flite_tests_with_two_voices_and_trains_with_two() -> None:
    corpus = Vctk(out=Path("unused"), speakers=12, test_speakers=4, synthesiser="flite")
    names = [voice.name for voice in speaker_voices(corpus).values()]  # type: ignore[union-attr]
    assert names == ["kal16", "awb"] * 4 + ["slt", "rms"] * 2
    speech, entry = make_utterance(corpus, "p225", 1)
    assert entry["synthesiser"] == "flite"
    assert 2 * RATE <= speech.size <= 6 * RATE


def test_the_readmes_say_how_to_make_them_again(sounds: Path, voices: Path) -> None:
    ours = f"{PROGRAM} fsdkaggle2018 OUT --train 5 --test 2 --sample-rate 16000 --seed 3 --classes"
    assert f"{ours} {' '.join(CLASSES)}\n" in (sounds / "README.md").read_text(encoding="utf-8")
    theirs = f"{PROGRAM} vctk OUT --speakers 4 --utterances 2 --test-speakers 2 --sample-rate 16000"
    assert f"{theirs} --synthesiser espeak --seed 3\n" in (voices / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["vctk", "--sample-rate", "8000"], "sample_rate must be 16000 or 48000 Hz, not 8000"),
        (["vctk", "--speakers", "111"], "speakers must be 1 to 110, not 111"),
        (["vctk", "--utterances", "0"], "utterances must be 1 to 999, not 0"),
        (["vctk", "--speakers", "10"], "test_speakers must be 0 to 9 of 10 speakers, not 10"),
        (["vctk", "--test-speakers", "21"], "test_speakers must be 0 to 19 of 20 speakers, not 21"),
        (["vctk", "--seed", "-1"], "seed must not be negative, not -1"),
        (["vctk", "--synthesiser", "sam"], "synthesiser must be espeak or flite, not 'sam'"),
        (["vctk", "--workers", "0"], "workers must be at least 1, not 0"),
        (["fsdkaggle2018", "--sample-rate", "8000"], "sample_rate must be 16000 or 44100 Hz, not 8000"),
        (["fsdkaggle2018", "--train", "-1"], "train must be 0 to 1048576, not -1"),
        (["fsdkaggle2018", "--seed", "-1"], "seed must not be negative, not -1"),
        (["fsdkaggle2018", "--workers", "0"], "workers must be at least 1, not 0"),
        (["fsdkaggle2018", "--classes", "Gong", "Gong"], "classes must be named, each once"),
    ],
)
def test_command_line_refuses_in_one_line(
    options: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([options[0], str(tmp_path / "corpus"), *options[1:]]) == 1
    assert capsys.readouterr().err == f"error: {reason}\n"
    assert not (tmp_path / "corpus").exists()


def test_a_full_folder_is_kept_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    tiny = [
        "fsdkaggle2018",
        str(tmp_path),
        "--train",
        "1",
        "--test",
        "1",
        "--classes",
        "Knock",
        "--workers",
        "1",
    ]
    assert main(tiny) == 1
    assert "out is not empty" in capsys.readouterr().err
    assert main([*tiny, "--overwrite"]) == main([*tiny, "--overwrite", "--seed", "1"]) == 0
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert len(list(tmp_path.rglob("*.wav"))) == 2
