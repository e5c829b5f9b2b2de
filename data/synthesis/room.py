"""Room impulse responses: a direct path, early reflections and an exponentially decaying tail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encore.data.synthesis import FloatArray

_EARLY_SECONDS = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """A room as heard from one place.

    Attributes:
        rt60: Time in which the tail falls by 60 dB, seconds.
        direct_to_reverberant_db: Energy of the direct path over that of all else, dB.
        seed: Of the reflections.
    """

    rt60: float
    direct_to_reverberant_db: float
    seed: int


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a room with an RT60 of 0.15 to 0.6 s and a speaker 0 to 10 dB above its echoes."""
    return Room(
        rt60=round(float(rng.uniform(0.15, 0.6)), 3),
        direct_to_reverberant_db=round(float(rng.uniform(0, 10)), 2),
        seed=int(rng.integers(2**32)),
    )


def impulse_response(room: Room, sample_rate: int) -> FloatArray:
    """Build a room's response.

    The direct path is the first sample, with gain 1: alone, it leaves the dry speech as it is.

    Args:
        room: The room.
        sample_rate: Hz.

    Returns:
        ``(time,)``, as long as the tail takes to fall by 60 dB.
    """
    rng = np.random.default_rng(room.seed)
    length = round(room.rt60 * sample_rate)
    time = np.arange(length) / sample_rate
    decay = 10 ** (-3 * time / room.rt60)
    tail = rng.standard_normal(length) * decay * np.clip(time / _EARLY_SECONDS, 0, 1)
    early = rng.integers(sample_rate // 500, round(_EARLY_SECONDS * sample_rate), int(rng.integers(5, 10)))
    tail[early] += rng.choice([-1.0, 1.0], early.size) * rng.uniform(1, 4, early.size) * decay[early]
    tail[0] = 0.0
    tail *= 10 ** (-room.direct_to_reverberant_db / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return tail
