"""Small parts that several tests train with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from encore.data.corpora import voicebank_demand
from encore.data.datamodule import SeparationData
from encore.lightning_modules.losses import FixedOrder, negative_snr
from encore.lightning_modules.separation import SeparationModule


class Shrink(nn.Module):
    """A separator with one weight: enough to be trained, refined and told apart from its average."""

    sources, sample_rate, channels = ("speech",), 16000, 1

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        kernel = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", kernel[None, None])

    def forward(self, mixture: Tensor) -> Tensor:
        return (self.gain * nn.functional.conv1d(mixture, self.kernel, padding=1))[:, None]


class Gain(nn.Module):
    """One weight: the estimate is the mixture times it."""

    sources = ("speech",)

    def __init__(self, weight: float = 0.5, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=dtype))

    def forward(self, mixture: Tensor) -> Tensor:
        return self.weight * mixture[:, None]


def squared_error(estimates: Tensor, references: Tensor) -> Tensor:
    return (estimates - references).square().mean(dim=(1, 2, 3))


def toy_data(corpus: Path) -> SeparationData:
    """Two batches an epoch, three validation items."""
    return SeparationData(
        train=lambda: voicebank_demand(corpus, split="train"),
        valid=lambda: voicebank_demand(corpus, split="valid"),
        segment_seconds=0.5,
        batch_size=2,
    )


def toy_module(rate: float = 0.1) -> SeparationModule:
    """Plain gradient descent on the SNR."""
    return SeparationModule(
        Shrink(), FixedOrder(negative_snr), optimizer=lambda weights: torch.optim.SGD(weights, lr=rate)
    )


def toy_trainer(folder: Path, **options: Any) -> lightning.Trainer:
    """On the CPU, quiet, without anything that was not asked for."""
    defaults: dict[str, Any] = {"max_steps": 3, "logger": False, "enable_checkpointing": False}
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **defaults | options,
    )
