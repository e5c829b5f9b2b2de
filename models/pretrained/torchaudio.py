"""The separation bundles of torchaudio: Hybrid Demucs for music, Conv-TasNet for two speakers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from encore.common.names import nearest
from encore.models.pretrained.downloads import fetch
from encore.models.separators.contract import AdaptedSeparator
from encore.models.weights import load_weights, read_state_dict
from encore.models.wrappers import Standardised

BUNDLES = {
    "CONVTASNET_BASE_LIBRI2MIX": ("speaker1", "speaker2"),
    "HDEMUCS_HIGH_MUSDB": ("drums", "bass", "other", "vocals"),
    "HDEMUCS_HIGH_MUSDB_PLUS": ("drums", "bass", "other", "vocals"),
}
"""Names in ``torchaudio.pipelines``, with the sources that each estimates."""


def open_torchaudio(name: str, *, weights: Path | None = None) -> nn.Module:
    """Open a bundle of torchaudio.

    Args:
        name: One of `BUNDLES`.
        weights: A file with other weights for the same network; by default torchaudio's own, from the folder
            ``torchaudio/models`` in torch's hub cache, or downloaded to it.

    Returns:
        A separator: Hybrid Demucs takes two channels at 44.1 kHz, normalized item by item, Conv-TasNet one at
        8 kHz.

    Raises:
        FileNotFoundError: If ``weights`` does not exist.
        ValueError: If the name is unknown, or the weights cannot be fetched or do not fit.

    Source: https://pytorch.org/audio/stable/tutorials/hybrid_demucs_tutorial.html for the normalization.
    """
    if name not in BUNDLES:
        raise ValueError(f"torchaudio bundle '{name}' is unknown: use {', '.join(nearest(name, BUNDLES, 3))}")
    import torchaudio

    bundle = getattr(torchaudio.pipelines, name)
    path = weights or fetch(
        f"torchaudio bundle '{name}'", lambda: torchaudio.utils._download_asset(bundle._model_path)
    )
    network: Any = bundle._model_factory_func()
    load_weights(network, read_state_dict(path), path)
    if not name.startswith("HDEMUCS"):
        return AdaptedSeparator(BUNDLES[name], bundle.sample_rate, 1, network)
    # its transform reflects one and a half hops, and rounds up to a whole one
    shortest = 5 * network.hop_length // 2
    return Standardised(
        AdaptedSeparator(
            BUNDLES[name], bundle.sample_rate, network.audio_channels, network, shortest=shortest
        )
    )
