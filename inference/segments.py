"""Refinement of items of any length in bounded memory: segment by segment, each with ratios of its own.

Where to cut and how to fade: `encore.inference.chunking`. What is done is given out and forgotten: an hour
costs a few segments, and the copies of the whole that the caller keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Protocol

import torch
from torch import Generator, Tensor

from encore.inference.chunking import Cut, Read, Seam, cut_out, cuts
from encore.inference.execution import Lanes
from encore.inference.permutation import reorder
from encore.inference.refinement import Refinement
from encore.models.types import Groups

WAVEFORMS = ("estimate", "one_step", "trajectory")


class RefineOne(Protocol):
    """Refines a mixture ``(b, c, t)`` that is short enough, such as `inference.refine` in a partial."""

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


def refined_stretches(
    refine_one: RefineOne,
    read: Read,
    length: int,
    *,
    segment: int,
    overlap: int,
    context: int = 0,
    stitched: Groups = (),
    read_reference: Read | None = None,
    generator: Generator | None = None,
    lanes: Lanes | None = None,
) -> Iterator[Stretch]:
    """Refine a long item segment by segment, and give out every part of it as soon as it is done.

    Each segment chooses ratios of its own; the channels of an item share them. An item that is no longer than
    a segment is passed on as it is, and one stretch comes back. With several lanes there are one more
    segments in work or waiting than lanes, never more, however slowly the stretches are asked for.

    Args:
        refine_one: Refines one segment; with several lanes in several threads at once.
        read: Gives samples of the mixture ``(b, c, t)``, with several lanes in several threads at once.
        length: Samples of the mixture.
        segment: Samples of a segment.
        overlap: Samples over which one is faded into the next.
        context: Samples at either side of a fade where a separator is not to be trusted.
        stitched: Places of sources that segments ``(b, s, c, t)`` give in any order among themselves.
        read_reference: As ``read``, of the references ``(b, c, t)`` or ``(b, s, c, t)``; None without.
        generator: For searches that draw; each segment gets one that is seeded by it, in order, so that the
            number of lanes does not matter.
        lanes: Where the segments are worked on; None for one at a time, in this thread.

    Yields:
        The stretches in order, where ``read`` puts the samples.

    Raises:
        ValueError: If a number is out of range.
    """
    places = cuts(length, segment=segment, overlap=overlap, context=context)
    segment = min(segment, length)

    def refined_segment(part: tuple[int, Generator | None]) -> Refinement:
        start, stop = part[0], part[0] + segment
        mixture = read(start, stop)
        reference = None if read_reference is None else read_reference(start, stop)
        return _moved(refine_one(mixture, reference=reference, generator=part[1]), mixture.device)

    if len(places) == 1:
        yield Stretch(start=0, segment=segment, refinement=refined_segment((0, generator)))
        return
    parts = ((cut.start, _successor(generator)) for cut in places)
    results = (lanes or Lanes()).map(refined_segment, parts)
    seams = {name: Seam(overlap, context) for name in WAVEFORMS}
    for cut, refined in zip(places, results, strict=True):
        in_order = _in_order(refined, seams["one_step"], cut, stitched) if stitched else refined
        done = {
            name: seam.join(waveform, cut)
            for name, seam in seams.items()
            if (waveform := getattr(in_order, name)) is not None
        }
        yield Stretch(start=cut.begin, segment=segment, refinement=replace(in_order, **done))


def _moved(refined: Refinement, device: torch.device) -> Refinement:
    """The refinement with all that it holds on a device."""
    tensors = {field.name: getattr(refined, field.name) for field in fields(refined)}
    return replace(refined, **{name: x.to(device) for name, x in tensors.items() if x is not None})


def _in_order(refined: Refinement, seam: Seam, cut: Cut, groups: Groups) -> Refinement:
    """A segment's refinement with its sources as they were in the segment before."""
    order = seam.order(refined.one_step, cut, groups)
    trajectory = refined.trajectory
    return replace(
        refined,
        estimate=reorder(refined.estimate, order),
        one_step=reorder(refined.one_step, order),
        trajectory=None if trajectory is None else torch.stack([reorder(y, order) for y in trajectory]),
    )


def join_stretches(stretches: Iterable[Stretch], length: int) -> Refinement:
    """One refinement of all stretches of an item of ``length`` samples.

    Returns:
        The waveforms side by side, and of scores, ratios and evaluations what `Numbers` says. The
        refinement of a single stretch is returned as it is.

    Raises:
        ValueError: If the stretches do not fill the item.
    """
    joined: dict[str, Tensor | None] = dict.fromkeys(WAVEFORMS)
    numbers = Numbers()
    for stretch in stretches:
        if stretch.length == length:
            return stretch.refinement
        numbers.add(stretch)
        for name in WAVEFORMS:
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
    context: int = 0,
    stitched: Groups = (),
    reference: Tensor | None = None,
    generator: Generator | None = None,
    lanes: int = 1,
) -> Refinement:
    """Refine an item of any length: `refined_stretches`, joined by `join_stretches`.

    Beside what a few segments need, memory holds the joined waveforms only: two of the item's length for each
    source, and with a trajectory one more for each step.

    Args:
        refine_one: Refines one segment.
        mixture: ``(b, c, t)``.
        segment: Samples of a segment.
        overlap: Samples over which one is faded into the next.
        context: Samples at either side of a fade where a separator is not to be trusted.
        stitched: Places of sources that segments give in any order; ``refine_one`` then gives all of them.
        reference: ``(b, c, t)`` or ``(b, s, c, t)``; None without.
        generator: For searches that draw.
        lanes: Segments that are worked on at the same time, each in a thread with one processor core.

    Raises:
        ValueError: If lengths do not fit each other.
    """
    length = mixture.shape[-1]
    if reference is not None and reference.shape[-1] != length:
        raise ValueError(
            f"reference has {reference.shape[-1]} samples, the mixture {length}: cut or pad it to fit"
        )
    with Lanes(lanes) as threads:
        stretches = refined_stretches(
            refine_one,
            partial(cut_out, mixture),
            length,
            segment=segment,
            overlap=overlap,
            context=context,
            stitched=stitched,
            read_reference=None if reference is None else partial(cut_out, reference),
            generator=generator,
            lanes=threads,
        )
        return join_stretches(stretches, length)


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
        """``(steps + 1, b)``: mean of the segments' own, see `mean_over_stretches`.

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


def _successor(generator: Generator | None) -> Generator | None:
    """A generator that is seeded by another one."""
    if generator is None:
        return None
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return Generator(generator.device).manual_seed(int(seed))
