"""What recordings are put through on their way into a corpus; a signal is ``(time,)``."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
import torch
from scipy.signal import fftconvolve

from encore.common.dsp import resample
from encore.common.packages import require
from encore.data.corpus_writer import Rng

Signal = np.ndarray


def at_rms(signal: Signal) -> Signal:
    """Scale a signal to an RMS of 1; silence stays silence."""
    return signal / max(float(np.sqrt((signal**2).mean())), 1e-9)


def tiled(signal: Signal, frames: int, rng: Rng) -> Signal:
    """Return so many samples from a random one on, of the signal repeated as often as it takes."""
    return np.resize(np.roll(signal, -int(rng.integers(max(1, len(signal) - frames)))), frames)


def coloured_noise(frames: int, rng: Rng) -> Signal:
    """Draw noise with a random smooth spectrum on a logarithmic axis, and a random swell."""
    bins = frames // 2 + 1
    octaves = np.log2(np.maximum(np.arange(bins), 1) / bins)
    points = np.linspace(-9, 0, 12)
    level_db = np.interp(octaves, points, 6 * rng.standard_normal(12)) + rng.uniform(-6, 2) * octaves
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(frames)) * 10 ** (level_db / 20), frames)
    knots = rng.uniform(0, 10) * rng.standard_normal(int(rng.integers(3, 40)))
    swell_db = np.interp(np.linspace(0, 1, frames), np.linspace(0, 1, len(knots)), knots)
    return at_rms(noise * 10 ** (swell_db / 20)).astype(np.float32)


def reverberate(speech: Signal, sample_rate: int, rng: Rng) -> tuple[dict[str, float], Signal]:
    """Put speech into a random room, its direct path as it is.

    Returns:
        The room's reverberation time in s and the distance to the microphone in m, and the signal.

    Source: R. Scheibler et al., "Pyroomacoustics", ICASSP 2018: image sources in a box.
    """
    acoustics: Any = require("pyroomacoustics", needed_by="--room", extra="recordings")
    size, rt60 = rng.uniform((3, 3, 2.5), (8, 6, 3.5)), float(rng.uniform(0.2, 0.6))
    absorption, order = acoustics.inverse_sabine(rt60, size)
    room = acoustics.ShoeBox(size, fs=sample_rate, materials=acoustics.Material(absorption), max_order=order)
    source, microphone = (rng.uniform(0.5, size - 0.5) for _ in range(2))
    # the direct path takes whole samples, so that it is one sample of the response and not a sinc between two
    metres = float(np.linalg.norm(microphone - source))
    delay = max(1, int(metres * sample_rate / room.c))
    distance = delay * room.c / sample_rate
    room.add_source(source)
    room.add_microphone(source + (microphone - source) * distance / metres)
    room.compute_rir()
    response, direct = room.rir[0][0], delay + acoustics.constants.get("frac_delay_length") // 2
    wet = fftconvolve(speech, response / response[direct])
    return {"rt60": rt60, "metres": distance}, wet[direct : direct + len(speech)].astype(np.float32)


def damaged(noisy: Signal, sample_rate: int, rng: Rng) -> tuple[str, Signal]:
    """Clip a signal at 20 to 60 % of its peak, limit its band to 3 to 6 kHz, or code it with few bits.

    Returns:
        What was done, and the signal.
    """
    kind = str(rng.choice(["clipped", "band-limited", "coded"]))
    if kind == "clipped":
        most = rng.uniform(0.2, 0.6) * np.abs(noisy).max()
        return kind, noisy.clip(-most, most)
    if kind == "band-limited":
        rate = int(rng.uniform(6000, 12000)) // 100 * 100
        narrow = resample(torch.from_numpy(noisy), sample_rate, rate)
        return kind, resample(narrow, rate, sample_rate)[: len(noisy)].numpy()
    file, gain = io.BytesIO(), 0.9 / max(0.9, float(np.abs(noisy).max()))
    soundfile.write(file, gain * noisy, sample_rate, format="OGG", subtype="VORBIS", compression_level=1.0)
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0][: len(noisy)]
    return kind, np.pad(decoded / gain, (0, len(noisy) - len(decoded)))
