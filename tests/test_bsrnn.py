from __future__ import annotations

import pytest
import torch
from separator_toys import noise
from torch import Tensor

from encore.models.costs import parameters
from encore.models.separators.band_split import PUBLISHED_BANDS, bins_per_band
from encore.models.separators.bsrnn import BSRNN


def built(seed: int = 0, **options) -> BSRNN:
    torch.manual_seed(seed)
    return BSRNN(**{"features": 8, "layers": 2} | options).eval()


def test_a_layer_has_about_104_parameters_per_squared_feature() -> None:
    with torch.device("meta"):
        wide = [parameters(BSRNN(features=256, layers=layers)) for layers in (1, 2)]
    assert wide[1] - wide[0] == pytest.approx(104 * 256**2, rel=0.01)


def test_bands_at_48_khz_are_the_published_34() -> None:
    bins = bins_per_band(PUBLISHED_BANDS, 0.02, 48000)
    assert bins == [4] * 20 + [10] * 6 + [40] * 7 + [61]
    assert sum(bins) == 481


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 24000, 44100, 48000])
def test_one_set_of_weights_runs_at_every_rate(sample_rate: int) -> None:
    weights = built(sample_rate=16000).state_dict()
    separator = built(seed=1, sample_rate=sample_rate)
    separator.load_state_dict(weights)
    assert sum(separator.band_bins) == separator.transform.window_length // 2 + 1
    widths = bins_per_band(PUBLISHED_BANDS, 0.02, 48000)
    assert separator.band_bins[:-1] == widths[: len(separator.band_bins) - 1]


def band_limited(sample_rate: int) -> Tensor:
    """One period of a second, nothing above 2.1 kHz: the same signal, exactly, at every rate."""
    lines = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))
    spectrum = torch.zeros(sample_rate // 2 + 1, dtype=torch.complex64)
    spectrum[100:2100] = torch.view_as_complex(lines)
    return torch.fft.irfft(spectrum * sample_rate / 1000, sample_rate)[None, None]


@pytest.mark.parametrize("sample_rate", [8000, 24000, 48000])
def test_the_same_sound_gives_the_same_estimate_at_every_rate(sample_rate: int) -> None:
    """Compared below 1.9 kHz; the bands above hold nothing but leakage of the windows."""
    spectra = []
    for rate in (16000, sample_rate):
        with torch.no_grad():
            separator = built(sample_rate=rate)
            for head in separator.residuals:
                head.network[3].weight.mul_(10)  # they start out next to nothing
            estimate = separator(band_limited(rate)).flatten()
        spectra.append(torch.fft.rfft(estimate)[100:1900] / rate)
    error = (spectra[1] - spectra[0]).norm() / spectra[0].norm()
    assert error < 0.01


@pytest.mark.parametrize("length", [159, 319, 1000, 1599])
def test_the_last_samples_are_no_louder_than_the_others(length: int) -> None:
    """Inversion divides by the windows' overlap: without a frame beyond the end that is nearly 0 there."""
    separator = built()
    for seed in range(5):
        with torch.no_grad():
            estimate = separator(noise(1, 1, length, seed=seed)).flatten()
        assert estimate[-40:].abs().max() < 3 * estimate[:-40].abs().max()
