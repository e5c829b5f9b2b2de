from __future__ import annotations

import pytest
import torch
from separator_toys import close, noise, small
from torch import nn

from encore.models.costs import count_macs
from encore.models.separators.dttnet import DTTNet

STEMS = ("vocals", "drums", "bass", "other")


def built(sources: tuple[str, ...] = ("a",), sample_rate: int = 8000, channels: int = 1, **options) -> DTTNet:
    return small("DTTNet mask", sources, sample_rate, channels, **{"output": "spectrum"} | options)


def test_costs_are_those_of_the_layers() -> None:
    """Every product by hand, of 8 frames of 16 bins."""
    separator = built(window_seconds=32 / 8000, hop_seconds=16 / 8000, heads=2)
    bins, frames, width = 16, 8, 8
    block = [(9 * 3 * c * c + 2 * c * (n // 8)) * t * n for c, n, t in ((8, 16, 8), (16, 8, 4))]
    down = up = 4 * width * 2 * width * frames * bins // 4
    features = 2 * width // 2
    cell = 2 * 4 * 2 * features * (features + 2 * features) + 4 * features * features
    ends = 2 * 2 * width * frames * bins
    expected = 2 * block[0] + block[1] + down + up + ends + 2 * 2 * cell * frames * bins // 4
    assert count_macs(separator, noise(1, 1, 16 * 7)) == expected


@pytest.mark.parametrize("length", [1, 100, 640, 3001])
@pytest.mark.parametrize(("subbands", "scales"), [(1, 1), (3, 2), (1, 4)])
def test_masks_of_one_give_what_the_network_sees(length: int, subbands: int, scales: int) -> None:
    """All of the mixture but what is at the Nyquist frequency, in every source."""
    separator = built(("a", "b"), channels=2, subbands=subbands, scales=scales, output="mask")
    nn.init.zeros_(separator.last.weight)
    separator.last.bias.data *= 2
    mixture = noise(2, 2, length)
    spectrum = separator.transform(mixture)
    spectrum[..., -1] = 0
    with torch.no_grad():
        estimates = separator(mixture)
        seen = separator.transform.inverse(spectrum[:, None], length)[:, 0]
    for source in range(2):
        close(estimates[:, source], seen, relative=1e-5)


@pytest.mark.parametrize("output", ["spectrum", "mask"])
def test_nothing_is_estimated_above_the_highest_frequency(output: str) -> None:
    separator = built(highest_frequency=1000.0, output=output)
    assert separator.transform.bins == 64
    with torch.no_grad():
        estimate = separator(noise(1, 1, 8000)).flatten()
    # its ends, cut off, would sound at every frequency
    power = torch.fft.rfft(estimate * torch.hann_window(8000)).abs().square()
    assert power[1100:].sum() < 1e-5 * power.sum()


def test_masks_start_near_equal_shares() -> None:
    separator, mixture = built(STEMS, output="mask"), noise(1, 1, 8000)
    with torch.no_grad():
        estimates = separator(mixture)
    for source in range(4):
        assert (4 * estimates[:, source] - mixture).norm() < 0.5 * mixture.norm()


def test_heads_are_parts_of_the_channels_that_share_weights() -> None:
    path = built(growth=8, scales=2, heads=2).dual_path
    x = noise(2, 16, 5, 7)
    with torch.no_grad():
        both = path(x)
        path.heads = 1
        for part in (slice(0, 8), slice(8, 16)):
            close(path(x[:, part]), both[:, part], relative=1e-5)


def test_scales_are_multiplied_with_what_they_were_on_the_way_down() -> None:
    separator, seen = built(scales=3), {}
    for name in ("encoders.0", "encoders.1", "up.0", "up.1"):
        separator.get_submodule(name).register_forward_hook(
            lambda _, given, out, n=name: seen.update({n: out})
        )
    for name in ("decoders.0", "decoders.1"):
        separator.get_submodule(name).register_forward_pre_hook(
            lambda _, given, n=name: seen.update({n: given[0]})
        )
    with torch.no_grad():
        separator(noise(1, 1, 3000))
    assert torch.equal(seen["decoders.0"], seen["up.0"] * seen["encoders.1"])
    assert torch.equal(seen["decoders.1"], seen["up.1"] * seen["encoders.0"])
