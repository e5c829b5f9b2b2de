"""Self-consistency metrics: an estimate against its mixture and against the separator's own answers.

They need no reference and know nothing of speech or music. Those with ``separator_calls`` above 0 call the
separator that made the estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from encore.common.dsp import stft
from encore.common.items import at_items
from encore.metrics.music import usdr
from encore.metrics.quality import BoundMetric, ContextMetric, Metric, Separator

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


_SCORES: dict[str, Callable[[Tensor, Tensor, Separator, int], Tensor]] = {
    "disjointness": lambda estimate, mixture, _, sample_rate: disjointness(estimate, mixture, sample_rate),
    "fixed_point": lambda estimate, _, separate, __: fixed_point(estimate, separate),
    "remix_agreement": lambda estimate, mixture, separate, _: remix_agreement(estimate, mixture, separate),
}
SELF_CONSISTENCY_METRICS = tuple(_SCORES)


class SelfConsistencyMetric(ContextMetric):
    """A metric of this module; binding it takes the mixture, and the separator if it calls one.

    Args:
        name: One of `SELF_CONSISTENCY_METRICS`.
        sample_rate: Rate in Hz.
    """

    needs_reference = False

    def __init__(self, name: str, *, sample_rate: int) -> None:
        self.name, self.sample_rate = name, sample_rate
        self.differentiable = name == "disjointness"
        self.separator_calls, self.scale = (0, 0.01) if name == "disjointness" else (1, 1.0)

    def bind(
        self, *, mixture: Tensor | None = None, separate: Separator | None = None, **_signals: Any
    ) -> BoundMetric:
        """See `Metric`."""
        needed = {"mixture": mixture} | ({"separate": separate} if self.separator_calls else {})
        for argument, value in needed.items():
            if value is None:
                raise ValueError(f"{argument}=None: {self.name!r} needs it, use metric.bind({argument}=...)")
        assert mixture is not None
        return SelfConsistencyQuality(self, mixture, separate)


class SelfConsistencyQuality(BoundMetric):
    """A self-consistency metric of estimates of ``mixture`` ``(b, c, t)``, source by source."""

    def __init__(self, metric: Metric, mixture: Tensor, separate: Separator | None) -> None:
        super().__init__(metric)
        self.metric, self.mixture, self.separate = metric, mixture, separate

    def per_source(self, estimates: Tensor) -> Tensor:
        """See `BoundMetric`."""
        score, sources = _SCORES[self.metric.name], estimates.shape[1]
        scores = [
            score(
                estimates[:, k], self.mixture, partial(self._separated, k, sources), self.metric.sample_rate
            )
            for k in range(sources)
        ]
        return torch.stack(scores, dim=1)

    def at(self, items: Tensor) -> BoundMetric:
        """See `BoundMetric`."""
        separate = None if self.separate is None else at_items(self.separate, items)
        return SelfConsistencyQuality(self.metric, self.mixture[items], separate)

    def _separated(self, index: int, sources: int, inputs: Tensor) -> Tensor:
        """Separate ``(n, c, t)`` and return one of the sources that are scored."""
        assert self.separate is not None
        estimates = self.separate(inputs)
        if estimates.shape[1] != sources:
            raise ValueError(
                f"separate returns {estimates.shape[1]} sources, but {self.name!r} scores {sources}: "
                "give a separator of these sources alone"
            )
        return estimates[:, index]
