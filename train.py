"""Train a separator: ``python train.py experiment=speech_denoising data.root=<folder>``; see ``--help``."""

from __future__ import annotations

import sys
import time
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from encore.cli.evaluation import evaluate
from encore.cli.memory import disable_malloc_trim
from encore.cli.overrides import UserError, check_complete, check_overrides, one_line_errors
from encore.cli.run_folder import RunFolder, run_id
from encore.cli.run_record import costs_of
from encore.cli.typed_config import check_types
from encore.models.acceleration import check_bfloat16, compile_blocks
from encore.models.weights import load_weights, read_state_dict

OmegaConf.register_new_resolver("run_id", run_id, replace=True)


def build(config: DictConfig) -> tuple[Trainer, Any, Any, Any]:
    """Build the trainer, module, network and data that a configuration describes."""
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
    logger = instantiate(config.logger) if config.logger else False
    trainer = instantiate(
        config.trainer,
        callbacks=callbacks,
        logger=logger,
        default_root_dir=HydraConfig.get().runtime.output_dir,
    )
    if trainer.precision.startswith("bf16"):
        check_bfloat16(network, trainer.strategy.root_device)
    return trainer, module, network, data


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
@one_line_errors
def run(config: DictConfig) -> None:
    """Build what the configuration names and fit it."""
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
    rank_zero_only(print)(f"run folder: {folder.path}")


def main() -> None:
    """Check what was typed, and train."""
    try:
        check_overrides(sys.argv[1:], config_name="train")
    except UserError as error:
        sys.exit(f"error: {error}")
    run()


if __name__ == "__main__":
    main()
