"""Laws of corpora of recordings: seeds, layouts that our readers find, levels, splits, effects, mistakes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import encore
from encore.data import recording_effects
from encore.data.corpora import mixed_folders, voicebank_demand
from encore.data.pools import librimix_pools
from encore.data.recording_effects import damaged, reverberate
from encore.data.recording_sources import (
    PACKAGES,
    SAMPLE,
    TABLE,
    Recording,
    find_recordings,
    read_recording,
    recording_size,
)
from encore.data.recordings import LibriMix, Pools, RecordedCorpus, VoicebankDemand, main
from encore.data.speaker_corpora import TASKS, librimix

RATE = 16_000
SPLITS = ("train", "valid", "test")
UNUSED = Path("unused")
CAT = (
    '"Gale". Original "a.wav" by "one"',
    '"Steam engine going in tunnel". Original "s.wav"',
    '"Steam train station departure". Original "s.wav"',
    '"Wind". Original "w.wav" by "two"',
)
FILES = {  # below usr/share
    "asterisk-core-sounds-en-g722": "asterisk/sounds/en_US_f_A/: 1.g722 d/2.g722 silence/1.g722 beep.g722",
    "asterisk-core-sounds-es-g722": "asterisk/sounds/es_MX_f_A/: 1.g722",
    "asterisk-core-sounds-fr-g722": "asterisk/sounds/fr_CA_f_J/: 1.g722",
    "asterisk-core-sounds-ru-g722": "asterisk/sounds/ru_RU_f_I/: 1.g722",
    "asterisk-core-sounds-it-g722": "asterisk/sounds/it_IT_m_C/: 1.g722",
    "klettres-data": "klettres/: it/alpha/a.ogg lt/alpha/a.ogg ru/alpha/a.ogg en/alpha/a.ogg",
    "ktuberling-data": "ktuberling/sounds/: uk/a.ogg lt/a.wav sr/a.ogg sr@latin/a.ogg fi/a.ogg uk/x.txt",
    "fillets-ng-data-nl": "games/fillets-ng/sound/: cave/nl/a.ogg cave/cs/a.ogg",
    "sonic-pi-samples": "sonic-pi/samples/: loop_mehackit1.flac loop_mehackit2.flac perc_bell.flac "
    "perc_bell2.flac ambi_choir.flac tabla_ke1.flac",
    "openttd-opensfx": "games/openttd/baseset/opensfx/: opensfx.cat",
    "extremetuxracer-data": "games/etr/: sounds/mud_slide.wav music/start1-jt.ogg",
    "unknown-horizons": "unknown-horizons/content/audio/sounds/: smith.ogg chapel.ogg",
    "lincity-ng-data": "games/lincity-ng/sounds/: Farm1.wav Farm2.wav",
    "searchandrescue-data": "games/searchandrescue/sounds/: hh65/crash.wav",
    "bucklespring-data": "buckle/wav/: 01-0.wav",
    "asterisk-moh-opsound-g722": "asterisk/moh/: reno-morning_coffee.g722 x-robot_dity.g722 reno-system.g722",
}


def sound(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".cat":
        path.write_bytes(archive(path.with_suffix(".wav")))
    elif path.suffix in (".g722", ".txt"):
        path.write_bytes(np.random.default_rng(seed).bytes(RATE))
    else:
        soundfile.write(path, sound(2, 44_100, seed), 44_100)


def archive(scratch: Path) -> bytes:
    """OpenTTD's archive: starts, the first with the highest bit set, and sizes; then names and WAV files."""
    table, body = b"", b""
    for number, name in enumerate(CAT):
        soundfile.write(scratch, sound(2 + number, 44_100, number), 44_100)
        title, wav = name.encode() + b"\0", scratch.read_bytes()
        start = 8 * len(CAT) + len(body)
        first = 0 if number else 1 << 31
        table += (start | first).to_bytes(4, "little") + len(wav).to_bytes(4, "little")
        body += bytes([len(title)]) + title + wav
    scratch.unlink()
    return table + body


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages, each unpacked in a folder of its own, with a few short recordings."""
    root = tmp_path_factory.mktemp("packages")
    for number, (package, listed) in enumerate(FILES.items()):
        folder, names = listed.split(": ")
        for place, name in enumerate(names.split()):
            write(root / package / "usr/share" / folder / name, 100 * number + place)
    return root


def own_folder(root: Path, *rows: str) -> Path:
    """A user's folder of recordings, with a WAV file of 2 s for each row of the table that has none."""
    for seed, row in enumerate(rows):
        if not (file := root / row.split(",")[0]).exists():
            write(file, seed)
    (root / TABLE).write_text("\n".join(["file,kind,group,split", *rows]))
    return root


def entries(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "recordings.jsonl").read_text().splitlines()]


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0].astype(np.int64)


def pair(made: tuple[dict[str, Any], dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The clean and the noisy signal of `VoicebankDemand.make`, and the entry."""
    files, entry = made
    clean, noisy = (next(files[name] for name in files if f"/{kind}/" in name) for kind in ("clean", "noisy"))
    return clean / 32768, noisy / 32768, entry


def lag(signal: np.ndarray, reference: np.ndarray) -> int:
    """The shift of the reference at which it resembles the signal most, by phases, which no tone rules."""
    size = 2 * len(signal)
    spectrum = np.fft.rfft(signal, size) * np.fft.rfft(reference, size).conj()
    best = int(np.fft.irfft(spectrum / np.maximum(np.abs(spectrum), 1e-9), size).argmax())
    return best if best < size // 2 else best - size


def power_db(signal: np.ndarray) -> float:
    return 10 * float(np.log10((signal.astype(float) ** 2).mean()))


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
    heard: list[set[str]] = []

    def babble(
        self: RecordedCorpus, voices: dict[str, Any], frames: int, rng: np.random.Generator
    ) -> np.ndarray:
        heard.append(set(voices))
        return rng.standard_normal(frames).astype(np.float32)

    monkeypatch.setattr(RecordedCorpus, "babble", babble)
    mixed, noisy = LibriMix(out=UNUSED, sample_rate=8000), VoicebankDemand(out=UNUSED)
    for corpus, split in ((mixed, "train"), (noisy, "train"), (mixed, "test"), (noisy, "test")):
        heard.clear()
        made = [corpus.make(split, index)[1] for index in range(len(corpus.noises(split)) + 2)]
        crowds = [entry for entry in made if entry["noise"] == "babble"]
        assert bool(crowds) == (corpus is noisy or split == "train")  # a mixture takes both voices of "test"
        for entry, voices in zip(crowds, heard, strict=True):
            spoken = set(entry.get("speakers") or [entry["speaker"]])
            assert voices == set(corpus.voices(split)) - spoken


def test_what_is_never_divided_between_splits_is_not(tree: Path) -> None:
    for recordings in (find_recordings(), find_recordings(tree)):
        splits: dict[tuple[str, str], set[str]] = {}
        for own in recordings:
            splits.setdefault((own.kind, own.group), set()).add(own.split)
        assert all(len(several) == 1 for several in splits.values())
        assert {own.split for own in recordings if own.kind == "speech"} == set(SPLITS)
    for split in SPLITS:
        assert len(LibriMix(out=UNUSED).voices(split)) >= 2  # the sample makes every corpus by default


def test_packages_are_read_as_declared(tree: Path) -> None:
    found = {own.name: own for own in find_recordings(tree)}
    groups = {name: own.group for name, own in found.items()}
    assert {package.name for package in PACKAGES} == set(FILES)
    left_out = ("silence", "beep", "/en/", "sr@", "/fi/", "txt", "/cs/", "choir", "chapel", "Wind")
    assert not [name for name in found if any(part in name for part in left_out)]
    english, spanish = (f"asterisk-core-sounds-{name}" for name in ("en-g722/en_US_f_A", "es-g722/es_MX_f_A"))
    assert {
        groups[f"{english}/1.g722"],
        groups[f"{english}/d/2.g722"],
        groups[f"{spanish}/1.g722"],
    } == {"allison"}
    assert groups["klettres-data/lt/alpha/a.ogg"] == groups["ktuberling-data/lt/a.wav"] == "volunteer-lt"
    for one, other in (("loop_mehackit1", "loop_mehackit2"), ("perc_bell", "perc_bell2")):
        assert groups[f"sonic-pi-samples/{one}.flac"] == groups[f"sonic-pi-samples/{other}.flac"]
    steam = {own.split for name, own in found.items() if "Steam" in name}  # two sounds of one original
    assert steam == {"train"}
    test = {own.group for own in found.values() if own.split == "test" and own.kind != "noise"}
    assert test == {"carlo", "volunteer-it", "volunteer-uk", "asterisk-moh-opsound-g722/reno-morning_coffee"}
    # dealt by a hash that no process or version changes
    hashed = {"loop_mehackit1": "test", "perc_bell": "train"}
    assert {name: found[f"sonic-pi-samples/{name}.flac"].split for name in hashed} == hashed


def test_packages_in_one_folder_are_the_same_recordings(tree: Path, tmp_path: Path) -> None:
    for number, (_package, listed) in enumerate(FILES.items()):
        folder, names = listed.split(": ")
        for place, name in enumerate(names.split()):
            write(tmp_path / "usr/share" / folder / name, 100 * number + place)
    one, other = ([replace(own, path=UNUSED) for own in find_recordings(root)] for root in (tree, tmp_path))
    assert one == other


def test_sounds_of_an_archive_are_read_from_their_places(tree: Path) -> None:
    found = {own.name: own for own in find_recordings(tree) if own.place is not None}
    assert set(found) == {f"openttd-opensfx/{name}" for name in CAT if "Wind" not in name}
    for number, name in enumerate(CAT[:3]):
        own = found[f"openttd-opensfx/{name}"]
        expected = sound(2 + number, 44_100, number)
        actual, rate = read_recording(own)
        np.testing.assert_allclose(actual, expected, atol=1e-4)
        assert recording_size(own) == (len(expected), 44_100) == (len(actual), rate)


def test_sizes_are_those_of_the_decoded_recordings(tree: Path) -> None:
    pytest.importorskip("av")
    for own in [*find_recordings(tree), *find_recordings()]:
        decoded, rate = read_recording(own)
        assert recording_size(own) == (len(decoded), rate)


def test_g722_is_decoded(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    white = np.random.default_rng(0).standard_normal(RATE)
    low = 0.1 * np.convolve(white, np.hanning(9), "same")
    with av.open(str(tmp_path / "low.g722"), "w", format="g722") as file:
        stream = file.add_stream("g722", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.int16(low * 32768)[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    decoded, rate = read_recording(Recording(tmp_path / "low.g722", "low", "speech", "me", "test"))
    assert (rate, len(decoded)) == (RATE, len(low))
    delay = lag(decoded.numpy(), low)
    error = decoded.numpy()[delay:] - low[: len(low) - delay]
    assert 0 <= delay < 40
    assert power_db(error) < power_db(low) - 20


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


def test_the_sample_is_as_its_table_says_and_its_licences_are_in_the_notice() -> None:
    rows = list(csv.DictReader((SAMPLE / TABLE).open(encoding="utf-8")))
    notice = (Path(encore.__file__).parent / "NOTICE").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*")) < 8.5e6
    assert sorted(row["file"] for row in rows) == sorted(
        path.relative_to(SAMPLE).as_posix() for path in SAMPLE.rglob("*.flac")
    )
    for row in rows:
        info = soundfile.info(SAMPLE / row["file"])
        assert row["file"].split("/")[0] == row["kind"]
        assert info.channels == 1
        assert info.samplerate == 44_100 or (row["kind"], info.samplerate) == ("speech", 16_000)
        assert info.duration >= 1.5
        assert power_db(samples(SAMPLE / row["file"]) / 32768) > -45
        assert row["author"].strip()
        assert row["licence"] in notice


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
