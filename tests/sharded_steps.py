"""Two processes train a band-split RNN in shards; beside them, one trains it whole. Prints what differs."""

from __future__ import annotations

import json
import sys
import warnings
from functools import partial

import torch
from torch import Tensor
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType
from torch.multiprocessing.spawn import spawn
from torch.optim import AdamW

from encore.models.acceleration import wrap_blocks
from encore.models.separators.bsrnn import BSRNN


def steps(network: torch.nn.Module, rank: int | None) -> Tensor:
    """Two clipped optimiser steps on two items, or on one of them; returns the last norm of the gradients."""
    optimizer = AdamW(network.parameters(), lr=1e-3, fused=True)
    for seed in range(2):
        mixture = torch.randn(2, 1, 4000, generator=torch.Generator().manual_seed(seed))
        network(mixture if rank is None else mixture[rank : rank + 1]).square().mean().backward()
        if isinstance(network, FullyShardedDataParallel):
            norm = network.clip_grad_norm_(0.01)
        else:
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()
    return norm


def small() -> BSRNN:
    torch.manual_seed(0)
    return BSRNN(features=8, layers=2, sample_rate=8000)


def process(rank: int, meeting_place: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{meeting_place}", rank=rank, world_size=2)
    network = FullyShardedDataParallel(
        small(), auto_wrap_policy=partial(wrap_blocks), use_orig_params=True, device_id=torch.device("cpu")
    )
    norm = steps(network, rank)
    # on the CPU the weights cannot be offloaded to it, as Lightning does: torch frees them too early
    whole = FullStateDictConfig(offload_to_cpu=False, rank0_only=False)
    with FullyShardedDataParallel.state_dict_type(network, StateDictType.FULL_STATE_DICT, whole):
        weights = network.state_dict()
    if rank == 0:
        shards = sum(isinstance(part, FullyShardedDataParallel) for part in network.modules())
        print(json.dumps({"shards": shards, **differences(weights, norm)}), flush=True)
    destroy_process_group()


def differences(weights: dict[str, Tensor], norm: Tensor) -> dict[str, float | bool]:
    network = small()
    expected_norm = steps(network, None)
    expected = network.state_dict()
    return {
        "same names": list(weights) == list(expected),
        "norm": float((norm - expected_norm).abs() / expected_norm),
        "weights": max(float((weights[name] - expected[name]).abs().max()) for name in expected),
    }


if __name__ == "__main__":
    spawn(process, args=(sys.argv[1],), nprocs=2)
