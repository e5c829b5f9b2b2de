"""Build what a configuration names, and train it."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

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
    started = time.monotonic()
    trainer.fit(module, data, ckpt_path=checkpoint)
    folder.add_seconds(time.monotonic() - started)
    folder.update(training_steps=trainer.global_step, finished=not trainer.interrupted)


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
