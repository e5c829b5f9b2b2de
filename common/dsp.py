"""Hann-windowed Fourier transforms and resampling, the only ones of the project."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import resample as torchaudio_resample
from torchaudio.transforms import Resample

Padding = Literal["reflect", "constant"]
"""Padding of `stft` by half a window at both ends: the mirrored signal, or zeros."""

ResamplingFilter = Literal["kaiser_best", "hann"]
"""``"kaiser_best"``: the filter of librosa's resampler of that name, for audio. ``"hann"``: torchaudio's
default of 6 zero crossings, which folds the octave's edge back into the band; metrics are defined with it."""

# Constants of librosa's "kaiser_best"
_ZERO_CROSSINGS, _ROLLOFF, _BETA = 64, 0.9475937167399596, 14.769656459379492


def stft(
    waveform: Tensor, window: int | Tensor, hop: int | None = None, *, padding: Padding = "reflect"
) -> Tensor:
    """Return the short-time Fourier transform of waveforms of any length, windows centered on their frames.

    Args:
        waveform: ``(..., time)``. Computed in the precision of a given window, else in float32, or in float64
            for float64; one too short to be mirrored is padded with zeros at its end first.
        window: Samples of a periodic Hann window, or the window itself.
        hop: Samples between frames; a quarter of the window if None.
        padding: See `Padding`.

    Returns:
        Complex ``(..., frequency, frame)``.
    """
    taper = _taper(window, waveform)
    size = len(taper)
    waveform = waveform.to(taper.dtype)
    if padding == "reflect":
        waveform = F.pad(waveform, (0, max(0, size // 2 + 1 - waveform.shape[-1])))
    spectrum = torch.stft(
        waveform.reshape(-1, waveform.shape[-1]),
        size,
        size // 4 if hop is None else hop,
        window=taper,
        pad_mode=padding,
        return_complex=True,
    )
    return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])


def istft(
    spectrum: Tensor, window: int | Tensor, length: int | None = None, hop: int | None = None
) -> Tensor:
    """Invert `stft`.

    Args:
        spectrum: Complex ``(..., frequency, frame)``.
        window: As of `stft`.
        length: Samples to return; the whole hops between the first and the last frame if None, which
            `torch.export` needs where lengths are open.
        hop: As of `stft`.

    Returns:
        ``(..., length)``.
    """
    taper = _taper(window, spectrum.real)
    size = len(taper)
    waveform = torch.istft(
        spectrum.reshape(-1, *spectrum.shape[-2:]),
        size,
        size // 4 if hop is None else hop,
        window=taper,
        length=length,
    )
    return waveform.reshape(*spectrum.shape[:-2], waveform.shape[-1])


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Return the frames that `resample` makes of ``frames``: ``ceil(frames * to_rate / from_rate)``."""
    divisor = gcd(from_rate, to_rate)
    return ceil(frames * (to_rate // divisor) / (from_rate // divisor))


def resample(
    waveform: Tensor, from_rate: int, to_rate: int, *, kernel: ResamplingFilter = "kaiser_best"
) -> Tensor:
    """Resample waveforms by windowed-sinc interpolation, never in mixed precision.

    Args:
        waveform: ``(..., time)`` at ``from_rate``.
        from_rate: Rate in Hz of ``waveform``.
        to_rate: Rate in Hz to return.
        kernel: See `ResamplingFilter`.

    Returns:
        ``(..., ceil(time * to_rate / from_rate))``; ``waveform`` itself if the rates are equal.

    Raises:
        ValueError: If a rate is not positive, or the kernel is unknown.

    Source: J. O. Smith, "Digital audio resampling", 2002.
    """
    if from_rate < 1 or to_rate < 1:
        raise ValueError(f"from_rate={from_rate}, to_rate={to_rate}: give positive rates in Hz")
    if kernel not in get_args(ResamplingFilter):
        raise ValueError(f"kernel={kernel!r}: choose 'kaiser_best' or 'hann'")
    if from_rate == to_rate:
        return waveform
    # torchaudio views its input, which fails for slices of a larger tensor
    waveform = waveform.contiguous()
    with torch.autocast(waveform.device.type, enabled=False):
        if kernel == "hann":
            return torchaudio_resample(waveform, from_rate, to_rate)
        resampled: Tensor = resampler(from_rate, to_rate, waveform.dtype, waveform.device)(waveform)
        return resampled


def resampler(
    from_rate: int, to_rate: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Resample:
    """Return the "kaiser_best" filter between two rates; its ``width`` is the filter's reach in samples."""
    divisor = gcd(from_rate, to_rate)
    return _resampler(from_rate // divisor, to_rate // divisor, dtype, device or torch.device("cpu"))


@lru_cache(maxsize=32)
def _resampler(old: int, new: int, dtype: torch.dtype, device: torch.device) -> Resample:
    # the filter of 44.1 to 16 kHz takes longer to make than to apply, hence the cache; made in inference
    # mode, it could not take part in a gradient later
    with torch.inference_mode(False):
        return Resample(
            old,
            new,
            resampling_method="sinc_interp_kaiser",
            lowpass_filter_width=_ZERO_CROSSINGS,
            rolloff=_ROLLOFF,
            beta=_BETA,
            dtype=torch.float64 if dtype == torch.float64 else None,
        ).to(device)


def _taper(window: int | Tensor, like: Tensor) -> Tensor:
    if isinstance(window, Tensor):
        return window
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.hann_window(window, dtype=dtype, device=like.device)
