"""Refine items of any length in bounded memory: segment by segment, each with ratios of its own.

Every item is read once, from its beginning to its end, and all segments of all items go through one pool of
workers. Segment bounds and cross-fades: `encore.inference.chunking`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor

from encore.inference.chunking import CrossFade, Read, Segment, segment_bounds
from encore.inference.execution import WorkerPool
from encore.inference.permutation import reorder
from encore.inference.refinement import Refined
from encore.models.types import Groups

FAULTS = (ValueError, RuntimeError, MemoryError, OSError)
"""Errors that end the refinement of one item and leave the others alone."""


@dataclass(kw_only=True, slots=True, eq=False)
class LongItem:
    """A mixture that need not fit into memory, and how it is cut.

    Attributes:
        read: Gives samples of the mixture ``(b, c, t)``; called once for each segment, in order, in the
            thread that takes the chunks.
        length: Samples of the mixture.
        segment: Samples of a segment.
        overlap: Samples of a cross-fade.
        context: Samples at either side of a fade that are discarded.
        groups: Positions of sources that segments give in any order among themselves.
        read_references: As ``read``, of the references ``(b, s, c, t)``; None without.
        generator: Seeds one generator per segment, in order, so that the number of workers does not matter.
        failed: Whether the rest is to be left out.
    """

    read: Read
    length: int
    segment: int
    overlap: int
    context: int = 0
    groups: Groups = ()
    read_references: Read | None = None
    generator: Generator | None = None
    failed: bool = False

    @property
    def bounds(self) -> list[Segment]:
        """Return the segments; a ValueError if a number is out of range."""
        return segment_bounds(self.length, segment=self.segment, overlap=self.overlap, context=self.context)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A finished part of an item, or a refined segment before it is faded into its neighbours.

    Attributes:
        start: Its first sample.
        segment: Samples of the segment that its calls worked on.
        mixture: ``(b, c, t)``.
        references: ``(b, s, c, t)``; None without.
        waveforms: ``(n, b, s, c, t)``: the one-step estimates first, the last ones last, those of the steps
            between them if they are kept.
        scores: ``(steps + 1, b)`` of the segment, as the next two; see `Refined`.
        ratios: ``(steps, b)``.
        evaluations: ``(b,)``.
        seconds: Wall time of its refinement, guide included.
    """

    start: int = 0
    segment: int = 0
    mixture: Tensor
    references: Tensor | None = None
    waveforms: Tensor
    scores: Tensor
    ratios: Tensor
    evaluations: Tensor
    seconds: float = 0.0

    @classmethod
    def of(
        cls,
        refined: Refined,
        mixture: Tensor,
        references: Tensor | None = None,
        trajectory: Sequence[Tensor] | None = None,
    ) -> Chunk:
        """Return a refinement and its signals, with the estimates of all its steps if these are given."""
        steps = [refined.estimates] if trajectory is None else trajectory
        return cls(
            mixture=mixture,
            references=references,
            waveforms=torch.stack([refined.one_step, *steps]).to(mixture.device),
            scores=refined.scores.to(mixture.device),
            ratios=refined.ratios.to(mixture.device),
            evaluations=refined.evaluations.to(mixture.device),
        )

    @property
    def length(self) -> int:
        """Its samples."""
        return self.waveforms.shape[-1]


RefineOne = Callable[[Tensor, Tensor | None, Generator | None], Chunk]
"""Refine a mixture ``(b, c, t)`` that is short enough, with its references ``(b, s, c, t)``, or None."""


def refine_segments(
    refine_one: RefineOne, items: Iterable[LongItem], pool: WorkerPool | None = None
) -> Iterator[tuple[LongItem, Chunk | Exception]]:
    """Refine long items segment by segment, and yield every part of them as soon as it is finished.

    Each segment chooses ratios of its own, which hold for all channels of an item. An item that is no longer
    than a segment gives one chunk. With several workers one more segment than workers is in work or waiting,
    never more, however slowly the chunks are consumed.

    Args:
        refine_one: Refines one segment; thread-safe if there are several workers.
        items: Taken one by one.
        pool: Threads; None for this one.

    Yields:
        The items in order, each with its chunks in order, on the device where ``read`` puts the samples; or
        with the error that ends it, one of `FAULTS`.
    """

    def work(task: _Task) -> tuple[LongItem, Segment, Chunk | Exception]:
        item, place, refine_segment = task
        try:
            return item, place, refine_segment()
        except FAULTS as error:
            return item, place, error

    fade = CrossFade(0)
    for item, place, refined in (pool or WorkerPool()).map(work, _tasks(refine_one, items)):
        if item.failed:
            continue
        if isinstance(refined, Exception):
            item.failed = True
            yield item, refined
            continue
        if place.start == 0:
            fade = CrossFade(item.overlap, item.context)
        yield item, _faded(refined, place, fade, item.groups)


_Task = tuple[LongItem, Segment, Callable[[], Chunk]]


def _tasks(refine_one: RefineOne, items: Iterable[LongItem]) -> Iterator[_Task]:
    """Read the segments of items, in order; what refines a segment raises the error of reading it."""
    for item in items:
        try:
            bounds = item.bounds
            for place in bounds:
                if item.failed:
                    break
                window = (place.start, place.start + min(item.segment, item.length))
                references = None if item.read_references is None else item.read_references(*window)
                generator = item.generator if len(bounds) == 1 else _successor(item.generator)
                yield item, place, partial(refine_one, item.read(*window), references, generator)
        except FAULTS as error:
            yield item, Segment(0, 0, 0), partial(_raise, error)


def _faded(refined: Chunk, place: Segment, fade: CrossFade, groups: Groups) -> Chunk:
    """Return the part of a refined segment that is finished, faded into the one before."""
    waveforms = refined.waveforms
    if groups:
        order = fade.order(waveforms[0], place, groups)
        waveforms = torch.stack([reorder(estimates, order) for estimates in waveforms])
    own = slice(place.begin - place.start, place.end - place.start)
    return replace(
        refined,
        start=place.begin,
        segment=refined.mixture.shape[-1],
        mixture=refined.mixture[..., own],
        references=None if refined.references is None else refined.references[..., own],
        waveforms=fade.join(waveforms, place),
    )


def _raise(error: Exception) -> Chunk:
    raise error


class ChunkStatistics:
    """Collect the scores, ratios and evaluations of an item's chunks.

    Attributes:
        lengths: Samples of each chunk.
        seconds: Wall time of their refinements.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.seconds = 0.0
        self._scores: list[Tensor] = []
        self._ratios: list[Tensor] = []
        self._separated: list[Tensor] = []

    def add(self, chunk: Chunk) -> None:
        """Add the next chunk; its waveforms are not kept."""
        self.lengths.append(chunk.length)
        self.seconds += chunk.seconds
        self._scores.append(chunk.scores)
        self._ratios.append(chunk.ratios)
        self._separated.append(chunk.evaluations * chunk.segment)

    @property
    def scores(self) -> Tensor:
        """``(steps + 1, b)`` means of the segments' own scores, which are not those of the joined audio."""
        return mean_over_chunks(torch.stack(self._scores), self.lengths).to(self._scores[0].dtype)

    @property
    def ratios(self) -> Tensor:
        """``(steps, b)`` means over the segments that chose one at this step, NaN if none did."""
        return torch.stack(self._ratios).nanmean(0)

    @property
    def evaluations(self) -> Tensor:
        """``(b,)`` calls in units of calls on the whole item, rounded up."""
        return -(-torch.stack(self._separated).sum(0) // sum(self.lengths))

    @property
    def unscored(self) -> Tensor:
        """``(b,)`` segments whose one-step estimate has no score, and which are not refined by a quality."""
        return torch.stack(self._scores)[:, 0].isnan().sum(0)


def mean_over_chunks(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the mean of ``(chunk, ...)`` weighted by length, NaN left out; NaN where all are.

    In float64; of a single value it is that value to the last bit.
    """
    known = ~values.isnan()
    weights = torch.tensor(lengths, dtype=torch.float64, device=values.device)
    weights = weights.view(-1, *[1] * (values.ndim - 1)) * known
    return (weights / weights.sum(0) * values.double().where(known, 0.0)).sum(0)


def _successor(generator: Generator | None) -> Generator | None:
    """Return a generator that is seeded by another one."""
    if generator is None:
        return None
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return Generator(generator.device).manual_seed(int(seed))
