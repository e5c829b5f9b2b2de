"""Augmentation of music: channels, signs, tempo and pitch of components.

As in `encore.data.augmentation`, these are pure functions of components ``(batch, source + 1, channel,
time)``, with independent draws from ``generator`` for each component of each item. All keep the shape.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torchaudio.functional import phase_vocoder

from encore.common.dsp import istft, stft
from encore.data.mixing import uniform

WINDOW, HOP = 2048, 512  # samples of the phase vocoder: 46 ms at 44.1 kHz resolve the partials of a low chord


def random_channel_swap(components: Tensor, probability: float, *, generator: Generator) -> Tensor:
    """Reverse the channels of components ``(b, s + 1, c, t)`` with a probability in [0, 1].

    Raises:
        ValueError: If the probability is out of range.

    Source: S. Uhlich et al., "Improving music source separation based on deep neural networks through data
    augmentation and network blending", 2017.
    """
    return torch.where(_chosen(components, probability, generator), components.flip(2), components)


def random_sign_flip(components: Tensor, probability: float, *, generator: Generator) -> Tensor:
    """Invert the sign of components ``(b, s + 1, c, t)`` with a probability in [0, 1].

    Raises:
        ValueError: If the probability is out of range.

    Source: A. Défossez et al., "Music source separation in the waveform domain", 2019.
    """
    return torch.where(_chosen(components, probability, generator), -components, components)


def random_tempo(components: Tensor, tempo: tuple[float, float], *, generator: Generator) -> Tensor:
    """Play every component at a random tempo, log-uniform between the two given, at the same pitch.

    Played faster, a segment is repeated to fill its length; played slower, its end is cut. Each stretched
    segment keeps its level.

    Args:
        components: ``(b, s + 1, c, t)``.
        tempo: Lowest and highest tempo, both positive; above 1 is faster.
        generator: The source of the draws.

    Raises:
        ValueError: If the tempi are not positive, or the highest comes first.

    Source: J. L. Flanagan and R. M. Golden, "Phase vocoder", 1966, by torchaudio.
    """
    if not 0 < tempo[0] <= tempo[1]:
        raise ValueError(f"tempo={tuple(tempo)}: give positive tempi, the lower one first")
    frames = components.shape[-1]
    bounds = (math.log(tempo[0]), math.log(tempo[1]))
    factors = uniform("tempo", bounds, components.shape[:2], generator).exp().tolist()
    played = torch.empty_like(components)
    for item, row in enumerate(factors):
        for index, factor in enumerate(row):
            waveform = _stretch(components[item, index], max(1, round(frames / factor)))
            played[item, index] = waveform.repeat(1, -(-frames // waveform.shape[-1]))[:, :frames]
    return played


def random_pitch(components: Tensor, semitones: tuple[float, float], *, generator: Generator) -> Tensor:
    """Shift the pitch of every component by a random number of semitones, at the same tempo and level.

    The segment is stretched by the phase vocoder and resampled to its length by discrete Fourier transform,
    without aliasing.

    Args:
        components: ``(b, s + 1, c, t)``.
        semitones: Lowest and highest change; 12 is an octave up.
        generator: The source of the draws.

    Raises:
        ValueError: If the highest number comes first.
    """
    changes = uniform("semitones", semitones, components.shape[:2], generator).tolist()
    frames = components.shape[-1]
    played = torch.empty_like(components)
    for item, row in enumerate(changes):
        for index, change in enumerate(row):
            waveform = _stretch(components[item, index], max(2, round(frames * 2 ** (change / 12))))
            resampled = torch.fft.irfft(torch.fft.rfft(waveform), frames)
            played[item, index] = _match_level(components[item, index], resampled)
    return played


def _chosen(components: Tensor, probability: float, generator: Generator) -> Tensor:
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability}: give a number from 0 to 1")
    drawn = torch.rand(components.shape[:2], generator=generator, device=generator.device) < probability
    return drawn.to(components.device)[:, :, None, None]


def _stretch(waveform: Tensor, length: int) -> Tensor:
    """Stretch ``(c, t)`` to ``(c, length)`` at the same pitch and level."""
    frames = waveform.shape[-1]
    # the vocoder loses up to a window at the end, so the segment is continued periodically
    periodic = torch.arange(frames + 2 * WINDOW, device=waveform.device) % frames
    spectrum = stft(waveform[:, periodic], WINDOW, HOP, padding="constant")
    bins = torch.arange(WINDOW // 2 + 1, device=waveform.device)
    # modulo one turn, which keeps the sum of all advances exact in single precision
    advance = (bins * HOP % WINDOW).to(waveform.dtype) * (2 * math.pi / WINDOW)
    spectrum = phase_vocoder(spectrum, frames / length, advance[:, None])
    return _match_level(waveform, istft(spectrum, WINDOW, length, HOP))


def _match_level(before: Tensor, after: Tensor) -> Tensor:
    """Scale ``after`` to the mean power of ``before`` over channels and time; silence stays silent."""
    wanted, power = before.square().mean(), after.square().mean()
    return after * (wanted / torch.where(power > 0, power, 1.0)).sqrt()
