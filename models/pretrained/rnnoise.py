"""RNNoise, a denoiser of full-band speech: a C library, weights compiled in, inside the package pyrnnoise."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from encore.common.errors import one_line
from encore.common.packages import packaged_file
from encore.models.pretrained.registry import LOADERS, check_unnamed
from encore.models.separators.contract import AdaptedSeparator

FRAME, DELAY = 480, 960
"""Samples of a frame, and samples that the output is late: half a window, and a frame of look-ahead."""

_FULL_SCALE = 2**15
_FILES = {"darwin": "librnnoise.dylib", "win32": "rnnoise.dll"}


def open_rnnoise(name: str = "") -> nn.Module:
    """Open the RNNoise that the wheel pyrnnoise holds.

    Args:
        name: Empty: there is one network.

    Returns:
        A separator of ``speech`` from one channel at 48 kHz, aligned to its input, computed on the CPU and
        without gradients.

    Raises:
        ValueError: If a name is given, the wheel is not installed, or its library cannot be loaded.

    Source: J.-M. Valin, "A hybrid DSP/deep learning approach to real-time full-band speech enhancement",
    2018; https://github.com/xiph/rnnoise (BSD licence).
    """
    check_unnamed("rnnoise", name)
    file, install = _FILES.get(sys.platform, "librnnoise.so"), LOADERS["rnnoise"].install
    path = packaged_file("pyrnnoise", file, needed_by="rnnoise:", install=install)
    try:
        _library(path)
    except OSError as error:
        raise ValueError(f"'{path}' cannot be loaded: {one_line(error)}: {install}") from error
    return RNNoise(path)


class RNNoise(AdaptedSeparator):
    """The C library, with a state for each item, which starts anew in every call.

    Args:
        path: The library. Only its path is kept, so that the separator can be copied and pickled.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(("speech",), 48000, 1, shortest=FRAME, step=FRAME)
        self.path = path

    def estimate(self, mixture: Tensor) -> Tensor:
        """Denoise ``(batch, 1, time)``, where time is whole frames."""
        scaled = F.pad(mixture.detach()[:, 0].float().cpu() * _FULL_SCALE, (0, DELAY))
        frames = scaled.reshape(len(mixture), -1, FRAME).numpy()
        denoised = np.stack([_denoise(_library(self.path), item) for item in frames])
        speech = torch.from_numpy(denoised).flatten(1)[:, None, None, DELAY:] / _FULL_SCALE
        return speech.to(mixture)


def _denoise(library: ctypes.CDLL, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the denoised frames ``(frame, sample)`` of one item, `DELAY` samples late."""
    denoised = np.empty_like(frames)
    state = library.rnnoise_create(None)
    try:
        for frame, out in zip(frames, denoised, strict=True):
            library.rnnoise_process_frame(state, out.ctypes.data, frame.ctypes.data)
    finally:
        library.rnnoise_destroy(state)
    return denoised


@lru_cache(maxsize=1)
def _library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.rnnoise_create.argtypes, library.rnnoise_create.restype = (ctypes.c_void_p,), ctypes.c_void_p
    library.rnnoise_process_frame.argtypes = (ctypes.c_void_p,) * 3
    library.rnnoise_process_frame.restype = ctypes.c_float
    library.rnnoise_destroy.argtypes, library.rnnoise_destroy.restype = (ctypes.c_void_p,), None
    return library
