from __future__ import annotations

import norbert
import numpy as np
import pytest
import torch
from separator_toys import close, noise
from torch import Tensor

from encore.inference.wiener import Wiener, _filtered


def spectra(channels: int, level: float) -> tuple[Tensor, Tensor]:
    """A mixture and a poor estimate of one of its two sources, ``(1, c, f, frame)``."""
    drawn = torch.Generator().manual_seed(channels)
    shape = (1, channels, 17, 40)
    target, other, error = (torch.randn(shape, generator=drawn, dtype=torch.complex128) for _ in range(3))
    # a common direction in space, so that the covariances differ
    other = other * torch.linspace(0.2, 1, channels, dtype=torch.float64)[:, None, None]
    return level * (target + other), level * (target + 0.4 * error)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("level", [0.1, 30.0])
def test_agrees_with_norbert(channels: int, iterations: int, level: float) -> None:
    mixture, target = spectra(channels, level)
    order = (2, 1, 0)  # norbert: frame, bin, channel
    x, y = (tensor[0].permute(order).numpy() for tensor in (mixture, target))
    expected = norbert.wiener(np.stack([np.abs(y), np.abs(x - y)], axis=-1), x.copy(), iterations)[..., 0]
    found = _filtered(target, mixture, iterations)[0].permute(order)
    close(torch.view_as_real(found), torch.view_as_real(torch.from_numpy(expected)), 1e-8)


@pytest.mark.parametrize("multichannel", [True, False])
def test_an_estimate_of_any_length_that_is_its_whole_input_stays(multichannel: bool) -> None:
    for length in (1, 100, 256, 4097):
        # the covariances' regularization attenuates what is as weak as 1e-2
        estimates = 100 * noise(2, 3, 2, length)
        close(Wiener(multichannel=multichannel, window=256)(estimates, estimates), estimates, 2e-3)


def test_sources_and_items_do_not_depend_on_each_other() -> None:
    estimates, inputs = noise(2, 2, 2, 3000), noise(2, 2, 2, 3000, seed=1)
    wiener = Wiener(window=512)
    whole = wiener(estimates, inputs)
    for item in range(2):
        for source in range(2):
            place = (slice(item, item + 1), slice(source, source + 1))
            close(wiener(estimates[place], inputs[place]), whole[place], 1e-5)


def test_single_channels_are_filtered_as_mono_signals() -> None:
    estimates, inputs = noise(1, 1, 2, 3000), noise(1, 1, 2, 3000, seed=1)
    apart = Wiener(multichannel=False, window=512)(estimates, inputs)
    for channel in range(2):
        own = (slice(None), slice(None), slice(channel, channel + 1))
        close(Wiener(window=512)(estimates[own], inputs[own]), apart[own], 1e-5)


def test_bins_where_the_target_is_weaker_than_the_rest_are_attenuated() -> None:
    time = torch.arange(8000) / 8000
    low, high = (0.3 * torch.sin(2 * torch.pi * hertz * time) for hertz in (300.0, 2000.0))
    estimate = (low + 0.2 * high)[None, None, None]
    filtered = Wiener(window=512)(estimate, (low + high)[None, None, None])
    inner = slice(1000, 7000)
    left_before, left_after = (
        float((x[0, 0, 0, inner] * high[inner]).sum() / high[inner].square().sum())
        for x in (estimate, filtered)
    )
    assert left_before == pytest.approx(0.2, abs=0.01)
    # the ratio of the powers 0.2^2 and 0.8^2
    assert left_after == pytest.approx(0.04 / 0.68, abs=0.01)


def test_silence_stays_finite() -> None:
    assert Wiener(window=64)(torch.zeros(1, 1, 2, 500), torch.zeros(1, 1, 2, 500)).isfinite().all()
