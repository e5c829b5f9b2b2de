"""Self-consistency metrics: an estimate against its mixture and against the separator's own answers.

They need no reference and know nothing of speech or music.
"""

from __future__ import annotations

import torch
from torch import Tensor

from encore.common.dsp import stft
from encore.metrics.music import usdr
from encore.metrics.quality import Separator

_SHIFT = 0.382  # of the length: far from every beat that divides it, as the golden section is
_WINDOW_SECONDS = 0.0464


def disjointness(estimate: Tensor, mixture: Tensor, sample_rate: int) -> Tensor:
    """Return how little the spectrograms of an estimate and of the rest of the mixture have in common.

    1 minus the cosine between their magnitudes: an estimate that holds a part of the others, or leaves a part
    of its own, is loud where the rest is loud too.

    Args:
        estimate: ``(n, c, t)``.
        mixture: Same shape.
        sample_rate: Rate in Hz.

    Returns:
        ``(n,)`` from 0 to 1, NaN where estimate or rest is silent. Differentiable.
    """
    window = 4 * max(2, round(_WINDOW_SECONDS * sample_rate / 4))
    own, other = (stft(x.float(), window).abs().flatten(1) for x in (estimate, mixture - estimate))
    norms = own.norm(dim=1) * other.norm(dim=1)
    cosine = (own * other).sum(1) / torch.where(norms > 0, norms, 1.0)
    return torch.where(norms > 0, 1 - cosine, torch.nan)


def fixed_point(estimate: Tensor, separate: Separator) -> Tensor:
    """Return how little an estimate ``(n, c, t)`` changes when separated again, as a clean one should.

    The estimate over its change, in dB ``(n,)``, NaN for a silent one. An estimate that lacks a part of the
    source is a fixed point as well. ``separate`` returns one source, ``(n, c, t)``.
    """
    return usdr(separate(estimate), estimate)


def remix_agreement(estimate: Tensor, mixture: Tensor, separate: Separator) -> Tensor:
    """Return whether an estimate ``(n, c, t)`` is found again in a new mixture of itself and the old rest.

    The rest is shifted in time, as if periodic, inverted, so that repetitions do not meet their like, and
    added to the estimate. What is separated from that is compared with the estimate, in dB ``(n,)``, NaN for
    a silent one. It lacks what the estimate holds of the others, and holds, at the wrong time, what the rest
    holds of the source. ``separate`` returns one source, ``(n, c, t)``.

    Source: remixing as a teacher without references, S. Wisdom et al., "Unsupervised Sound Separation Using
    Mixture Invariant Training", 2020, and E. Tzinis et al., "RemixIT", 2022; the metric is this project's.
    """
    rest = mixture - estimate
    return usdr(separate(estimate - rest.roll(round(_SHIFT * estimate.shape[-1]), dims=-1)), estimate)
