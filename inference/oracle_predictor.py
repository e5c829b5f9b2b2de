"""Run the oracle predictor experiment: separate remixes of the true sources with the target raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from encore.data.mixing import components_of, linear_path
from encore.metrics.reference import si_sdr
from encore.models.levels import at_level, normalized, without_normalization
from encore.models.types import Separator

Form = Literal["intended", "published_code"]
"""Gain of the accompaniment: ``1 - beta``, or that of the published code; see `accompaniment_gain`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorScore:
    """One result of the experiment: SI-SDR of one estimated source at one beta."""

    beta: float
    form: Form
    source: int
    si_sdr: float


def accompaniment_gain(beta: float, form: Form) -> float:
    """Return the gain of everything but the target, whose gain is 1.

    In the paper ``1 - beta``. Its code adds the mixture to the remix twice more at ``1 - beta``, which
    leaves ``3 (1 - beta) / (3 - 2 beta)`` of the accompaniment beside the target.

    >>> [round(accompaniment_gain(beta, "published_code"), 3) for beta in (0.0, 0.5, 0.9)]
    [1.0, 0.75, 0.25]
    """
    return 1 - beta if form == "intended" else 3 * (1 - beta) / (3 - 2 * beta)


def oracle_predictor(
    separate: Separator,
    mixture: Tensor,
    references: Tensor,
    target: int,
    betas: Sequence[float],
    *,
    forms: Sequence[Form] = ("intended", "published_code"),
) -> list[PredictorScore]:
    """Separate remixes of the true sources in which the target stays and the others fade.

    If the target's SI-SDR rises with beta and that of the others falls, feeding an estimate back can help:
    that is the lemma of progressive inference. Every remix is normalized like the original mixture.

    Args:
        separate: Maps ``(b, c, t)`` to ``(b, s, c, t)``.
        mixture: ``(c, t)``, one item.
        references: ``(s, c, t)``, its true sources; what they leave of the mixture fades with the others.
        target: Index of the source whose relative level rises.
        betas: Parts of the estimate in [0, 1); at 0 the remix is the mixture.
        forms: Gains of the accompaniment.

    Returns:
        A score for every form, beta and source. SI-SDR is the mean over channels, NaN for a silent source.

    Source: Magalini, Manattini and Marri, "Progressive inference for music demixing", 2025; docs/methods.md.
    """
    bare = without_normalization(separate)
    _, mean, deviation = normalized(mixture[None])
    components = components_of(mixture[None], references[None])
    place = torch.tensor([target], device=mixture.device)
    scores = []
    for form in forms:
        for beta in betas:
            gain = torch.tensor([accompaniment_gain(beta, form)], device=mixture.device)
            remixed = linear_path(components, place, gain)
            remix = remixed.sum(1)
            with torch.no_grad():
                estimates = separate(remix) if bare is None else at_level(bare, remix, mean, deviation)
            values = si_sdr(estimates[0], remixed[0, :-1]).mean(-1)
            scores += [
                PredictorScore(beta=float(beta), form=form, source=source, si_sdr=float(value))
                for source, value in enumerate(values)
            ]
    return scores
