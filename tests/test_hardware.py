"""The hardware group: what each option sets, and training by two processes through train.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from train_toys import SMALL, train_alone

from encore.cli.overrides import CONFIGS
from encore.cli.typed_config import check_types
from encore.models import load_separator
from encore.reporting.scores import read_scores

ROOT = CONFIGS.parent


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", overrides=["data.root=nowhere", "name=x", *overrides])
    check_types(OmegaConf.to_container(config, resolve=False), "")
    return config


HARDWARE = {
    "auto": ("auto", 1, "auto", "32-true", 2),
    "cpu": ("cpu", 1, "auto", "32-true", 2),
    "gpu": ("gpu", 1, "auto", "bf16-mixed", 8),
    "ddp": ("gpu", -1, "ddp", "bf16-mixed", 8),
}
"""Accelerator, devices, strategy and precision of the trainer, and workers of each loader."""


def test_hardware_sets_trainer_and_loader() -> None:
    for hardware, expected in HARDWARE.items():
        config = composed(f"hardware={hardware}")
        trainer = config.trainer
        found = (trainer.accelerator, trainer.devices, trainer.strategy, trainer.precision)
        assert (*found, config.data.num_workers) == expected
    config = composed("hardware=ddp", "trainer.devices=2", "data.num_workers=1")
    assert (config.trainer.devices, config.data.num_workers) == (2, 1)
    # nothing is chosen for the user
    assert composed() == composed("hardware=auto")


def test_fsdp_saves_whole_checkpoints_and_shards_by_block() -> None:
    config = composed("hardware=fsdp")
    strategy = instantiate(config.trainer.strategy)
    assert isinstance(strategy, FSDPStrategy)
    assert strategy._state_dict_type == "full"
    assert (
        strategy.kwargs["auto_wrap_policy"](torch.nn.Linear(1, 1), recurse=False, nonwrapped_numel=2) is False
    )
    assert config.callbacks.averaging is None


def test_shards_learn_what_one_process_learns(tmp_path: Path) -> None:
    """The policy and the clipping of hardware=fsdp, by torch alone: Lightning offers it on GPUs only."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "sharded_steps.py"), str(tmp_path / "meeting_place")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    # the network, and two recurrences in each of two layers
    assert found["shards"] == 5
    assert found["same names"]
    assert found["norm"] < 1e-5
    # two steps of 1e-3
    assert found["weights"] < 1e-5


def test_slurm_takes_its_sizes_from_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    allocation = {"NNODES": "2", "NTASKS_PER_NODE": "2", "NTASKS": "4", "CPUS_PER_TASK": "5"}
    place = {"PROCID": "3", "LOCALID": "1", "NODEID": "1", "JOB_ID": "77", "JOB_NAME": "encore"}
    for name, value in (allocation | place).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    # the trainer writes its place here, for the whole process
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    config = composed("hardware=slurm", "trainer.accelerator=cpu")
    assert config.data.num_workers == 5
    trainer = instantiate(config.trainer, logger=False, enable_checkpointing=False)
    environment = trainer.strategy.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert environment.auto_requeue
    assert environment.requeue_signal.name == "SIGUSR1"
    assert (trainer.num_nodes, trainer.num_devices, trainer.world_size, trainer.global_rank) == (2, 2, 4, 3)


def test_the_batch_script_is_valid_and_goes_on_by_itself() -> None:
    script = ROOT / "slurm" / "train.sbatch"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    assert {"--requeue", "--signal=SIGUSR1@90"} <= set(re.findall(r"^#SBATCH (\S+)", text, re.MULTILINE))
    assert re.search(r'train\.py hardware=slurm ckpt=last "\$@"$', text, re.MULTILINE)


def test_two_processes_train_one_run(tmp_path: Path, corpus: Path) -> None:
    """From a requeue before the first checkpoint, with averaged weights, accumulation and a guard."""
    probe = "+callbacks.probe={_target_: encore.callbacks.bridge_probe.BridgeProbe, ratios: [0.5]}"
    steps = ("trainer.max_steps=2", "trainer.accumulate_grad_batches=2", "data.epoch_size=8")
    options = ("module.nonfinite=skip", probe, "ckpt=last")
    hardware = ("hardware=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.num_workers=0")
    command = (*SMALL, f"data.root={corpus}", "name=run", *hardware, *steps, *options)
    done = train_alone(tmp_path, *command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("run folder:") == 1
    assert done.stdout.count("starting a new run") == 1
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["run"]
    run = tmp_path / "outputs" / "run"
    record = json.loads((run / "run.json").read_text())
    assert (record["training_steps"], record["finished"]) == (2, True)
    assert "devices=2" in " ".join(record["command"])
    assert not any("local_rank" in word for word in record["command"])
    assert [path.name for path in (run / "csv").iterdir()] == ["version_0"]
    scores = read_scores(run / "scores.parquet")
    keys = ["item", "method", "kind", "step", "metric"]
    assert not scores.duplicated(keys).any()
    probed = pd.read_parquet(run / "bridge_path.parquet")
    # each item was counted once
    for rows in (scores[scores["kind"] == "mixture"], probed[probed["what"] == "separator"]):
        assert sorted(rows["item"]) == ["p226_001", "p226_002", "p287_001"]
    load_separator(run / "checkpoints" / "last.ckpt")
