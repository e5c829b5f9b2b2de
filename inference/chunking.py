"""Items of any length in bounded memory: cut into segments, each refined by itself, and faded together again.

Segments overlap. Where one begins, its estimate is faded in over the estimate so far, with weights that sum
to 1, so that what all segments agree on comes out as it is. What is done then is given out and forgotten: an
hour costs a few segments, and the copies of the whole that the caller keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from inference.execution import Lanes
from inference.refinement import Refinement

_WAVEFORMS = ("estimate", "one_step", "trajectory")


class RefineOne(Protocol):
    """Refines a mixture ``(b, c, t)`` that is short enough, such as :func:`inference.refine` in a partial."""

    def __call__(
        self, mixture: Tensor, /, *, reference: Tensor | None, generator: Generator | None
    ) -> Refinement:
        """Refine ``(b, c, t)``, with its reference if there is one."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """A part of an item that is done: from where one segment's fade begins to where the next one's does.

    The stretches of an item lie side by side and fill it.

    Attributes:
        start: Its first sample.
        segment: Samples that its calls worked on.
        refinement: The waveforms are the joined ones, of the stretch only; scores, ratios and evaluations are
            those of the segment.
    """

    start: int
    segment: int
    refinement: Refinement

    @property
    def length(self) -> int:
        """Its samples."""
        return self.refinement.estimate.shape[-1]


def segment_starts(length: int, *, segment: int, overlap: int) -> list[int]:
    """Where to cut an item.

    Args:
        length: Its samples.
        segment: Samples of every segment, from 1 up.
        overlap: Samples that neighbours share, from 0 up and below ``segment``.

    Returns:
        The first sample of every segment, ``segment - overlap`` apart; the last one is moved to the left, so
        that it is as long as the others. One segment for an item that is no longer than one.

    Raises:
        ValueError: If the segment or the overlap is out of range.
    """
    if segment < 1 or not 0 <= overlap < segment:
        raise ValueError(
            f"segment={segment}, overlap={overlap}: give a segment of 1 sample or more, and an overlap from 0"
            " up and below the segment"
        )
    if length <= segment:
        return [0]
    return [*range(0, length - segment, segment - overlap), length - segment]


def fade_in(overlap: int) -> Tensor:
    """Weights ``(overlap,)`` of the later of two segments, that rise by ``1 / overlap``.

    The earlier one gets 1 minus them, which are the same backwards. Neighbouring samples of the joined
    waveform thus differ by no more than those of either segment do, plus ``1 / overlap`` of what the segments
    differ by (with an overlap up to half a segment; beyond, several fades go on at once). What is wrong by e
    within half the overlap of a segment's ends comes in by less than e / 2.
    """
    return (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(1, overlap)


def refined_stretches(
    refine_one: RefineOne,
    mixture: Tensor,
    *,
    segment: int,
    overlap: int,
    reference: Tensor | None = None,
    generator: Generator | None = None,
    lanes: Lanes | None = None,
) -> Iterator[Stretch]:
    """Refine a long item segment by segment, and give out every part of it as soon as it is done.

    Each segment chooses ratios of its own; the channels of an item share them. An item that is no longer than
    a segment is passed on as it is, and one stretch comes back. With several lanes there are one more
    segments in work or waiting than lanes, never more, however slowly the stretches are asked for.

    Args:
        refine_one: Refines one segment; with several lanes in several threads at once.
        mixture: ``(b, c, t)``.
        segment: Samples of a segment.
        overlap: Samples over which one is faded into the next.
        reference: ``(b, c, t)`` or ``(b, s, c, t)``, cut as the mixture is; None without.
        generator: For searches that draw; each segment gets one that is seeded by it, in order, so that the
            number of lanes does not matter.
        lanes: Where the segments are worked on; None for one at a time, in this thread.

    Yields:
        The stretches in order, on the mixture's device.

    Raises:
        ValueError: If lengths do not fit each other.
    """
    length = mixture.shape[-1]
    starts = segment_starts(length, segment=segment, overlap=overlap)
    if reference is not None and reference.shape[-1] != length:
        raise ValueError(
            f"reference has {reference.shape[-1]} samples, the mixture {length}: cut or pad it to fit"
        )
    if len(starts) == 1:
        refined = refine_one(mixture, reference=reference, generator=generator)
        yield Stretch(start=0, segment=length, refinement=refined)
        return

    def refined_segment(part: tuple[int, Generator | None]) -> Refinement:
        place = slice(part[0], part[0] + segment)
        clean = None if reference is None else reference[..., place].contiguous()
        # separators may view what they get in another shape, which a part of a longer tensor does not allow
        return refine_one(mixture[..., place].contiguous(), reference=clean, generator=part[1])

    parts = ((start, _successor(generator)) for start in starts)
    results = (lanes or Lanes()).map(refined_segment, parts)
    seam, begin = _Seam(overlap, mixture.device), 0
    for start, refined in zip(starts, results, strict=True):
        end = length if start == starts[-1] else begin + segment - overlap
        done = seam.join(refined, skip=begin - start, count=end - begin)
        yield Stretch(start=begin, segment=segment, refinement=done)
        begin = end


def join_stretches(stretches: Iterable[Stretch], length: int) -> Refinement:
    """One refinement of all stretches of an item of ``length`` samples.

    Returns:
        The waveforms side by side, and of scores, ratios and evaluations what :class:`Numbers` says. The
        refinement of a single stretch is returned as it is.

    Raises:
        ValueError: If the stretches do not fill the item.
    """
    joined: dict[str, Tensor | None] = dict.fromkeys(_WAVEFORMS)
    numbers = Numbers()
    for stretch in stretches:
        if stretch.length == length:
            return stretch.refinement
        numbers.add(stretch)
        for name in _WAVEFORMS:
            waveform: Tensor | None = getattr(stretch.refinement, name)
            if waveform is None:
                continue
            whole = joined[name]
            if whole is None:
                whole = joined[name] = waveform.new_empty(*waveform.shape[:-1], length)
            whole[..., stretch.start : stretch.start + stretch.length] = waveform
    estimate, one_step, trajectory = joined.values()
    if estimate is None or one_step is None or sum(numbers.lengths) != length:
        raise ValueError(
            f"length={length}: the stretches have {sum(numbers.lengths)} samples; give all of an item"
        )
    return Refinement(
        estimate=estimate,
        one_step=one_step,
        trajectory=trajectory,
        scores=numbers.scores,
        ratios=numbers.ratios,
        evaluations=numbers.evaluations,
    )


def refine_in_segments(
    refine_one: RefineOne,
    mixture: Tensor,
    *,
    segment: int,
    overlap: int,
    reference: Tensor | None = None,
    generator: Generator | None = None,
    lanes: int = 1,
) -> Refinement:
    """Refine an item of any length: :func:`refined_stretches`, joined by :func:`join_stretches`.

    Beside what a few segments need, memory holds the joined waveforms only: two of the item's length for each
    source, and with a trajectory one more for each step.

    Args:
        refine_one: Refines one segment.
        mixture: ``(b, c, t)``.
        segment: Samples of a segment.
        overlap: Samples over which one is faded into the next.
        reference: ``(b, c, t)`` or ``(b, s, c, t)``; None without.
        generator: For searches that draw.
        lanes: Segments that are worked on at the same time, each in a thread with one processor core.

    Raises:
        ValueError: If lengths do not fit each other.
    """
    with Lanes(lanes) as threads:
        stretches = refined_stretches(
            refine_one,
            mixture,
            segment=segment,
            overlap=overlap,
            reference=reference,
            generator=generator,
            lanes=threads,
        )
        return join_stretches(stretches, mixture.shape[-1])


class Numbers:
    """What the segments of an item say together.

    Attributes:
        lengths: Samples of each stretch.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._scores: list[Tensor] = []
        self._ratios: list[Tensor] = []
        self._separated: list[Tensor] = []

    def add(self, stretch: Stretch) -> None:
        """Take up the next stretch; nothing of its waveforms is kept."""
        self.lengths.append(stretch.length)
        self._scores.append(stretch.refinement.scores)
        self._ratios.append(stretch.refinement.ratios)
        self._separated.append(stretch.refinement.evaluations * stretch.segment)

    @property
    def scores(self) -> Tensor:
        """``(steps + 1, b)``: mean of the segments' own, see :func:`mean_over_stretches`.

        Not what the measure would say of the joined audio.
        """
        return mean_over_stretches(torch.stack(self._scores), self.lengths).to(self._scores[0].dtype)

    @property
    def ratios(self) -> Tensor:
        """``(steps, b)``: mean over the segments that chose one at this step, NaN if none did."""
        return torch.stack(self._ratios).nanmean(0)

    @property
    def evaluations(self) -> Tensor:
        """``(b,)``: calls in units of calls on the whole item, rounded up."""
        return -(-torch.stack(self._separated).sum(0) // sum(self.lengths))

    @property
    def unscored(self) -> Tensor:
        """``(b,)``: segments whose one-step estimate has no score, which are not refined under a guide."""
        return torch.stack(self._scores)[:, 0].isnan().sum(0)


def mean_over_stretches(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean of ``(stretch, ...)`` weighted by the stretches' lengths, NaN left out; NaN where all are.

    In float64; of a single value it is that value to the last bit.
    """
    known = ~values.isnan()
    weights = torch.tensor(lengths, dtype=torch.float64, device=values.device)
    weights = weights.view(-1, *[1] * (values.ndim - 1)) * known
    return (weights / weights.sum(0) * values.double().where(known, 0.0)).sum(0)


class _Seam:
    """Fades each segment in over the end of the one before.

    Args:
        overlap: Samples of a fade.
        device: Where the joined waveforms shall lie.
    """

    def __init__(self, overlap: int, device: torch.device) -> None:
        self.overlap, self.device, self.weights = overlap, device, fade_in(overlap)
        self.ends: dict[str, Tensor] = {}

    def join(self, refined: Refinement, *, skip: int, count: int) -> Refinement:
        """The next segment without its first ``skip`` samples: ``count`` samples that are done.

        What is beyond them waits for the segment after.
        """
        parts: dict[str, Any] = {
            name: self._join(name, getattr(refined, name), skip, count) for name in _WAVEFORMS
        }
        for name in ("scores", "ratios", "evaluations"):
            parts[name] = getattr(refined, name).to(self.device)
        return replace(refined, **parts)

    def _join(self, name: str, waveform: Tensor | None, skip: int, count: int) -> Tensor | None:
        if waveform is None:
            return None
        waveform = waveform[..., skip:].to(self.device)
        if name in self.ends:
            # lerp gives two equal values back as they are, which a weighted sum does not
            head = self.ends[name].lerp(waveform[..., : self.overlap], self.weights.to(waveform))
            waveform = torch.cat((head, waveform[..., self.overlap :]), dim=-1)
        # copied, for it would keep the whole segment
        self.ends[name] = waveform[..., count:].clone()
        return waveform[..., :count]


def _successor(generator: Generator | None) -> Generator | None:
    """A generator that is seeded by another one."""
    if generator is None:
        return None
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return Generator(generator.device).manual_seed(int(seed))
