"""Oracle metrics: functions that compare an estimate with its reference.

Every function takes ``estimate`` and ``reference`` of one shape ``(..., time)`` and returns ``(...)``, higher
is better; other shapes raise a ValueError. An item that cannot be scored is NaN, so that one bad file costs
one score:

- a non-finite sample in either signal, or no samples at all;
- a silent reference (all samples zero): no metric is defined there;
- a silent estimate of a sounding reference: SI-SDR would be ``-inf`` and SNR 0 dB, more than many estimates
  get; as NaN it counts as a failure and is never the best of several candidates;
- a signal that is too short for the metric.

`si_sdr`, `snr` and `sdr` run on the signals' device and are differentiable; the others run on the CPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from encore.common.packages import require
from encore.metrics.processes import score_pairs
from encore.metrics.single_signals import PESQ_RATES

STOI_MINIMUM_RATE = 10000
"""In Hz: STOI is defined on audio of that rate, which pystoi resamples all other to."""

SDR_TAPS = 512


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the scale-invariant signal-to-distortion ratio; no mean is removed.

    In dB, for any gain of either, within +-138 dB in float32 and +-313 dB in float64, the samples' precision:
    a perfect estimate has a finite score.

    Source: J. Le Roux et al., "SDR - half-baked or well done?", 2019, eq. (3).

    Example:
        >>> reference = torch.tensor([3.0, -0.5, 2.0, 7.0])
        >>> estimate = torch.tensor([2.5, 0.0, 2.0, 8.0])
        >>> print(f"{si_sdr(estimate, reference):.2f} dB")
        18.40 dB
        >>> print(f"{si_sdr(estimate / 100, reference):.2f} dB")
        18.40 dB
    """
    estimate, reference, valid = _prepare(estimate, reference)
    estimate, reference = estimate / _peak(estimate), reference / _peak(reference)
    gain = (estimate * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True)
    target = gain * reference
    return torch.where(valid, _decibels(target, estimate - target), torch.nan)


def snr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the SNR ``||reference||^2 / ||reference - estimate||^2`` in dB, bounded as `si_sdr` is."""
    estimate, reference, valid = _prepare(estimate, reference)
    scale = torch.maximum(_peak(estimate), _peak(reference))
    reference, noise = reference / scale, (reference - estimate) / scale
    return torch.where(valid, _decibels(reference, noise), torch.nan)


def sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the SDR of BSSEval, which forgives any filter of 512 taps; computed in float64.

    In dB, for any gain of either, within +-156 dB; NaN also with fewer than 512 samples, and for a reference
    whose 512 delays are linearly dependent.

    Source: E. Vincent, R. Gribonval, C. Fevotte, "Performance measurement in blind audio source separation",
    2006; as a coherence: R. Scheibler, "SDR - medium rare with fast computations", 2022, eq. (7) and (12).
    """
    dtype = estimate.dtype
    estimate, reference, valid = _prepare(estimate.double(), reference.double())
    if estimate.shape[-1] < SDR_TAPS:
        return torch.full_like(valid, torch.nan, dtype=dtype)
    estimate, reference = estimate / _peak(estimate), reference / _peak(reference)
    estimate, reference = (signal / signal.norm(dim=-1, keepdim=True) for signal in (estimate, reference))
    n_fft = 2 ** math.ceil(math.log2(estimate.shape[-1] + SDR_TAPS))
    spectrum = torch.fft.rfft(reference, n_fft)
    autocorrelation = torch.fft.irfft(spectrum.abs().square(), n_fft)[..., :SDR_TAPS]
    correlation = torch.fft.irfft(spectrum.conj() * torch.fft.rfft(estimate, n_fft), n_fft)[..., :SDR_TAPS]
    lag = torch.arange(SDR_TAPS, device=estimate.device)
    normal = autocorrelation[..., (lag[:, None] - lag).abs()]
    # solve_ex marks a singular item and goes on where solve would raise; and item by item, because on a CPU
    # the batched one fails in threads once their number has been set (pytorch issue 142815)
    taps, info = torch.zeros_like(correlation), torch.zeros_like(valid, dtype=torch.int32)
    for item in map(tuple, torch.ones_like(valid).nonzero().tolist()):
        taps[item], info[item] = torch.linalg.solve_ex(normal[item], correlation[item])
    epsilon = torch.finfo(torch.float64).eps
    coherence = (correlation * taps).sum(-1).clamp(min=epsilon)
    ratio = coherence / (1 - coherence).clamp(min=epsilon)
    return torch.where(valid & (info == 0), 10 * torch.log10(ratio), torch.nan).to(dtype)


def pesq(estimate: Tensor, reference: Tensor, *, mode: str = "wb", workers: int = 0) -> Tensor:
    """Return PESQ, the perceptual evaluation of speech quality, as a listening score (MOS-LQO).

    The pair is scaled by one gain to a peak of 1 first, so samples beyond full scale are not clipped. A
    signal of more than 20 s is scored in equal pieces of at most 20 s, and the mean is taken over those with
    an utterance.

    Args:
        estimate: ``(..., time)``.
        reference: Same shape.
        mode: ``"wb"``, of audio of 16000 Hz (ITU-T P.862.2), or ``"nb"``, of 8000 Hz (P.862.1).
        workers: Processes that the signals are spread over, see `encore.metrics.processes`; 0 uses this one.

    Returns:
        ``(...)`` from about 1.0 to 4.64 (wb) or 4.55 (nb); NaN also below 0.25 s, and where PESQ finds no
        utterance in the reference.

    Raises:
        MissingPackageError: If pesq is not installed.
        ValueError: If the mode is unknown.
    """
    if mode not in PESQ_RATES:
        raise ValueError(f"mode={mode!r} is not a mode of PESQ: use 'wb' (16000 Hz) or 'nb' (8000 Hz)")
    require("pesq", needed_by="metric 'pesq'", extra="metrics")
    return _one_by_one("pesq", estimate, reference, workers, mode=mode)


def stoi(
    estimate: Tensor, reference: Tensor, *, sample_rate: int, extended: bool = False, workers: int = 0
) -> Tensor:
    """Return STOI, the short-time objective intelligibility.

    Args:
        estimate: ``(..., time)``.
        reference: Same shape.
        sample_rate: Rate in Hz of both, at least 10000.
        extended: Compute `estoi`.
        workers: As of `pesq`.

    Returns:
        ``(...)``, at most 1; NaN also with fewer than 30 frames (0.4 s) left when those 40 dB below the
        reference's loudest are removed.

    Raises:
        ValueError: If the rate is below 10000 Hz.

    Source: C. Taal et al., "An algorithm for intelligibility prediction of time-frequency weighted noisy
    speech", 2011.
    """
    if sample_rate < STOI_MINIMUM_RATE:
        raise ValueError(
            f"sample_rate={sample_rate} is below the {STOI_MINIMUM_RATE} Hz of STOI: resample the audio"
        )
    return _one_by_one("stoi", estimate, reference, workers, sample_rate=sample_rate, extended=extended)


def estoi(estimate: Tensor, reference: Tensor, *, sample_rate: int, workers: int = 0) -> Tensor:
    """Return the extended short-time objective intelligibility; see `stoi`.

    Source: J. Jensen, C. Taal, "An algorithm for predicting the intelligibility of speech masked by modulated
    noise maskers", 2016.
    """
    return stoi(estimate, reference, sample_rate=sample_rate, extended=True, workers=workers)


def _prepare(estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return both signals, in float32 or better, and ``(...)`` whether a pair can be scored.

    Other pairs become ones: neither values nor gradients are NaN before the caller masks them.
    """
    if estimate.shape != reference.shape:
        shapes = f"{tuple(estimate.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"estimate and reference have shapes {shapes}: give both the same (..., time)")
    dtype = torch.promote_types(torch.promote_types(estimate.dtype, reference.dtype), torch.float32)
    estimate, reference = estimate.to(dtype), reference.to(dtype)
    valid = (
        estimate.isfinite().all(-1)
        & reference.isfinite().all(-1)
        & (estimate != 0).any(-1)
        & (reference != 0).any(-1)
    )
    ones = torch.ones((), dtype=dtype, device=estimate.device)
    estimate = torch.where(valid[..., None], estimate, ones)
    return estimate, torch.where(valid[..., None], reference, ones), valid


def _peak(signal: Tensor) -> Tensor:
    """Return the peak ``(..., 1)`` without gradient; squares of signals divided by it stay in range."""
    if signal.shape[-1] == 0:
        return signal.new_ones(*signal.shape[:-1], 1)
    return signal.detach().abs().amax(-1, keepdim=True)


def _decibels(target: Tensor, distortion: Tensor) -> Tensor:
    """Return the energy ratio ``(..., time) -> (...)`` in dB, bounded by the precision."""
    bound = torch.finfo(target.dtype).eps ** 2
    target_energy, distortion_energy = target.square().sum(-1), distortion.square().sum(-1)
    total = target_energy + distortion_energy
    target_energy = torch.maximum(target_energy, bound * total)
    return 10 * torch.log10(target_energy / torch.maximum(distortion_energy, bound * total))


def _one_by_one(name: str, estimate: Tensor, reference: Tensor, workers: int, **options: Any) -> Tensor:
    """Score every valid pair with a metric of `single_signals`, on the CPU."""
    dtype, device = estimate.dtype, estimate.device
    estimate, reference, valid = _prepare(estimate.detach().double(), reference.detach().double())
    pairs = zip(estimate[valid].cpu().numpy(), reference[valid].cpu().numpy(), strict=True)
    scores = torch.full(valid.shape, torch.nan, dtype=dtype, device=device)
    values = score_pairs(name, pairs, workers=workers, **options)
    scores[valid] = torch.tensor(values, dtype=dtype, device=device)
    return scores
