"""Laws of the Fourier transforms and the resampler."""

from __future__ import annotations

import pytest
import torch

from encore.common.dsp import istft, resample, stft

RATES = (44100, 16000)


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.parametrize("time", [1, 31, 32, 33, 257])
def test_an_inverted_spectrum_is_the_waveform(padding: str, time: int) -> None:
    waveform = torch.randn(2, 3, time, dtype=torch.float64)
    # zeros up to a whole hop: the tail of one window alone would be divided by nearly nothing
    padded = torch.nn.functional.pad(waveform, (0, -time % 16))
    spectrum = stft(padded, 64, padding=padding)  # type: ignore[arg-type]
    assert spectrum.shape[:3] == (2, 3, 33)
    for length in (time, None):
        torch.testing.assert_close(istft(spectrum, 64, length)[..., :time], waveform)


def test_every_waveform_is_transformed_alone_and_in_its_precision() -> None:
    waveform = torch.randn(2, 3, 200)
    spectrum = stft(waveform, 48, 20)
    assert spectrum.dtype == torch.complex64
    torch.testing.assert_close(stft(waveform[1, 2].double(), 48, 20).to(spectrum.dtype), spectrum[1, 2])
    torch.testing.assert_close(stft(waveform.bfloat16().float(), 48), stft(waveform.bfloat16(), 48))
    window = torch.hann_window(48)
    torch.testing.assert_close(stft(waveform.double(), window, 20), spectrum, rtol=0, atol=0)


def test_a_filter_made_in_inference_mode_takes_part_in_a_gradient() -> None:
    # rates that no other test uses, so that the filter is made here
    with torch.inference_mode():
        resample(torch.randn(1, 700), 7001, 6999)
    waveform = torch.randn(1, 700, requires_grad=True)
    resample(waveform, 7001, 6999).square().sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.abs().sum() > 0


@pytest.mark.parametrize("kernel", ["kaiser_best", "hann"])
def test_mixed_precision_and_slices_change_no_sample(kernel: str) -> None:
    waveform = torch.randn(2, 4000)
    expected = resample(waveform, *RATES, kernel=kernel)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        found = resample(waveform.T.contiguous().T, *RATES, kernel=kernel)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
