"""What infer.py writes: files, scores, summaries; how it is skipped, interrupted and stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from infer_toys import RATE, ROOT, audio_files, one_step, oracle, read, run, scores, signals, write_pair
from torch import Tensor

from encore.cli.guides import build_guide
from encore.cli.method_options import load_method
from encore.cli.outputs import Outputs
from encore.cli.overrides import UserError
from encore.common.dsp import resample
from encore.models import as_separator, load_separator
from encore.models.wrappers import match_channels
from encore.reporting import load_all


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
        assert read(tmp_path / "out" / name).abs().max() > 1e-3


@pytest.mark.parametrize(("rate", "frames", "gain"), [(RATE, 8000, 10.0), (48000, 24001, 1.0)])
def test_one_step_is_the_separator_itself_at_the_inputs_level_and_rate(
    tmp_path: Path, mono: str, rate: int, frames: int, gain: float
) -> None:
    # ten times full scale: nothing may be normalized or clipped on the way
    soundfile.write(tmp_path / "x.wav", gain * signals(frames, rate)[1], rate, subtype="FLOAT")
    assert run(*one_step(tmp_path, mono, tmp_path / "x.wav")) == 0
    mixture = resample(read(tmp_path / "x.wav"), rate, RATE)
    expected = resample(load_separator(mono)(mixture[None])[0, 0], RATE, rate)[:, :frames]
    torch.testing.assert_close(read(tmp_path / "out" / "x.wav"), expected, rtol=1e-4, atol=1e-6)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.wav"]


@pytest.mark.usefixtures("few_metrics")
def test_several_sources_lie_in_a_folder_of_each_file(tmp_path: Path, two: str) -> None:
    write_pair(tmp_path, "d/a.b.wav")
    for source in ("speech", "noise"):
        target = tmp_path / "references" / source / "d" / "a.b.wav"
        target.parent.mkdir(parents=True)
        target.write_bytes((tmp_path / "clean" / "d" / "a.b.wav").read_bytes())
    arguments = oracle(tmp_path, two, scored=True)
    arguments[arguments.index(tmp_path / "clean")] = tmp_path / "references"
    assert run(*arguments) == 0
    assert audio_files(tmp_path / "out") == ["d/a.b/noise.wav", "d/a.b/speech.wav"]
    assert set(scores(tmp_path / "out")["item"]) == {"d/a.b.wav/noise", "d/a.b.wav/speech"}


def test_channels_are_folded_into_a_mono_separator_and_doubled_for_stereo(mono: str) -> None:
    class Mean:
        """Adds to each channel the mean over channels, so that duplication is seen."""

        sources, sample_rate, channels = ("speech",), RATE, 2

        def __call__(self, mixture: Tensor) -> Tensor:
            assert mixture.shape == (2, 2, 100)
            return (mixture + torch.tensor([1.0, 3.0])[:, None])[:, None]

    mixture = torch.randn(2, 1, 100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(match_channels(Mean(), 1)(mixture), mixture[:, None] + 2.0)
    with pytest.raises(ValueError, match="channels=3"):
        match_channels(Mean(), 3)
    separator = load_separator(mono)
    three = torch.randn(2, 3, 800, generator=torch.Generator().manual_seed(1))
    alone = [separator(three[:, channel : channel + 1]) for channel in range(3)]
    separated = match_channels(separator, 3)(three)
    torch.testing.assert_close(separated, torch.cat(alone, 2), rtol=1e-4, atol=1e-6)


def test_scores_summary_and_record_can_be_reported(tmp_path: Path, mono: str) -> None:
    for name in ("a.wav", "b/c.wav"):
        write_pair(tmp_path, name)
    assert run(*oracle(tmp_path, mono, scored=True)) == 0
    table = scores(tmp_path / "out")
    assert set(table["item"]) == {"a.wav", "b/c.wav"}
    assert set(table["kind"]) == {"mixture", "one_step", "oracle"}
    assert {"si_sdr", "pesq", "stoi", "dnsmos_ovrl"} <= set(table["metric"])
    clean, noisy = (soundfile.read(tmp_path / kind / "a.wav")[0] for kind in ("clean", "noisy"))
    projection = clean * (noisy @ clean) / (clean @ clean)
    by_hand = 10 * np.log10((projection @ projection) / ((noisy - projection) @ (noisy - projection)))
    row = table[(table["item"] == "a.wav") & (table["metric"] == "si_sdr")].set_index(["kind", "step"])
    assert row.loc[("mixture", 0), "value"] == pytest.approx(by_hand, rel=1e-3)
    assert row.loc[("mixture", 0), "input_si_sdr"] == pytest.approx(by_hand, rel=1e-3)
    # the guide's own measure never falls, and step 0 is the one-step estimate
    assert row.loc[("oracle", 1), "value"] >= row.loc[("oracle", 0), "value"]
    assert row.loc[("oracle", 0), "value"] == row.loc[("one_step", 0), "value"]
    # two candidates, the mixture itself free, and the bare estimate: at most 1 + 2 calls
    assert set(table.loc[table["kind"] == "oracle", "evaluations"]) == {3}
    column = json.loads((tmp_path / "out" / "summary.json").read_text())["final"]["si_sdr"]["si_sdr_oracle"]
    last = (table["metric"] == "si_sdr") & (table["kind"] == "oracle") & (table["step"] == 1)
    assert column["mean"] == pytest.approx(table[last]["value"].mean())
    assert column["gain_low"] <= column["gain"] <= column["gain_high"]
    runs, faults = load_all([tmp_path / "out"])
    assert faults == []
    assert runs[0].record.parameters == sum(p.numel() for p in load_separator(mono).parameters())
    assert runs[0].record.macs_per_second


@pytest.mark.usefixtures("few_metrics")
def test_skip_existing_keeps_files_and_rows(tmp_path: Path, mono: str) -> None:
    write_pair(tmp_path, "a.wav")
    assert run(*oracle(tmp_path, mono, scored=True)) == 0
    before, first = (tmp_path / "out" / "a.wav").stat().st_mtime_ns, scores(tmp_path / "out")
    write_pair(tmp_path, "b.wav")
    for _ in range(2):
        assert run(*oracle(tmp_path, mono, scored=True), "--skip-existing") == 0
        assert (tmp_path / "out" / "a.wav").stat().st_mtime_ns == before
        both = scores(tmp_path / "out")
        assert set(both["item"]) == {"a.wav", "b.wav"}
        assert len(both) == 2 * len(first)
        kept = both[both["item"] == "a.wav"]["value"].to_numpy()
        np.testing.assert_array_equal(kept, first["value"].to_numpy())


def test_same_seed_same_file_beside_any_others(tmp_path: Path, mono: str) -> None:
    for name in ("a.wav", "b.wav"):
        write_pair(tmp_path, name)
    arguments = [*oracle(tmp_path, mono), "--shifts", 2]
    assert run(*arguments) == 0
    both = (tmp_path / "out" / "b.wav").read_bytes()
    (tmp_path / "noisy" / "a.wav").unlink()
    assert run(*arguments) == 0
    assert (tmp_path / "out" / "b.wav").read_bytes() == both


def test_dry_run_lists_and_writes_nothing(tmp_path: Path, mono: str, capsys) -> None:
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
    arguments = [*oracle(tmp_path, mono, scored=True), "--steps", "5", "--candidates", "4"]
    assert run(*arguments, "--set", "method.max_evaluations=3") == 0
    table = scores(tmp_path / "out")
    assert table[table["kind"] == "oracle"]["evaluations"].max() == 3
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
    assert (quality.sample_rate, quality.kind) == (RATE, "blind")
    copy = tmp_path / "own.yaml"
    copy.write_text((ROOT / "configs" / "quality" / f"{name}.yaml").read_text())
    assert build_guide(str(copy), RATE).name == quality.name
    with pytest.raises(UserError, match="8000") as refused:
        build_guide(name, 8000, "net.pt?sources=a")
    assert "--separator 'net.pt?sources=a&sample_rate=16000' works" in str(refused.value)


def test_max_batch_bounds_the_audio_of_a_call() -> None:
    seen: list[int] = []

    def separate(mixture: Tensor) -> Tensor:
        seen.append(len(mixture))
        return mixture[:, None]

    method = load_method("multi_step", steps=1, candidates=10, guide="si_sdr")
    mixture = torch.randn(1, 1, 25 * 100, generator=torch.Generator().manual_seed(0))
    separator = as_separator(separate, sources=["speech"], sample_rate=100)
    seen.clear()
    method(separator, mixture, references=mixture[None])
    assert max(seen) == 2  # 25 s: two fit into a minute


@pytest.mark.usefixtures("few_metrics")
def test_an_interrupted_run_keeps_its_finished_files_and_scores(
    tmp_path: Path, mono: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.wav", "b.wav"):
        write_pair(tmp_path, name)
    write: Callable[..., None] = Outputs.write

    def interrupted(self: Outputs, estimates: Tensor, *, last: bool) -> None:
        if self.audio.job.name == "b.wav":
            raise KeyboardInterrupt
        write(self, estimates, last=last)

    monkeypatch.setattr(Outputs, "write", interrupted)
    assert run(*oracle(tmp_path, mono, scored=True)) == 130
    assert audio_files(tmp_path / "out") == ["a.wav"]
    assert not list((tmp_path / "out").glob(".*"))
    assert set(scores(tmp_path / "out")["item"]) == {"a.wav"}


def script(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "infer.py"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=environment)


def test_script_with_the_blind_guide_from_another_folder(tmp_path: Path, mono: str) -> None:
    write_pair(tmp_path, "it's [a] noisy=file, 1.wav", frames=4000)
    (tmp_path / "noisy" / "bad.wav").write_text("no audio")
    with script(
        "noisy", "-o", "out", "--separator", mono, "--steps", 1, "--candidates", 1, cwd=tmp_path
    ) as it:
        _, errors = it.communicate(timeout=120)
    assert it.returncode == 1
    assert [line.split(":")[0] for line in errors.splitlines()] == ["error"]
    table = scores(tmp_path / "out")
    assert set(table["kind"]) == {"mixture", "one_step", "blind"}
    assert {metric.split("_")[0] for metric in table["metric"]} == {"dnsmos"}


def test_script_that_its_scheduler_stops_ends_like_one_stopped_by_hand(tmp_path: Path, mono: str) -> None:
    for index in range(200):
        write_pair(tmp_path, f"{index:03d}.wav", frames=16000)
    with script(*oracle(tmp_path, mono, scored=True), "--steps", "20", cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "out" / "000.wav").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "000.wav" in set(scores(tmp_path / "out")["item"])
