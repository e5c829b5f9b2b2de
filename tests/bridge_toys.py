"""Small bridges for several tests."""

from __future__ import annotations

from typing import Any

import torch

from encore.models.checkpoint import instantiate
from encore.models.denoisers.bridge_separator import BridgeSeparator

BSRNN = {
    "_target_": "encore.models.denoisers.conditioned_bsrnn.ConditionedBSRNN",
    "features": 6,
    "layers": 1,
    "window_seconds": 0.032,
    "max_sample_rate": 16000,
}
MASKS = {
    "_target_": "encore.models.denoisers.conditioned_masks.ConditionedMasks",
    "filters": [4, 4, 4],
    "features": 2,
}
BROWNIAN = {"_target_": "encore.models.processes.bridge.BrownianBridge", "g": 0.5}


def bridge_config(
    network: dict[str, Any] = BSRNN,
    *,
    sources: tuple[str, ...] = ("speech",),
    channels: int = 1,
    **options: Any,
) -> dict[str, Any]:
    described = {"sources": list(sources), "sample_rate": 16000, "channels": channels}
    return {
        "_target_": "encore.models.denoisers.bridge_separator.BridgeSeparator",
        "network": network | described,
        "bridge": BROWNIAN,
        **options,
    }


def toy_bridge(
    network: dict[str, Any] = BSRNN, *, conditioned: bool = True, **options: Any
) -> BridgeSeparator:
    """Return an untrained bridge, whose estimates depend on the time if it is conditioned."""
    torch.manual_seed(0)
    separator = instantiate(bridge_config(network, **options))
    assert isinstance(separator, BridgeSeparator)
    if conditioned:
        for head in separator.network.films.heads:
            torch.nn.init.normal_(head.weight, std=0.3)
    return separator.eval()
