"""Blind measures of separation as such: what an estimate shares with its rest, and what its separator says.

They need no reference and know nothing of speech or music. Those with ``separator_calls`` above 0 ask the
separator that made the estimate about it; `encore.inference.refine` gives it to them, and counts their calls.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from encore.metrics.music import usdr
from encore.metrics.quality import Quality

Ask = Callable[[Tensor, Tensor], Tensor]
"""Inputs and the mixtures they belong to, ``(b, c, t)`` each, to the separator's estimates of the source."""

_SHIFT = 0.382  # of the length: far from every beat that divides it, as the golden section is

SELF_CHECKS = ("disjointness", "fixed_point", "remix_agreement")
"""Names that `encore.metrics.get_quality` knows of this module."""


class Disjointness(Quality):
    """How little the spectrograms of an estimate and of what it leaves of the mixture have in common.

    1 less the cosine between their magnitudes: an estimate that holds a part of the others, or leaves a part
    of its own, is loud where the rest is loud too.

    Args:
        sample_rate: Rate in Hz.
        window_seconds: Length of the Hann analysis window; the hop is a quarter of it.
    """

    name, needs_reference, differentiable, scale = "disjointness", False, True, 0.01

    def __init__(self, *, sample_rate: int, window_seconds: float = 0.0464) -> None:
        self.sample_rate = sample_rate
        self.window = 4 * max(2, round(window_seconds * sample_rate / 4))

    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """See `Quality`; from 0 to 1, NaN where estimate or rest is silent."""
        rest = _required(mixture, self.name) - estimate
        own, other = self._magnitudes(estimate), self._magnitudes(rest)
        norms = own.norm(dim=1) * other.norm(dim=1)
        cosine = (own * other).sum(1) / torch.where(norms > 0, norms, 1.0)
        return torch.where(norms > 0, 1 - cosine, torch.nan)

    def _magnitudes(self, waveform: Tensor) -> Tensor:
        """``(b, c, t)`` to ``(b, everything)``."""
        missing = max(0, self.window // 2 + 1 - waveform.shape[-1])
        spectrum = torch.stft(
            rearrange(F.pad(waveform.float(), (0, missing)), "b c t -> (b c) t"),
            self.window,
            self.window // 4,
            window=torch.hann_window(self.window, device=waveform.device),
            return_complex=True,
        )
        return rearrange(spectrum.abs(), "(b c) f t -> b (c f t)", b=len(waveform))


class AskingQuality(Quality):
    """A measure that puts a question to the separator; of no use until it is bound to one."""

    needs_reference, scale, separator_calls = False, 1.0, 1

    def __init__(self, *, sample_rate: int, ask: Ask | None = None) -> None:
        self.sample_rate, self._ask = sample_rate, ask

    def bound_to(self, ask: Ask) -> Quality:
        """See `Quality`."""
        return type(self)(sample_rate=self.sample_rate, ask=ask)

    def asked(self, inputs: Tensor, mixture: Tensor | None) -> Tensor:
        """What the separator estimates from ``inputs`` ``(b, c, t)``."""
        if self._ask is None:
            raise ValueError(f"{self.name!r} asks a separator: use it within refine, or bound_to(...)")
        return self._ask(inputs, _required(mixture, self.name))


class FixedPoint(AskingQuality):
    """How little an estimate changes when it is separated again: a good separator leaves alone what is clean.

    The estimate over its change, in dB. An estimate from which too much was taken is a fixed point as well.
    """

    name = "fixed_point"

    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """See `Quality`; in dB, NaN for a silent estimate."""
        return usdr(self.asked(estimate, mixture), estimate)


class RemixAgreement(AskingQuality):
    """Whether an estimate is found again in a new mixture of itself and what it left of the old one.

    The rest is moved in time, as if periodic, turned upside down, so that what repeats itself does not meet
    its like, and added to the estimate; the separator's answer is compared with the estimate, in dB. What of
    the others is in the estimate is missed in the answer, and what of the source is in the rest turns up in
    it at the wrong time: both cost.

    Source: remixing as a teacher without references, S. Wisdom et al., "Unsupervised Sound Separation Using
    Mixture Invariant Training", 2020, and E. Tzinis et al., "RemixIT", 2022; the measure is this project's.
    """

    name = "remix_agreement"

    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """See `Quality`; in dB, NaN for a silent estimate."""
        rest = _required(mixture, self.name) - estimate
        remix = estimate - rest.roll(round(_SHIFT * estimate.shape[-1]), dims=-1)
        return usdr(self.asked(remix, mixture), estimate)


def self_check(name: str, *, sample_rate: int) -> Quality:
    """One of `SELF_CHECKS` by its name, for audio of a rate in Hz."""
    kinds: tuple[type[Disjointness] | type[FixedPoint] | type[RemixAgreement], ...]
    kinds = (Disjointness, FixedPoint, RemixAgreement)
    return next(kind for kind in kinds if kind.name == name)(sample_rate=sample_rate)


def _required(mixture: Tensor | None, name: str) -> Tensor:
    if mixture is None:
        raise ValueError(f"mixture=None: {name!r} compares with it, give it as mixture=")
    return mixture
