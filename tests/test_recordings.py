"""Laws of corpora of recordings: seeds, layouts that our readers find, levels, splits, effects, mistakes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from recording_toys import (
    FILES,
    RATE,
    UNUSED,
    lag,
    own_folder,
    power_db,
    samples,
    sound,
)

from encore.data import recording_effects
from encore.data.corpora import mixed_folders, voicebank_demand
from encore.data.pools import librimix_pools
from encore.data.recording_effects import damaged, reverberate
from encore.data.recording_sources import (
    TABLE,
    find_recordings,
)
from encore.data.recordings import LibriMix, Pools, RecordedCorpus, VoicebankDemand, main
from encore.data.speaker_corpora import TASKS, librimix


def entries(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "recordings.jsonl").read_text().splitlines()]


def pair(made: tuple[dict[str, Any], dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The clean and the noisy signal of `VoicebankDemand.make`, and the entry."""
    files, entry = made
    clean, noisy = (next(files[name] for name in files if f"/{kind}/" in name) for kind in ("clean", "noisy"))
    return clean / 32768, noisy / 32768, entry


LAYOUTS = {
    "pools": "--babbles 3 --coloured 1",
    "voicebank_demand": "--train 2 --valid 1 --test 2 --damage 0.5 --silent 0.2",
    "librimix": "--train 2 --valid 1 --test 1",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_depend_on_the_seed_but_not_on_workers(layout: str, tmp_path: Path) -> None:
    def run(seed: int, workers: int) -> dict[str, bytes]:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        options = f"{layout} {root} {LAYOUTS[layout]} --seed {seed} --workers {workers}"
        assert main(options.split()) == 0
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*")}

    one, other = run(3, 1), run(4, 1)
    assert run(3, 2 if layout == "voicebank_demand" else 1) == one
    drawn = ("babble", "coloured") if layout == "pools" else ("",)  # nothing else in pools is random
    audio = [name for name in one if name.endswith((".wav", ".flac")) and any(kind in name for kind in drawn)]
    assert len(audio) >= 4
    assert all(one[name] != other.get(name) for name in audio)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_pools_are_found_by_our_reader_with_every_recording_once(rate: int, tmp_path: Path) -> None:
    assert main(f"pools {tmp_path} --babbles 10 --coloured 1 --sample-rate {rate} --workers 1".split()) == 0
    found = {name: own for own in find_recordings() for name in [own.name]}
    used = Counter(name for entry in entries(tmp_path) for name in entry.get("recordings", ()))
    wanted = [
        own for own in found.values() if own.split != "test" and (rate < 48_000 or "horizons" in own.name)
    ]
    assert {name for name in used if found[name].kind == "speech"} == {
        own.name for own in wanted if own.kind == "speech"
    }
    assert set(used.values()) == {1}
    assert {found[name].split for name in used} == {"train", "valid"}
    for split in ("train", "valid"):
        pools = mixed_folders({kind: tmp_path / split / kind for kind in ("speech", "noise")})
        for file in (file for files in pools.values() for file in files):
            info = soundfile.info(file)
            assert (info.samplerate, info.channels, info.subtype) == (rate, 1, "PCM_16")
        babbles = sum("babble" in str(file) for file in pools["noise"])
        assert babbles == (
            0 if rate == 48_000 else {"train": 10, "valid": 1}[split]
        )  # of several voices only


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_noisy_speech_is_found_by_our_reader_at_its_snrs_with_all_noises_in_turn(
    rate: int, tmp_path: Path
) -> None:
    kinds = len(VoicebankDemand(out=UNUSED).noises("test")) + (2 if rate == RATE else 0)  # and babble twice
    command = f"voicebank_demand {tmp_path} --train 3 --valid 2 --test {2 * kinds} --seed 1"
    assert main([*command.split(), "--sample-rate", str(rate), "--workers", "1"]) == 0
    made = {Path(entry["file"]).stem: entry for entry in entries(tmp_path)}
    for split, count in {"train": 3, "valid": 2, "test": 2 * kinds}.items():
        items = voicebank_demand(tmp_path, split)  # type: ignore[arg-type]
        assert len(items) == count
        for item in items:
            entry = made[item.name]
            assert item.mixture is not None
            noisy, clean = (samples(path) for path in item.files)
            assert soundfile.info(item.mixture).samplerate == rate
            assert len(noisy) == len(clean) >= (4 - 0.4) * rate
            assert power_db(clean) - power_db(noisy - clean) == pytest.approx(entry["snr_db"], abs=0.02)
            assert abs(entry["snr_db"] - 5) <= (10 if split == "train" else 5)
            assert max(np.abs(noisy).max(), np.abs(clean).max()) <= 0.9901 * 32768
            assert (entry["split"], entry["silent"], entry["damage"], entry["room"]) == (
                split,
                False,
                None,
                None,
            )
    noises = [entry["noise"] for entry in made.values() if entry["split"] == "test"]
    turns = [Counter(noises[:kinds]), Counter(noises[kinds:])]
    assert turns[0] == turns[1]
    assert noises[:kinds] != noises[kinds:]
    assert turns[0].pop("babble", 0) == (2 if rate == RATE else 0)
    assert set(turns[0].values()) == {1}


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_librimix_is_found_by_our_reader_and_mixtures_are_sums_to_the_bit(rate: int, tmp_path: Path) -> None:
    command = f"librimix {tmp_path} --train 3 --valid 1 --test 2 --sample-rate {rate} --workers 1"
    assert main(command.split()) == 0
    made = entries(tmp_path)
    for split, subset in {"train": "train-100", "valid": "dev", "test": "test"}.items():
        listed = sorted(entry["mixture_ID"] for entry in made if entry["subset"] == subset)
        for task in TASKS:
            items = librimix(tmp_path, split, task=task, sample_rate=rate)  # type: ignore[arg-type]
            assert [item.name for item in items] == listed
    for entry in made:
        assert len(set(entry["speakers"])) == 2
        folder = tmp_path / f"Libri2Mix/wav{rate // 1000}k/min" / entry["subset"]
        parts = {path.name: samples(path / f"{entry['mixture_ID']}.wav") for path in folder.iterdir()}
        assert {len(part) for part in parts.values()} == {entry["frames"]}
        np.testing.assert_array_equal(parts["mix_clean"], parts["s1"] + parts["s2"])
        np.testing.assert_array_equal(parts["mix_both"], parts["mix_clean"] + parts["noise"])
        np.testing.assert_array_equal(parts["mix_single"], parts["s1"] + parts["noise"])
        assert all(-33.1 <= power_db(parts[name] / 32768) <= -24.9 for name in ("s1", "s2"))
    # horizons-de and horizons-fr are two speakers to readers, which split names at - and _
    pools: Any = librimix_pools(tmp_path, "test", sample_rate=rate)["speaker1"]
    assert set(pools) == {"carlo", "horizonsde"}


def test_a_peak_above_the_largest_scales_all_parts_of_librimix_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = LibriMix(out=UNUSED)
    plain = [np.asarray(part) for part in corpus.make("valid", 0)[0].values()]
    monkeypatch.setattr(LibriMix, "largest_peak", 0.01)
    scaled = [np.asarray(part) for part in corpus.make("valid", 0)[0].values()]
    moved = [power_db(own) - power_db(other) for own, other in zip(scaled, plain, strict=True)]
    assert len(moved) == 6
    assert moved == pytest.approx([moved[0]] * 6, abs=0.05)
    assert moved[0] < -10
    assert 320 < max(np.abs(part.astype(int)).max() for part in scaled) <= 0.01 * 32768 + 2


def test_babble_is_of_others_than_the_speakers_and_absent_without_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowds_of: list[set[str]] = []

    def babble(
        self: RecordedCorpus, voices: dict[str, Any], frames: int, rng: np.random.Generator
    ) -> np.ndarray:
        crowds_of.append(set(voices))
        return rng.standard_normal(frames).astype(np.float32)

    monkeypatch.setattr(RecordedCorpus, "babble", babble)
    mixed, noisy = LibriMix(out=UNUSED, sample_rate=8000), VoicebankDemand(out=UNUSED)
    for corpus, split in ((mixed, "train"), (noisy, "train"), (mixed, "test"), (noisy, "test")):
        crowds_of.clear()
        made = [corpus.make(split, index)[1] for index in range(len(corpus.noises(split)) + 2)]
        crowds = [entry for entry in made if entry["noise"] == "babble"]
        assert bool(crowds) == (corpus is noisy or split == "train")  # a mixture takes both voices of "test"
        for entry, voices in zip(crowds, crowds_of, strict=True):
            spoken = set(entry.get("speakers") or [entry["speaker"]])
            assert voices == set(corpus.voices(split)) - spoken


def test_loud_short_and_empty_recordings_of_an_own_folder(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "slow.wav", sound(2, 8000), 8000)
    soundfile.write(tmp_path / "loud.wav", 30 * sound(2, 44_100), 44_100, subtype="FLOAT")
    soundfile.write(tmp_path / "click.wav", sound(0.1, 44_100), 44_100)
    rows = ("empty.wav,speech,me,test", "slow.wav,speech,me,test", "loud.wav,speech,me,test")
    root = own_folder(
        tmp_path, *rows, "click.wav,noise,click,test", "fan.wav,noise,fan,test", "b.wav,speech,b,valid"
    )
    corpus = VoicebankDemand(out=UNUSED, root=str(root))
    assert {voice: [own.name for own in members] for voice, members in corpus.voices("test").items()} == {
        "me": ["loud.wav"]
    }
    assert [own.name for own in corpus.noises("test")] == ["fan.wav"]
    for index in range(3):  # one voice alone is no babble
        clean, noisy, entry = pair(corpus.make("test", index))
        assert entry["noise"] == "fan.wav"
        assert power_db(clean) - power_db(noisy - clean) == pytest.approx(entry["snr_db"], abs=0.02)
    files, entry = Pools(out=UNUSED, root=str(root)).make("valid", "speech", "b")
    assert [*files] == ["valid/speech/b/0000.flac"]
    assert entry["recordings"] == ["b.wav"]
    assert np.abs(corpus.read(corpus.voices("test")["me"][0])).max() == pytest.approx(0.99)


def test_direct_path_in_a_room_is_the_dry_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    acoustics: Any = pytest.importorskip("pyroomacoustics")
    speech = sound(1, RATE).astype(np.float32)
    for seed in range(8):
        room, wet = reverberate(speech, RATE, np.random.default_rng(seed))
        assert len(wet) == len(speech)
        assert lag(wet, speech) == 0
        assert power_db(wet - speech) > power_db(speech) - 20
        assert 0.2 <= room["rt60"] <= 0.6
        monkeypatch.setattr(acoustics, "inverse_sabine", lambda *_: (0.5, 0))  # no reflections
        alone, direct = reverberate(speech, RATE, np.random.default_rng(seed))
        monkeypatch.undo()
        assert alone == room
        assert power_db(direct - speech) < power_db(speech) - 30


def test_noisy_files_in_rooms_are_aligned_with_their_reference() -> None:
    pytest.importorskip("pyroomacoustics")
    dry, wet = (VoicebankDemand(out=UNUSED, room=room) for room in (0.0, 1.0))
    for index in range(3):
        clean, noisy, entry = pair(wet.make("test", index))
        assert entry["room"]["metres"] > 0
        assert lag(noisy, clean) == 0
        assert power_db(noisy - clean) > power_db(clean) - entry["snr_db"]  # reverberation beside the noise
        other = pair(dry.make("test", index))[0]
        gain = np.abs(clean).max() / np.abs(other).max()
        np.testing.assert_allclose(clean, gain * other, atol=1e-3)


def test_damage_keeps_length_and_alignment() -> None:
    noisy = pair(VoicebankDemand(out=UNUSED).make("test", 0))[1].astype(np.float32)
    above = np.fft.rfftfreq(len(noisy), 1 / RATE) > 6200
    high = power_db(np.abs(np.fft.rfft(noisy))[above])
    kinds = set()
    for seed in range(12):
        kind, changed = damaged(noisy, RATE, np.random.default_rng(seed))
        kinds.add(kind)
        assert len(changed) == len(noisy)
        assert lag(changed, noisy) == 0
        assert -40 < power_db(changed - noisy) - power_db(noisy) < -3
        if kind == "clipped":
            assert 0.19 < np.abs(changed).max() / np.abs(noisy).max() < 0.61
        if kind == "band-limited":
            assert power_db(np.abs(np.fft.rfft(changed))[above]) < high - 30
    assert kinds == {"clipped", "band-limited", "coded"}
    clean, damaged_noisy, entry = pair(VoicebankDemand(out=UNUSED, damage=1.0).make("test", 0))
    assert entry["damage"] in kinds
    assert lag(damaged_noisy, clean) == 0


def test_silent_files_have_a_silent_reference_and_noise() -> None:
    clean, noisy, entry = pair(VoicebankDemand(out=UNUSED, silent=1.0).make("test", 0))
    assert entry["silent"]
    assert not clean.any()
    assert power_db(noisy) > -70


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.wav,sound,me,test", "line 3: kind=sound: write one of speech, noise, music"),
        ("a.wav,noise,me,dev", "line 3: split=dev: write one of train, valid, test"),
        ("a.wav,noise,,test", "line 3: group is missing"),
        ("a.wav,noise,fan,test", "line 3: split=test: group fan is in 'train' above"),
        ("gone/a.wav,noise,me,test", "a.wav is missing: correct the path"),
    ],
)
def test_a_bad_row_is_told_in_a_line(
    row: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = own_folder(tmp_path, "fan.wav,noise,fan,train", row)
    if "gone" in row:
        (root / "gone/a.wav").unlink()
    assert main(["voicebank_demand", str(tmp_path / "out"), "--root", str(root)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{TABLE}, line 3" in line
    assert said in line
    assert not (tmp_path / "out").exists()


def test_missing_packages_and_voices_are_told_in_a_line(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(options: str) -> str:
        assert main(options.split()) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "out").exists()
        return line

    for package in set(FILES) - {"klettres-data", "openttd-opensfx"}:
        (tmp_path / package).symlink_to(tree / package)
    line = said(f"pools {tmp_path / 'out'} --root {tmp_path}")
    assert "the packages klettres-data openttd-opensfx: apt install" in line
    assert "dpkg -x" in line
    assert "--root FOLDER" in line
    line = said(f"librimix {tmp_path / 'out'} --speakers 3")
    assert "'valid' has 2 voices at 8000 Hz, but 3 are needed" in line
    assert "--valid 0" in line


def test_effects_of_silence_and_short_noise() -> None:
    rng = np.random.default_rng(0)
    assert not recording_effects.at_rms(np.zeros(10)).any()
    ramp = np.arange(10.0)
    np.testing.assert_array_equal(recording_effects.tiled(ramp, 25, rng) % 10, np.resize(ramp, 25))
    part = recording_effects.tiled(np.arange(100.0), 30, rng)
    np.testing.assert_array_equal(np.diff(part), np.ones(29))
