from __future__ import annotations

import pytest
import torch
from separator_toys import close, noise

from encore.models.separators.hdemucs import FFT_LENGTHS, HDemucs, nearest_fft_length

RATES = (8000, 16000, 22050, 44100, 32000, 48000)


def built(sources: tuple[str, ...] = ("speech",), sample_rate: int = 16000, channels: int = 1) -> HDemucs:
    torch.manual_seed(0)
    return HDemucs(sources, sample_rate, channels, width=4, depth=5).eval()


def test_fft_lengths_follow_the_rate() -> None:
    lengths = [nearest_fft_length(4096 / 44100, rate) for rate in RATES]
    assert lengths == [1024, 2048, 2048, 4096, 4096, 4096]


@pytest.mark.parametrize("fft_length", FFT_LENGTHS)
def test_every_fft_length_runs_at_its_least_depth(fft_length: int) -> None:
    least = {256: 3, 1024: 4, 2048: 5, 4096: 5, 16384: 6}[fft_length]
    options = {"sources": ["a"], "sample_rate": 1000, "channels": 1, "width": 4}
    options["window_seconds"] = fft_length / 1000
    separator = HDemucs(**options, depth=least).eval()
    with torch.no_grad():
        assert separator(noise(1, 1, 700)).shape == (1, 1, 1, 700)
    with pytest.raises(ValueError, match=f"depth={least - 1} is too small for an FFT of {fft_length}"):
        HDemucs(**options, depth=least - 1)


def test_whole_hops_give_what_the_bare_network_gives_of_a_normalised_mixture() -> None:
    separator, mixture = built(("a", "b"), channels=2), 3 + noise(2, 2, 512 * 6)
    mono = mixture.double().mean(dim=1)
    mean, deviation = (value.float()[:, None, None] for value in (mono.mean(-1), mono.std(-1, correction=0)))
    with torch.no_grad():
        bare = separator.network((mixture - mean) / deviation)
        close(separator(mixture), bare * deviation[:, None] + mean[:, None], relative=1e-5)


def test_padding_is_zeros_up_to_whole_hops() -> None:
    separator, mixture = built(), noise(1, 1, 512 * 6 - 100)
    mixture -= mixture.mean()
    padded = torch.cat([mixture / mixture.std(correction=0), torch.zeros(1, 1, 100)], dim=-1)
    with torch.no_grad():
        expected = separator.network(padded)[..., :-100] * mixture.std(correction=0)
        close(separator(mixture), expected, relative=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_level_and_offset_go_through(factor: float, offset: float) -> None:
    separator, mixture = built(), noise(2, 1, 4000)
    with torch.no_grad():
        close(separator(factor * (mixture + offset)), factor * (separator(mixture) + offset), relative=1e-3)
