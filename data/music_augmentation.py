"""Augmentation of music: channels, signs, tempo and pitch of components.

As in `encore.data.augmentation`, everything is a pure function of components
``(batch, source + 1, channel, time)`` on their device, each component of each item drawn on its own.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torchaudio.functional import phase_vocoder

from encore.data.mixing import uniform

WINDOW, HOP = 2048, 512  # samples of the phase vocoder: 46 ms at 44.1 kHz resolve the partials of a low chord


def random_channel_swap(components: Tensor, share: float, *, generator: Generator) -> Tensor:
    """Reverse the channels of a share of the components: left becomes right.

    Args:
        components: ``(b, s + 1, c, t)``.
        share: Probability in [0, 1] of each component of each item.
        generator: The source of the draws.

    Returns:
        The components, same shape.

    Raises:
        ValueError: If the share is no probability.

    Source: S. Uhlich et al., "Improving music source separation based on deep neural networks through data
    augmentation and network blending", 2017.
    """
    return torch.where(_chosen(components, share, generator), components.flip(2), components)


def random_sign_flip(components: Tensor, share: float, *, generator: Generator) -> Tensor:
    """Turn over the sign of a share of the components: each sounds the same, their sums differ.

    Args:
        components: ``(b, s + 1, c, t)``.
        share: Probability in [0, 1] of each component of each item.
        generator: The source of the draws.

    Returns:
        The components, same shape.

    Raises:
        ValueError: If the share is no probability.

    Source: A. Défossez et al., "Music source separation in the waveform domain", 2019.
    """
    return torch.where(_chosen(components, share, generator), -components, components)


def random_tempo(components: Tensor, tempo: tuple[float, float], *, generator: Generator) -> Tensor:
    """Play every component at its own tempo, at the same pitch, drawn evenly on a logarithmic scale.

    Played faster, a segment starts again to fill its length; played slower, its end is cut.

    Args:
        components: ``(b, s + 1, c, t)``.
        tempo: Lowest and highest tempo, both positive; above 1 is faster.
        generator: The source of the draws.

    Returns:
        The components as played, same shape; each whole segment keeps its level.

    Raises:
        ValueError: If the tempi are not positive, or the highest comes first.

    Source: J. L. Flanagan and R. M. Golden, "Phase vocoder", 1966, as torchaudio has it.
    """
    if not 0 < tempo[0] <= tempo[1]:
        raise ValueError(f"tempo={tuple(tempo)}: tempi are positive, the lowest first")
    frames = components.shape[-1]
    bounds = (math.log(tempo[0]), math.log(tempo[1]))
    factors = uniform("tempo", bounds, components.shape[:2], generator).exp().tolist()
    played = torch.empty_like(components)
    for item, row in enumerate(factors):
        for index, factor in enumerate(row):
            waveform = _stretched(components[item, index], max(1, round(frames / factor)))
            played[item, index] = waveform.repeat(1, -(-frames // waveform.shape[-1]))[:, :frames]
    return played


def random_pitch(components: Tensor, semitones: tuple[float, float], *, generator: Generator) -> Tensor:
    """Play every component at its own pitch, at the same tempo, uniform between two numbers of semitones.

    The segment is stretched by the phase vocoder and resampled to its length by discrete Fourier transform,
    so nothing aliases.

    Args:
        components: ``(b, s + 1, c, t)``.
        semitones: Lowest and highest change; 12 is an octave up.
        generator: The source of the draws.

    Returns:
        The components as played, same shape and levels.

    Raises:
        ValueError: If the highest number comes first.
    """
    changes = uniform("semitones", semitones, components.shape[:2], generator).tolist()
    frames = components.shape[-1]
    played = torch.empty_like(components)
    for item, row in enumerate(changes):
        for index, change in enumerate(row):
            waveform = _stretched(components[item, index], max(2, round(frames * 2 ** (change / 12))))
            resampled = torch.fft.irfft(torch.fft.rfft(waveform), frames)
            played[item, index] = _at_level_of(components[item, index], resampled)
    return played


def _chosen(components: Tensor, share: float, generator: Generator) -> Tensor:
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} is no probability: give a number from 0 to 1")
    drawn = torch.rand(components.shape[:2], generator=generator, device=generator.device) < share
    return drawn.to(components.device)[:, :, None, None]


def _stretched(waveform: Tensor, length: int) -> Tensor:
    """``(c, t)`` to ``(c, length)`` at the same pitch and level."""
    frames = waveform.shape[-1]
    window = torch.hann_window(WINDOW, device=waveform.device, dtype=waveform.dtype)
    # the vocoder loses up to a window at the end, so the segment goes on with its beginning
    going_on = torch.arange(frames + 2 * WINDOW, device=waveform.device) % frames
    spectrum = torch.stft(
        waveform[:, going_on], WINDOW, HOP, window=window, pad_mode="constant", return_complex=True
    )
    bins = torch.arange(WINDOW // 2 + 1, device=waveform.device)
    # modulo one turn, which changes nothing but keeps the sum of all advances exact in single precision
    advance = (bins * HOP % WINDOW).to(waveform.dtype) * (2 * math.pi / WINDOW)
    spectrum = phase_vocoder(spectrum, frames / length, advance[:, None])
    return _at_level_of(waveform, torch.istft(spectrum, WINDOW, HOP, window=window, length=length))


def _at_level_of(before: Tensor, after: Tensor) -> Tensor:
    """``after`` with the mean power of ``before``, over channels and time; silence stays silent."""
    wanted, found = before.square().mean(), after.square().mean()
    return after * (wanted / torch.where(found > 0, found, 1.0)).sqrt()
