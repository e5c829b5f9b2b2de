"""Separate items of any length: cut into segments, separate in batches, cross-fade.

Segments are all of one length and overlap. Samples within ``context`` of a boundary are used as context only
and discarded: a separator is worst near the ends of its input. Between the contexts of two neighbours the
later one is faded in, with weights that sum to 1, so that equal estimates stay as they are. Nothing is
padded. Finished samples are returned at once, so that an hour need take no more memory than a few segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from encore.inference.permutation import matching_order, reorder
from encore.inference.wrappers import Wrapper
from encore.models.types import Groups, Separator

Read = Callable[[int, int], Tensor]
"""Samples ``start`` up to ``stop`` of an item, as ``(b, c, stop - start)``; from a tensor, or from disk."""


class Segment(NamedTuple):
    """A segment, and the part of the item that is finished with it: up to where the next fade begins."""

    start: int
    """Its first sample."""
    begin: int
    """First sample of the part, at or after ``start``."""
    end: int
    """The sample after the part's last."""


def segment_bounds(length: int, *, segment: int, overlap: int, context: int = 0) -> list[Segment]:
    """Return the segments that an item is cut into.

    Args:
        length: Its samples.
        segment: Samples of every segment, contexts and fades included, from 1 up.
        overlap: Samples over which neighbours are faded into each other, from 0 up.
        context: Samples at either side of a fade that only one of the neighbours is used for, from 0 up.

    Returns:
        The segments; their parts are adjacent and cover the item. Segments begin ``segment -
        overlap - 2 * context`` apart; the last one is moved to the left, so that it is as long as the others.
        An item that is no longer than a segment is one.

    Raises:
        ValueError: If a number is out of range, or nothing of a segment is left between its fades.
    """
    hop = segment - overlap - 2 * context
    if segment < 1 or overlap < 0 or context < 0 or hop < 1:
        raise ValueError(
            f"segment={segment}, overlap={overlap}, context={context} samples: none may be negative, and the"
            " segment must be longer than the overlap and twice the context"
        )
    if length <= segment:
        return [Segment(0, 0, length)]
    starts = [*range(0, length - segment, hop), length - segment]
    # the last part begins where it would without the move
    begins = [place * hop for place in range(len(starts))]
    ends = [*begins[1:], length]
    return [Segment(*bounds) for bounds in zip(starts, begins, ends, strict=True)]


class CrossFade:
    """Cross-fade the segments of a waveform, one after the other.

    The weights ``(overlap + 2 * context,)`` of the later of two segments where they overlap are zeros, a rise
    by ``1 / overlap``, and ones; the earlier one gets 1 minus them, which are the same backwards. So
    neighbouring samples of the joined waveform differ by no more than those of either segment do, plus
    ``1 / overlap`` of what the segments differ by (with fades and contexts up to half a segment; beyond,
    several fades go on at once). What is wrong within ``context`` of the ends does not come in at all,
    and what is wrong by e within half the overlap beyond, by less than e / 2.

    Args:
        overlap: Samples of a fade.
        context: Samples at either side of it.
    """

    def __init__(self, overlap: int, context: int = 0) -> None:
        self.overlap, self.context = overlap, context
        rise = (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(1, overlap)
        self.weights = torch.cat((rise.new_zeros(context), rise, rise.new_ones(context)))
        self._end: Tensor | None = None

    def order(self, waveform: Tensor, segment: Segment, groups: Groups) -> Tensor:
        """Return the order ``(b, s)`` in which the next segment's sources continue those of the last one.

        Args:
            waveform: ``(b, s, c, t)``; where several are joined as a stack, the first of them.
            segment: The next segment.
            groups: Positions of sources that may have been permuted, group by group.
        """
        if self._end is None:
            return torch.arange(waveform.shape[1], device=waveform.device).expand(len(waveform), -1)
        # compared where both segments are at their best
        compared = slice(self.context, self.context + self.overlap) if self.overlap else slice(None)
        shared = waveform[..., segment.begin - segment.start :][..., : len(self.weights)]
        end = self._end if self._end.ndim == waveform.ndim else self._end[0]
        return matching_order(shared[..., compared], end[..., compared], groups)

    def join(self, waveform: Tensor, segment: Segment) -> Tensor:
        """Add the next segment ``(..., t)``; return the part that is finished with it.

        Samples beyond the part wait for the next segment.
        """
        waveform = waveform[..., segment.begin - segment.start :]
        if self._end is not None:
            shared = len(self.weights)
            # lerp gives two equal values back as they are, which a weighted sum does not
            head = self._end.lerp(waveform[..., :shared], self.weights.to(waveform))
            waveform = torch.cat((head, waveform[..., shared:]), dim=-1)
        count = segment.end - segment.begin
        # copied, for it would keep the whole segment
        self._end = waveform[..., count:].clone()
        return waveform[..., :count]


class overlap_add(Wrapper):  # noqa: N801, used like a function
    """Separate items of any length by a separator of segments.

    `encore.refine` can refine whole items with it, with one ratio a step.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, item by item.
        segment: Samples of a segment, which bound the memory of a call; items up to that long are separated
            as they are.
        overlap: Fraction in [0, 1) of a segment over which it is faded into the next.
        context: Samples at either side of a fade where a separator is not to be trusted.
        max_batch: Most segments in one separator call.
        groups: Positions of the sources that the separator gives in any order (speakers): those of every
            segment are put into the order of the segment before.
        device: The separator's device; the joined estimates stay where the mixture is.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        separate: Separator,
        *,
        segment: int,
        overlap: float = 0.25,
        context: int = 0,
        max_batch: int = 1,
        groups: Groups = (),
        device: torch.device | None = None,
    ) -> None:
        super().__init__(separate)
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap={overlap}: give a fraction of the segment in [0, 1)")
        if max_batch < 1:
            raise ValueError(f"max_batch={max_batch}: at least one segment goes into a call")
        self.segment, self.overlap, self.context = segment, round(overlap * segment), context
        self.max_batch, self.groups, self.device = max_batch, groups, device
        self._bounds(segment)  # says what is wrong

    def _bounds(self, length: int) -> list[Segment]:
        return segment_bounds(length, segment=self.segment, overlap=self.overlap, context=self.context)

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(b, c, t)`` segment by segment."""
        bounds, fade = self._bounds(mixture.shape[-1]), CrossFade(self.overlap, self.context)
        segments = torch.cat([mixture[..., own.start : own.start + self.segment] for own in bounds])
        calls, device = torch.split(segments, self.max_batch), self.device or mixture.device
        estimates = torch.cat([self.separate(part.to(device)).to(mixture.device) for part in calls])
        if estimates.shape[-1] != segments.shape[-1]:
            raise ValueError(
                f"the separator gave {estimates.shape[-1]} samples for {segments.shape[-1]}: it must keep the"
                " length; pad and cut inside it"
            )
        parts = []
        for own, waveform in zip(bounds, torch.split(estimates, len(mixture)), strict=True):
            in_order = reorder(waveform, fade.order(waveform, own, self.groups)) if self.groups else waveform
            parts.append(fade.join(in_order, own))
        return torch.cat(parts, dim=-1)


class shift_average(Wrapper):  # noqa: N801
    """Average the estimates over delays of the item.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, for any length.
        shifts: Number of delays, and of its calls, from 1 up.
        max_shift: Longest delay in samples, made by zeros in front that are cut off again.
        groups: Positions of the sources that it gives in any order.
        generator: Draws the delays once, here, so that the separator is deterministic.

    Raises:
        ValueError: If a number is out of range.

    Source: A. Défossez et al., "Music Source Separation in the Waveform Domain", 2019, section 4.4.
    """

    def __init__(
        self,
        separate: Separator,
        *,
        shifts: int,
        max_shift: int,
        groups: Groups = (),
        generator: Generator,
    ) -> None:
        super().__init__(separate)
        if shifts < 1 or max_shift < 0:
            raise ValueError(f"shifts={shifts}, max_shift={max_shift}: give 1 or more, and 0 samples or more")
        delays = torch.randint(max_shift + 1, (shifts,), generator=generator, device=generator.device)
        self.delays, self.groups = delays.tolist(), groups

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate delayed copies of ``(b, c, t)`` and average."""
        total: Tensor | None = None
        for delay in self.delays:
            estimates = self.separate(F.pad(mixture, (delay, 0)))[..., delay:]
            if total is not None and self.groups:
                estimates = reorder(estimates, matching_order(estimates, total, self.groups))
            total = estimates if total is None else total + estimates
        assert total is not None
        return total / len(self.delays)
