"""Metrics of music separation: uSDR and cSDR of one stem, and BSSEval version 4 of all stems of a song.

They take the channels of a stem together, where `encore.metrics.reference` scores each by itself, in float64
on the signals' device; other shapes raise a ValueError. NaN, and never averaged in, is

- a silent reference, such as the vocals of an instrumental;
- a silent estimate of a sounding reference, which by the formula would get 0 dB;
- a window of a song in which either is silent: it is left out of the median;
- a song with a non-finite sample, as a whole: a median over its other windows would reward it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from encore.metrics.reference import snr

FILTERS = 512
"""Taps by which BSSEval lets a stem differ from its reference as spatial distortion."""

# samples that are worked on at a time: of the whole song, and of its windows
_BLOCK = 2**15
_SLAB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class BssEval:
    """Ratios in dB of every stem in every window, ``(source, window)``; NaN where silent.

    Attributes:
        sdr: Signal to distortion: all errors.
        isr: Image to spatial distortion: errors that filters of the stem's own channels explain.
        sir: Source to interference: errors that filters of the other stems explain beyond that.
        sar: Sources to artefacts: errors that no filter explains.
    """

    sdr: Tensor
    isr: Tensor
    sir: Tensor
    sar: Tensor


def usdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the SDR of the Music Demixing Challenge: ``sum s^2 / sum (s - estimate)^2``.

    The sums are over channels and time: ``(..., channel, time)`` to ``(...)`` in dB, within +-313 dB,
    differentiable. Papers report its mean over songs as uSDR. For one channel it is `snr`; for several it is
    not the mean of theirs, as a loud channel weighs more.

    Source: Y. Mitsufuji et al., "Music Demixing Challenge 2021", 2022, without the 1e-7 that is added there
    to both sums, which would give silent stems a score.

    Example:
        >>> reference = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
        >>> estimate = torch.tensor([[[3.0, 4.0], [0.5, 0.0]]])
        >>> print(f"{usdr(estimate, reference).item():.2f} dB")
        20.00 dB
    """
    own, true = _checked("estimate and reference", estimate, reference)
    return snr(own.flatten(-2), true.flatten(-2)).to(_result_type(estimate))


def csdr(estimate: Tensor, reference: Tensor, *, sample_rate: int) -> Tensor:
    """Return the median over the seconds of a song of the SDR of BSSEval version 4, as `museval` does.

    ``(..., channel, time)`` to ``(...)`` in dB, within +-313 dB. In a window it is `usdr`: the filters of
    BSSEval only divide the errors into kinds. A rest of less than a second at the end is left out; a shorter
    song is one window. Papers report the median over songs as cSDR.

    Only windows in which this stem or its estimate is silent are left out. museval leaves out those in which
    *any* stem of the song is silent: for its value take the median over windows of `bss_eval`. As a guide it
    ignores what an estimate loses by falling silent for a second, unlike `usdr`.

    Source: F.-R. Stöter, A. Liutkus, N. Ito, "The 2018 Signal Separation Evaluation Campaign", 2018; on what
    windows are left out: https://github.com/sigsep/bsseval/issues/4.

    Example:
        >>> reference = torch.ones(1, 1, 3)
        >>> estimate = torch.tensor([[[1.1, 1.01, 1.5]]])
        >>> print(f"{csdr(estimate, reference, sample_rate=1).item():.1f} dB")
        20.0 dB
    """
    own, true = _checked("estimate and reference", estimate, reference)
    pair = [_windows(signal, sample_rate).movedim(-2, -3).flatten(-2) for signal in (own, true)]
    median = snr(*pair).nanquantile(0.5, dim=-1)
    finite = (own.isfinite() & true.isfinite()).flatten(-2).all(-1)
    return torch.where(finite, median, torch.nan).to(_result_type(estimate))


def bss_eval(
    references: Tensor,
    estimates: Tensor,
    *,
    sample_rate: int,
    filters: int = FILTERS,
) -> BssEval:
    """Return the errors in the stems of a song by kind, as BSSEval version 4.

    The filters that best explain each estimate by all references, and by its own alone, are found on the
    whole song; ratios are taken in windows of a second. Memory is that of the normal equations, ``(source *
    channel * filters)^2``, and of a few windows.

    Where references have no energy at all in a part of the spectrum, the filters are free there, and ISR, SIR
    and SAR are rounding noise, here as in museval; SDR is not.

    Args:
        references: ``(source, channel, time)``.
        estimates: Same shape, in the same order.
        sample_rate: Rate in Hz; a rest of less than a second is left out, a shorter song is one window.
        filters: Taps.

    Returns:
        The ratios, within +-313 dB; NaN for every stem in windows where any reference or estimate is silent,
        and all NaN if a sample is not finite.

    Source: E. Vincent et al., "The signal separation evaluation campaign (2007-2010)", 2012, section 3.2, for
    the ratios; F.-R. Stöter, A. Liutkus, N. Ito, "The 2018 Signal Separation Evaluation Campaign", 2018, for
    one set of filters for the whole song.

    Example:
        >>> references = torch.randn(2, 1, 800, generator=torch.Generator().manual_seed(0))
        >>> ratios = bss_eval(references, 0.9 * references, sample_rate=400, filters=4)
        >>> [f"{value:.1f}" for value in ratios.isr.flatten().tolist()]  # a wrong gain is a filter
        ['20.0', '20.0', '20.0', '20.0']
    """
    estimates, references = _checked("estimates and references", estimates, references)
    if references.ndim != 3:
        raise ValueError(f"references have shape {tuple(references.shape)}: give (source, channel, time)")
    if filters < 1:
        raise ValueError(f"filters={filters}: give at least one tap")
    own, true = (_windows(x, sample_rate) for x in (estimates, references))
    everything, alone = _filters(references, estimates, filters)
    size = max(1, _SLAB // max(1, own.shape[-1]))
    slabs = (slice(start, start + size) for start in range(0, own.shape[2], size))
    ratios = [_ratios(own[:, :, slab], true[:, :, slab], everything, alone) for slab in slabs]
    sounding = ((own != 0).any(-1).any(1) & (true != 0).any(-1).any(1)).all(0)
    valid = sounding & references.isfinite().all() & estimates.isfinite().all()
    sdr, isr, sir, sar = torch.where(valid, torch.cat(ratios, dim=-1), torch.nan)
    return BssEval(sdr=sdr, isr=isr, sir=sir, sar=sar)


def _ratios(own: Tensor, true: Tensor, everything: Tensor, alone: Tensor) -> Tensor:
    """Return SDR, ISR, SIR, SAR ``(4, source, window)`` of windows ``(source, channel, window, time)``.

    Each is the ratio of a signal to its difference from the next, from the reference to the estimate.
    """
    length = own.shape[-1] + alone.shape[-1] - 1
    n_fft = 2 ** length.bit_length()
    spectra = torch.fft.rfft(true, n_fft)

    def filtered(equation: str, taps: Tensor) -> Tensor:
        products = torch.einsum(equation, spectra, torch.fft.rfft(taps, n_fft))
        return torch.fft.irfft(products, n_fft)[..., :length]

    reference, estimate = (F.pad(signal, (0, length - signal.shape[-1])) for signal in (true, own))
    image = filtered("scwf,scef->sewf", alone)
    explained = filtered("scwf,scoef->oewf", everything)
    pairs = ((reference, estimate), (reference, image), (image, explained), (explained, estimate))
    # (source, channel, window, time) to (source, window, all samples of it)
    flat = [[signal.movedim(1, 2).flatten(-2) for signal in pair] for pair in pairs]
    return torch.stack([snr(after, before) for before, after in flat])


def _filters(references: Tensor, estimates: Tensor, filters: int) -> tuple[Tensor, Tensor]:
    """Return least-squares filters from all references to each estimate's channels, and from its own alone.

    Of ``(source, channel, time)``; ``(s, c, s, c, filters)`` and ``(s, c, c, filters)``.
    """
    sources, channels, _ = references.shape
    count = sources * channels
    rows = references.flatten(0, 1)
    products = _correlations(rows, torch.cat([rows, estimates.flatten(0, 1)]), filters - 1)
    lag = torch.arange(filters, device=rows.device)
    # between signal i delayed by a and signal j delayed by b: (i, a, j, b)
    normal = products[:, :count, filters - 1 + lag[:, None] - lag].movedim(1, 2)
    wanted = products[:, count:, filters - 1 :].movedim(1, 2)  # (i, a, estimate's channel)
    everything = _solved(normal, wanted)
    parts = (slice(start, start + channels) for start in range(0, count, channels))
    alone = [_solved(normal[part, :, part], wanted[part, :, part]) for part in parts]
    shape = (sources, channels, sources, channels, filters)
    return everything.reshape(shape), torch.stack(alone)


def _correlations(first: Tensor, second: Tensor, reach: int) -> Tensor:
    """Return inner products ``(r, o, 2 * reach + 1)`` of ``(r, time)`` and ``(o, time)`` by delay."""
    time = first.shape[-1]
    n_fft = 2 ** (min(time, _BLOCK) + 2 * reach).bit_length()
    size = n_fft - 2 * reach
    second = F.pad(second, (reach, reach))
    shape = (len(first), len(second), n_fft // 2 + 1)
    total = torch.zeros(shape, dtype=torch.complex128, device=first.device)
    for start in range(0, time, size):
        block = torch.fft.rfft(first[:, start : start + size], n_fft).conj()
        around = torch.fft.rfft(second[:, start : start + n_fft], n_fft)
        total += block[:, None] * around
    return torch.fft.irfft(total, n_fft)[..., : 2 * reach + 1]


def _solved(normal: Tensor, wanted: Tensor) -> Tensor:
    """Return filters ``(r, o, taps)`` by the normal equations ``(r, taps, r, taps)`` and ``(r, taps, o)``."""
    matrix, columns = normal.flatten(2).flatten(0, 1), wanted.flatten(0, 1)
    epsilon = torch.finfo(matrix.dtype).eps
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    # as in museval; it is lost to rounding where signals are loud, and some stems have two equal channels
    found, singular = torch.linalg.solve_ex(matrix + epsilon * identity, columns)
    if singular:
        ridge = epsilon * matrix.diagonal().max().clamp(min=1.0)
        found, _ = torch.linalg.solve_ex(matrix + ridge * identity, columns)
    return found.reshape(wanted.shape).movedim(1, 2)


def _windows(signals: Tensor, sample_rate: int) -> Tensor:
    """Return a view ``(..., channel, window, time)`` of ``(..., channel, time)``, a second each."""
    if sample_rate < 1:
        raise ValueError(f"sample_rate={sample_rate}: give a rate in Hz above 0")
    if sample_rate >= signals.shape[-1]:
        return signals[..., None, :]
    return signals.unfold(-1, sample_rate, sample_rate)


def _checked(names: str, estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if estimate.shape != reference.shape or estimate.ndim < 2:
        shapes = f"{tuple(estimate.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"{names} have shapes {shapes}: give both the same (..., channel, time)")
    return estimate.double(), reference.double()


def _result_type(estimate: Tensor) -> torch.dtype:
    """Return the type of an estimate's score; whole numbers have scores too."""
    return torch.promote_types(estimate.dtype, torch.float32)
