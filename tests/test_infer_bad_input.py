from pathlib import Path

import numpy as np
import pytest
import soundfile
from infer_toys import RATE, audio_files, oracle, run, separator_file, signals, write_pair

from encore.reporting import read_scores


def bad_files(root: Path) -> dict[str, str]:
    """Bad inputs and what must be said of each."""
    noisy = root / "noisy"
    noisy.mkdir(parents=True, exist_ok=True)
    _, samples = signals(8000, RATE)
    (noisy / "empty.wav").write_bytes(b"")
    (noisy / "text.wav").write_text("this is no audio\n" * 10)
    soundfile.write(noisy / "whole.wav", samples, RATE)
    (noisy / "truncated.wav").write_bytes((noisy / "whole.wav").read_bytes()[:9000])
    (noisy / "whole.wav").unlink()
    soundfile.write(noisy / "no_samples.wav", samples[:0], RATE)
    soundfile.write(noisy / "one_sample.wav", samples[:1], RATE)
    for name, value in (("nan.wav", np.nan), ("infinite.wav", np.inf)):
        bad = samples.copy()
        bad[5] = value
        soundfile.write(noisy / name, bad, RATE, subtype="FLOAT")
    return {
        "empty.wav": "empty",
        "text.wav": "not audio",
        "truncated.wav": "truncated",
        "no_samples.wav": "no samples",
        "one_sample.wav": "one sample",
        "nan.wav": "NaN or infinite",
        "infinite.wav": "NaN or infinite",
    }


def test_bad_files_are_named_and_the_good_ones_done(
    tmp_path: Path, mono: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = bad_files(tmp_path)
    write_pair(tmp_path, "good.wav")
    write_pair(tmp_path, "zz.wav")
    arguments = [tmp_path / "noisy", tmp_path / "missing.wav", "-o", tmp_path / "out", "--separator", mono]
    assert run(*arguments, "--method", "one_step", "--no-scores") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(reasons) + 1
    for name, reason in {**reasons, "missing.wav": "no such file"}.items():
        (line,) = [line for line in errors if f"{name}:" in line]
        assert reason in line
    assert audio_files(tmp_path / "out") == ["good.wav", "zz.wav"]


@pytest.mark.usefixtures("few_metrics")
def test_references_that_do_not_fit_are_errors_of_their_file(
    tmp_path: Path, mono: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good.wav", "short.wav", "alone.wav", "wide.wav"):
        write_pair(tmp_path, name)
    clean, _ = signals(8000, RATE, 2)
    soundfile.write(tmp_path / "clean" / "short.wav", clean[:7999, :1], RATE)
    soundfile.write(tmp_path / "clean" / "wide.wav", clean, RATE)
    (tmp_path / "clean" / "alone.wav").unlink()
    assert run(*oracle(tmp_path, mono, scores=True)) == 1
    errors = capsys.readouterr().err
    for name, words in (("short", "7999 samples"), ("alone", "has no reference"), ("wide", "channels")):
        (line,) = [
            line for line in errors.splitlines() if line.startswith("error: ") and f"{name}.wav:" in line
        ]
        assert words in line
    assert audio_files(tmp_path / "out") == ["good.wav"]
    assert set(read_scores(tmp_path / "out" / "scores.csv")["item"]) == {"good.wav"}


def test_a_reference_of_another_rate_serves_if_it_lasts_as_long(tmp_path: Path, mono: str) -> None:
    write_pair(tmp_path, "a.wav", frames=8000)
    clean, _ = signals(24000, 48000)
    soundfile.write(tmp_path / "clean" / "a.wav", clean, 48000)
    assert run(*oracle(tmp_path, mono)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--guide", "si_sdr"], "is an oracle; give --reference"),
        (["--guide", "dnsmos_ovl"], "dnsmos_ovrl"),
        (["--set", "method.serach.candidates=3"], "did you mean method.search"),
        (["--set", "candidates=3"], "write method.KEY=VALUE"),
        (["--set", "method.path=middle"], "choose endpoint or state"),
        (["--set", "method.search={_target_: encore.inference.GridSerach}"], "GridSerach"),
        (["--set", "method.segment_seconds=0"], "segment_seconds=0: must be above 0"),
        (["--set", "method.overlap_seconds=30"], "overlap_seconds=30: must be"),
        (["--set", "method.overlap_seconds=-1"], "overlap_seconds=-1: must be"),
        (["--steps", "-1"], "steps=-1"),
        (["--candidates", "0"], "candidates=0"),
        (["--method", "one_step", "--steps", "2"], "--method one_step has none"),
        (["--separator", "no/such.ckpt"], "no/such.ckpt"),
        (["--reference", "no/such/folder"], "no such folder"),
        (["--device", "cuda:77"], "--device cuda:77: not available"),
        (["--device", "nonsense"], "--device nonsense: not available"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_done(
    tmp_path: Path, mono: str, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    write_pair(tmp_path, "a.wav")
    separator = [] if "--separator" in options else ["--separator", mono]
    assert run(tmp_path / "noisy", "-o", tmp_path / "out", *separator, *options) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert not (tmp_path / "out").exists()


def test_a_file_below_the_guides_rate_is_guided_all_the_same_and_said_to_be(
    tmp_path: Path, mono: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "telephone.wav", 4000, 8000)
    arguments = [tmp_path / "noisy", "-o", tmp_path / "out", "--separator", mono, "--steps", 2]
    assert run(*arguments) == 0
    assert "telephone.wav: the guide scores it upsampled from 8000 Hz" in capsys.readouterr().err
    rows = read_scores(tmp_path / "out" / "scores.csv")
    guided = rows[(rows["metric"] == "dnsmos_ovrl") & (rows["kind"] == "blind")].sort_values("step")["value"]
    assert len(guided) == 3
    assert guided.is_monotonic_increasing
    # nothing else that wants 16 kHz is measured of it
    assert set(rows["metric"]) == {"dnsmos_ovrl"}


def test_a_separator_below_the_guides_rate_is_an_error_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "telephone.wav", 4000, 8000)
    slow = separator_file(tmp_path, "slow", rate=8000)
    arguments = [tmp_path / "noisy", "-o", tmp_path / "out", "--no-scores", "--steps", 1]
    assert run(*arguments, "--separator", slow) == 1
    message = capsys.readouterr().err
    assert "sample_rate=8000 is below the 16000 Hz that 'dnsmos_ovrl' needs" in message
    assert f"--separator '{slow}?sample_rate=16000'" in message
    assert run(*arguments, "--separator", f"{slow}?sample_rate=16000") == 0


def test_flac_cannot_hold_floats(tmp_path: Path, mono: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_pair(tmp_path, "a.flac")
    write_pair(tmp_path, "b.wav")
    arguments = [tmp_path / "noisy", "-o", tmp_path / "out", "--separator", mono, "--subtype", "FLOAT"]
    assert run(*arguments, "--method", "one_step", "--no-scores") == 1
    assert "a.flac: FLAC cannot hold --subtype FLOAT" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "out" / "b.wav").subtype == "FLOAT"


@pytest.mark.usefixtures("few_metrics")
def test_silence_clipping_and_a_silent_channel_are_noted(
    tmp_path: Path, mono: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("silent.wav", "clipped.wav"):
        write_pair(tmp_path, name)
    write_pair(tmp_path, "half.wav", channels=2)
    soundfile.write(tmp_path / "noisy" / "silent.wav", np.zeros((8000, 1)), RATE)
    samples = signals(8000, RATE, 2)[1]
    soundfile.write(tmp_path / "noisy" / "clipped.wav", np.clip(9 * samples[:, :1], -1, 1), RATE)
    soundfile.write(tmp_path / "noisy" / "half.wav", samples * [1, 0], RATE)
    assert run(*oracle(tmp_path, mono, scores=True)) == 0
    notes = capsys.readouterr().err
    assert "silent.wav: silent: silence is written" in notes
    assert "clipped.wav: clipped" in notes
    assert "half.wav: channel 2 of 2 is silent" in notes
    assert not soundfile.read(tmp_path / "out" / "silent.wav")[0].any()
    half = soundfile.read(tmp_path / "out" / "half.wav")[0]
    assert half[:, 0].any()
    assert not half[:, 1].any()
    scores = read_scores(tmp_path / "out" / "scores.csv").set_index("item")
    assert scores.loc["silent.wav", "value"].isna().all()
    assert not scores.loc["half.wav", "value"].isna().all()


def test_clip_modes(tmp_path: Path, mono: str, capsys: pytest.CaptureFixture[str]) -> None:
    # an encoder for whole numbers cannot hold the estimate of a file of ten times full scale
    soundfile.write(tmp_path / "x.wav", 10 * signals(8000, RATE)[1], RATE, subtype="FLOAT")
    start = [
        tmp_path / "x.wav",
        "--separator",
        mono,
        "--method",
        "one_step",
        "--no-scores",
        "--subtype",
        "PCM_16",
    ]
    peaks = {}
    for mode in ("clamp", "rescale"):
        assert run(*start, "-o", tmp_path / mode, "--clip", mode) == 0
        peaks[mode] = np.abs(soundfile.read(tmp_path / mode / "x.wav")[0])
        assert "samples of x.wav" in capsys.readouterr().err
    assert (peaks["clamp"] > 0.9999).sum() > (peaks["rescale"] > 0.9999).sum()
    assert run(*start, "-o", tmp_path / "error", "--clip", "error") == 1
    assert "exceeds full scale" in capsys.readouterr().err
    assert audio_files(tmp_path / "error") == []
