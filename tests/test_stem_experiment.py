"""Experiments that train nothing, as a user starts them: train.py experiment=progressive_musdb."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from corpus_trees import RATE, SOURCES, libri2mix, musdb
from infer_toys import separator_file
from train_toys import train

from encore.cli.stem_experiment import relative_delta
from encore.reporting.examples import read_examples
from encore.reporting.scores import read_scores

COMMAND = (
    "experiment=progressive_musdb",
    "data.root=songs",
    "data.test_seconds=0.2",
    "data.num_workers=0",
    "evaluation.methods.adaptive.search.steps=2",
    "evaluation.methods.adaptive.search.candidates=2",
    "evaluation.methods.disjointness.search.steps=1",
    "evaluation.methods.fixed.search.steps=3",
    "evaluation.methods.state_form.search.steps=3",
    "evaluation.betas=[0.0,0.5]",
    "trainer.accelerator=cpu",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    musdb(folder / "songs")
    separator_file(folder, "stems", SOURCES, rate=RATE)
    return folder


@pytest.fixture(scope="module")
def done(work: Path) -> Path:
    run = train(work, *COMMAND, "separator=stems.safetensors", "name=run")
    assert run.returncode == 0, run.stderr[-2000:]
    assert "| stem " in run.stdout
    return work / "outputs" / "run"


def test_every_stem_is_refined_by_every_method_and_scored_at_every_step(done: Path) -> None:
    scores = read_scores(done / "scores.parquet")
    assert set(scores["source"]) == set(SOURCES)
    assert set(scores["item"]) == {f"Eve - Five/{stem}" for stem in SOURCES}
    found = {(row.method, row.kind) for row in scores.itertuples()}
    blind = {(name, "blind") for name in ("disjointness", "remix_agreement")}
    fixed_ones = ("fixed", "own_level", "wiener", "wiener_single", "state_form", "noise")
    others = {("none", "mixture"), ("none", "one_step"), ("adaptive", "oracle")}
    assert found == others | blind | {(name, "fixed") for name in fixed_ones}
    assert set(scores["metric"]) == {"si_sdr", "usdr", "csdr"}
    fixed = scores[scores["method"] == "fixed"]
    assert sorted(set(fixed["step"])) == [0, 1, 2]
    assert fixed.loc[fixed["step"] == 2, "ratio"].to_numpy() == pytest.approx(1 / 3)


def test_the_guide_never_lowers_its_own_metric(done: Path) -> None:
    scores = read_scores(done / "scores.parquet")
    own = scores[(scores["guide"] == "si_sdr") & (scores["metric"] == "si_sdr")]
    for _, group in own.groupby("item"):
        assert (group.sort_values("step")["value"].diff().dropna() >= -1e-4).all()


def test_the_pages_stand_beside_the_published_numbers(done: Path) -> None:
    page = (done / "stems.md").read_text()
    for text in ("published SI-SDR", "9.96", "Oracle predictor", "published_code", "17.64", "cSDR"):
        assert text in page
    for picture in ("one_step.png", "steps_si_sdr.png", "steps_csdr.png", "oracle_predictor.png"):
        assert (done / picture).stat().st_size > 5000
        assert picture in page
    record = json.loads((done / "run.json").read_text())
    assert record["separator"] == "stems.safetensors"
    assert record["finished"] is True


def test_all_stems_are_raised_in_both_forms(done: Path) -> None:
    predictor = pd.read_parquet(done / "oracle_predictor.parquet")
    assert len(predictor) == 4 * 4 * 2 * 2
    same = predictor[predictor["beta"] == 0].pivot_table("si_sdr", ["target", "source"], "form")
    assert (same["intended"] - same["published_code"]).abs().max() < 1e-4


def test_a_run_goes_on_with_the_songs_that_are_missing(work: Path, done: Path) -> None:
    before = read_scores(done / "scores.parquet")
    rows = pd.read_parquet(done / "stem_scores.parquet")
    rows[rows["source"] != "bass"].to_parquet(done / "stem_scores.parquet", index=False)
    command = (*COMMAND, "separator=stems.safetensors", "name=run")
    refused = train(work, *command)
    assert refused.returncode == 1
    assert "already holds a run" in refused.stderr
    again = train(work, *command, "ckpt=last")
    assert again.returncode == 0, again.stderr[-2000:]
    after = read_scores(done / "scores.parquet")
    merged = before.merge(after, on=["item", "method", "kind", "step", "metric"])
    assert len(merged) == len(before) == len(after)
    assert (merged["value_x"] - merged["value_y"]).abs().max() < 1e-3


def test_the_predictor_alone_in_a_dry_run(work: Path) -> None:
    options = ("data.root=songs", "data.test_seconds=0.2", "separator=stems.safetensors", "name=dry")
    dry = ("trainer.fast_dev_run=true", "evaluation.targets=[vocals]")
    run = train(work, "experiment=oracle_predictor", *options, *dry)
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(pd.read_parquet(work / "outputs" / "dry" / "oracle_predictor.parquet")) == 10 * 2 * 4


def test_speakers_are_refined_together(work: Path) -> None:
    libri2mix(work / "libri", frames=4000)
    separator_file(work, "speakers", ("speaker1", "speaker2"), rate=8000)
    options = ("data=librimix", "data.root=libri", "separator=speakers.safetensors", "name=speakers")
    few = [f"evaluation.methods.{name}=null" for name in ("pesq", "dnsmos_ovrl")]
    few += ["evaluation.methods.si_sdr.search.steps=1", "evaluation.methods.si_sdr.search.candidates=2"]
    run = train(work, "experiment=corpus_scores", *options, *few, "evaluation.metrics=[si_sdr]")
    assert run.returncode == 0, run.stderr[-2000:]
    scores = read_scores(work / "outputs" / "speakers" / "scores.parquet")
    assert set(scores["item"]) == {"5-1-1_4-1-1"}
    # one call, and one for each of the two speakers in 10 steps, or for the ratios 0 and 1/2 of one step
    calls = scores.groupby("kind")["evaluations"].max()
    assert (calls["one_step"], calls["fixed"], calls["oracle"]) == (1, 21, 5)
    assert (scores.query("kind != 'mixture' and metric == 'si_sdr'")["seconds"] > 0).all()
    assert "Without references" in run.stdout
    assert "| estimate " in run.stdout
    listed = read_examples(work / "outputs" / "speakers" / "examples")
    assert [example.rank for example in listed] == ["best"]
    assert len(listed[0].audio) == 1 + 3 * 2  # the mixture; once, refined and reference of both speakers
    assert scores.loc[scores["metric"] == "relative_delta", "kind"].tolist() == ["one_step"]
    assert json.loads((work / "outputs" / "speakers" / "run.json").read_text())["macs_per_second"] > 0


def test_the_relative_delta_is_of_the_nearest_estimate() -> None:
    references = torch.randn(2, 1, 50, generator=torch.Generator().manual_seed(0))
    found = relative_delta(lambda x: torch.stack((0 * x, 0.75 * x), 1), references)
    assert found == pytest.approx(0.25)


def test_the_training_of_stems_in_a_dry_run(work: Path) -> None:
    run = train(
        work,
        "experiment=music_separation",
        "data.root=songs",
        f"data.sample_rate={RATE}",
        "data.train.valid_songs=1",
        "data.segment_seconds=0.25",
        "data.num_workers=0",
        "name=stems",
        "trainer.fast_dev_run=true",
        "module.scheduler.warmup=1",
    )
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ((), "separator is not set"),
        (("separator=none.ckpt",), "none.ckpt"),
        (
            ("separator=stems.safetensors", "evaluation.targets=[voice]"),
            "the separator has no voice, but vocals",
        ),
        (("separator=stems.safetensors", "evaluation.betas=[1.0]"), "evaluation.betas: 1.0 is outside"),
        (("separator=stems.safetensors", "data.root=nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_line(work: Path, overrides: tuple[str, ...], fault: str) -> None:
    run = train(work, *COMMAND, "name=wrong", "ckpt=last", *overrides)
    assert run.returncode == 1
    assert fault in run.stderr
    assert run.stderr.strip().count("\n") == 0
