"""Augmentation of components: speed, tempo, pitch, equalisation, channels and signs.

Speed changes pitch and formants together, like another vocal tract; equalisation is like another room or
microphone. As in `encore.data.mixing`, these are pure functions of components ``(batch, source + 1, channel,
time)``, with independent draws for each component of each item. All keep the shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torchaudio.functional import phase_vocoder

from encore.common.dsp import istft, stft
from encore.data.mixing import uniform

EQUALISER_BANDS = 10
LOWEST_BAND = 1 / 160  # of the Nyquist frequency: 50 Hz at 16 kHz
WINDOW, HOP = 2048, 512  # samples of the phase vocoder: 46 ms at 44.1 kHz resolve the partials of a low chord


def random_speed(components: Tensor, speed: tuple[float, float], *, generator: Generator) -> Tensor:
    """Play every component at a random speed, log-uniform between the two given.

    The segment is treated as periodic: played faster, it is repeated to fill its length; played slower, its
    end is cut. Resampling is by discrete Fourier transform, without aliasing. A tone keeps its level.

    Args:
        components: ``(b, s + 1, c, t)``.
        speed: Lowest and highest speed, both positive; above 1 is faster and higher.
        generator: The source of the draws.

    Raises:
        ValueError: If the speeds are not positive, or the highest comes first.

    Source: T. Ko et al., "Audio augmentation for speech recognition", 2015.
    """
    frames = components.shape[-1]

    def play(waveform: Tensor, factor: float) -> Tensor:
        length = max(2, round(frames / factor))
        resampled: Tensor = torch.fft.irfft(torch.fft.rfft(waveform), length)
        return resampled * (length / frames)

    return _change_each(components, _log_uniform("speed", speed, components, generator), play)


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
    frames = components.shape[-1]

    def play(waveform: Tensor, factor: float) -> Tensor:
        return _stretch(waveform, max(1, round(frames / factor)))

    return _change_each(components, _log_uniform("tempo", tempo, components, generator), play)


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
    frames = components.shape[-1]

    def shift(waveform: Tensor, change: float) -> Tensor:
        stretched = _stretch(waveform, max(2, round(frames * 2 ** (change / 12))))
        return _match_level(waveform, torch.fft.irfft(torch.fft.rfft(stretched), frames))

    changes = uniform("semitones", semitones, components.shape[:2], generator)
    return _change_each(components, changes, shift)


def random_equaliser(components: Tensor, range_db: float, *, generator: Generator) -> Tensor:
    """Filter every component by a smooth random curve of zero phase, keeping its level.

    The curve interpolates gains at ten frequencies, evenly spaced on a logarithmic scale, each uniform
    between ``-range_db`` and ``range_db`` decibels.

    Args:
        components: ``(b, s + 1, c, t)``.
        range_db: Largest gain and cut, 0 or more.
        generator: The source of the draws.

    Returns:
        Same shape.

    Raises:
        ValueError: If the range is negative.
    """
    if range_db < 0:
        raise ValueError(f"range_db={range_db}: give 0 or more")
    spectra = torch.fft.rfft(components)
    shape = torch.Size([*components.shape[:2], EQUALISER_BANDS])
    decibels = uniform("range_db", (-range_db, range_db), shape, generator).to(components.device)
    frequency = torch.linspace(0, 1, spectra.shape[-1], device=components.device).clamp_min(LOWEST_BAND)
    position = (1 - frequency.log() / math.log(LOWEST_BAND)) * (EQUALISER_BANDS - 1)
    low = position.floor().long().clamp(0, EQUALISER_BANDS - 2)  # a logarithm may round to below the first
    curve = torch.lerp(decibels[..., low], decibels[..., low + 1], position - low)
    filtered: Tensor = torch.fft.irfft(spectra * (10 ** (curve / 20))[:, :, None], components.shape[-1])
    before, after = (x.square().sum(dim=(2, 3), keepdim=True) for x in (components, filtered))
    return filtered * (before / torch.where(after > 0, after, 1.0)).sqrt()


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


def _log_uniform(name: str, bounds: tuple[float, float], components: Tensor, generator: Generator) -> Tensor:
    """Draw a positive factor for each component, its logarithm uniform."""
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"{name}={tuple(bounds)}: give positive numbers, the lower one first")
    logarithms = (math.log(bounds[0]), math.log(bounds[1]))
    return uniform(name, logarithms, components.shape[:2], generator).exp()


def _change_each(components: Tensor, values: Tensor, change: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Change the waveform ``(c, t)`` of each component by its value, and repeat or cut it to its length."""
    frames = components.shape[-1]
    changed = torch.empty_like(components)
    for item, row in enumerate(values.tolist()):
        for index, value in enumerate(row):
            waveform = change(components[item, index], value)
            changed[item, index] = waveform.repeat(1, -(-frames // waveform.shape[-1]))[:, :frames]
    return changed


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
