"""The table of measures: what each is called, which audio it takes and what a difference in it is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
import torchaudio
from torch import Tensor

from encore.metrics.blind import DNSMOS_NAMES, DNSMOS_RATE, dnsmos
from encore.metrics.music import csdr, usdr
from encore.metrics.reference import STOI_MINIMUM_RATE, estoi, pesq, sdr, si_sdr, snr, stoi
from encore.metrics.single_signals import PESQ_RATES


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """What there is to know about a measure.

    Attributes:
        score: ``score(estimate (..., time), reference, sample_rate, workers) -> (...)``; a blind one ignores
            the reference, and one that is computed in torch the number of worker processes. One that takes
            channels together maps ``(..., channel, time)`` to ``(...)``.
        scale: A difference that counts as one unit where measures are joined.
        needs_reference: Whether it is an oracle measure.
        rate: Rate in Hz that audio is resampled to; None where audio is scored at its own rate.
        minimum_rate: Lowest rate in Hz of the audio that can be scored.
        differentiable: Whether derivatives go through it.
        together: Whether it takes the channels of an item together.
        fix: What to do with audio of a lower rate.
    """

    score: Callable[[Tensor, Tensor, int, int], Tensor]
    scale: float
    needs_reference: bool = True
    rate: int | None = None
    minimum_rate: int = 1
    differentiable: bool = False
    together: bool = False
    fix: str = "use audio of a higher rate"


def _dnsmos_measure(name: str) -> Measure:
    return Measure(
        score=lambda estimate, _reference, rate, _workers: dnsmos(estimate, rate, names=(name,))[name],
        scale=0.1,
        needs_reference=False,
        rate=DNSMOS_RATE,
        minimum_rate=DNSMOS_RATE,
        differentiable=True,
        fix="leave it out, or use audio of a higher rate",
    )


MEASURES: dict[str, Measure] = {
    "si_sdr": Measure(
        score=lambda estimate, reference, *_: si_sdr(estimate, reference), scale=1.0, differentiable=True
    ),
    "sdr": Measure(
        score=lambda estimate, reference, *_: sdr(estimate, reference), scale=1.0, differentiable=True
    ),
    "snr": Measure(
        score=lambda estimate, reference, *_: snr(estimate, reference), scale=1.0, differentiable=True
    ),
    "usdr": Measure(
        score=lambda estimate, reference, *_: usdr(estimate, reference),
        scale=1.0,
        differentiable=True,
        together=True,
    ),
    "csdr": Measure(
        score=lambda estimate, reference, rate, _: csdr(estimate, reference, sample_rate=rate),
        scale=1.0,
        together=True,
    ),
    "pesq": Measure(
        score=lambda estimate, reference, _, workers: pesq(estimate, reference, workers=workers),
        scale=0.1,
        rate=PESQ_RATES["wb"],
        minimum_rate=PESQ_RATES["wb"],
        fix="use 'pesq_nb', or audio of a higher rate",
    ),
    "pesq_nb": Measure(
        score=lambda estimate, reference, _, workers: pesq(estimate, reference, mode="nb", workers=workers),
        scale=0.1,
        rate=PESQ_RATES["nb"],
        minimum_rate=PESQ_RATES["nb"],
    ),
    "stoi": Measure(
        score=lambda estimate, reference, rate, workers: stoi(
            estimate, reference, sample_rate=rate, workers=workers
        ),
        scale=0.01,
        minimum_rate=STOI_MINIMUM_RATE,
    ),
    "estoi": Measure(
        score=lambda estimate, reference, rate, workers: estoi(
            estimate, reference, sample_rate=rate, workers=workers
        ),
        scale=0.01,
        minimum_rate=STOI_MINIMUM_RATE,
    ),
    **{name: _dnsmos_measure(name) for name in DNSMOS_NAMES},
}
"""Every measure by its name."""

METRIC_NAMES = tuple(MEASURES)
_ALIASES = {"pesq_wb": "pesq"}


def usual_names(sample_rate: int, channels: int = 1, *, has_reference: bool = True) -> list[str]:
    """Names of the measures that audio is scored with where nobody chose any.

    Args:
        sample_rate: Of the audio, in Hz.
        channels: Of the audio: those of music, which take channels together, are for more than one.
        has_reference: Whether oracle measures can be used.

    Returns:
        All that can score such audio.
    """
    return [
        name
        for name, measure in MEASURES.items()
        if sample_rate >= measure.minimum_rate
        and (has_reference or not measure.needs_reference)
        and (channels > 1 or not measure.together)
    ]


def resolve_name(name: str, sample_rate: int) -> str:
    """Return a measure's own name, after a check that it can score audio of that rate in Hz.

    Raises:
        ValueError: If there is no such measure, or the audio's rate is too low for it.
    """
    resolved = _ALIASES.get(name, name)
    if resolved not in MEASURES:
        near = get_close_matches(name, METRIC_NAMES, n=3, cutoff=0.4) or METRIC_NAMES
        raise ValueError(f"name={name!r} is no known measure: use one of {', '.join(map(repr, near))}")
    measure = MEASURES[resolved]
    if sample_rate < measure.minimum_rate:
        lowest = measure.minimum_rate
        raise ValueError(
            f"sample_rate={sample_rate} is below the {lowest} Hz that {name!r} needs: {measure.fix}"
        )
    return resolved


def score_measure(
    name: str, estimate: Tensor, reference: Tensor | None, sample_rate: int, *, workers: int = 0
) -> Tensor:
    """Score items of any rate with one measure of the table, resampled to the measure's rate if it has one.

    Args:
        name: A key of `MEASURES`.
        estimate: ``(batch, channel, time)``, full scale 1.
        reference: Same shape; None only for a blind measure.
        sample_rate: Rate in Hz of both.
        workers: Processes for PESQ and STOI; 0 scores in this one.

    Returns:
        ``(batch,)``, higher is better, the mean over channels unless the measure takes them together; NaN
        where it cannot be scored.

    Raises:
        ValueError: If an oracle measure is given no reference.
    """
    measure = MEASURES[name]
    if measure.needs_reference and reference is None:
        raise ValueError(f"reference=None: oracle measure {name!r} needs reference=, or use a blind measure")
    rate = measure.rate or sample_rate
    estimate = to_rate(estimate, sample_rate, rate)
    reference = estimate if reference is None else to_rate(reference, sample_rate, rate)
    scores = measure.score(estimate, reference, rate, workers)
    return scores if measure.together else scores.mean(-1)


def to_rate(waveform: Tensor, from_rate: int, rate: int) -> Tensor:
    """Resample ``(..., time)`` from one rate in Hz to another."""
    if from_rate == rate:
        return waveform
    # mixed precision, where it is on, would change the samples
    with torch.autocast(waveform.device.type, enabled=False):
        # torchaudio views its input, which fails for slices of a larger tensor
        return torchaudio.functional.resample(waveform.contiguous(), from_rate, rate)
