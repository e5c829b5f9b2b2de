"""Laws of recordings: which there are in packages, in a folder and in the sample, their splits and sizes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recording_toys import (
    CAT,
    FILES,
    RATE,
    SPLITS,
    UNUSED,
    lag,
    power_db,
    samples,
    sound,
    write,
)

import encore
from encore.data.recording_sources import (
    PACKAGES,
    SAMPLE,
    TABLE,
    Recording,
    find_recordings,
    read_recording,
    recording_size,
)
from encore.data.recordings import LibriMix


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
