"""Several runs of infer.py into one folder, and what a run says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from infer_toys import oracle, run, scores, separator_file, signals, write_pair

from encore.cli.score_writer import headline


def items(out: Path, name: str = "scores.csv") -> set[str]:
    return set(scores(out, name)["item"])


@pytest.mark.usefixtures("few_metrics")
def test_scores_of_runs_with_the_same_settings_stand_in_one_table(tmp_path: Path, mono: str, capsys) -> None:
    out = tmp_path / "out"
    write_pair(tmp_path, "a.wav")
    assert run(*oracle(tmp_path, mono, scored=True)) == 0
    (tmp_path / "noisy" / "a.wav").unlink()
    write_pair(tmp_path, "b.wav")
    assert run(*oracle(tmp_path, mono, scored=True)) == 0
    assert items(out) == {"a.wav", "b.wav"}
    assert json.loads((out / "summary.json").read_text())["final"]["si_sdr"]["one_step"]["count"] == 2
    assert not (out / "scores.1.csv").exists()
    # with other settings they do not compare
    assert run(*oracle(tmp_path, mono, scored=True), "--seed", "3", "--skip-existing") == 0  # nothing to do
    write_pair(tmp_path, "c.wav")
    capsys.readouterr()
    assert run(*oracle(tmp_path, mono, scored=True), "--seed", "3", "--skip-existing") == 1
    assert "are of a run with other seed" in capsys.readouterr().err
    assert items(out) == {"a.wav", "b.wav"}
    assert run(*oracle(tmp_path, mono, scored=True), "--seed", "3") == 0
    assert "scores.1.csv: scores of an earlier run, with other settings" in capsys.readouterr().err
    assert (items(out), items(out, "scores.1.csv")) == ({"b.wav", "c.wav"}, {"a.wav", "b.wav"})
    assert json.loads((out / "run.1.json").read_text())["seed"] == 0
    assert run(*oracle(tmp_path, mono, scored=True), "--seed", "4") == 0
    assert items(out, "scores.2.csv") == {"b.wav", "c.wav"}


def test_files_that_cannot_be_read_are_counted(tmp_path: Path, mono: str, capsys) -> None:
    write_pair(tmp_path, "a.wav")
    (tmp_path / "noisy" / "b.wav").write_text("no audio")
    assert run(*oracle(tmp_path, mono)) == 1
    assert "1 of 2 files written" in capsys.readouterr().out


def test_where_nothing_can_be_scored_it_says_so(tmp_path: Path, capsys) -> None:
    separator = separator_file(tmp_path, "low", rate=8000)
    soundfile.write(tmp_path / "a.wav", signals(9000, 8000)[1], 8000)
    given = [str(tmp_path / "a.wav"), "-o", str(tmp_path / "out"), "--separator", separator]
    assert run(*given, "--method", "one_step", "--segment", "0.5", "--set", "method.overlap_seconds=0.1") == 0
    said = capsys.readouterr()
    assert "note: there are no scores: no measure fits" in said.err
    assert "its scores are means" not in said.err
    assert said.out.strip().count("\n") == 0


def test_means_over_different_files_say_so() -> None:
    def column(mean: float, count: int) -> dict[str, float]:
        return {"mean": mean, "count": count}

    same = {"final": {"snr": {"mixture": column(1, 2), "one_step": column(2, 2)}}}
    assert headline(same)[0].split() == ["SNR", "mixture", "1.00", "one_step", "2.00"]
    other = {"final": {"snr": {"mixture": column(1, 1), "one_step": column(2, 2)}}}
    assert headline(other)[0].split("   ")[-2:] == ["mixture 1.00 (of 1)", "one_step 2.00 (of 2)"]
