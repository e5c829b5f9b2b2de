"""Laws of what synthetic corpora are made of: speech, noise, rooms, instruments, songs and sound events."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import stft

from encore.data.source_corpora import FSD_CLASSES
from encore.synthetic_corpora import FloatArray, dsp, speech
from encore.synthetic_corpora.events import EVENTS, Rhythm, draw_event
from encore.synthetic_corpora.instruments import INSTRUMENTS
from encore.synthetic_corpora.noise import NOISES, draw_noise
from encore.synthetic_corpora.song import STEMS, bass, compose, panned
from encore.synthetic_corpora.speech import FLITE, SynthesisError, Voice, draw_utterance
from encore.synthetic_corpora.speech_corpora import VoicebankDemand
from encore.synthetic_corpora.text import draw_sentence

pytest.importorskip("espeakng_loader")

RATE = 16_000
VOICE = Voice(base="en-us", timbre="m3")
TEXT = "The quick brown fox jumps over the lazy dog near forty two houses."
SLT = Voice(base=FLITE, timbre="slt", rate=140.0, pitch=60.0)


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
    voices = [Voice(base="en-us", timbre=name, shift=1.05) for name in ("klatt6", "f4")]
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
    dry, wet = (VoicebankDemand(out=Path("unused"), room=room).make("test", 0)[0] for room in (0, 1))
    (clean, noisy), (same, echoing) = dry.values(), wet.values()
    assert np.corrcoef(clean, same)[0, 1] == pytest.approx(1)
    noise_to_speech = [
        np.square(mixed - reference, dtype=float).sum() / np.square(reference, dtype=float).sum()
        for mixed, reference in ((echoing, same), (noisy, clean))
    ]
    assert noise_to_speech[0] > noise_to_speech[1]


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


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs the program flite")
def test_a_corpus_of_flite_has_its_voices_tempo_and_bytes(tmp_path: Path) -> None:
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
    plain, fast = (
        replace(SLT, rate=rate, shift=shift).say(TEXT, RATE) for rate, shift in ((175, 1), (218.75, 1.1))
    )
    assert np.abs(plain).max() == pytest.approx(1)
    assert fast.size == pytest.approx(plain.size / 1.25, rel=0.03)


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
    force = dsp.struck([0.1, 0.2], [1.0, 0.5], 8000, RATE)
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


def test_panning_keeps_the_power_and_leans_to_its_side() -> None:
    for place in (-1.0, 0.0, 0.7):
        left, right = panned(np.ones(1), place)[0]
        # constant power: the angle between the sides is proportional to the place
        assert [left**2 + right**2, np.arctan2(right, left)] == pytest.approx([1, (place + 1) * np.pi / 4])


def strongest_class(sound: np.ndarray) -> int:
    """Pitch class of the best fundamental from 40 to 140 Hz, by its octaves."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 8 * 22050))
    candidates = np.arange(28, 49)
    bins = np.round(440 * 2 ** ((candidates - 69) / 12) * 8).astype(int)
    return int(candidates[np.argmax(sum(spectrum[bins * octave] for octave in (1, 2, 4)))] % 12)


def test_the_bass_begins_bars_with_the_root_of_the_chord() -> None:
    hits = []
    for seed in range(4):
        song, rng = compose(20.0, np.random.default_rng(seed)), np.random.default_rng(seed)
        ((name, notes),) = bass(song, rng).items()
        track = INSTRUMENTS[name].play(notes, 20 * 22050, 22050, rng)
        for bar in song.playing("bass"):
            part = track[round(bar.start * 22050) :][: round(60 / song.tempo * 22050)]
            if len(part) > 0.3 * 22050:
                hits.append(strongest_class(part) == bar.chord[0])
    # by chance one in twelve; short notes and what follows within the beat blur the rest
    assert np.mean(hits) > 0.6


def test_songs_differ_and_their_bars_follow_each_other() -> None:
    songs = [compose(60.0, np.random.default_rng(seed)) for seed in range(40)]
    assert len({song.tempo for song in songs}) == 40
    assert len({(song.scale[0], song.mode) for song in songs}) >= 20
    assert {song.beats for song in songs} == {3, 4}
    for song in songs:
        length, starts = song.beats * 60 / song.tempo, [bar.start for bar in song.bars]
        np.testing.assert_allclose(np.diff(starts), length)
        assert starts[-1] < 60.0 <= starts[-1] + length + 1e-9
        assert all(set(bar.chord) <= set(song.scale) for bar in song.bars)
        own = [[bar.start for bar in song.playing(stem)] for stem in STEMS]
        assert all(bars[0] < 10 and len(bars) >= len(song.bars) / 2 for bars in own)
