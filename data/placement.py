"""Placement of isolated sources in time: the law of the mixtures of `encore.data.mixture_recipes`.

A signal *sounds* in those blocks of 256 samples whose energy is within 30 dB of its loudest block's; its
*sounding part* reaches from the first of them to the last.

Source: R. Shi et al., "Unsupervised Single-Channel Audio Separation with Diffusion Source Priors", 2025, for
onsets and levels; the definition of sounding parts, which are never cut, is this project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from encore.data.mixing import uniform

BLOCK = 256  # samples
BELOW_DB = 30.0  # the noise of a recording is lower
LEVEL_DB = (-25.0, -20.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """The part of a signal that is used, and its position in the mixture, in frames.

    Attributes:
        first: First frame of the signal that is used.
        frames: Number of frames used.
        offset: Their position in the mixture.
        onset: Position in the mixture at which the sounding part begins.
        level_db: RMS over the whole mixture in dB of full scale.
    """

    first: int
    frames: int
    offset: int
    onset: int
    level_db: float


def draw_placements(signals: Sequence[Tensor], *, frames: int, generator: Generator) -> list[Placement]:
    """Draw where signals lie in time, each but the first beginning to sound while the one before it sounds.

    A signal that sounds for longer than the mixture is cut to its length at a random point that sounds. Every
    sounding part is within the mixture: its onset is random and leaves room for the later ones; silence
    around it is kept as far as the mixture reaches. Levels are uniform in `LEVEL_DB`.

    Args:
        signals: ``(time,)`` each, of any length.
        frames: Length of the mixture.
        generator: Draws cuts, then onsets and levels, for each signal in turn.

    Raises:
        ValueError: If a signal is silent or empty, or ``frames`` is below `BLOCK`.
    """
    if frames < BLOCK:
        raise ValueError(
            f"frames={frames} is too short: give {BLOCK} or more, such as 64000 for 4 s at 16 kHz"
        )
    for index, signal in enumerate(signals):
        if not len(sounding_blocks(signal)):
            raise ValueError(f"signals[{index}] is silent or empty: leave it out")
    cuts = [_cut(signal, frames, generator) for signal in signals]
    lengths = [sounds_until - sounds_from for _, _, sounds_from, sounds_until in cuts]
    placements: list[Placement] = []
    begin, end = 0, frames  # of the previous sounding part
    for index, (first, last, sounds_from, _) in enumerate(cuts):
        onset = draw_integer(begin, min(end - 1, frames - max(lengths[index:])), generator)
        first = max(first, sounds_from - onset)
        offset = onset - (sounds_from - first)
        count = min(last - first, frames - offset)
        level = float(uniform("level_db", LEVEL_DB, torch.Size(()), generator))
        placements.append(Placement(first=first, frames=count, offset=offset, onset=onset, level_db=level))
        begin, end = onset, onset + lengths[index]
    return placements


def apply_placements(signals: Sequence[Tensor], placements: Sequence[Placement], frames: int) -> Tensor:
    """Cut, shift and scale signals ``(time,)`` each to ``(source, frames)``, zero outside them.

    Their sum is the mixture, with any peak.
    """
    rows = []
    for signal, placement in zip(signals, placements, strict=True):
        used = signal[placement.first : placement.first + placement.frames]
        row = pad(used, (placement.offset, frames - placement.offset - len(used)))
        root_mean_square = row.double().square().mean().sqrt()
        rows.append((row * (10 ** (placement.level_db / 20) / root_mean_square)).to(signal.dtype))
    return torch.stack(rows)


def sounding_blocks(signal: Tensor) -> Tensor:
    """Return the ascending indices ``(block,)`` of the blocks of ``(time,)`` that sound; none for silence."""
    energy = pad(signal.double().square(), (0, -len(signal) % BLOCK)).reshape(-1, BLOCK).sum(1)
    if not len(energy) or not bool(energy.max() > 0):
        return torch.empty(0, dtype=torch.long)
    return (energy > energy.max() * 10 ** (-BELOW_DB / 10)).nonzero()[:, 0]


def draw_integer(low: int, high: int, generator: Generator) -> int:
    """Draw from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _cut(signal: Tensor, frames: int, generator: Generator) -> tuple[int, int, int, int]:
    """Return the ends of the usable part of a signal, and of its sounding part.

    All of a signal is used, or ``frames`` around a random sounding block if it sounds for longer than that.
    """
    blocks = sounding_blocks(signal)
    first, last = 0, len(signal)
    if min((int(blocks[-1]) + 1) * BLOCK, last) - int(blocks[0]) * BLOCK > frames:
        block = int(blocks[draw_integer(0, len(blocks) - 1, generator)]) * BLOCK
        # the cut holds the whole block, so that it is not silent
        latest = min(block, len(signal) - frames)
        first = draw_integer(min(max(0, block + BLOCK - frames), latest), latest, generator)
        last = first + frames
        blocks = blocks[(blocks * BLOCK < last) & ((blocks + 1) * BLOCK > first)]
    return first, last, max(int(blocks[0]) * BLOCK, first), min((int(blocks[-1]) + 1) * BLOCK, last)
