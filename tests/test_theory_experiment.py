"""The theory of one separator, as a user starts it: train.py experiment=bridge_theory."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from bridge_toys import bridge_config
from infer_toys import separator_file
from train_toys import train

from encore.cli.evaluation import Subject, Table
from encore.cli.overrides import UserError
from encore.cli.theory_experiment import TheoryExperiment
from encore.models.checkpoint import instantiate, save_separator
from encore.reporting.bridge_report import correlation
from encore.reporting.scores import read_scores

SMALL = (
    "experiment=bridge_theory",
    "data.test_seconds=0.5",
    "data.num_workers=0",
    "evaluation.candidates=3",
    "evaluation.steps=2",
    "evaluation.finer=3",
    "evaluation.iterations=1",
    "evaluation.ratios=[0.0,0.5,1.0]",
    "evaluation.fitting=1",
    "trainer.accelerator=cpu",
)


@pytest.fixture(scope="module")
def work(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theory")
    separator_file(folder, "plain")
    torch.manual_seed(0)
    save_separator(folder / "bridge.safetensors", instantiate(bridge_config()), bridge_config())
    (folder / "corpus").symlink_to(corpus)
    return folder


@pytest.fixture(scope="module")
def done(work: Path) -> Path:
    options = ("data.root=corpus", "separator=plain.safetensors", "name=run")
    run = train(
        work, *SMALL, *options, "evaluation.bridge=bridge.safetensors", "evaluation.blind=disjointness"
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "| bound " in run.stdout
    return work / "outputs" / "run"


def test_every_item_has_its_path_its_steps_and_its_constants(done: Path) -> None:
    path, steps, items = (
        pd.read_parquet(done / f"bridge_{name}.parquet") for name in ("path", "steps", "items")
    )
    assert set(items["item"]) == {"p232_001", "p257_001"}
    assert set(path["what"]) == {"separator", "linear", "input", "bridge", "bridge_mean"}
    assert len(path) == 2 * 5 * 3
    assert sorted(steps["step"]) == [1, 1, 2, 2]
    assert bool((steps["score"] >= steps["grid_bound"] - 1e-3).all())
    taken = steps.dropna(subset="signal_bound")
    assert bool((taken["error"] <= taken["signal_bound"] * 1.001).all())
    worst = {f"worst_{place}" for place in ("clean", "mixture", "estimate")}
    assert worst | {"delta", "secant", "eps", "gain_blind", "remix_agreement"} <= set(items.columns)
    at_mixture = path[(path["what"] == "separator") & (path["ratio"] == 1)].set_index("item")["error"]
    scores = items.set_index("item")["one_step"]
    for item in scores.index:
        assert -20 * torch.tensor(at_mixture[item]).log10() == pytest.approx(scores[item], abs=1e-3)


def test_schedules_are_fitted_and_the_time_is_probed(done: Path) -> None:
    schedules, probe = (pd.read_parquet(done / f"bridge_{name}.parquet") for name in ("schedules", "probe"))
    assert set(schedules["schedule"]) == {"fitted", "even"}
    assert schedules.loc[schedules["step"] == 0, "gain"].tolist() == [0.0] * 4
    assert len(probe) == 2 * 3


def test_the_page_has_its_tables_and_figures(done: Path) -> None:
    page = (done / "bridge.md").read_text()
    for word in ("monotone", "grid", "signal", "blind guide", "fitted schedule", "delta", "remix agreement"):
        assert word in page
    for picture in ("path", "bounds", "ratios", "time", "gains"):
        assert (done / f"{picture}.png").stat().st_size > 5000
    assert "<img" in (done / "bridge.html").read_text()


def test_a_run_that_is_there_is_only_gone_on_with(work: Path, done: Path) -> None:
    options = (*SMALL, "data.root=corpus", "separator=plain.safetensors", "name=run")
    again = train(work, *options)
    assert again.returncode == 1
    assert "already holds a run" in again.stderr
    before = (done / "bridge_items.parquet").read_bytes()
    assert train(work, *options, "ckpt=last").returncode == 0
    assert (done / "bridge_items.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("evaluation.target=drums",), "evaluation.target=drums"),
        (("evaluation.bridge=plain.safetensors",), "was not trained as a bridge"),
    ],
)
def test_what_does_not_fit_is_one_line(work: Path, options: tuple[str, ...], fault: str) -> None:
    run = train(work, *SMALL, "data.root=corpus", "separator=plain.safetensors", "name=wrong", *options)
    assert run.returncode == 1
    assert fault in run.stderr.strip().splitlines()[-1]


def test_correlations_are_spearmans() -> None:
    x = pd.Series([1.0, 2.0, 3.0, 4.0, 5.0])
    assert correlation(x, x**3).startswith("+1.00 [+1.00")
    assert correlation(x, pd.Series([2.0, 1.0, 4.0, 3.0, 5.0])).startswith("+0.80")
    assert correlation(x, x * 0) == ""


@pytest.mark.parametrize("separator", ["plain", "bridge"])
def test_every_multi_step_method_is_in_one_table(work: Path, separator: str) -> None:
    run = train(
        work,
        "experiment=bridge_comparison",
        "data.root=corpus",
        "data.test_seconds=0.5",
        "data.num_workers=0",
        f"separator={separator}.safetensors",
        f"name=compare_{separator}",
        "evaluation.metrics=[snr]",
        "evaluation.methods.oracle.search.steps=1",
        "evaluation.methods.oracle.search.candidates=2",
        "evaluation.methods.blind=null",
        "evaluation.methods.bridge_30=null",
        "trainer.accelerator=cpu",
    )
    assert run.returncode == 0, run.stderr[-2000:]
    scores = read_scores(work / "outputs" / f"compare_{separator}" / "scores.parquet")
    calls = scores[scores["kind"] == "fixed"].groupby("method")["evaluations"].unique()
    assert {name: own.tolist() for name, own in calls.items()} == {
        f"bridge_{steps}": [steps] for steps in (1, 2, 5, 10)
    }
    assert set(scores["item"]) == {"p232_001", "p257_001"}


def test_sources_in_any_order_are_refused(tmp_path: Path) -> None:
    class Speakers:
        sources, sample_rate, channels = ("speaker1", "speaker2"), 16000, 1

        def __call__(self, mixture: torch.Tensor) -> torch.Tensor:
            raise AssertionError("is not called")

    device = torch.device("cpu")
    subject = Subject(separator=Speakers(), data=None, device=device, name="x", workers=1)
    with pytest.raises(UserError, match="in any order"):
        TheoryExperiment().run(subject, tmp_path)


def test_rows_of_an_item_that_was_cut_off_are_forgotten(tmp_path: Path) -> None:
    table = Table(tmp_path / "rows.parquet")
    table.add([{"item": "a", "value": 1}, {"item": "b", "value": 2}])
    again = Table(tmp_path / "rows.parquet")
    again.keep({"a"})
    again.add([{"item": "b", "value": 3}])
    assert pd.read_parquet(tmp_path / "rows.parquet").values.tolist() == [["a", 1], ["b", 3]]
