"""Train a separator: ``python train.py experiment=speech_denoising data.root=<folder>``; see ``--help``.

What is heavy is imported when the options have been checked, so that a mistyped one fails at once.
"""

from __future__ import annotations

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from encore.cli.overrides import (
    SWEEP_FLAGS,
    Job,
    UserError,
    check_paths,
    composed_jobs,
    one_line_errors,
    sweep_name,
)
from encore.cli.run_folder import RunFolder, run_id

OmegaConf.register_new_resolver("run_id", run_id, replace=True)


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def run(config: DictConfig) -> None:
    """Train what the configuration describes; of a sweep, the next job is run after a mistake in this one."""
    from encore.cli.training import train

    try:
        one_line_errors(train)(config)
    except SystemExit as stop:
        if HydraConfig.get().mode != RunMode.MULTIRUN or not isinstance(stop.code, str):
            raise
        print(stop.code, file=sys.stderr)


def checked_jobs(arguments: list[str]) -> list[Job]:
    """Check all jobs of a command line, what is quick first: a sweep starts none if one is wrong.

    Returns:
        The jobs; none of a command line that Hydra answers, such as ``--help``.

    Raises:
        UserError: Names the option, its value and the fix.
    """
    jobs = composed_jobs(arguments, config_name="train")
    check_paths(jobs)
    for job in jobs:
        if job.values["evaluation"] is None:
            RunFolder(job.folder, shared=True).checkpoint(job.values["ckpt"])
    from encore.cli.typed_config import check_types

    for values in [job.typed for job in jobs] + [job.values for job in jobs]:
        check_types(values, "")
    return jobs


def main() -> None:
    """Check what was typed, and train."""
    try:
        jobs = checked_jobs(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    if jobs and SWEEP_FLAGS & set(sys.argv):
        # of Weights & Biases, also in the processes of launchers
        os.environ.setdefault("WANDB_RUN_GROUP", sweep_name(jobs))
    run()
    if failed := [str(job.folder) for job in jobs if not RunFolder(job.folder).facts().get("finished")]:
        sys.exit(f"error: not finished: {', '.join(failed)}")


if __name__ == "__main__":
    main()
