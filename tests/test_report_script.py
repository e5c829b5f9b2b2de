"""report.py from the command line."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from score_toys import NAN, oracle, random_scores, row, save_run

from encore import report
from encore.reporting import load_all, write_scores
from encore.reporting.runs import read_record

FILES = {
    "report.html",
    "report.md",
    "scores_summary.csv",
    "runs.csv",
    "cost.png",
    "steps_si_sdr.png",
    "gains_si_sdr.png",
}


def run_folder(folder: Path, name: str, level: float, macs: float | None, *, suffix: str = "parquet") -> Path:
    """Scores of four items, one oracle guide, two steps, each adding 1 dB."""
    rng = np.random.default_rng(int(level))
    rows = []
    for item in ("i0", "i1", "i2", "i3"):
        once = level + rng.normal()
        same = {"run": name, "metric": "si_sdr"}
        rows += [row(item, 0.0, "mixture", **same), row(item, once, **same)]
        for step in range(3):
            rows.append(oracle(item, once + step, step, **same, ratio=0.5 if step else NAN, evaluations=9))
    record = {"name": name, "macs_per_second": macs, "parameters": 370_000, "seed": 7}
    return save_run(folder, pd.DataFrame(rows), suffix=suffix, **record)


def test_two_runs_give_every_artefact(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small = run_folder(tmp_path / "small", "small", 10, 1e9)
    large = run_folder(tmp_path / "large", "large", 11, 8.5e9, suffix="csv")
    out = tmp_path / "deep" / "out"
    assert report.main([str(small), str(large), "-o", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert all(path.stat().st_size > 0 for path in out.iterdir())
    assert str(out / "report.html") in capsys.readouterr().out

    html = (out / "report.html").read_text()
    assert "http" not in html.replace("base64", "")
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', html))
    assert html.count("<img ") == 3
    markdown = (out / "report.md").read_text()
    linked = re.findall(r"\]\(([^)]*)\)", markdown)
    assert len(linked) == 3
    assert all((out / name).is_file() for name in linked)
    assert "370 k" in markdown
    assert "not recorded" in markdown  # no git commit
    assert markdown.count("gain, ") == 1


def test_a_bad_run_is_named_and_the_good_ones_are_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = run_folder(tmp_path / "good", "good", 10, None)
    empty, torn = tmp_path / "empty", tmp_path / "torn"
    empty.mkdir()
    torn.mkdir()
    (torn / "scores.csv").write_text("run,item\na,b\n")
    runs = [str(tmp_path / "nowhere"), str(good), str(empty), str(torn)]
    assert report.main([*runs, "-o", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "nowhere: no such run folder" in lines[0]
    assert "empty: holds neither scores.parquet nor scores.csv" in lines[1]
    assert "scores.csv: column 'input_si_sdr'" in lines[2]
    assert "good" in (tmp_path / "out" / "report.md").read_text()


def test_no_run_and_no_place_to_write_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert report.main(["-o", str(tmp_path / "out")]) == 1
    assert report.main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    good = run_folder(tmp_path / "good", "good", 10, None)
    assert report.main([str(good), "-o", str(tmp_path / "file")]) == 1
    errors = capsys.readouterr().err
    assert "no run to report" in errors
    assert "file: cannot be written" in errors
    assert "Traceback" not in errors


def test_the_script_exits_with_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good = run_folder(tmp_path / "good", "good", 10, 1e9)
    for runs, status in (([good], 0), ([good, tmp_path / "nowhere"], 1)):
        arguments = ["report.py", *map(str, runs), "-o", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(report.__file__, run_name="__main__")
        assert ended.value.code == status


def test_runs_get_distinct_names(tmp_path: Path):
    places = [run_folder(tmp_path / name, "a", 10, None) for name in ("day/a", "night/a", "other")]
    runs, faults = load_all([*places, places[0]])
    assert not faults
    assert [run.name for run in runs] == ["day", "night", "other"]
    assert [set(run.scores["run"]) for run in runs] == [{"day"}, {"night"}, {"other"}]
    copy = places[0] / "scores.csv"
    write_scores(copy, runs[0].scores)
    assert [run.name for run in load_all([places[0], copy])[0]] == ["a", "a #2"]


def test_runs_are_called_by_models_or_by_what_differs_in_their_names(tmp_path: Path):
    for name, model in (("speech_bsrnn_xtiny_seed0", "xtiny"), ("speech_bsrnn_small_seed0", "small")):
        for folder, record in (("models", {"model": model}), ("names", {"model": "bsrnn"})):
            save_run(tmp_path / folder / name, random_scores("x", 1, items=2), name=name, **record)
    names = {folder: [run.name for run in load_all([tmp_path / folder])[0]] for folder in ("models", "names")}
    assert names == {"models": ["small", "xtiny"], "names": ["small", "xtiny"]}


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"parameters": -1}', '{"seed": "x"}', '{"macs_per_second": NaN}']
)
def test_damaged_records_are_named_in_one_line(tmp_path: Path, content: str):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json") as caught:
        read_record(tmp_path / "run.json")
    assert "\n" not in str(caught.value)
