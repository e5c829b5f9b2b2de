"""What a multi-step inference loop listens to: measures by name, joined and guarded ones."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

import torch
from torch import Tensor

from encore.metrics.measures import MEASURES, resolve_name, score_measure
from encore.metrics.processes import check_workers


class Quality(ABC):
    """Scores a batch of estimates: the base of every measure that can steer an inference loop.

    Parts of a batch may be scored by several threads at once, with the same object.

    Attributes:
        name: Made of a-z, 0-9 and ``_``.
        needs_reference: True for an oracle measure, False for a blind one.
        sample_rate: Rate in Hz of the audio that it is given.
        differentiable: Whether derivatives go through it.
        separator_calls: Times that one score asks the separator of the estimates, see `bound_to`.
    """

    name: str
    needs_reference: bool
    sample_rate: int
    differentiable: bool = False
    separator_calls: int = 0

    @property
    def kind(self) -> str:
        """``"oracle"`` or ``"blind"``."""
        return "oracle" if self.needs_reference else "blind"

    def bound_to(self, ask: Callable[[Tensor, Tensor], Tensor]) -> Quality:
        """This measure with the separator at hand that made the estimates.

        Args:
            ask: Maps inputs and the mixtures that they belong to, ``(batch, channel, time)`` each, to the
                separator's estimates of the source that is scored.

        Returns:
            The measure itself, unless it asks.
        """
        return self

    @abstractmethod
    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """Score each item of a batch.

        Args:
            estimate: ``(batch, channel, time)``, full scale 1.
            reference: Same shape, row by row; an oracle measure cannot do without.
            mixture: Same shape, what the estimates were separated from.
            one_step: Same shape, the one-step estimates; joint and guarded measures compare with them.

        Returns:
            ``(batch,)``, higher is better, the mean over channels. An item that cannot be scored, in any of
            its channels, is NaN. No item's score depends on the other items.

        Raises:
            ValueError: If a signal that the measure needs is not given.
        """


class MeasureQuality(Quality):
    """One measure of the table, the mean over channels unless it takes them together.

    Args:
        name: One of `METRIC_NAMES`, or ``"pesq_wb"`` for ``"pesq"``.
        sample_rate: Rate in Hz of the audio that it will be given. Audio of a higher rate than the measure's
            own is resampled.
        workers: Processes that PESQ and STOI, which score one signal at a time and hold Python's lock, spread
            a batch over; 0 scores in this process. All measures share them, see `metrics.processes`. The
            values are the same, and other measures ignore it.

    Attributes:
        scale: The difference that counts as one unit where measures are joined.

    Raises:
        ValueError: If the name is unknown, the rate is below the measure's own, or workers is negative.
    """

    def __init__(self, name: str, *, sample_rate: int, workers: int = 0) -> None:
        self.name = resolve_name(name, sample_rate)
        self.sample_rate = sample_rate
        self.workers = check_workers(workers)
        self.needs_reference = MEASURES[self.name].needs_reference
        self.differentiable = MEASURES[self.name].differentiable
        self.scale = MEASURES[self.name].scale

    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """See `Quality`; in the measure's unit."""
        return score_measure(self.name, estimate, reference, self.sample_rate, workers=self.workers)


def get_quality(name: str, *, sample_rate: int, workers: int = 0) -> Quality:
    """Return a measure by its name; see `MeasureQuality`, and `encore.metrics.external` for the others.

    Args:
        name: One of `METRIC_NAMES`; one of `encore.metrics.self_consistency.SELF_CHECKS`; or one of
            ``encore.metrics.external.DOOR_NAMES``, or the file of a measure, such as
            ``"onnx:mos.onnx?sample_rate=16000"``.
        sample_rate: Rate in Hz of the audio that it will be given.
        workers: See `MeasureQuality`.

    Raises:
        FileNotFoundError: If the file of a measure does not exist.
        ValueError: If there is no such measure, or it cannot be used here.

    Example:
        >>> quality = get_quality("si_sdr", sample_rate=16000)
        >>> quality.name, quality.kind, quality.scale
        ('si_sdr', 'oracle', 1.0)
    """
    # they build on this module
    from encore.metrics.external import is_door, open_measure
    from encore.metrics.self_consistency import SELF_CHECKS, self_check

    if name in SELF_CHECKS:
        return self_check(name, sample_rate=sample_rate)
    if is_door(name):
        return open_measure(name, sample_rate=sample_rate)
    return MeasureQuality(name, sample_rate=sample_rate, workers=workers)


class JointQuality(Quality):
    """Several measures as one: ``sum_i weight_i (score_i - one-step score_i) / scale_i``.

    The one-step estimate scores 0, exactly; an item that a member cannot score is NaN.

    Args:
        members: The measures, all of one sample rate.
        weights: One for each member; 1 by default.
        scales: One for each member, in its unit; by default the member's own ``scale``.

    Raises:
        ValueError: If there are no members, their rates differ, or weights or scales do not fit them.
    """

    def __init__(
        self,
        members: Sequence[Quality],
        *,
        weights: Sequence[float] | None = None,
        scales: Sequence[float] | None = None,
    ) -> None:
        self.sample_rate = _shared_rate("members", members)
        self.members = tuple(members)
        self.name = "joint_" + "_".join(member.name for member in members)
        self.needs_reference = any(member.needs_reference for member in members)
        self.differentiable = all(member.differentiable for member in members)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(members)
        self.scales = tuple(scales) if scales is not None else tuple(_own_scale(member) for member in members)
        for argument, values in (("weights", self.weights), ("scales", self.scales)):
            if len(values) != len(members):
                raise ValueError(
                    f"{argument}={values} does not fit {len(members)} members: give one value each"
                )
        if min(self.scales) <= 0:
            raise ValueError(f"scales={self.scales} are not all positive: give differences above 0")
        self.separator_calls = sum(member.separator_calls for member in members)
        self._one_step_scores = tuple(_OneStepScores(member) for member in members)

    def bound_to(self, ask: Callable[[Tensor, Tensor], Tensor]) -> Quality:
        """See `Quality`."""
        if not self.separator_calls:
            return self
        members = [member.bound_to(ask) for member in self.members]
        return JointQuality(members, weights=self.weights, scales=self.scales)

    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """See `Quality`; without a unit."""
        one_step = _required_one_step(one_step, self.name)
        total = torch.zeros(len(estimate), dtype=estimate.dtype, device=estimate.device)
        for member, before, weight, scale in zip(
            self.members, self._one_step_scores, self.weights, self.scales, strict=True
        ):
            score = member(estimate, reference=reference, mixture=mixture, one_step=one_step)
            gain = score - before(one_step, reference=reference, mixture=mixture)
            total = total + weight / scale * gain
        # networks round differently in batches of different sizes, which must not part equal samples
        return total.masked_fill(_equal_rows(estimate, one_step) & ~total.isnan(), 0.0)


class GuardedQuality(Quality):
    """A measure whose gains must not be bought: a candidate that lowers a guard below one-step scores NaN.

    NaN means not eligible. The one-step estimate itself is eligible wherever the measure can score it.

    Args:
        quality: The measure that steers.
        guards: Measures that must not fall, of the same sample rate.

    Raises:
        ValueError: If there are no guards or the rates differ.
    """

    def __init__(self, quality: Quality, guards: Sequence[Quality]) -> None:
        if not guards:
            raise ValueError("guards=[] guard nothing: give a measure, or use the quality by itself")
        self.sample_rate = _shared_rate("quality and guards", (quality, *guards))
        self.quality = quality
        self.guards = tuple(guards)
        self.name = f"{quality.name}_guarded_{'_'.join(guard.name for guard in guards)}"
        self.needs_reference = any(member.needs_reference for member in (quality, *guards))
        self.differentiable = quality.differentiable
        self.separator_calls = sum(member.separator_calls for member in (quality, *guards))
        self._one_step_scores = tuple(_OneStepScores(guard) for guard in guards)

    def bound_to(self, ask: Callable[[Tensor, Tensor], Tensor]) -> Quality:
        """See `Quality`."""
        if not self.separator_calls:
            return self
        return GuardedQuality(self.quality.bound_to(ask), [guard.bound_to(ask) for guard in self.guards])

    def __call__(
        self,
        estimate: Tensor,
        *,
        reference: Tensor | None = None,
        mixture: Tensor | None = None,
        one_step: Tensor | None = None,
    ) -> Tensor:
        """See `Quality`; in the unit of the measure that steers."""
        one_step = _required_one_step(one_step, self.name)
        score = self.quality(estimate, reference=reference, mixture=mixture, one_step=one_step)
        eligible = torch.ones_like(score, dtype=torch.bool)
        for guard, before in zip(self.guards, self._one_step_scores, strict=True):
            value = guard(estimate, reference=reference, mixture=mixture, one_step=one_step)
            eligible &= value >= before(one_step, reference=reference, mixture=mixture)
        return score.masked_fill(~(eligible | _equal_rows(estimate, one_step)), torch.nan)


class _OneStepScores:
    """Scores of one-step estimates, remembered: a loop asks for the same ones at every step and candidate.

    A row is known by the content of its signals, so its score is right however a batch repeats or orders its
    rows. Threads that ask at once wait for each other, as they mostly ask for the same rows. A copy, also in
    another process, remembers nothing.
    """

    capacity = 1024

    def __init__(self, quality: Quality) -> None:
        self._quality = quality
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[_OneStepScores], tuple[Quality]]:
        return type(self), (self._quality,)

    def __call__(self, one_step: Tensor, *, reference: Tensor | None, mixture: Tensor | None) -> Tensor:
        """Return the scores ``(batch,)`` of ``(batch, channel, time)``, without gradient."""
        signals = [one_step, mixture, reference if self._quality.needs_reference else None]
        on_host = [signal.detach().cpu() for signal in signals if signal is not None]
        keys = [_digest(rows) for rows in zip(*on_host, strict=True)]
        with self._lock:
            scores = {key: self._known[key] for key in keys if key in self._known}
            missing = {key: index for index, key in enumerate(keys) if key not in scores}
            if missing:
                values = self._score([None if s is None else s[list(missing.values())] for s in signals])
                scores.update(zip(missing, values.tolist(), strict=True))
            for key, score in scores.items():
                self._known[key] = score
                self._known.move_to_end(key)
            while len(self._known) > self.capacity:
                self._known.popitem(last=False)
        return torch.tensor([scores[key] for key in keys], dtype=one_step.dtype, device=one_step.device)

    def _score(self, signals: Sequence[Tensor | None]) -> Tensor:
        """Scores of the rows of one-step estimates, mixtures and references."""
        one_step, mixture, reference = (None if signal is None else signal.detach() for signal in signals)
        assert one_step is not None
        return self._quality(one_step, reference=reference, mixture=mixture, one_step=one_step)


def _digest(signals: Sequence[Tensor]) -> bytes:
    """Return a fingerprint of the samples and shapes of some signals."""
    digest = hashlib.blake2b(digest_size=16)
    for signal in signals:
        digest.update(f"{tuple(signal.shape)}{signal.dtype}".encode())
        digest.update(signal.numpy().tobytes())
    return digest.digest()


def _equal_rows(estimate: Tensor, one_step: Tensor) -> Tensor:
    """Return ``(batch,)``: whether an estimate is the one-step estimate, sample for sample."""
    return (estimate == one_step).flatten(1).all(-1)


def _required_one_step(one_step: Tensor | None, name: str) -> Tensor:
    if one_step is None:
        raise ValueError(f"one_step=None: {name!r} compares with the one-step estimate, give it as one_step=")
    return one_step


def _shared_rate(argument: str, members: Sequence[Quality]) -> int:
    rates = {member.name: member.sample_rate for member in members}
    if len(set(rates.values())) != 1:
        raise ValueError(f"{argument} have the sample rates {rates}: give at least one, and all of one rate")
    return next(iter(rates.values()))


def _own_scale(member: Quality) -> float:
    scale = getattr(member, "scale", None)
    if scale is None:
        raise ValueError(f"scales=None, but {member.name!r} has no scale of its own: give scales=")
    return float(scale)
