"""Refine items of any length in bounded memory: segment by segment, each with ratios of its own.

Segment bounds and cross-fades: `encore.inference.chunking`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from encore.inference.chunking import CrossFade, Read, segment_bounds
from encore.inference.execution import WorkerPool
from encore.inference.permutation import reorder
from encore.inference.refinement import Refined
from encore.models.types import Groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A finished part of an item, or a refined segment before it is faded into its neighbours.

    Attributes:
        start: Its first sample.
        segment: Samples of the segment that its calls worked on.
        waveforms: ``(n, b, s, c, t)``: the one-step estimates first, the last ones last, those of the steps
            between them if they are kept.
        scores: ``(steps + 1, b)`` of the segment, as the next two; see `Refined`.
        ratios: ``(steps, b)``.
        evaluations: ``(b,)``.
    """

    start: int = 0
    segment: int = 0
    waveforms: Tensor
    scores: Tensor
    ratios: Tensor
    evaluations: Tensor

    @classmethod
    def of(cls, refined: Refined, trajectory: Sequence[Tensor] | None = None) -> Chunk:
        """Return a refinement, with the estimates of all its steps if these are given, as a chunk."""
        steps = [refined.estimates] if trajectory is None else trajectory
        return cls(
            waveforms=torch.stack([refined.one_step, *steps]),
            scores=refined.scores,
            ratios=refined.ratios,
            evaluations=refined.evaluations,
        )

    @property
    def length(self) -> int:
        """Its samples."""
        return self.waveforms.shape[-1]


RefineOne = Callable[[Tensor, Tensor | None, Generator | None], Chunk]
"""Refine a mixture ``(b, c, t)`` that is short enough, with its references ``(b, s, c, t)``, or None."""


def refine_segments(
    refine_one: RefineOne,
    read: Read,
    length: int,
    *,
    segment: int,
    overlap: int,
    context: int = 0,
    groups: Groups = (),
    read_references: Read | None = None,
    generator: Generator | None = None,
    pool: WorkerPool | None = None,
) -> Iterator[Chunk]:
    """Refine a long item segment by segment, and yield every part of it as soon as it is finished.

    Each segment chooses ratios of its own; the channels of an item share them. An item that is no longer than
    a segment gives one chunk. With several workers one more segment than workers is in work or waiting,
    never more, however slowly the chunks are consumed.

    Args:
        refine_one: Refines one segment; thread-safe if there are several workers.
        read: Gives samples of the mixture ``(b, c, t)``; thread-safe likewise.
        length: Samples of the mixture.
        segment: Samples of a segment.
        overlap: Samples of a cross-fade.
        context: Samples at either side of a fade that are discarded.
        groups: Positions of sources that segments give in any order among themselves.
        read_references: As ``read``, of the references ``(b, s, c, t)``; None without.
        generator: Seeds one generator per segment, in order, so that the number of workers does not matter.
        pool: Threads; None for this one.

    Yields:
        The chunks in order, on the device where ``read`` puts the samples.

    Raises:
        ValueError: If a number is out of range.
    """
    bounds = segment_bounds(length, segment=segment, overlap=overlap, context=context)
    segment = min(segment, length)

    def refine_segment(part: tuple[int, Generator | None]) -> Chunk:
        start, stop = part[0], part[0] + segment
        mixture = read(start, stop)
        references = None if read_references is None else read_references(start, stop)
        return _to(refine_one(mixture, references, part[1]), mixture.device)

    if len(bounds) == 1:
        yield replace(refine_segment((0, generator)), segment=segment)
        return
    parts = ((own.start, _successor(generator)) for own in bounds)
    fade = CrossFade(overlap, context)
    for own, refined in zip(bounds, (pool or WorkerPool()).map(refine_segment, parts), strict=True):
        waveforms = refined.waveforms
        if groups:
            order = fade.order(waveforms[0], own, groups)
            waveforms = torch.stack([reorder(estimates, order) for estimates in waveforms])
        yield replace(refined, start=own.begin, segment=segment, waveforms=fade.join(waveforms, own))


class ChunkStatistics:
    """Collect the scores, ratios and evaluations of an item's chunks.

    Attributes:
        lengths: Samples of each chunk.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._scores: list[Tensor] = []
        self._ratios: list[Tensor] = []
        self._separated: list[Tensor] = []

    def add(self, chunk: Chunk) -> None:
        """Add the next chunk; its waveforms are not kept."""
        self.lengths.append(chunk.length)
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


def _to(chunk: Chunk, device: torch.device) -> Chunk:
    return replace(
        chunk,
        waveforms=chunk.waveforms.to(device),
        scores=chunk.scores.to(device),
        ratios=chunk.ratios.to(device),
        evaluations=chunk.evaluations.to(device),
    )


def _successor(generator: Generator | None) -> Generator | None:
    """Return a generator that is seeded by another one."""
    if generator is None:
        return None
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return Generator(generator.device).manual_seed(int(seed))
