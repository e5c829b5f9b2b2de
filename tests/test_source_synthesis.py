"""Laws of the corpora of isolated sources, FSDKaggle2018 and VCTK, and of the tools of sound events."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import stft

from encore.data.source_corpora import FSD_CLASSES, fsdkaggle2018, labels_of, vctk
from encore.synthetic_corpora import FloatArray, dsp
from encore.synthetic_corpora.__main__ import main
from encore.synthetic_corpora.events import EVENTS, Rhythm, draw_event
from encore.synthetic_corpora.sound_corpora import FsdKaggle2018
from encore.synthetic_corpora.speech_corpora import VCTK_SPEAKERS

RATE = 16_000
CLASSES = ("Knock", "Hi-hat", "Cowbell", "Bass_drum")


def test_our_reader_finds_every_clip_by_zenodos_tables_and_columns(tmp_path: Path) -> None:
    sizes = "--train 5 --test 2 --seed 3 --classes"
    assert main(["fsdkaggle2018", str(tmp_path), *sizes.split(), *CLASSES]) == 0
    parts = {split: fsdkaggle2018(tmp_path, split, valid_every=5) for split in ("train", "valid", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 16, "valid": 4, "test": 8}
    assert all(labels_of(part) == tuple(sorted(CLASSES)) for part in parts.values())
    assert fsdkaggle2018(tmp_path, verified_only=True, valid_every=5) == parts["train"]
    entries = map(json.loads, (tmp_path / "clips.jsonl").read_text().splitlines())
    truth = {Path(entry["fname"]).stem: entry["label"] for entry in entries}
    found = [recording for part in parts.values() for recording in part]
    assert {recording.name: recording.label for recording in found} == truth
    for recording in found:
        info = soundfile.info(recording.path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert 0.3 <= info.duration <= 5
    names = ("train_post_competition.csv", "test_post_competition_scoring_clips.csv")
    train, test = (list(csv.DictReader((tmp_path / "FSDKaggle2018.meta" / name).open())) for name in names)
    assert list(train[0]) == ["fname", "label", "manually_verified", "freesound_id", "license"]
    assert list(test[0]) == ["fname", "label", "usage", "freesound_id", "license"]
    # sorted by name, which does not depend on the class
    assert [row["fname"] for row in train] == sorted(row["fname"] for row in train)
    assert len({row["label"] for row in train[:8]}) >= 3


def test_names_differ_and_so_do_seeds_and_parts() -> None:
    first, second = (FsdKaggle2018(out=Path(), seed=seed) for seed in (0, 1))
    places = [(split, index) for split in ("train", "test") for index in (0, 1, 1 << 19)]
    assert len({first.clip_name(*place, label) for place in places for label in FSD_CLASSES}) == 6 * 41
    made = [(first, "train", 0), (first, "test", 0), (first, "train", 1), (second, "train", 0)]
    clips = [next(iter(corpus.make(split, index, "Knock")[0].values())) for corpus, split, index in made]
    assert len({np.asarray(clip).tobytes() for clip in clips}) == 4


def _statistics(sound: FloatArray) -> FloatArray:
    """Mean, deviation, change and peaks of 40 mel bands of 32 ms, in dB below the loudest, at least -60."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), 42) / 2595) - 1)
    hertz, (low, middle, high) = np.fft.rfftfreq(512, 1 / RATE), (edges[n : 40 + n, None] for n in range(3))
    bank = np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)
    power = np.abs(stft(sound, RATE, nperseg=512, noverlap=256)[2]) ** 2
    decibels = 10 * np.log10(bank / np.maximum(bank.sum(1, keepdims=True), 1e-9) @ power + 1e-12)
    mel = np.maximum(decibels - decibels.max(), -60.0)
    change = np.abs(np.diff(mel, axis=1)).mean(1)
    return np.concatenate((mel.mean(1), mel.std(1), change, np.percentile(mel, 95, axis=1)))


def test_classes_are_distinct_to_a_nearest_neighbour_and_no_class_is_one_sound() -> None:
    rngs = [np.random.default_rng(seed) for seed in range(11)]
    drawn = np.array([[_statistics(draw_event(label, RATE, rng)) for rng in rngs] for label in EVENTS])
    drawn /= drawn.std((0, 1))
    train, test = drawn[:, :8], drawn[:, 8:]
    away = np.square(test[:, :, None, None] - train).mean(-1).min(-1)
    assert (away.argmin(-1) == np.arange(len(EVENTS))[:, None]).mean() > 0.85  # chance is 0.07
    apart = np.sqrt(np.square(train[:, :, None] - train[:, None]).mean(-1))[:, *np.triu_indices(8, 1)]
    centroids = train.mean(1)
    between = np.sqrt(np.square(centroids[:, None] - centroids).mean(-1))[np.triu_indices(len(EVENTS), 1)]
    # no two clips are nearly one, and those of any class vary at least a quarter as much as classes do
    assert apart.min() > 0.05
    assert apart.mean(1).min() > 0.25 * between.mean()


@pytest.mark.parametrize("label", EVENTS)
def test_an_event_sounds_from_the_beginning_at_any_rate(label: str) -> None:
    assert label in FSD_CLASSES
    for rate in (16_000, 44_100):
        sound = draw_event(label, rate, np.random.default_rng(5))
        assert 0.3 <= len(sound) / rate <= 5
        peak = np.abs(sound).max()
        assert 10 ** (-18 / 20) <= peak <= 10 ** (-0.5 / 20)
        assert np.abs(sound[: rate // 4]).max() > 10 ** (-40 / 20) * peak


def test_a_mode_rings_as_the_closed_form_says() -> None:
    force = dsp.struck([0.1, 0.2], [1.0, 0.5], 8000, RATE, contact=0.003)
    assert force.sum() == pytest.approx(1.5)
    assert np.flatnonzero(force)[0] == 1600
    axis, impulse = np.arange(8000) / RATE, np.eye(1, 8000)[0]
    # the third is above 0.45 of the rate
    two = dsp.ringing(impulse, RATE, (440.0, 3000.0, 9000.0), (0.1, 0.05, 1.0), (1.0, 0.5, 9.0))
    expected = sum(
        gain * np.exp(-axis / decay) * np.sin(2 * np.pi * hertz * (axis + 1 / RATE))
        for hertz, decay, gain in ((440, 0.1, 1.0), (3000, 0.05, 0.5))
    )
    np.testing.assert_allclose(two, expected, atol=1e-9)


@pytest.mark.parametrize("hertz", [82.41, 659.3])
def test_a_plucked_string_has_its_pitch_and_decay(hertz: float) -> None:
    sound = dsp.karplus_strong(hertz, RATE, RATE, np.random.default_rng(1), 1.0, 0.4)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.size), 1 << 19))
    near = np.flatnonzero(np.abs(np.fft.rfftfreq(1 << 19, 1 / RATE) / hertz - 1) < 0.05)
    found = np.fft.rfftfreq(1 << 19, 1 / RATE)[near[spectrum[near].argmax()]]
    assert 1200 * np.log2(found / hertz) == pytest.approx(0, abs=4)  # cents
    early, late = (np.sqrt(np.square(sound[begin : begin + 3200]).mean()) for begin in (3200, 9600))
    # the loop gain of exp(-1 / 200) a turn, and no slower
    assert late / early < np.exp(-0.4 * hertz / 200) * 1.1


def test_rows_of_notes_ascend_and_gaps_are_as_regular_as_their_rhythm() -> None:
    for shape in (1.0, 100.0):
        rhythm, gaps = Rhythm(200, 50, most=200, single=0, regularity=shape, pitches=0), []
        for seed in range(50):
            notes = rhythm.draw(np.random.default_rng(seed))
            own = np.diff([note.start for note in notes])
            assert notes[0].start == pytest.approx(0.02)
            assert own.min(initial=1) >= 0
            assert all(140 <= note.hertz <= 560 and 0.2 <= note.velocity <= 1 for note in notes)
            gaps.append(own.std() / own.mean() if own.size > 30 else np.nan)
        assert np.nanmean(gaps) == pytest.approx(shape**-0.5, rel=0.1)  # Poisson's is 1


def test_our_reader_finds_every_utterance_and_speaker(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    assert main(f"vctk {tmp_path} --speakers 4 --test-speakers 2 --utterances 2 --seed 3".split()) == 0
    lines = map(json.loads, (tmp_path / "utterances.jsonl").read_text(encoding="utf-8").splitlines())
    entries = {Path(entry["file"]).name: entry for entry in lines}
    found = []
    for split in ("train", "valid", "test"):
        found += vctk(tmp_path, split, test_speakers=2, valid_every=2)
    names = [f"p{speaker}_00{number}" for number in (1, 2) for speaker in (225, 226)]
    assert [recording.name for recording in found] == [*names, "p227_001", "p227_002", "p228_001", "p228_002"]
    for recording in found:
        entry = entries[recording.path.name]
        samples, rate = soundfile.read(recording.path, dtype="int16")
        assert (rate, samples.size, recording.path.suffix) == (RATE, entry["frames"], ".flac")
        assert 2 <= samples.size / rate <= 6
        power = np.square(samples[: samples.size // 800 * 800].reshape(-1, 800) / 32768).mean(1)
        assert 10 * np.log10(power.mean()) == pytest.approx(entry["level_db"], abs=0.1)
        # noise fills the pauses
        assert 10 * np.log10(power.min()) > entry["level_db"] + entry["noise_db"] - 4
        text = tmp_path / "txt" / str(recording.speaker) / f"{recording.name}.txt"
        assert text.read_text(encoding="utf-8").strip() == entry["text"]
    head, *rows = [line.split() for line in (tmp_path / "speaker-info.txt").read_text().splitlines()]
    assert head[:3] == ["ID", "AGE", "GENDER"]
    assert [(row[0], row[2]) for row in rows] == [("p225", "F"), ("p226", "M"), ("p227", "F"), ("p228", "M")]
    assert list(VCTK_SPEAKERS) == sorted(set(VCTK_SPEAKERS))
    assert len(VCTK_SPEAKERS) == 110
    assert {"p315", "p376", "s5"} < set(VCTK_SPEAKERS)
    assert not {"p235", "p242", "p296", "p309"} & set(VCTK_SPEAKERS)
