"""Figures of waveforms and spectrograms of one item, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import max_pool1d

from encore.common.dsp import stft
from encore.reporting.figures import HUES, styled

WINDOW_SECONDS = 0.032
DYNAMIC_RANGE_DB = 80.0
MOST_COLUMNS = 1200
"""Most points of a panel: longer signals are drawn by their extremes, frames by their maximum."""


def spectrogram_db(waveform: Tensor, sample_rate: int) -> Tensor:
    """Compute the power spectrogram of ``(channel, time)`` in decibels.

    Returns:
        ``(frequency, frame)``, mean power over channels, Hann windows of 32 ms with a hop of a quarter; 0 dB
        is the peak of a full-scale sine, silence is -200 dB.
    """
    window = torch.hann_window(max(int(WINDOW_SECONDS * sample_rate) // 4 * 4, 16), device=waveform.device)
    spectrum = stft(waveform, window, padding="constant")
    power = (spectrum.abs() * 2 / window.sum()).square().mean(dim=0)
    return 10 * torch.log10(power.clamp_min(1e-20))


@styled
def spectrogram_figure(waveforms: Mapping[str, Tensor], sample_rate: int, *, title: str = "") -> Figure:
    """Compare signals of one item: waveforms above, spectrograms below, one column each.

    Args:
        waveforms: ``(channel, time)`` by name, such as mixture, one step, multi step, reference; full scale
            1.0, all of one length.
        sample_rate: In Hz.
        title: Heading, such as the item's name.

    Returns:
        The figure. All waveforms have one amplitude axis, all spectrograms one colour scale of 80 dB below
        the loudest point.

    Raises:
        ValueError: If there is no waveform, one is not two-dimensional or empty or not finite, or lengths
            differ.
    """
    _check(waveforms)
    signals = {name: waveform.detach().cpu().float() for name, waveform in waveforms.items()}
    images = {name: _decimate(spectrogram_db(own, sample_rate)).numpy() for name, own in signals.items()}
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
    """Raise for invalid signals, see `spectrogram_figure`."""
    if not waveforms:
        raise ValueError("waveforms: is empty; give at least one signal (channel, time)")
    shapes = {name: tuple(waveform.shape) for name, waveform in waveforms.items()}
    for name, shape in shapes.items():
        if len(shape) != 2 or 0 in shape:
            raise ValueError(
                f"waveforms[{name!r}] has shape {shape}; give (channel, time) with samples in it"
            )
        if not waveforms[name].isfinite().all():
            raise ValueError(f"waveforms[{name!r}] holds NaN or infinite samples; find their cause")
    if len({shape[-1] for shape in shapes.values()}) > 1:
        raise ValueError(f"waveforms: lengths differ ({shapes}); cut all to one length")


def _draw_wave(panel: Axes, signal: Tensor, seconds: float) -> None:
    """Draw a waveform of any length by the extremes over pixels and channels."""
    high, low = (sign * _decimate(sign * signal).amax(dim=0).numpy() for sign in (1, -1))
    panel.fill_between(np.linspace(0, seconds, len(high)), low, high, color=HUES[0], linewidth=0.4)


def _decimate(image: Tensor) -> Tensor:
    """Reduce ``(n, frame)`` to at most `MOST_COLUMNS` frames by maxima, so that no click disappears."""
    return max_pool1d(image, -(-image.shape[-1] // MOST_COLUMNS), ceil_mode=True)
