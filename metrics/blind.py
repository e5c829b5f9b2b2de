"""DNSMOS: blind, a listening score predicted from the estimate alone.

Networks and scores are those of the package `speechmos`, but they run on the estimate's device, whole batches
at a time, and without computing anything twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from encore.metrics.dnsmos_networks import HOP, P808Scorer, PrimaryScorer, Scorer, load_scorer

DNSMOS_NAMES = ("dnsmos_p808", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")
DNSMOS_RATE = 16000
MINIMUM_SECONDS = 0.1

# a 16-bit file would hold zeros below it; scores that depend on the level mean nothing there
SILENCE = 2.0**-16

_WINDOW_SECONDS = 9.01
_WINDOW = int(_WINDOW_SECONDS * DNSMOS_RATE)
_SAMPLES_AT_ONCE = 4 * _WINDOW
_WINDOWS_AT_ONCE = 128

# samples of four frames: the grid on which windows can share the layers before the second pooling
_GROUP = 4 * HOP

# from the primary network's outputs, in their order, to scores: coefficients of x^2, x and 1
_POLYNOMIALS = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos_ovrl": (-0.06766283, 1.11546468, 0.04602535),
}


@torch.no_grad()
def dnsmos(
    estimate: Tensor, sample_rate: int = DNSMOS_RATE, names: Sequence[str] = DNSMOS_NAMES
) -> dict[str, Tensor]:
    """Predict the listening scores of speech: overall (P.808, OVRL), signal (SIG) and background (BAK).

    A clip shorter than 9.01 s is repeated until it is longer; the score is the mean over windows of 9.01 s,
    one every second, and depends on the level. Samples beyond full scale are clipped.

    Args:
        estimate: ``(..., time)`` of full scale 1.
        sample_rate: Must be 16000 Hz.
        names: Which of `DNSMOS_NAMES` to compute.

    Returns:
        For each name ``(...)``, from about 1 to 5, on the estimate's device; NaN for a clip with a non-finite
        sample, below 0.1 s, or silent (peak below half a step of 16 bits).

    Raises:
        ValueError: If the rate is not 16000 Hz or a name is unknown.

    Source: C. Reddy et al., "DNSMOS", 2021 (P.808), and "DNSMOS P.835", 2022 (SIG, BAK, OVRL).
    """
    if sample_rate != DNSMOS_RATE:
        raise ValueError(
            f"sample_rate={sample_rate} is not the {DNSMOS_RATE} Hz of DNSMOS: resample the estimate"
        )
    if unknown := [name for name in names if name not in DNSMOS_NAMES]:
        raise ValueError(f"names={unknown} are no scores of DNSMOS: choose from {', '.join(DNSMOS_NAMES)}")
    time = estimate.shape[-1]
    clips = estimate.float().reshape(math.prod(estimate.shape[:-1]), time)
    scores = {name: clips.new_full((len(clips),), torch.nan) for name in names}
    if time >= MINIMUM_SECONDS * DNSMOS_RATE:
        valid = clips.isfinite().all(-1) & (clips.abs().amax(-1) >= SILENCE)
        # several at once leave a processor's caches, and take up to twice as long
        at_once = 1 if clips.device.type == "cpu" else max(1, _SAMPLES_AT_ONCE // time)
        places = valid.nonzero().flatten()
        # splitting nothing gives one part of no clips, which the network cannot take
        for rows in torch.split(places, at_once) if len(places) else ():
            for name, values in _score_clips(clips[rows].clamp(-1, 1), names).items():
                scores[name][rows] = values
    return {name: values.reshape(estimate.shape[:-1]) for name, values in scores.items()}


def _score_clips(clips: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Score ``(clip, time)`` of valid audio; each name gets ``(clip,)``."""
    total = _repeats(clips.shape[-1]) * clips.shape[-1]
    # groups of frames, which the networks pool, repeat after so many copies of the clip
    copies = _GROUP // math.gcd(clips.shape[-1], _GROUP)
    period = copies * clips.shape[-1]
    periodic = period < total
    starts = Counter(start % period if periodic else start for start in _window_starts(total))
    weights = torch.tensor(list(starts.values()), dtype=torch.float32, device=clips.device) / starts.total()
    stream = clips.repeat(1, copies if periodic else total // clips.shape[-1])
    scores = {}
    # mixed precision, where it is on, would change the scores
    with torch.autocast(clips.device.type, enabled=False):
        if "dnsmos_p808" in names:
            raw = _score_windows(load_scorer(P808Scorer, clips.device), stream, list(starts), periodic)
            scores["dnsmos_p808"] = raw[..., 0] @ weights
        if any(name in names for name in _POLYNOMIALS):
            raw = _score_windows(load_scorer(PrimaryScorer, clips.device), stream, list(starts), periodic)
            for index, (name, (square, slope, constant)) in enumerate(_POLYNOMIALS.items()):
                if name in names:
                    value = raw[..., index]
                    scores[name] = (square * value.square() + slope * value + constant) @ weights
    return scores


def _score_windows(scorer: Scorer, stream: Tensor, starts: Sequence[int], periodic: bool) -> Tensor:
    """Return raw scores ``(clip, window, score)``, of a long stream in parts to save memory."""
    parts = []
    for first in range(0, len(starts), _WINDOWS_AT_ONCE):
        some = starts[first : first + _WINDOWS_AT_ONCE]
        begin, end = (0, None) if periodic else (some[0], some[-1] + _WINDOW)
        parts.append(scorer(stream[:, begin:end], [start - begin for start in some], periodic=periodic))
    return torch.cat(parts, dim=1)


def _repeats(time: int) -> int:
    """Return the number of copies of a clip that are scored: doubled until as long as a window."""
    return 1 if time >= _WINDOW else 2 ** math.ceil(math.log2(_WINDOW / time))


def _window_starts(time: int) -> list[int]:
    """Return the first samples of the windows of a clip of that many samples."""
    hops = range(int(time // DNSMOS_RATE - _WINDOW_SECONDS) + 1)
    # the published scores omit windows, hops 7 to 23 among them, whose end rounds to a sample too early
    kept = [hop for hop in hops if int((hop + _WINDOW_SECONDS) * DNSMOS_RATE) - hop * DNSMOS_RATE == _WINDOW]
    return [hop * DNSMOS_RATE for hop in kept]
