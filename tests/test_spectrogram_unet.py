from __future__ import annotations

import pytest
import torch
from separator_toys import close, noise, small
from torch import nn

from encore.models.acceleration import accelerate
from encore.models.costs import count_macs
from encore.models.separators.spectral import WindowedTransform
from encore.models.separators.spectrogram_unet import SpectrogramUNet

STEMS = ("vocals", "drums", "bass", "other")


def built(sources: tuple[str, ...] = ("a", "b"), channels: int = 1, **options) -> SpectrogramUNet:
    return small("SpectrogramUNet", sources, channels=channels, **options)


def test_costs_are_those_of_the_layers() -> None:
    """Every product by hand, of 8 frames of 16 bins and two layers."""
    separator = built(filters=[4, 6], window_seconds=32 / 8000, hop_seconds=16 / 8000)
    down = 25 * (1 * 4 * 4 * 8 + 4 * 6 * 2 * 4)
    up = 25 * (6 * 4 * 2 * 4 + 8 * 1 * 4 * 8)
    masks = 16 * 1 * 8 * 16
    assert count_macs(separator, noise(1, 1, 16 * 7)) == 2 * (down + up + masks)


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize(("masks", "shared"), [("ratio", False), ("softmax", True)])
@pytest.mark.parametrize(("length", "filters"), [(1, [8]), (640, [8, 12, 16]), (3001, [4, 4, 4, 8, 8, 8])])
def test_estimates_of_several_sources_sum_to_the_mixture(
    length: int, filters: list[int], shared: bool, masks: str, precision: str
) -> None:
    options = {"filters": filters, "shared": shared, "masks": masks, "highest_frequency": 2500.0}
    separator = built(STEMS, channels=2, **options)
    accelerate(separator, precision=precision)
    with torch.no_grad():
        for network in separator.networks:
            network.masks.weight.mul_(10)  # masks start out near equal shares
        estimates = separator(noise(2, 2, length))
    assert not torch.allclose(estimates[:, 0], estimates[:, 1], rtol=0.1)
    close(estimates.sum(dim=1), noise(2, 2, length), relative=1e-5)


@pytest.mark.parametrize("logit", [-120.0, -30.0, 0.0, 30.0])
def test_ratio_masks_are_squares_of_sigmoids_over_their_sum(logit: float) -> None:
    """Where both sigmoids underflow in single precision too."""
    separator, mixture = built(shared=True), noise(1, 1, 4000)
    nn.init.zeros_(separator.networks[0].masks.weight)
    separator.networks[0].masks.bias.data = torch.tensor([logit, logit + 1])
    squares = torch.tensor([logit, logit + 1], dtype=torch.float64).sigmoid().square()
    with torch.no_grad():
        estimates = separator(mixture)
    for source, share in enumerate((squares / squares.sum()).tolist()):
        close(estimates[:, source], share * mixture, relative=1e-4)


def test_one_source_has_a_sigmoid() -> None:
    separator, mixture = built(("a",)), noise(1, 1, 4000)
    nn.init.zeros_(separator.networks[0].masks.weight)
    nn.init.constant_(separator.networks[0].masks.bias, -1.0)
    with torch.no_grad():
        close(separator(mixture)[:, 0], torch.tensor(-1.0).sigmoid() * mixture, relative=1e-5)


def test_masks_above_the_highest_frequency_are_the_mean_or_zero() -> None:
    average, zeros = (built(extension=name, highest_frequency=2500.0) for name in ("average", "zeros"))
    spectrum = torch.view_as_real(average.transform(noise(1, 1, 4000)))
    with torch.no_grad():
        masks, cut = average._predict(spectrum), zeros._predict(spectrum)
    assert average.transform.bins == 160
    assert torch.equal(masks[..., :160], cut[..., :160])
    assert not cut[..., 160:].any()
    close(masks[..., 160:], masks[..., :160].mean(-1, keepdim=True).expand(-1, -1, -1, -1, 97), relative=1e-6)


def test_dropout_is_for_the_first_three_layers_up() -> None:
    separator = built(dropout=0.5)
    rates = [
        [part.p for part in norm if isinstance(part, nn.Dropout)] for norm in separator.networks[0].up_norms
    ]
    assert rates == [[0.5], [0.5], [0.5], []]


@pytest.mark.parametrize("length", [1, 127, 512, 3001])
@pytest.mark.parametrize("multiple", [1, 4, 64])
def test_the_transform_and_its_inverse_undo_each_other(length: int, multiple: int) -> None:
    transform = WindowedTransform(8000, 0.064, 0.016, multiple=multiple)
    waveform = noise(2, 3, length)
    spectrum = transform(waveform)
    assert spectrum.shape == (2, 3, spectrum.shape[2], 257)
    assert spectrum.shape[2] % multiple == 0
    assert (spectrum.shape[2] - multiple - 1) * 128 < length <= (spectrum.shape[2] - 1) * 128
    close(transform.inverse(spectrum[:, None], length)[:, 0], waveform, relative=1e-5)


def test_the_level_is_that_of_the_bins() -> None:
    transform, waveform = WindowedTransform(8000, 0.064, 0.016), noise(2, 2, 80000)
    waveform[1] *= 3
    power = transform(waveform).abs().square().mean(dim=(1, 2, 3))
    close(transform.level(waveform).flatten().square(), power, relative=0.02)
