import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from infer_toys import RATE, ROOT, audio_files, oracle, run, signals, write_pair
from torch import Tensor

from encore.cli.guides import build_guide
from encore.cli.method_options import load_method
from encore.cli.outputs import Outputs
from encore.cli.overrides import UserError
from encore.common.dsp import resample
from encore.models import as_separator, load_separator
from encore.models.wrappers import match_channels
from encore.reporting import load_all, read_scores


def test_every_file_keeps_name_tree_format_rate_channels_and_length(tmp_path: Path, mono: str) -> None:
    cases = {
        "a [1].wav": (8001, 16000, 1, "PCM_16"),
        "sub dir/b=c, d.flac": (12001, 48000, 2, "PCM_24"),
        "sub dir/[x],y=z/e.wav": (9999, 44100, 3, "FLOAT"),
        "low.wav": (5000, 8000, 1, "PCM_24"),
        "o.ogg": (44100, 44100, 2, "VORBIS"),
        "f.aiff": (8000, 16000, 1, "PCM_16"),
    }
    for name, (frames, rate, channels, subtype) in cases.items():
        write_pair(tmp_path, name, frames, rate, channels, subtype)
    assert run(*oracle(tmp_path, mono)) == 0
    assert audio_files(tmp_path / "out") == sorted(cases)
    for name, expected in cases.items():
        info = soundfile.info(tmp_path / "out" / name)
        assert (info.frames, info.samplerate, info.channels, info.subtype) == expected


def test_one_step_output_is_the_separator_itself_at_the_inputs_level(tmp_path: Path, mono: str) -> None:
    _, noisy = signals(8000, RATE)
    # ten times full scale: nothing may be normalised or clipped on the way
    soundfile.write(tmp_path / "loud.wav", 10 * noisy, RATE, subtype="FLOAT")
    arguments = [tmp_path / "loud.wav", "-o", tmp_path / "out", "--separator", mono, "--method", "one_step"]
    assert run(*arguments, "--no-scores") == 0
    written, _ = soundfile.read(tmp_path / "out" / "loud.wav", dtype="float32")
    mixture = torch.from_numpy((10 * noisy).astype(np.float32)).T
    expected = load_separator(mono)(mixture[None])[0, 0, 0]
    torch.testing.assert_close(torch.from_numpy(written), expected, rtol=1e-5, atol=1e-6)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["loud.wav"]


def test_other_rates_go_through_the_separators_rate(tmp_path: Path, mono: str) -> None:
    _, noisy = signals(24001, 48000)
    soundfile.write(tmp_path / "x.wav", noisy, 48000, subtype="FLOAT")
    arguments = [tmp_path / "x.wav", "-o", tmp_path / "out", "--separator", mono, "--method", "one_step"]
    assert run(*arguments, "--no-scores") == 0
    written, _ = soundfile.read(tmp_path / "out" / "x.wav", dtype="float32")
    mixture = resample(torch.from_numpy(noisy.astype(np.float32)).T, 48000, RATE)
    expected = resample(load_separator(mono)(mixture[None])[0, 0], RATE, 48000)[0, :24001]
    torch.testing.assert_close(torch.from_numpy(written), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("few_metrics")
def test_several_sources_lie_in_a_folder_of_each_file(tmp_path: Path, two: str) -> None:
    write_pair(tmp_path, "d/a.b.wav")
    for source in ("speech", "noise"):
        target = tmp_path / "references" / source / "d" / "a.b.wav"
        target.parent.mkdir(parents=True)
        target.write_bytes((tmp_path / "clean" / "d" / "a.b.wav").read_bytes())
    arguments = oracle(tmp_path, two, scores=True)
    arguments[arguments.index(tmp_path / "clean")] = tmp_path / "references"
    assert run(*arguments) == 0
    assert audio_files(tmp_path / "out") == ["d/a.b/noise.wav", "d/a.b/speech.wav"]
    items = set(read_scores(tmp_path / "out" / "scores.csv")["item"])
    assert items == {"d/a.b.wav/noise", "d/a.b.wav/speech"}


def test_channels_are_folded_into_a_mono_separator_and_doubled_for_stereo(mono: str, stereo: str) -> None:
    calls: list[tuple[int, ...]] = []

    class Mean:
        """Adds to each channel the mean over channels, so that duplication can be told apart."""

        sources, sample_rate, channels = ("speech",), RATE, 2

        def __call__(self, mixture: Tensor) -> Tensor:
            calls.append(tuple(mixture.shape))
            return (mixture + torch.tensor([1.0, 3.0])[:, None])[:, None]

    mixture = torch.randn(2, 1, 100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(match_channels(Mean(), 1)(mixture), mixture[:, None] + 2.0)
    assert calls == [(2, 2, 100)]
    with pytest.raises(ValueError, match="channels=3"):
        match_channels(Mean(), 3)
    separator, three = (
        load_separator(mono),
        torch.randn(2, 3, 800, generator=torch.Generator().manual_seed(1)),
    )
    separated = match_channels(separator, 3)(three)
    for channel in range(3):
        alone = separator(three[:, channel : channel + 1])
        torch.testing.assert_close(separated[:, :, channel : channel + 1], alone, rtol=1e-4, atol=1e-6)


def test_scores_summary_and_record_can_be_reported(tmp_path: Path, mono: str) -> None:
    for name in ("a.wav", "b/c.wav"):
        write_pair(tmp_path, name)
    assert run(*oracle(tmp_path, mono, scores=True)) == 0
    scores = read_scores(tmp_path / "out" / "scores.csv")
    assert set(scores["item"]) == {"a.wav", "b/c.wav"}
    assert set(scores["kind"]) == {"mixture", "one_step", "oracle"}
    assert {"si_sdr", "pesq", "stoi", "dnsmos_ovrl"} <= set(scores["metric"])
    clean, noisy = (soundfile.read(tmp_path / kind / "a.wav")[0] for kind in ("clean", "noisy"))
    projection = clean * (noisy @ clean) / (clean @ clean)
    by_hand = 10 * np.log10((projection @ projection) / ((noisy - projection) @ (noisy - projection)))
    row = scores[(scores["item"] == "a.wav") & (scores["metric"] == "si_sdr")].set_index(["kind", "step"])
    assert row.loc[("mixture", 0), "value"] == pytest.approx(by_hand, rel=1e-3)
    assert row.loc[("mixture", 0), "input_si_sdr"] == pytest.approx(by_hand, rel=1e-3)
    # the guide's own measure never falls, and step 0 is the one-step estimate
    assert row.loc[("oracle", 1), "value"] >= row.loc[("oracle", 0), "value"]
    assert row.loc[("oracle", 0), "value"] == row.loc[("one_step", 0), "value"]
    # two candidates, the mixture itself free, and the bare estimate: at most 1 + 2 calls
    assert set(scores.loc[scores["kind"] == "oracle", "evaluations"]) == {3}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    column = summary["final"]["si_sdr"]["si_sdr_oracle"]
    values = scores[(scores["metric"] == "si_sdr") & (scores["kind"] == "oracle") & (scores["step"] == 1)][
        "value"
    ]
    assert column["mean"] == pytest.approx(values.mean())
    assert column["gain_low"] <= column["gain"] <= column["gain_high"]
    runs, faults = load_all([tmp_path / "out"])
    assert faults == []
    assert runs[0].record.parameters == sum(p.numel() for p in load_separator(mono).parameters())
    assert runs[0].record.macs_per_second


@pytest.mark.usefixtures("few_metrics")
def test_skip_existing_keeps_files_and_rows(tmp_path: Path, mono: str) -> None:
    write_pair(tmp_path, "a.wav")
    assert run(*oracle(tmp_path, mono, scores=True)) == 0
    before = (tmp_path / "out" / "a.wav").stat().st_mtime_ns
    first = read_scores(tmp_path / "out" / "scores.csv")
    write_pair(tmp_path, "b.wav")
    assert run(*oracle(tmp_path, mono, scores=True), "--skip-existing") == 0
    assert (tmp_path / "out" / "a.wav").stat().st_mtime_ns == before
    both = read_scores(tmp_path / "out" / "scores.csv")
    assert set(both["item"]) == {"a.wav", "b.wav"}
    kept = both[both["item"] == "a.wav"]["value"].to_numpy()
    np.testing.assert_array_equal(kept, first["value"].to_numpy())
    assert run(*oracle(tmp_path, mono, scores=True), "--skip-existing") == 0
    assert len(read_scores(tmp_path / "out" / "scores.csv")) == len(both)


def test_same_seed_same_file_whatever_else_is_processed(tmp_path: Path, mono: str) -> None:
    for name in ("a.wav", "b.wav"):
        write_pair(tmp_path, name)
    assert run(*oracle(tmp_path, mono)) == 0
    both = (tmp_path / "out" / "b.wav").read_bytes()
    (tmp_path / "noisy" / "a.wav").unlink()
    assert run(*oracle(tmp_path, mono)) == 0
    assert (tmp_path / "out" / "b.wav").read_bytes() == both


def test_dry_run_lists_and_writes_nothing(
    tmp_path: Path, mono: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "a [1].wav")
    assert run(*oracle(tmp_path, mono), "--dry-run") == 0
    text = capsys.readouterr().out
    # 1, and in the one step ratios 0.5 and 0; ratio 1 is free
    assert "a [1].wav (0.5 s, at most 3 separator calls)" in text
    assert "estimated time" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("few_metrics")
def test_a_cap_on_calls_is_kept_and_recorded(tmp_path: Path, mono: str) -> None:
    write_pair(tmp_path, "a.wav")
    arguments = [*oracle(tmp_path, mono, scores=True), "--steps", "5", "--candidates", "4"]
    assert run(*arguments, "--set", "method.max_evaluations=3") == 0
    runs, _ = load_all([tmp_path / "out"])
    scores = runs[0].scores
    assert scores[scores["kind"] == "oracle"]["evaluations"].max() == 3
    assert json.loads((tmp_path / "out" / "run.json").read_text())["method"]["max_evaluations"] == 3


def test_methods_count_their_calls() -> None:
    assert load_method("one_step").max_calls(1) == 1
    assert load_method("multi_step", steps=3, candidates=4).max_calls(1) == 1 + 3 * 4
    assert load_method("multi_step", steps=3, candidates=4).max_calls(2) == 1 + 3 * 4 * 2
    assert load_method("progressive", steps=4).max_calls(1) == 1 + 4
    assert load_method("multi_step").max_calls(1) == 1 + 20
    again = build_guide("remix_agreement", RATE)
    assert load_method("multi_step", steps=3, candidates=4).max_calls(2, again) == 1 + 2 + 2 * 3 * 4 * 2
    assert load_method("multi_step", overrides=["method.max_evaluations=8"]).max_calls(2) == 8
    brent = "method.search={_target_: encore.inference.BrentSearch, calls: 4, steps: 6}"
    assert load_method("multi_step", overrides=[brent]).max_calls(2) == 1 + 6 * 4 * 2
    assert load_method("progressive", steps=4).search.tolist() == pytest.approx([0.8, 0.6, 0.4, 0.2])
    own = "method.search={_target_: encore.inference.AnnealedGridSearch, candidates: 7}"
    assert load_method("multi_step", overrides=[own]).search.candidates == 7


@pytest.mark.parametrize("name", ["speech_joint", "dnsmos_guarded"])
def test_guides_of_configs_quality(name: str, tmp_path: Path) -> None:
    quality = build_guide(name, RATE)
    assert quality.sample_rate == RATE
    assert quality.kind == "blind"
    copy = tmp_path / "own.yaml"
    copy.write_text((ROOT / "configs" / "quality" / f"{name}.yaml").read_text())
    assert build_guide(str(copy), RATE).name == quality.name
    with pytest.raises(UserError, match="8000"):
        build_guide(name, 8000)


def test_max_batch_bounds_the_audio_of_a_call(mono: str) -> None:
    seen: list[int] = []

    def separate(mixture: Tensor) -> Tensor:
        seen.append(len(mixture))
        return mixture[:, None]

    method = load_method("multi_step", steps=1, candidates=10, guide="si_sdr")
    # 25 s: two fit into a minute
    mixture = torch.randn(1, 1, 25 * 100, generator=torch.Generator().manual_seed(0))
    separator = as_separator(separate, sources=["speech"], sample_rate=100)
    seen.clear()
    method(separator, mixture, references=mixture[None])
    assert max(seen) == 2


@pytest.mark.usefixtures("few_metrics")
def test_an_interrupted_run_keeps_its_finished_files_and_scores(
    tmp_path: Path, mono: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.wav", "b.wav"):
        write_pair(tmp_path, name)
    write = Outputs.write

    def interrupted(self: Outputs, estimates: Tensor, *, last: bool) -> None:
        if self.job.name == "b.wav":
            raise KeyboardInterrupt
        write(self, estimates, last=last)

    monkeypatch.setattr(Outputs, "write", interrupted)
    assert run(*oracle(tmp_path, mono, scores=True)) == 130
    assert audio_files(tmp_path / "out") == ["a.wav"]
    assert set(read_scores(tmp_path / "out" / "scores.csv")["item"]) == {"a.wav"}


def script(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "infer.py"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def test_script_with_the_blind_guide_from_another_folder(tmp_path: Path, mono: str) -> None:
    write_pair(tmp_path, "it's [a] noisy=file, 1.wav", frames=4000)
    (tmp_path / "noisy" / "bad.wav").write_text("no audio")
    done = script("noisy", "-o", "out", "--separator", mono, "--steps", 1, "--candidates", 1, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error"]
    scores = read_scores(tmp_path / "out" / "scores.csv")
    assert set(scores["kind"]) == {"mixture", "one_step", "blind"}
    assert {metric.split("_")[0] for metric in scores["metric"]} == {"dnsmos"}


def test_script_that_its_scheduler_stops_ends_like_one_stopped_by_hand(tmp_path: Path, mono: str) -> None:
    for index in range(200):
        write_pair(tmp_path, f"{index:03d}.wav", frames=16000)
    command = [
        sys.executable,
        str(ROOT / "infer.py"),
        *map(str, oracle(tmp_path, mono, scores=True)),
        "--steps",
        "20",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = tmp_path / "out" / "000.wav"
        deadline = time.monotonic() + 120
        while not first.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "000.wav" in set(read_scores(tmp_path / "out" / "scores.csv")["item"])
