"""Small networks of every architecture, signals and comparisons that several tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from encore.models.checkpoint import instantiate

MODELS = Path(__file__).parents[1] / "configs" / "model"
_SMALLEST = {"n_filters": 16, "bn_chan": 8}
_SUDORMRF = _SMALLEST | {"num_blocks": 1, "upsampling_depth": 2}
ASTEROID = {
    "ConvTasNet": _SMALLEST | {"hid_chan": 8, "skip_chan": 8, "n_blocks": 2, "n_repeats": 1},
    "DPRNNTasNet": _SMALLEST | {"hid_size": 8, "chunk_size": 10, "n_repeats": 1},
    "DPTNet": {"n_filters": 16, "ff_hid": 8, "chunk_size": 10, "n_repeats": 1},
    "LSTMTasNet": {"n_filters": 16, "hid_size": 8, "n_layers": 1, "dropout": 0.0},
    "SuDORMRFImprovedNet": _SUDORMRF,
    "SuDORMRFNet": _SUDORMRF | {"mask_act": "sigmoid"},
}
_WINDOW = {"window_seconds": 0.064, "hop_seconds": 0.016}
_DTTNET = {"growth": 8, "scales": 2, "convolutions": 1, "layers": 1, **_WINDOW}
_UNET = {"filters": [8, 8, 16, 16], "dropout": 0.0, **_WINDOW}
_BRIDGE = {"bridge": {"_target_": "encore.models.processes.bridge.BrownianBridge"}}
SMALL: dict[str, dict[str, Any]] = {
    **{
        name: {"_target_": "separators.asteroid.AsteroidSeparator", "architecture": name, "options": options}
        for name, options in ASTEROID.items()
    },
    "BSRNN": {"_target_": "separators.bsrnn.BSRNN", "features": 8, "layers": 2},
    "BSRNN compressed": {
        "_target_": "separators.bsrnn.BSRNN",
        "features": 8,
        "layers": 1,
        "compression": 0.3,
        "norm": "position",
    },
    "BSRoFormer": {
        "_target_": "separators.bs_roformer.BSRoFormer",
        "dim": 8,
        "depth": 2,
        "heads": 2,
        "dim_head": 4,
        "bands": [[10, 100.0], [6, 500.0]],
    },
    "DTTNet": {"_target_": "separators.dttnet.DTTNet", **_DTTNET, "subbands": 2, "compression": 0.3},
    "DTTNet mask": {"_target_": "separators.dttnet.DTTNet", **_DTTNET, "output": "mask"},
    "GTCRN": {"_target_": "separators.gtcrn.GTCRN", "features": 8, "layers": 1, "causal": False},
    "HDemucs": {"_target_": "separators.hdemucs.HDemucs", "width": 4, "depth": 5},
    "SpectrogramUNet": {"_target_": "separators.spectrogram_unet.SpectrogramUNet", **_UNET},
    "SpectrogramUNet shared": {
        "_target_": "separators.spectrogram_unet.SpectrogramUNet",
        **_UNET,
        "shared": True,
        "features": 4,
        "masks": "softmax",
        "compression": 0.3,
    },
    "ConditionedBSRNN": {
        "_target_": "denoisers.bridge_separator.BridgeSeparator",
        "network": {"_target_": "denoisers.conditioned_bsrnn.ConditionedBSRNN", "features": 6, "layers": 1},
        **_BRIDGE,
    },
    "ConditionedMasks": {
        "_target_": "denoisers.bridge_separator.BridgeSeparator",
        "network": {"_target_": "denoisers.conditioned_masks.ConditionedMasks", "filters": [4, 4, 4]},
        "domain": "compressed",
        **_BRIDGE,
    },
}
"""Configurations of every separator in the package, small and without dropout."""


def described(
    name: str,
    sources: tuple[str, ...] = ("a", "b"),
    sample_rate: int = 8000,
    channels: int = 1,
    **options: Any,
) -> dict[str, Any]:
    """The complete configuration of a network of `SMALL`."""
    audio = {"sources": list(sources), "sample_rate": sample_rate, "channels": channels}
    node: dict[str, Any] = SMALL[name] | options
    inner = node.get("network")
    if inner is None:
        node |= audio
    else:
        node["network"] = inner | audio | {"_target_": f"encore.models.{inner['_target_']}"}
    return node | {"_target_": f"encore.models.{node['_target_']}"}


def small(
    name: str,
    sources: tuple[str, ...] = ("a", "b"),
    sample_rate: int = 8000,
    channels: int = 1,
    **options: Any,
) -> nn.Module:
    """Build a network of `SMALL`, always with the same weights."""
    torch.manual_seed(0)
    return instantiate(described(name, sources, sample_rate, channels, **options)).eval()


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
