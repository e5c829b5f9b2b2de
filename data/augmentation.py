"""Augmentation of components by speed and equalisation.

Speed changes pitch and formants together, like another vocal tract; equalisation is like another room or
microphone. As in `encore.data.mixing`, these are pure functions of components ``(batch, source + 1, channel,
time)``, with independent draws for each component of each item.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from encore.data.mixing import uniform

EQUALISER_BANDS = 10
LOWEST_BAND = 1 / 160  # of the Nyquist frequency: 50 Hz at 16 kHz


def random_speed(components: Tensor, speed: tuple[float, float], *, generator: Generator) -> Tensor:
    """Play every component at a random speed, log-uniform between the two given.

    The segment is treated as periodic: played faster, it is repeated to fill its length; played slower, its
    end is cut. Resampling is by discrete Fourier transform, without aliasing.

    Args:
        components: ``(b, s + 1, c, t)``.
        speed: Lowest and highest speed, both positive; above 1 is faster and higher.
        generator: The source of the draws.

    Returns:
        Same shape; a tone keeps its level.

    Raises:
        ValueError: If the speeds are not positive, or the highest comes first.

    Source: T. Ko et al., "Audio augmentation for speech recognition", 2015.
    """
    if not 0 < speed[0] <= speed[1]:
        raise ValueError(f"speed={tuple(speed)}: give positive speeds, the lower one first")
    bounds = (math.log(speed[0]), math.log(speed[1]))
    speeds = uniform("speed", bounds, components.shape[:2], generator).exp().tolist()
    frames = components.shape[-1]
    spectra = torch.fft.rfft(components)
    played = torch.empty_like(components)
    for item, row in enumerate(speeds):
        for index, factor in enumerate(row):
            length = max(2, round(frames / factor))
            waveform = torch.fft.irfft(spectra[item, index], length) * (length / frames)
            played[item, index] = waveform.repeat(1, -(-frames // length))[:, :frames]
    return played


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
