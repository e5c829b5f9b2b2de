"""Several jobs of one command: checked before the first one starts, logged one by one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from train_toys import SMALL, train, wandb_records

from encore.cli.overrides import composed_jobs
from encore.cli.run_folder import run_id

OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}


def test_every_job_is_a_run_of_its_own_in_one_group_and_failed_where_it_failed(
    tmp_path: Path, corpus: Path
) -> None:
    """The next one is run also after an error."""
    sweep = ("module.optimizer.lr=1e30,1e-3", "name=rate${module.optimizer.lr}")
    options = (f"data.root={corpus}", "trainer.max_steps=2", "logger=wandb")
    done = train(tmp_path, "-m", *SMALL, *sweep, *options, **OFFLINE)
    wandb.teardown()
    assert done.returncode == 1
    first, second = re.findall("^error: .*$", done.stderr, re.MULTILINE)
    assert first.startswith("error: the training loss is nan at step 1")
    assert second == "error: not finished: outputs/rate1e+30"
    groups = set()
    for name, status in (("rate1e+30", 1), ("rate0.001", 0)):
        (file,) = (tmp_path / "outputs" / name).glob("wandb/offline-run-*/*.wandb")
        records = wandb_records(file)
        assert {r.run.run_id for r in records if r.HasField("run")} == {run_id(tmp_path / "outputs" / name)}
        assert [r.exit.exit_code for r in records if r.HasField("exit")] == [status]
        groups |= {r.run.run_group for r in records if r.HasField("run")}
    (group,) = groups
    assert re.fullmatch("sweep_lr_[0-9a-f]{8}", group)
    keys = {item.key or "/".join(item.nested_key) for r in records for item in r.history.item}
    for key in ("val/loss", "val/multi_step/si_sdr_oracle/snr", "val/multi_step/audio"):
        assert any(found.startswith(key) for found in keys)


def test_right_jobs_pass_and_are_split_as_hydra_does() -> None:
    sweep = [
        "-m",
        "model=bsrnn_xtiny,bsrnn_tiny",
        "seed=range(1,3)",
        "data.root=a b",
        "data.train.valid_speakers=[a,b]",
    ]
    jobs = composed_jobs(sweep, config_name="train")
    assert [str(job.folder) for job in jobs] == [
        f"outputs/None_bsrnn_{size}_seed{seed}" for size in ("xtiny", "tiny") for seed in (1, 2)
    ]
    assert all(job.values["data"]["valid"]["valid_speakers"] == ["a", "b"] for job in jobs)
    assert composed_jobs(["--cfg", "job", "modle=x"], config_name="train") == []


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model=conv_tasnet_tiny,bsrnn_xtiny,conv_tasnet_tinny", "model has no option 'conv_tasnet_tinny'"),
        ("seed=1,2,three", "seed=three: give a whole number"),
        ("init=null,nowhere.ckpt", "init=nowhere.ckpt: there is no such file"),
        ("seed=1,2 ckpt=nowhere.ckpt", "ckpt=nowhere.ckpt: there is no such file"),
        ("trainer.max_steps=1,2", "two jobs of the sweep write to outputs/"),
        ("seed=1,'${nothing}'", "Interpolation key 'nothing' not found"),
    ],
)
def test_a_sweep_with_a_wrong_job_starts_none(
    override: str, fault: str, tmp_path: Path, corpus: Path
) -> None:
    done = train(tmp_path, "-m", *SMALL, f"data.root={corpus}", *override.split())
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert fault in line
    assert not (tmp_path / "outputs").exists()


def test_a_mistyped_option_is_told_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    heavy = "sys.exit([own for own in ('torch', 'lightning', 'pandas') if own in sys.modules])"
    mistyped = "sys.argv[1:] = ['modle=x']"
    program = (
        f"import sys\n{mistyped}\nfrom encore import train\ntry: train.main()\nexcept SystemExit: {heavy}"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"[]\n")
