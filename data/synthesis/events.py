"""Sound events by class, and how they come to be recordings: rooms, microphones, noise and levels."""

from __future__ import annotations

import numpy as np
from scipy.signal import oaconvolve

from encore.data.synthesis import (
    FloatArray,
    events_held,
    events_noisy,
    events_plucked,
    events_struck,
    events_voiced,
)
from encore.data.synthesis.events_shared import LONGEST, Event, log_uniform
from encore.data.synthesis.noise_broadband import shaped
from encore.data.synthesis.room import Room, impulse_response
from encore.data.synthesis.song_effects import coloured
from encore.data.synthesis.song_sounds import filtered

SHORTEST = 0.3  # seconds, as in FSDKaggle2018
PEAK_DB = (-18.0, -0.5)
NOISE_DB = (-75.0, -45.0)  # relative to the event's peak

EVENTS: dict[str, Event] = {
    "Acoustic_guitar": events_plucked.acoustic_guitar,
    "Applause": events_noisy.applause,
    "Bark": events_voiced.bark,
    "Bass_drum": events_struck.bass_drum,
    "Cello": events_held.cello,
    "Chime": events_struck.chime,
    "Clarinet": events_held.clarinet,
    "Computer_keyboard": events_noisy.computer_keyboard,
    "Cowbell": events_struck.cowbell,
    "Double_bass": events_plucked.double_bass,
    "Electric_piano": events_plucked.electric_piano,
    "Finger_snapping": events_noisy.finger_snapping,
    "Fireworks": events_noisy.fireworks,
    "Flute": events_held.flute,
    "Glockenspiel": events_struck.glockenspiel,
    "Gong": events_struck.gong,
    "Harmonica": events_held.harmonica,
    "Hi-hat": events_struck.hi_hat,
    "Keys_jangling": events_struck.keys_jangling,
    "Knock": events_struck.knock,
    "Laughter": events_voiced.laughter,
    "Meow": events_voiced.meow,
    "Scissors": events_noisy.scissors,
    "Shatter": events_noisy.shatter,
    "Snare_drum": events_struck.snare_drum,
    "Tambourine": events_struck.tambourine,
    "Tearing": events_noisy.tearing,
    "Telephone": events_plucked.telephone,
    "Trumpet": events_held.trumpet,
    "Violin_or_fiddle": events_held.violin,
    "Writing": events_noisy.writing,
}
"""Classes of FSDKaggle2018 that can be synthesised."""


def draw_event(label: str, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    """Draw one recording of a class: the event, half the time in a room, through a microphone, with noise.

    Args:
        label: One of ``EVENTS``.
        sample_rate: Hz.
        rng: Source of everything.

    Returns:
        ``(time,)``, 0.3 to 5 s, peak -18 to -0.5 dB of full scale.

    Raises:
        ValueError: If the class is unknown.
    """
    if label not in EVENTS:
        raise ValueError(f"label must be one of {', '.join(EVENTS)}, not {label!r}")
    sound = EVENTS[label](sample_rate, rng)
    if rng.random() < 0.5:
        room = Room(
            rt60=log_uniform(rng, 0.1, 0.8),
            direct_to_reverberant_db=float(rng.uniform(3, 15)),
            seed=int(rng.integers(2**32)),
        )
        response = impulse_response(room, sample_rate)
        sound = oaconvolve(sound, response)[: sound.size + response.size // 2]
    sound = filtered(coloured(sound, sample_rate, rng, 4.0), sample_rate, low=25.0)[
        : round(LONGEST * sample_rate)
    ]
    sound = _ended(sound, sample_rate)
    peak = float(np.abs(sound).max())
    noise = shaped(sound.size, sample_rate, rng, float(rng.uniform(-5, -1)), 3.0)
    sound = sound / peak + 10 ** (float(rng.uniform(*NOISE_DB)) / 20) * noise
    return sound * 10 ** (float(rng.uniform(*PEAK_DB)) / 20) / float(np.abs(sound).max())


def _ended(sound: FloatArray, sample_rate: int, floor_db: float = -55.0) -> FloatArray:
    """Cut what comes after the last that is heard but for a margin, fade out, and fill up to 0.3 s."""
    heard = np.flatnonzero(np.abs(sound) > 10 ** (floor_db / 20) * np.abs(sound).max())
    sound = sound[: int(heard[-1]) + round(0.05 * sample_rate)]
    sound = np.pad(sound, (0, max(0, round(SHORTEST * sample_rate) - sound.size)))
    fade = np.arange(sound.size)[::-1] / (0.02 * sample_rate)
    return sound * np.minimum(1, fade)
