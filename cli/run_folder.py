"""Write the folder of one training run: configuration, commit, environment, facts."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from omegaconf import DictConfig, OmegaConf

from encore.cli.overrides import UserError


def run_id(folder: str | Path) -> str:
    """Return a run folder's identifier, which resuming keeps: eight hexadecimal digits of its path."""
    return hashlib.sha1(str(Path(folder).resolve()).encode(), usedforsecurity=False).hexdigest()[:8]


class RunFolder:
    """One run's folder: ``config.yaml``, ``run.json``, ``environment.txt``, ``checkpoints/``, scores, plots.

    Args:
        path: The folder; made when the first facts are written.
        shared: Whether this is one of several processes that share it, and not the one that writes.
    """

    def __init__(self, path: str | Path, *, shared: bool = False) -> None:
        self.path, self.shared = Path(path), shared

    def checkpoint(self, choice: str | None) -> str | None:
        """Return the file to resume from, or None to start.

        Args:
            choice: None starts a new run, ``last`` goes on with this folder's newest checkpoint (the last
                one, or one that Lightning wrote at SLURM's signal) or starts if there is none yet (so that a
                preempted job can always be submitted with it), anything else is a path.

        Raises:
            UserError: If a new run would overwrite an old one, or the path does not exist.
        """
        written = [*self.path.glob("checkpoints/last.ckpt"), *self.path.glob("hpc_ckpt_*.ckpt")]
        if choice is None:
            if written:
                raise UserError(
                    f"{self.path} already holds a run: go on with it (ckpt=last) or give another name=..."
                )
            return None
        if choice == "last":
            if not written:
                if not self.shared:
                    print(f"{self.path} has no checkpoint yet: starting a new run")
                return None
            return str(max(written, key=lambda path: path.stat().st_mtime_ns))
        if not Path(choice).is_file():
            raise UserError(f"ckpt={choice}: there is no such file; use ckpt=last or the path of a .ckpt")
        if not is_zipfile(choice):
            raise UserError(f"ckpt={choice}: is truncated or not a checkpoint; copy it again")
        return choice

    def describe(self, config: DictConfig) -> None:
        """Write the resolved configuration, the commit and the environment, before anything is built."""
        if self.shared:
            return
        import torch  # a second, which mistyped options need not wait for

        packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions()}, key=str.lower)
        lines = [f"python {sys.version.split()[0]}", platform.platform(), *packages]
        self.update(
            name=config.name,
            run_id=run_id(self.path),
            seed=config.seed,
            sample_rate=config.data.sample_rate,
            command=sys.argv,
            threads=torch.get_num_threads(),
            **_commit(),
        )
        OmegaConf.save(config, self.path / "config.yaml", resolve=True)
        (self.path / "environment.txt").write_text("\n".join(lines) + "\n")

    def update(self, **facts: Any) -> None:
        """Add facts to ``run.json``."""
        if self.shared:
            return
        path = self.path / "run.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.facts() | facts, indent=2) + "\n")

    def add_seconds(self, seconds: float) -> None:
        """Count the wall time of training, over all sessions of a resumed run."""
        before = 0 if self.shared else self.facts().get("training_seconds", 0)
        self.update(training_seconds=round(before + seconds, 1))

    def facts(self) -> dict[str, Any]:
        """Return the content of ``run.json``; an empty dictionary without one."""
        path = self.path / "run.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}


def _commit() -> dict[str, Any]:
    """Return the commit of the code and whether it was changed since; None outside a clone of it."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    # an installed package may be inside somebody else's repository
    if git("rev-parse", "--show-toplevel") != str(root):
        return {"commit": None, "uncommitted_changes": False}
    return {"commit": git("rev-parse", "HEAD"), "uncommitted_changes": bool(git("status", "--porcelain"))}
