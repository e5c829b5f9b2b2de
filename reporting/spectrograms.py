"""Waveforms and spectrograms of one item, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from encore.reporting.palette import HUES, styled

WINDOW_SECONDS = 0.032
DYNAMIC_RANGE_DB = 80.0
MOST_COLUMNS = 1200
"""Points that a panel has at most: longer signals are drawn by their extremes, frames by their maximum."""


def spectrogram_db(waveform: Tensor, sample_rate: int) -> Tensor:
    """Power spectrogram in decibels.

    Args:
        waveform: ``(channel, time)``, full scale 1.0.
        sample_rate: In Hz.

    Returns:
        ``(frequency, frame)``, mean power over channels, Hann windows of 32 ms with a hop of a quarter; 0 dB
        is the peak of a full-scale sine. Silence is -200 dB.
    """
    size = max(int(WINDOW_SECONDS * sample_rate) // 4 * 4, 16)
    window = torch.hann_window(size, dtype=torch.float32, device=waveform.device)
    short = waveform.float()
    # Reflection needs more samples than half a window; zeros serve signals of any length.
    spectrum = torch.stft(
        short,
        size,
        hop_length=size // 4,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = (spectrum.abs() * 2 / window.sum()).square().mean(dim=0)
    return 10 * torch.log10(power.clamp_min(1e-20))


@styled
def spectrogram_figure(waveforms: Mapping[str, Tensor], sample_rate: int, *, title: str = "") -> Figure:
    """Compare signals of one item: waveforms above, spectrograms below, one column each.

    Args:
        waveforms: ``(channel, time)`` by name, for example mixture, one step, multi step, reference; full
            scale 1.0. All have one length.
        sample_rate: In Hz.
        title: Heading, the item's name for example.

    Returns:
        The figure. All waveforms share an amplitude axis, all spectrograms a colour scale, which ends at the
        loudest point of any and spans 80 dB.

    Raises:
        ValueError: If there is no waveform, one is not two-dimensional or empty or not finite, or lengths
        differ.
    """
    _check(waveforms)
    signals = {name: waveform.detach().cpu().float() for name, waveform in waveforms.items()}
    images = {name: _thinned(spectrogram_db(signal, sample_rate)).numpy() for name, signal in signals.items()}
    top = max(float(image.max()) for image in images.values())
    peak = max(float(signal.abs().max()) for signal in signals.values()) or 1.0
    seconds = next(iter(signals.values())).shape[-1] / sample_rate
    figure = Figure(figsize=(2.5 * len(signals) + 0.9, 4.0), layout="constrained")
    grid = figure.subplots(2, len(signals), squeeze=False, sharex=True, sharey="row", height_ratios=[1, 2.2])
    for (name, signal), (wave, image) in zip(signals.items(), grid.T, strict=True):
        _draw_wave(wave, signal, seconds)
        wave.set_ylim(-1.05 * peak, 1.05 * peak)
        wave.set_title(name)
        image.grid(visible=False)
        drawn = image.imshow(
            images[name],
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, sample_rate / 2000),
            vmin=top - DYNAMIC_RANGE_DB,
            vmax=top,
            cmap="magma",
            interpolation="nearest",
        )
        image.set_xlabel("Time (s)")
    grid[0, 0].set_ylabel("Amplitude")
    grid[1, 0].set_ylabel("Frequency (kHz)")
    figure.colorbar(drawn, ax=list(grid[1]), label="Level (dB re full scale)", pad=0.01)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _check(waveforms: Mapping[str, Tensor]) -> None:
    """Raise where the signals cannot stand side by side, see `spectrogram_figure`."""
    if not waveforms:
        raise ValueError("waveforms: is empty; give at least one signal (channel, time)")
    shapes = {name: tuple(waveform.shape) for name, waveform in waveforms.items()}
    for name, shape in shapes.items():
        if len(shape) != 2 or 0 in shape:
            raise ValueError(
                f"waveforms[{name!r}] has shape {shape}; give (channel, time) with samples in it"
            )
        if not waveforms[name].isfinite().all():
            raise ValueError(
                f"waveforms[{name!r}] holds NaN or infinite samples; find out where they come from"
            )
    if len({shape[-1] for shape in shapes.values()}) > 1:
        raise ValueError(f"waveforms: lengths differ ({shapes}); cut all to one length")


def _draw_wave(panel: Axes, signal: Tensor, seconds: float) -> None:
    """A waveform of any length: extremes of what falls into one pixel, over all channels."""
    block = max(1, signal.shape[-1] // MOST_COLUMNS)
    frames = signal[:, : signal.shape[-1] // block * block].reshape(len(signal), -1, block)
    time = np.arange(frames.shape[1]) * block / signal.shape[-1] * seconds
    low: NDArray[np.float32] = frames.amin(dim=(0, 2)).numpy()
    high: NDArray[np.float32] = frames.amax(dim=(0, 2)).numpy()
    panel.fill_between(time, low, high, color=HUES[0], linewidth=0.4)


def _thinned(image: Tensor) -> Tensor:
    """At most `MOST_COLUMNS` frames, each the maximum of those it stands for: no click disappears."""
    block = -(-image.shape[-1] // MOST_COLUMNS)
    if block == 1:
        return image
    padded = torch.nn.functional.pad(image, (0, -image.shape[-1] % block), value=float("-inf"))
    return padded.reshape(len(image), -1, block).amax(dim=-1)
