"""Build what a configuration names, and train it."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from encore.callbacks.last_checkpoint import LastCheckpoint
from encore.cli.evaluation import evaluate
from encore.cli.memory import disable_malloc_trim
from encore.cli.overrides import check_complete
from encore.cli.run_folder import RunFolder
from encore.cli.run_record import costs_of
from encore.cli.typed_config import check_types
from encore.models.acceleration import check_bfloat16, compile_blocks
from encore.models.weights import load_weights, read_state_dict


def train(config: DictConfig) -> None:
    """Train in the run folder that Hydra gave, or run the experiment of ``evaluation``.

    Raises:
        ValueError: If a value is invalid, or something does not fit.
    """
    check_complete(config)
    for resolve in (False, True):  # what was typed before what follows from it
        check_types(OmegaConf.to_container(config, resolve=resolve), "")
    disable_malloc_trim()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    folder = RunFolder(HydraConfig.get().runtime.output_dir, shared=rank_zero_only.rank != 0)  # type: ignore[attr-defined]
    if config.evaluation is not None:
        evaluate(config, folder)
        return
    checkpoint = folder.checkpoint(config.ckpt)
    folder.describe(config)
    done = False
    try:
        _fit(config, folder, checkpoint)
        done = True
    finally:
        finish_wandb(failed=not done)
    rank_zero_only(print)(f"run folder: {folder.path}")


def _fit(config: DictConfig, folder: RunFolder, checkpoint: str | None) -> None:
    """Build, fit and keep a record of it."""
    trainer, module, network, data = build(config)
    folder.update(model=HydraConfig.get().runtime.choices["model"], **costs_of(network))
    # not before the costs are counted: what runs first under a counter would never be compiled
    if config.compile:
        compile_blocks(network)
    plain = OmegaConf.to_container(config, resolve=True)
    for logger in trainer.loggers:
        logger.log_hyperparams(plain)  # type: ignore[arg-type]
    last = next((own for own in trainer.callbacks if isinstance(own, LastCheckpoint)), None)  # type: ignore[attr-defined]
    started = time.monotonic()
    try:
        with last.ends_at_signals() if last else nullcontext():
            trainer.fit(module, data, ckpt_path=checkpoint)
    except BaseException:
        if last is None or last.signal is None:
            raise
        # workers of a loader may have ended first, with another error
        _say_how_to_go_on(trainer, last)
    finally:
        folder.add_seconds(time.monotonic() - started)
        folder.update(training_steps=trainer.global_step, finished=trainer.state.finished)


def _say_how_to_go_on(trainer: Trainer, last: LastCheckpoint) -> NoReturn:
    """End the process at a signal: exit status 143 for SIGTERM, 130 for Ctrl-C.

    Processes that Lightning started end with 0, or it would kill the first one while it still writes.
    """
    if not trainer.is_global_zero and trainer.strategy.launcher is not None:
        sys.exit(0)
    if trainer.is_global_zero:
        words = [word for word in sys.argv[1:] if not word.startswith("ckpt=")]
        program = ["python", sys.argv[0]] if sys.argv[0].endswith(".py") else [Path(sys.argv[0]).name]
        command = shlex.join([*program, *words, "ckpt=last"])
        reached = (
            f"at step {last.step} of {trainer.max_steps}" if last.step else "before its first checkpoint"
        )
        print(f"interrupted {reached}: go on with {command}")
    assert last.signal is not None
    sys.exit(128 + last.signal)


def build(config: DictConfig) -> tuple[Trainer, Any, Any, Any]:
    """Build the trainer, module, network and data that a configuration describes; loggers last.

    Nothing is logged of a configuration in which something else is wrong.
    """
    seed_everything(config.seed, workers=True, verbose=False)
    data = instantiate(config.data)
    network = instantiate(config.model)
    if config.init is not None:
        weights, partial = read_state_dict(config.init), config.init_partial
        report = load_weights(network, weights, config.init, partial=partial)
        if partial:
            print(report)
    plain = OmegaConf.to_container(config.model, resolve=True)
    module = instantiate(config.module)(network, model_config=plain)
    callbacks = [instantiate(node) for node in config.callbacks.values() if node is not None]
    trainer = instantiate(
        config.trainer,
        callbacks=callbacks,
        logger=False,
        default_root_dir=HydraConfig.get().runtime.output_dir,
    )
    if trainer.precision.startswith("bf16"):
        check_bfloat16(network, trainer.strategy.root_device)
    if config.logger and not trainer.fast_dev_run:
        trainer.loggers = [instantiate(config.logger)]
    return trainer, module, network, data


def finish_wandb(*, failed: bool) -> None:
    """End the run of Weights & Biases, if there is one: the next job of a sweep would go on with it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=int(failed))
