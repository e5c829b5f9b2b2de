"""Separators of items of any length: cut into segments, separated in batches, and faded together again.

Segments are all of one length and overlap. What a segment's separator hears within ``context`` of a cut is
heard only: a separator is worst near the ends of what it is given. Between the contexts of two neighbours the
later one is faded in, with weights that sum to 1, so that what both agree on comes out as it is. Nothing is
padded. What is done is given out and forgotten, so that an hour costs no more memory than a few segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Generator, Tensor
from torch.nn import functional as F

from encore.inference.permutation import matching_order, reorder
from encore.models.types import Groups, Separator

Read = Callable[[int, int], Tensor]
"""Samples ``start`` up to ``stop`` of an item, as ``(b, c, stop - start)``; from a tensor, or from disk."""


class Cut(NamedTuple):
    """A segment, and the part of the item that is done with it: up to where the next one's fade begins."""

    start: int
    """Its first sample."""
    begin: int
    """First sample of the part, at or after ``start``."""
    end: int
    """The sample after the part's last."""


def cuts(length: int, *, segment: int, overlap: int, context: int = 0) -> list[Cut]:
    """Where to cut an item.

    Args:
        length: Its samples.
        segment: Samples of every segment, contexts and fades included, from 1 up.
        overlap: Samples over which neighbours are faded into each other, from 0 up.
        context: Samples at either side of a fade that only one of the neighbours is used for, from 0 up.

    Returns:
        A cut for each segment; the parts lie side by side and fill the item. Segments begin ``segment -
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
        return [Cut(0, 0, length)]
    starts = [*range(0, length - segment, hop), length - segment]
    # the last part begins where it would without the move
    begins = [place * hop for place in range(len(starts))]
    ends = [*begins[1:], length]
    return [Cut(*cut) for cut in zip(starts, begins, ends, strict=True)]


def fade_in(overlap: int, context: int = 0) -> Tensor:
    """Weights ``(overlap + 2 * context,)`` of the later of two segments where they overlap.

    Zeros, a rise by ``1 / overlap``, ones; the earlier one gets 1 minus them, which are the same backwards.
    Neighbouring samples of the joined waveform thus differ by no more than those of either segment do, plus
    ``1 / overlap`` of what the segments differ by (with fades and contexts up to half a segment; beyond,
    several fades go on at once). What is wrong within ``context`` of a segment's ends does not come in at
    all, and what is wrong by e within half the overlap beyond, by less than e / 2.
    """
    rise = (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(1, overlap)
    return torch.cat((rise.new_zeros(context), rise, rise.new_ones(context)))


class Seam:
    """Fades the segments of a waveform together, one after the other.

    Args:
        overlap: Samples of a fade.
        context: Samples at either side of it.
    """

    def __init__(self, overlap: int, context: int = 0) -> None:
        self.weights, self.overlap, self.context = fade_in(overlap, context), overlap, context
        self._end: Tensor | None = None

    def order(self, waveform: Tensor, cut: Cut, groups: Groups) -> Tensor:
        """Order ``(b, s)`` in which the sources ``(b, s, c, t)`` of the next segment go on as they were.

        Those of a group may have changed places with one another.
        """
        if self._end is None:
            return torch.arange(waveform.shape[1], device=waveform.device).expand(len(waveform), -1)
        # heard where both segments are at their best
        heard = slice(self.context, self.context + self.overlap) if self.overlap else slice(None)
        shared = waveform[..., cut.begin - cut.start :][..., : len(self.weights)]
        return matching_order(shared[..., heard], self._end[..., heard], groups)

    def join(self, waveform: Tensor, cut: Cut) -> Tensor:
        """Take up the next segment ``(..., t)``; returns the part that is done with it.

        What is beyond the part waits for the next segment.
        """
        waveform = waveform[..., cut.begin - cut.start :]
        if self._end is not None:
            shared = len(self.weights)
            # lerp gives two equal values back as they are, which a weighted sum does not
            head = self._end.lerp(waveform[..., :shared], self.weights.to(waveform))
            waveform = torch.cat((head, waveform[..., shared:]), dim=-1)
        count = cut.end - cut.begin
        # copied, for it would keep the whole segment
        self._end = waveform[..., count:].clone()
        return waveform[..., :count]


def separated_parts(
    separate: Separator,
    read: Read,
    length: int,
    *,
    segment: int,
    overlap: int,
    context: int = 0,
    max_batch: int = 1,
    stitched: Groups = (),
    device: torch.device | None = None,
) -> Iterator[Tensor]:
    """Separate an item that need not fit into the memory, and give out every part as soon as it is done.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, item by item.
        read: Gives samples of the item; called once for each segment, in order.
        length: Samples of the item.
        segment: Samples of a segment.
        overlap: Samples of a fade.
        context: Samples at either side of it.
        max_batch: Most segments in one separator call.
        stitched: Places of sources that come in any order among themselves; each segment's are put into
            that of the one before.
        device: Where the separator lives; None for where ``read`` puts the samples.

    Yields:
        Estimates ``(b, s, c, n)`` where ``read`` puts the samples: side by side, they are of the item's
        length. The parts do not depend on ``max_batch`` beyond what the separator's calls do.

    Raises:
        ValueError: If a number is out of range, or the separator changes the length.
    """
    if max_batch < 1:
        raise ValueError(f"max_batch={max_batch}: at least one segment goes into a call")
    places = cuts(length, segment=segment, overlap=overlap, context=context)
    seam = Seam(overlap, context)
    for first in range(0, len(places), max_batch):
        group = places[first : first + max_batch]
        segments = torch.stack([read(cut.start, min(cut.start + segment, length)) for cut in group])
        rows = rearrange(segments, "n b c t -> (n b) c t")
        parts = torch.split(rows, max_batch)
        estimates = torch.cat([separate(part.to(device or rows.device)).to(rows.device) for part in parts])
        if estimates.shape[-1] != rows.shape[-1]:
            raise ValueError(
                f"the separator gave {estimates.shape[-1]} samples for {rows.shape[-1]}: it must keep the"
                " length; pad and cut inside it"
            )
        by_segment = rearrange(estimates, "(n b) s c t -> n b s c t", n=len(group))
        for cut, waveform in zip(group, by_segment, strict=True):
            in_order = reorder(waveform, seam.order(waveform, cut, stitched)) if stitched else waveform
            yield seam.join(in_order, cut)


def overlap_add(
    separate: Separator,
    *,
    segment: int,
    overlap: float = 0.25,
    context: int = 0,
    max_batch: int = 1,
    stitched: Groups = (),
    device: torch.device | None = None,
) -> Separator:
    """A separator of items of any length, made of one of segments.

    It is a separator like any other: `encore.inference.refine` can ask it again about a whole item, or be
    used inside segments, see `encore.inference.segments.refine_in_segments`.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, item by item.
        segment: Samples of a segment, which bound the memory of a call; items up to that long are separated
            as they are.
        overlap: Share in [0, 1) of a segment over which it is faded into the next.
        context: Samples at either side of a fade where a separator is not to be trusted.
        max_batch: Most segments in one separator call.
        stitched: Places of the sources that the separator gives in any order (speakers): those of every
            segment are put into the order of the segment before.
        device: Where the separator lives; what is joined stays where the mixture is.

    Raises:
        ValueError: If a number is out of range.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap={overlap}: give a share of the segment from 0 up and below 1")
    fade = round(overlap * segment)
    cuts(segment, segment=segment, overlap=fade, context=context)  # says what is wrong

    def separate_any_length(mixture: Tensor) -> Tensor:
        parts = separated_parts(
            separate,
            partial(cut_out, mixture),
            mixture.shape[-1],
            segment=segment,
            overlap=fade,
            context=context,
            max_batch=max_batch,
            stitched=stitched,
            device=device,
        )
        return torch.cat(list(parts), dim=-1)

    return separate_any_length


def shifted(
    separate: Separator, *, shifts: int, most: int, stitched: Groups = (), generator: Generator
) -> Separator:
    """A separator whose estimates are means over delays of the item, which moves segments and frames.

    Args:
        separate: Maps ``(n, c, t)`` to ``(n, s, c, t)``, for any length.
        shifts: Number of delays, and of its calls, from 1 up.
        most: Longest delay in samples, by zeros put in front and cut off again.
        stitched: Places of the sources that it gives in any order.
        generator: Draws the delays: here and now, so that what is returned is one function, for every item.

    Raises:
        ValueError: If a number is out of range.

    Source: A. Défossez et al., "Music Source Separation in the Waveform Domain", 2019, section 4.4.
    """
    if shifts < 1 or most < 0:
        raise ValueError(f"shifts={shifts}, most={most}: give one delay or more, of 0 samples or more")
    delays = torch.randint(most + 1, (shifts,), generator=generator, device=generator.device).tolist()

    def mean_estimate(mixture: Tensor) -> Tensor:
        total: Tensor | None = None
        for delay in delays:
            estimates = separate(F.pad(mixture, (delay, 0)))[..., delay:]
            if total is not None and stitched:
                estimates = reorder(estimates, matching_order(estimates, total, stitched))
            total = estimates if total is None else total + estimates
        assert total is not None
        return total / shifts

    return mean_estimate


def cut_out(item: Tensor, start: int, stop: int) -> Tensor:
    """Samples ``start`` up to ``stop`` of ``(..., t)``: with the item bound, a `Read`."""
    # contiguous, for separators may view what they get in another shape
    return item[..., start:stop].contiguous()
