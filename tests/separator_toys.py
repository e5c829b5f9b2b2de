"""Signals, configurations and comparisons that the tests of several architectures share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from encore.models.checkpoint import instantiate
from encore.models.costs import macs_per_second, parameters

MODELS = Path(__file__).parents[1] / "configs" / "model"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((actual - expected).abs().max()) <= relative * scale


def configured(
    model: str, sources: tuple[str, ...] = ("speech",), sample_rate: int = 16000, channels: int = 1
) -> dict[str, Any]:
    """The configuration of that name for some audio."""
    data = {"sources": list(sources), "sample_rate": sample_rate, "channels": channels}
    node = OmegaConf.create({"data": data, "model": OmegaConf.load(MODELS / f"{model}.yaml")})
    return OmegaConf.to_container(node, resolve=True)["model"]


def check_stated_costs(model: str, *, counted: bool) -> None:
    """The first line of a configuration says what the network has of parameters and, if counted, costs."""
    header = (MODELS / f"{model}.yaml").read_text().splitlines()[0]
    millions, cost = re.match(r"# ([\d.]+) M parameters, ([\d.]+) G multiply-accumulates", header).groups()
    with torch.device("meta"):
        separator = instantiate(configured(model))
    assert parameters(separator) / 1e6 == pytest.approx(float(millions), abs=0.005)
    if counted:
        assert macs_per_second(separator, seconds=4.0) / 1e9 == pytest.approx(float(cost), abs=0.005)
