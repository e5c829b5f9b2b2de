"""Find silence, and the first point at which all sources of an item are active."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import pad

FRAME, HOP = 2048, 512  # samples; the defaults of librosa.effects.trim
BELOW_PEAK_DB = 60.0
SILENCE_DBFS = -60.0


def first_sound(signal: Tensor) -> int:
    """Return the first frame of a signal that is not silent, as ``librosa.effects.trim`` does.

    Frames of 2048 samples with a hop of 512 are centered, with zeros outside the signal. One is silent if its
    root mean square is at least 60 dB below that of the signal's loudest frame, in every channel.
    Unlike librosa, which has a floor of -100 dBFS, the result does not depend on the signal's level.

    Args:
        signal: ``(..., time)``; the leading dimensions are channels.

    Returns:
        The frame's center in samples, a multiple of 512; 0 for a signal of zeros.
    """
    frames = 1 + signal.shape[-1] // HOP
    blocks = FRAME // HOP
    # half a frame of zeros before, and enough behind to fill the last frame
    padded = pad(signal, (FRAME // 2, (frames + blocks) * HOP - signal.shape[-1] - FRAME // 2))
    # a norm makes no copy of its input
    energy = vector_norm(padded.reshape(*padded.shape[:-1], -1, HOP), dim=-1).double().square()
    energy = energy.unfold(-1, blocks, 1).sum(-1)[..., :frames].reshape(-1, frames).amax(0)
    sounding = energy > energy.max() * 10 ** (-BELOW_PEAK_DB / 10)
    return int(sounding.int().argmax()) * HOP if bool(sounding.any()) else 0


def active_start(signals: Iterable[Tensor]) -> int:
    """Return the first point at which all signals are active: the latest of their first sounds.

    Args:
        signals: ``(..., time)`` each, the sources of an item and their mixture; silent ones are ignored.

    Returns:
        An index in samples, a multiple of 512; 0 for no signals.

    Source: "Progressive inference for music demixing", 2025, which scores 30 s from this point on.
    """
    return max(map(first_sound, signals), default=0)


def is_silent(signal: Tensor) -> bool:
    """Return whether the root mean square over channels and time is below -60 dB of full scale."""
    return float(signal.double().square().mean()) < 10 ** (SILENCE_DBFS / 10)
