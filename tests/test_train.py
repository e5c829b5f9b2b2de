from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from speaker_trees import libri2mix

from encore.cli.overrides import CONFIGS, UserError, check_overrides
from encore.cli.run_folder import RunFolder, run_id
from encore.models import load_separator
from encore.models.costs import parameters
from encore.reporting.scores import read_scores

ROOT = CONFIGS.parent
SMALL = (
    "model=conv_tasnet_tiny",
    "data.num_workers=0",
    "data.segment_seconds=0.25",
    "data.batch_size=2",
    "module.scheduler.warmup=1",
)
FEW_GUIDES = (
    "callbacks.multi_step.metrics=[snr]",
    "callbacks.multi_step.guides.dnsmos_ovrl=null",
    "callbacks.multi_step.guides.si_sdr.steps=1",
    "callbacks.multi_step.guides.si_sdr.search.candidates=2",
)


def train(
    folder: Path, corpus: Path, *overrides: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run train.py as a user does, in a folder of its own."""
    script = str(ROOT / "train.py")
    command = [sys.executable, script, "experiment=speech_denoising", f"data.root={corpus}"]
    return subprocess.run(
        [*command, *SMALL, *FEW_GUIDES, *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
    )


@pytest.fixture(scope="module")
def first_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    done = train(folder, corpus, "trainer.max_steps=2", "name=run")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_a_run_folder_says_what_was_built_and_how_it_scored(first_run: Path) -> None:
    run = first_run / "outputs" / "run"
    record = json.loads((run / "run.json").read_text())
    assert record["training_steps"] == 2
    assert record["finished"] is True
    assert record["parameters"] == parameters(load_separator(run / "checkpoints" / "last.ckpt"))
    assert record["model"] == "conv_tasnet_tiny"
    assert record["run_id"] == run_id(run)
    assert "torch==" in (run / "environment.txt").read_text()
    assert "sample_rate: 16000" in (run / "config.yaml").read_text()
    assert "${" not in (run / "config.yaml").read_text()
    scores = read_scores(run / "scores.parquet")
    assert set(scores["kind"]) == {"mixture", "one_step", "fixed", "oracle"}
    logged = pd.read_csv(run / "csv" / "version_0" / "metrics.csv")
    assert logged["val/multi_step/si_sdr_oracle/snr"].notna().sum() == 1


def test_its_checkpoint_is_safe_and_loads(first_run: Path) -> None:
    path = first_run / "outputs" / "run" / "checkpoints" / "last.ckpt"
    torch.load(path, weights_only=True)
    separator = load_separator(path)
    assert separator.sources == ("speech",)
    assert separator(torch.randn(1, 1, 1000)).shape == (1, 1, 1, 1000)


def test_a_second_run_does_not_overwrite_the_first(first_run: Path, corpus: Path) -> None:
    done = train(first_run, corpus, "trainer.max_steps=4", "name=run")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "ckpt=last" in done.stderr
    assert "Traceback" not in done.stderr


def test_resuming_goes_on_where_the_run_stopped(first_run: Path, corpus: Path) -> None:
    done = train(first_run, corpus, "trainer.max_steps=4", "name=run", "ckpt=last", "logger=none")
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((first_run / "outputs" / "run" / "run.json").read_text())
    assert record["training_steps"] == 4


def test_wandb_offline_logs_under_the_id_of_the_folder(tmp_path: Path, corpus: Path) -> None:
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = train(tmp_path, corpus, "trainer.max_steps=2", "name=run", "logger=wandb", **offline)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = list((tmp_path / "outputs" / "run" / "wandb").glob("offline-run-*"))
    assert [folder.name.rsplit("-", 1)[-1] for folder in runs] == [run_id(tmp_path / "outputs" / "run")]
    content = next(runs[0].glob("*.wandb")).read_bytes()
    for key in (b"val/multi_step/si_sdr_oracle/snr", b"score_versus_step/snr", b"val/multi_step/audio"):
        assert key in content


def test_two_processes_count_each_item_once(tmp_path: Path, corpus: Path) -> None:
    done = train(
        tmp_path,
        corpus,
        "trainer.max_steps=2",
        "name=run",
        "logger=none",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "callbacks.averaging=null",
        "+callbacks.probe={_target_: encore.callbacks.bridge_probe.BridgeProbe, ratios: [0.5]}",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = read_scores(tmp_path / "outputs" / "run" / "scores.parquet")
    mixtures = scores[scores["kind"] == "mixture"]
    assert sorted(mixtures["item"]) == ["p226_001", "p226_002", "p287_001"]
    probed = pd.read_parquet(tmp_path / "outputs" / "run" / "bridge_path.parquet")
    assert sorted(probed[probed["what"] == "separator"]["item"]) == ["p226_001", "p226_002", "p287_001"]


# run in test_stem_experiment.py (songs), test_theory_experiment.py (bridges) and test_prior_module.py
ELSEWHERE = {
    "music_separation",
    "oracle_predictor",
    "progressive_musdb",
    "bridge_theory",
    "bridge_comparison",
    "prior_speech",
    "prior_sound",
}
EXPERIMENTS = {path.stem for path in (CONFIGS / "experiment").glob("*.yaml")}


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS - ELSEWHERE))
def test_every_experiment_runs_a_fast_dev_run(experiment: str, tmp_path: Path, corpus: Path) -> None:
    if experiment == "speaker_separation":
        corpus = tmp_path
        libri2mix(corpus, frames=4000)
    options = [f"experiment={experiment}", "trainer.fast_dev_run=true", "name=run"]
    if experiment in ("bridge_speech", "bridge_distillation"):
        options += ["model=bridge_masks_tiny"]
    done = train(tmp_path, corpus, *options)
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
        check_overrides(["experiment=speech_denoising", override], config_name="train")
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_right_overrides_and_sweeps_pass() -> None:
    check_overrides(["-m", "model=bsrnn_xtiny,bsrnn_tiny", "seed=1,2", "data.root=a b"], config_name="train")


@pytest.mark.parametrize("model", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml")))
def test_every_model_config_composes(model: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", overrides=[f"model={model}", "data.root=nowhere", "name=x"])
    assert config.model._target_.startswith(("encore.models.separators.", "encore.models.denoisers."))


def test_a_missing_corpus_is_one_line(tmp_path: Path) -> None:
    done = train(tmp_path, tmp_path / "nowhere", "trainer.max_steps=1", "name=run")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_value_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: data.root is not set: give data.root=..."


def test_ckpt_last_starts_where_there_is_nothing_yet(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "new").checkpoint("last") is None
    with pytest.raises(UserError, match="no such file"):
        RunFolder(tmp_path / "new").checkpoint("other.ckpt")


def test_a_checkpoint_that_was_cut_off_is_told(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    torch.save({"a": torch.zeros(5000)}, whole)
    cut.write_bytes(whole.read_bytes()[:5000])
    assert RunFolder(tmp_path / "new").checkpoint(str(whole)) == str(whole)
    with pytest.raises(UserError, match=r"cut\.ckpt: is no whole checkpoint"):
        RunFolder(tmp_path / "new").checkpoint(str(cut))


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("data.sample_rate=abc", "data.sample_rate=abc: give a whole number"),
        ("trainer.max_steps=two", "trainer.max_steps=two: give a whole number"),
        ("trainer.max_steps=-5", "`max_steps` must be a non-negative integer"),
    ],
)
def test_wrong_values_are_one_line(tmp_path: Path, corpus: Path, override: str, fault: str) -> None:
    done = train(tmp_path, corpus, override, "name=run")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {fault}")
    assert "Traceback" not in done.stderr
