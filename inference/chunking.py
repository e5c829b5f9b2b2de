"""Separate items of any length: cut into segments, separate in batches, cross-fade.

Segments are all of one length and overlap. Samples within ``context`` of a boundary are used as context only
and discarded: a separator is worst near the ends of its input. Between the contexts of two neighbours the
later one is faded in, with weights that sum to 1, so that equal estimates stay as they are. Nothing is
padded. Finished samples are yielded at once, so an hour takes no more memory than a few segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import rearrange
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


def fade_in(overlap: int, context: int = 0) -> Tensor:
    """Return weights ``(overlap + 2 * context,)`` of the later of two segments where they overlap.

    Zeros, a rise by ``1 / overlap``, ones; the earlier one gets 1 minus them, which are the same backwards.
    Neighbouring samples of the joined waveform thus differ by no more than those of either segment do, plus
    ``1 / overlap`` of what the segments differ by (with fades and contexts up to half a segment; beyond,
    several fades go on at once). What is wrong within ``context`` of a segment's ends does not come in at
    all, and what is wrong by e within half the overlap beyond, by less than e / 2.
    """
    rise = (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(1, overlap)
    return torch.cat((rise.new_zeros(context), rise, rise.new_ones(context)))


class CrossFade:
    """Cross-fade the segments of a waveform, one after the other.

    Args:
        overlap: Samples of a fade.
        context: Samples at either side of it.
    """

    def __init__(self, overlap: int, context: int = 0) -> None:
        self.weights, self.overlap, self.context = fade_in(overlap, context), overlap, context
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


def separate_parts(
    separate: Separator,
    read: Read,
    length: int,
    *,
    segment: int,
    overlap: int,
    context: int = 0,
    max_batch: int = 1,
    groups: Groups = (),
    device: torch.device | None = None,
) -> Iterator[Tensor]:
    """Separate an item that need not fit into memory, and yield every part as soon as it is finished.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, item by item.
        read: Gives samples of the item; called once for each segment, in order.
        length: Samples of the item.
        segment: Samples of a segment.
        overlap: Samples of a fade.
        context: Samples at either side of it.
        max_batch: Most segments in one separator call.
        groups: Positions of sources that come in any order among themselves; each segment's are put into
            that of the segment before.
        device: The separator's device; None for where ``read`` puts the samples.

    Yields:
        Estimates ``(b, s, c, n)`` where ``read`` puts the samples: side by side, they are of the item's
        length. The parts do not depend on ``max_batch`` beyond what the separator's calls do.

    Raises:
        ValueError: If a number is out of range, or the separator changes the length.
    """
    if max_batch < 1:
        raise ValueError(f"max_batch={max_batch}: at least one segment goes into a call")
    places = segment_bounds(length, segment=segment, overlap=overlap, context=context)
    fade = CrossFade(overlap, context)
    for first in range(0, len(places), max_batch):
        group = places[first : first + max_batch]
        segments = torch.stack([read(own.start, min(own.start + segment, length)) for own in group])
        rows = rearrange(segments, "n b c t -> (n b) c t")
        parts = torch.split(rows, max_batch)
        estimates = torch.cat([separate(part.to(device or rows.device)).to(rows.device) for part in parts])
        if estimates.shape[-1] != rows.shape[-1]:
            raise ValueError(
                f"the separator gave {estimates.shape[-1]} samples for {rows.shape[-1]}: it must keep the"
                " length; pad and cut inside it"
            )
        by_segment = rearrange(estimates, "(n b) s c t -> n b s c t", n=len(group))
        for own, waveform in zip(group, by_segment, strict=True):
            in_order = reorder(waveform, fade.order(waveform, own, groups)) if groups else waveform
            yield fade.join(in_order, own)


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
        bounds = {"segment": segment, "overlap": round(overlap * segment), "context": context}
        segment_bounds(segment, **bounds)  # says what is wrong
        self.options: dict[str, Any] = {
            **bounds,
            "max_batch": max_batch,
            "groups": groups,
            "device": device,
        }

    def __call__(self, mixture: Tensor) -> Tensor:
        """Separate ``(b, c, t)`` segment by segment."""
        read = partial(cut_out, mixture)
        return torch.cat(list(separate_parts(self.separate, read, mixture.shape[-1], **self.options)), dim=-1)


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


def cut_out(item: Tensor, start: int, stop: int) -> Tensor:
    """Samples ``start`` up to ``stop`` of ``(..., t)``: with the item bound, a `Read`."""
    # contiguous, for separators may view what they get in another shape
    return item[..., start:stop].contiguous()
