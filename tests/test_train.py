from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from corpus_trees import libri2mix, tree
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_toys import SMALL, train

from encore.cli.overrides import CONFIGS, UserError, composed_jobs
from encore.cli.run_folder import RunFolder, run_id
from encore.models import acceleration, load_separator
from encore.models.costs import parameters
from encore.reporting.scores import read_scores


@pytest.fixture(scope="module")
def first_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    done = train(folder, *SMALL, f"data.root={corpus}", "trainer.max_steps=2", "name=run")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_a_run_folder_says_what_was_built_and_how_it_scored(first_run: Path) -> None:
    run = first_run / "outputs" / "run"
    record = json.loads((run / "run.json").read_text())
    assert record["training_steps"] == 2
    assert record["finished"] is True
    torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    separator = load_separator(run / "checkpoints" / "last.ckpt")
    assert record["parameters"] == parameters(separator)
    assert separator.sources == ("speech",)
    assert separator(torch.randn(1, 1, 1000)).shape == (1, 1, 1, 1000)
    assert record["model"] == "conv_tasnet_tiny"
    assert record["run_id"] == run_id(run)
    assert "torch==" in (run / "environment.txt").read_text()
    assert "sample_rate: 16000" in (run / "config.yaml").read_text()
    assert "${" not in (run / "config.yaml").read_text()
    scores = read_scores(run / "scores.parquet")
    assert set(scores["kind"]) == {"mixture", "one_step", "fixed", "oracle"}
    logged = pd.read_csv(run / "csv" / "version_0" / "metrics.csv")
    assert logged["val/multi_step/si_sdr_oracle/snr"].notna().sum() == 1


def test_tensorboard_has_what_the_csv_file_has_and_hyperparameters(tmp_path: Path, corpus: Path) -> None:
    overrides = ("trainer.max_steps=2", "trainer.log_every_n_steps=1", "name=run")
    runs = {}
    for logger in ("csv", "tensorboard"):
        (tmp_path / logger).mkdir()
        done = train(tmp_path / logger, *SMALL, f"data.root={corpus}", *overrides, f"logger={logger}")
        assert done.returncode == 0, done.stderr[-2000:]
        runs[logger] = tmp_path / logger / "outputs" / "run"
    logged = pd.read_csv(runs["csv"] / "csv" / "version_0" / "metrics.csv").drop(columns="step")
    events = EventAccumulator(str(runs["tensorboard"] / "tensorboard")).Reload()
    for key in logged:
        expected = logged[key].dropna()
        found = [event.value for event in events.Scalars(key)]
        assert len(expected) > 0
        if not key.endswith("seconds"):  # a time of this machine
            assert found == pytest.approx([*expected], rel=1e-5), key
    assert {"train/loss", "train/learning_rate", "train/gradient_norm", "val/loss"} <= set(logged)
    held = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert b"module/optimizer/lr" in held
    assert any(tag.startswith("val/multi_step/score_versus_step/") for tag in events.Tags()["images"])
    (clip, *_) = [tag for tag in events.Tags()["audio"] if tag.startswith("val/multi_step/audio/")]
    assert events.Audio(clip)[0].sample_rate == 16000
    (table,) = events.Tensors("val/multi_step/scores/text_summary")
    assert b"si_sdr_oracle" in table.tensor_proto.string_val[0]


def test_a_second_run_does_not_overwrite_the_first_but_goes_on_where_it_stopped(
    first_run: Path, corpus: Path
) -> None:
    command = (*SMALL, f"data.root={corpus}", "trainer.max_steps=4", "name=run", "logger=none")
    done = train(first_run, *command)
    assert done.returncode == 1
    assert re.search("^error: .*ckpt=last", done.stderr.strip().splitlines()[-1])
    assert "Traceback" not in done.stderr
    done = train(first_run, *command, "ckpt=last")
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((first_run / "outputs" / "run" / "run.json").read_text())
    assert record["training_steps"] == 4


# run above, in test_stem_experiment.py (songs, scores), test_theory_experiment.py and test_prior_module.py
SONGS = {"music_separation", "oracle_predictor", "progressive_musdb", "corpus_scores"}
ELSEWHERE = {"speech_denoising", "bridge_theory", "bridge_comparison", "prior_speech", "prior_sound", *SONGS}
EXPERIMENTS = {path.stem for path in (CONFIGS / "experiment").glob("*.yaml")}


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS - ELSEWHERE))
def test_every_experiment_runs_a_fast_dev_run(experiment: str, tmp_path: Path, corpus: Path) -> None:
    if experiment == "speaker_separation":
        corpus = tmp_path
        libri2mix(corpus, frames=4000)
    if experiment == "recorded_denoising":
        corpus = tmp_path
        folders = [f"{split}/{kind}" for split in ("train", "valid") for kind in ("speech", "noise")]
        tree(corpus, folders, ["one"], frames=4000)
    options = [f"experiment={experiment}", "trainer.fast_dev_run=true", "name=run"]
    if experiment in ("bridge_speech", "bridge_distillation"):
        options += ["model=bridge_masks_tiny"]
    done = train(tmp_path, *SMALL, f"data.root={corpus}", *options)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("data.sample_rat=8000", "did you mean 'data.sample_rate'"),
        ("modle=bsrnn_tiny", "did you mean 'module' or 'model'?"),
        ("model=bsrnn_tin", "did you mean 'bsrnn_tiny'"),
        ("lr=0.1", "'module.optimizer.lr'"),
        ("max_steps=5", "'trainer.max_steps'"),
    ],
)
def test_a_wrong_override_fails_with_the_near_match(override: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        composed_jobs(["data.root=x", "experiment=speech_denoising", override], config_name="train")
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_checkpoints_to_go_on_from(tmp_path: Path) -> None:
    """The newest of our last one and that of a requeue; none in a new folder; never one that was cut off."""
    folder = RunFolder(tmp_path / "run")
    assert folder.checkpoint("last") is None
    with pytest.raises(UserError, match="no such file"):
        folder.checkpoint("other.ckpt")
    hpc, last = tmp_path / "run" / "hpc_ckpt_1.ckpt", tmp_path / "run" / "checkpoints" / "last.ckpt"
    for path in (hpc, last):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert folder.checkpoint("last") == str(path)
    with pytest.raises(UserError, match="already holds a run"):
        folder.checkpoint(None)
    whole, cut = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    torch.save({"a": torch.zeros(5000)}, whole)
    cut.write_bytes(whole.read_bytes()[:5000])
    assert folder.checkpoint(str(whole)) == str(whole)
    with pytest.raises(UserError, match=r"cut\.ckpt: is truncated or not a checkpoint"):
        folder.checkpoint(str(cut))


BFLOAT16 = ("model=bsrnn_xtiny", "trainer.precision=bf16-mixed", "trainer.accelerator=cpu")


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["data.root=nowhere"], "nowhere"),
        (["data.root=???"], "error: data.root is not set: give data.root=..."),
        (["data.sample_rate=abc"], "data.sample_rate=abc: give a whole number"),
        (["trainer.max_steps=two"], "trainer.max_steps=two: give a whole number"),
        (["trainer.max_steps=-5"], "`max_steps` must be a non-negative integer"),
        (BFLOAT16, "precision=bf16: this CPU has no"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    overrides: list[str], fault: str, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "has_bfloat16_lstm", lambda: False)
    done = train(tmp_path, *SMALL, f"data.root={corpus}", "name=run", *overrides)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert fault in line
