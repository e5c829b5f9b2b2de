"""What infer.py says of files and options that it cannot use, one line each."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from infer_toys import (
    RATE,
    audio_files,
    one_step,
    oracle,
    read,
    run,
    scores,
    separator_file,
    signals,
    write_pair,
)

SAMPLES = signals(8000, RATE)[1]


def bad_files(noisy: Path) -> dict[str, str]:
    """Write bad inputs; return what must be said of each."""
    noisy.mkdir()
    (noisy / "empty.wav").write_bytes(b"")
    (noisy / "text.wav").write_text("this is no audio\n" * 10)
    for suffix in ("wav", "flac"):
        soundfile.write(noisy / f"whole.{suffix}", SAMPLES, RATE)
        whole = (noisy / f"whole.{suffix}").read_bytes()
        (noisy / f"truncated.{suffix}").write_bytes(whole[: len(whole) // 2])
        (noisy / f"whole.{suffix}").unlink()
    soundfile.write(noisy / "no_samples.wav", SAMPLES[:0], RATE)
    soundfile.write(noisy / "one_sample.wav", SAMPLES[:1], RATE)
    for name, value in (("nan.wav", np.nan), ("infinite.wav", np.inf)):
        bad = SAMPLES.copy()
        bad[-5] = value
        soundfile.write(noisy / name, bad, RATE, subtype="FLOAT")
    return {
        "empty.wav": "empty",
        "text.wav": "not audio",
        "truncated.wav": "truncated",
        "truncated.flac": "copy it again",
        "no_samples.wav": "no samples",
        "one_sample.wav": "one sample",
        "nan.wav": "NaN or infinite",
        "infinite.wav": "NaN or infinite",
    }


@pytest.mark.parametrize("segment", [30, 0.2])
def test_bad_files_are_named_and_the_good_ones_done(
    tmp_path: Path, mono: str, capsys, segment: float
) -> None:
    """Also where the fault lies behind segments that are done; no part of such a file stays."""
    reasons = bad_files(tmp_path / "noisy")
    for name in ("good.wav", "zz.wav"):
        write_pair(tmp_path, name)
    arguments = one_step(tmp_path, mono, tmp_path / "noisy", tmp_path / "missing.wav")
    cuts = ["--segment", segment, "--set", "method.overlap_seconds=0.05"]
    assert run(*arguments, *cuts) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(reasons) + 1
    for name, reason in {**reasons, "missing.wav": "no such file"}.items():
        (line,) = [line for line in errors if f"{name}:" in line]
        assert reason in line
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.wav", "zz.wav"]


@pytest.mark.usefixtures("few_metrics")
def test_references_that_do_not_fit_are_errors_of_their_file(tmp_path: Path, mono: str, capsys) -> None:
    for name in ("good.wav", "slow.wav", "short.wav", "alone.wav", "wide.wav"):
        write_pair(tmp_path, name)
    clean, _ = signals(8000, RATE, 2)
    soundfile.write(tmp_path / "clean" / "short.wav", clean[:7999, :1], RATE)
    soundfile.write(tmp_path / "clean" / "wide.wav", clean, RATE)
    # another rate is fine if it lasts as long
    soundfile.write(tmp_path / "clean" / "slow.wav", signals(24000, 48000)[0], 48000)
    (tmp_path / "clean" / "alone.wav").unlink()
    assert run(*oracle(tmp_path, mono, scored=True)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    for name, words in (("short", "7999 samples"), ("alone", "has no reference"), ("wide", "channels")):
        (line,) = [line for line in errors if f"{name}.wav:" in line]
        assert words in line
    assert audio_files(tmp_path / "out") == ["good.wav", "slow.wav"]
    assert set(scores(tmp_path / "out")["item"]) == {"good.wav", "slow.wav"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--guide", "si_sdr"], "is an oracle; give --reference"),
        (["--guide", "dnsmos_ovl"], "--guide dnsmos_ovl: there is no such guide; use dnsmos_ovrl, "),
        (["--guide", "speech_jont"], "there is no such guide; use speech_joint"),
        (["--set", "method.serach.candidates=3"], "did you mean method.search"),
        (["--set", "candidates=3"], "write method.KEY=VALUE"),
        (["--set", "method.path=middle"], "choose endpoint or state"),
        (["--set", "method.search={_target_: encore.inference.GridSerach}"], "GridSerach"),
        (["--set", "method.segment_seconds=0"], "segment_seconds=0: must be above 0"),
        (["--set", "method.overlap_seconds=30"], "overlap_seconds=30: must be"),
        (["--set", "method.overlap_seconds=-1"], "overlap_seconds=-1: must be"),
        (
            ["--no-scores", "--segment", "2e-4", "--set", "method.overlap_seconds=19e-5"],
            "segment=3, overlap=3",
        ),
        (["--set", "method.wiener=both"], "wiener=both: choose single or multi"),
        (["--set", "method.level=loud"], "level=loud: choose mixture or own"),
        (["--set", "method.noise=-1"], "noise=-1: give 0 or more"),
        (["--steps", "-1"], "steps=-1"),
        (["--candidates", "0"], "candidates=0"),
        (["--method", "one_step", "--steps", "2"], "--method one_step has none"),
        (["--separator", "no/such.ckpt"], "no/such.ckpt"),
        (["--reference", "no/such/folder"], "no such folder"),
        (["--device", "cuda:77"], "--device cuda:77: not available"),
        (["--device", "nonsense"], "--device nonsense: not available"),
        (["--sources", "singing"], "--sources singing: 'singing' is none of speech, noise"),
        (["--sources", "noise,noise"], "give different names"),
        (["--sources", "noise", "--set", "method.consistency=uniform"], "leave one of them out"),
        (["--filename", "{x}.wav"], "{x} is unknown"),
        (["--format", "m4a"], "--format m4a: cannot be written"),
        (["--no-scores", "--flac", "--float32"], "FLAC cannot hold --subtype FLOAT"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_done(
    tmp_path: Path, two: str, capsys, options: list[str], words: str
) -> None:
    write_pair(tmp_path, "a.wav")
    separator = [] if "--separator" in options else ["--separator", two]
    assert run(tmp_path / "noisy", "-o", tmp_path / "out", *separator, *options) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert words in errors
    assert not (tmp_path / "out").exists()


def test_a_file_below_the_guides_rate_is_guided_all_the_same_and_noted(
    tmp_path: Path, mono: str, capsys
) -> None:
    write_pair(tmp_path, "telephone.wav", 4000, 8000)
    assert run(tmp_path / "noisy", "-o", tmp_path / "out", "--separator", mono, "--steps", 2) == 0
    assert "telephone.wav: the guide scores it upsampled from 8000 Hz" in capsys.readouterr().err
    rows = scores(tmp_path / "out")
    guided = rows[(rows["metric"] == "dnsmos_ovrl") & (rows["kind"] == "blind")].sort_values("step")["value"]
    assert len(guided) == 3
    assert guided.is_monotonic_increasing
    # nothing else that wants 16 kHz is measured of it
    assert set(rows["metric"]) == {"dnsmos_ovrl"}


def test_a_separator_below_the_guides_rate_is_an_error_with_a_way_out(tmp_path: Path, capsys) -> None:
    write_pair(tmp_path, "telephone.wav", 4000, 8000)
    slow = separator_file(tmp_path, "slow", rate=8000)
    arguments = [tmp_path / "noisy", "-o", tmp_path / "out", "--no-scores", "--steps", 1]
    assert run(*arguments, "--separator", slow) == 1
    message = capsys.readouterr().err
    assert "sample_rate=8000 is below the 16000 Hz that 'dnsmos_ovrl' needs" in message
    assert f"--separator '{slow}?sample_rate=16000'" in message
    assert run(*arguments, "--separator", f"{slow}?sample_rate=16000") == 0


def test_flac_cannot_hold_floats(tmp_path: Path, mono: str, capsys) -> None:
    write_pair(tmp_path, "a.flac")
    write_pair(tmp_path, "b.wav")
    assert run(*one_step(tmp_path, mono), "--subtype", "FLOAT") == 1
    assert "a.flac: FLAC cannot hold --subtype FLOAT" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "out" / "b.wav").subtype == "FLOAT"


@pytest.mark.usefixtures("few_metrics")
@pytest.mark.parametrize("segment", [30, 0.2])
def test_silence_clipping_and_a_silent_channel_are_noted(
    tmp_path: Path, mono: str, capsys, segment: float
) -> None:
    samples = signals(8000, RATE, 2)[1]
    late = samples[:, :1].copy()
    late[:4000] = 0
    noisy = {
        "silent.wav": np.zeros((8000, 1)),
        "clipped.wav": np.clip(9 * samples[:, :1], -1, 1),
        "half.wav": samples * [1, 0],
        "late.wav": late,
    }
    for name, own in noisy.items():
        write_pair(tmp_path, name, channels=own.shape[1])
        soundfile.write(tmp_path / "noisy" / name, own, RATE)
    cuts = ["--segment", segment, "--set", "method.overlap_seconds=0.05"]
    assert run(*oracle(tmp_path, mono, scored=True), *cuts) == 0
    notes = capsys.readouterr().err
    assert "silent.wav: silent: silence is written" in notes
    assert "clipped.wav: clipped" in notes
    assert "half.wav: channel 2 of 2 is silent" in notes
    assert "late.wav: silent" not in notes
    out = {name: read(tmp_path / "out" / name) for name in noisy}
    assert not out["silent.wav"].any()
    assert out["half.wav"].any(-1).tolist() == [True, False]
    assert out["late.wav"][:, 4500:].any()
    table = scores(tmp_path / "out").set_index("item")["value"]
    assert table["silent.wav"].isna().all()
    assert table["half.wav"].notna().any()
    assert table["late.wav"].notna().any()


def test_clip_modes(tmp_path: Path, mono: str, capsys) -> None:
    # an encoder for whole numbers cannot hold the estimate of a file of ten times full scale
    soundfile.write(tmp_path / "x.wav", 10 * SAMPLES, RATE, subtype="FLOAT")
    peaks = {}
    for mode in ("clamp", "rescale", "error"):
        command = [*one_step(tmp_path, mono, tmp_path / "x.wav"), "--subtype", "PCM_16", "--clip", mode]
        (tmp_path / "out" / "x.wav").unlink(missing_ok=True)
        status, errors = run(*command), capsys.readouterr().err
        if mode == "error":
            assert status == 1
            assert "exceeds full scale" in errors
            assert audio_files(tmp_path / "out") == []
        else:
            assert status == 0
            assert "samples of x.wav" in errors
            peaks[mode] = int((read(tmp_path / "out" / "x.wav").abs() > 0.9999).sum())
    assert peaks["clamp"] > peaks["rescale"] > 0
