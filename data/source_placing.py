"""How isolated sources come to lie on a canvas: the law of the mixtures of `encore.data.mixture_recipes`.

A signal *sounds* in those blocks of 256 samples whose energy lies within 30 dB of its loudest block's; its
*sounding part* reaches from the first of them to the last.

Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025, for
places and levels; what sounds, and that nothing is lost, is settled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from encore.data.mixing import uniform

BLOCK = 256  # samples
BELOW_DB = 30.0  # the noise of a recording lies lower
LEVEL_DB = (-25.0, -20.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a signal comes to lie on the canvas, in frames.

    Attributes:
        first: Of the signal, the first frame that is used.
        frames: How many are used.
        offset: Where on the canvas they come to lie.
        onset: Where on the canvas its sounding part begins.
        level_db: RMS over the whole canvas in dB of full scale.
    """

    first: int
    frames: int
    offset: int
    onset: int
    level_db: float


def place_sources(
    signals: Sequence[Tensor],
    *,
    frames: int,
    generator: Generator,
    level_db: tuple[float, float] = LEVEL_DB,
) -> Tensor:
    """Place signals on a canvas, each but the first beginning to sound while the one before it sounds.

    A signal that sounds for longer than the canvas is cut to its length, at a random place that sounds. All
    sounding parts lie on the canvas whole: each begins at a random place that leaves the later ones room for
    that, whatever silence is around it coming along as far as the canvas reaches. Then each signal is scaled
    to a level of its own.

    Args:
        signals: ``(time,)`` each, of any length.
        frames: Of the canvas.
        generator: Draws cuts, then places and levels, for each signal in turn.
        level_db: Lowest and highest RMS over the whole canvas, dB of full scale.

    Returns:
        ``(source, frames)``, zero where a signal is not. Their sum is the mixture; nothing limits its peak.

    Raises:
        ValueError: If a signal is silent or empty, or ``frames`` is below a block's.
    """
    places = draw_places(signals, frames=frames, generator=generator, level_db=level_db)
    return lay_out(signals, places, frames)


def draw_places(
    signals: Sequence[Tensor],
    *,
    frames: int,
    generator: Generator,
    level_db: tuple[float, float] = LEVEL_DB,
) -> list[Place]:
    """Draw what `place_sources` lays out; arguments and errors are its own."""
    if frames < BLOCK:
        raise ValueError(
            f"frames={frames} is no canvas: give {BLOCK} or more, such as 64000 for 4 s at 16 kHz"
        )
    for index, signal in enumerate(signals):
        if not len(sounding_blocks(signal)):
            raise ValueError(f"signals[{index}] is silent or empty: leave it out")
    cuts = [_cut(signal, frames, generator) for signal in signals]
    lengths = [cut.sounds_until - cut.sounds_from for cut in cuts]
    places: list[Place] = []
    begin, end = 0, frames  # of the sounding part before
    for index, (cut, length) in enumerate(zip(cuts, lengths, strict=True)):
        onset = draw_integer(begin, min(end - 1, frames - max(lengths[index:])), generator)
        first = max(cut.first, cut.sounds_from - onset)
        offset = onset - (cut.sounds_from - first)
        count = min(cut.last - first, frames - offset)
        level = float(uniform("level_db", level_db, torch.Size(()), generator))
        places.append(Place(first=first, frames=count, offset=offset, onset=onset, level_db=level))
        begin, end = onset, onset + length
    return places


def lay_out(signals: Sequence[Tensor], places: Sequence[Place], frames: int) -> Tensor:
    """Lay signals out on a canvas.

    Args:
        signals: ``(time,)`` each.
        places: Where each comes to lie.
        frames: Of the canvas.

    Returns:
        ``(source, frames)``.
    """
    rows = []
    for signal, place in zip(signals, places, strict=True):
        used = signal[place.first : place.first + place.frames]
        canvas = pad(used, (place.offset, frames - place.offset - len(used)))
        root_mean_square = canvas.double().square().mean().sqrt()
        rows.append((canvas * (10 ** (place.level_db / 20) / root_mean_square)).to(signal.dtype))
    return torch.stack(rows)


def sounding_blocks(signal: Tensor) -> Tensor:
    """Indices, ascending, of the blocks that sound; none for silence.

    Args:
        signal: ``(time,)``; its last block may be shorter.

    Returns:
        ``(block,)``.
    """
    energy = pad(signal.double().square(), (0, -len(signal) % BLOCK)).reshape(-1, BLOCK).sum(1)
    if not len(energy) or not bool(energy.max() > 0):
        return torch.empty(0, dtype=torch.long)
    return (energy > energy.max() * 10 ** (-BELOW_DB / 10)).nonzero()[:, 0]


def draw_integer(low: int, high: int, generator: Generator) -> int:
    """Draw from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


@dataclass(frozen=True, slots=True)
class _Cut:
    """What of a signal is used at most, and where therein it sounds: frames, the ends excluded."""

    first: int
    last: int
    sounds_from: int
    sounds_until: int


def _cut(signal: Tensor, frames: int, generator: Generator) -> _Cut:
    """All of a signal, or where it sounds for longer than ``frames``, so many around a block that sounds."""
    blocks = sounding_blocks(signal)
    first, last = 0, len(signal)
    if min((int(blocks[-1]) + 1) * BLOCK, last) - int(blocks[0]) * BLOCK > frames:
        block = int(blocks[draw_integer(0, len(blocks) - 1, generator)]) * BLOCK
        # the block lies in the cut whole, so that there is something to scale
        latest = min(block, len(signal) - frames)
        first = draw_integer(min(max(0, block + BLOCK - frames), latest), latest, generator)
        last = first + frames
        blocks = blocks[(blocks * BLOCK < last) & ((blocks + 1) * BLOCK > first)]
    return _Cut(first, last, max(int(blocks[0]) * BLOCK, first), min((int(blocks[-1]) + 1) * BLOCK, last))
