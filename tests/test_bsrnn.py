from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from separator_toys import close, noise
from torch import Tensor

from encore.models.acceleration import has_bfloat16_lstm
from encore.models.checkpoint import instantiate
from encore.models.separators.band_split import PUBLISHED_BANDS, bins_per_band, used_bands
from encore.models.separators.bsrnn import BSRNN

ROOT = Path(__file__).parents[1]
# millions of parameters in the papers
PUBLISHED = {"xtiny": 0.5, "tiny": 1.5, "small": 4.8, "medium": 16.9, "large": 63.1, "xlarge": 104.1}


def built(seed: int = 0, **options) -> BSRNN:
    torch.manual_seed(seed)
    return BSRNN(**{"features": 8, "layers": 2} | options).eval()


def parameters(separator: BSRNN) -> int:
    return sum(parameter.numel() for parameter in separator.parameters())


@pytest.mark.parametrize("size", PUBLISHED)
def test_sizes_are_the_published_ones_at_every_rate(size: str) -> None:
    path = ROOT / "configs" / "model" / f"bsrnn_{size}.yaml"
    counts = set()
    for sample_rate in (8000, 16000, 48000):
        data = {"sources": ["speech"], "sample_rate": sample_rate, "channels": 1}
        node = OmegaConf.create({"data": data, "model": OmegaConf.load(path)})
        with torch.device("meta"):
            counts.add(parameters(instantiate(OmegaConf.to_container(node, resolve=True)["model"])))
    assert len(counts) == 1
    millions = counts.pop() / 1e6
    assert millions == pytest.approx(PUBLISHED[size], rel=0.05)
    stated = float(re.match(r"# Band-split RNN, ([\d.]+) M parameters", path.read_text())[1])
    assert stated == pytest.approx(millions, abs=0.005)


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
    mixture = noise(1, 1, sample_rate // 4)
    with torch.no_grad():
        estimates = separator(mixture)
    assert estimates.shape == (1, 1, 1, sample_rate // 4)
    assert estimates.isfinite().all()
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


@pytest.mark.parametrize("length", [1, 2, 159, 160, 161, 12345, 16000])
def test_any_length_comes_out_as_it_went_in(length: int) -> None:
    with torch.no_grad():
        estimates = built()(noise(2, 1, length))
    assert estimates.shape == (2, 1, 1, length)
    assert estimates.isfinite().all()


@pytest.mark.parametrize("length", [159, 319, 1000, 1599])
def test_the_last_samples_are_no_louder_than_the_others(length: int) -> None:
    """Inversion divides by the windows' overlap: without a frame beyond the end that is nearly 0 there."""
    separator = built()
    for seed in range(5):
        with torch.no_grad():
            estimate = separator(noise(1, 1, length, seed=seed)).flatten()
        assert estimate[-40:].abs().max() < 3 * estimate[:-40].abs().max()


@pytest.mark.parametrize("length", [1, 159, 319, 16001])
def test_analysis_and_synthesis_undo_each_other(length: int) -> None:
    separator, mixture = built(), noise(2, length)
    close(
        separator.transform.inverse(separator.transform(mixture)[:, None], length)[:, 0],
        mixture,
        relative=1e-5,
    )


def test_batch_mates_do_not_matter() -> None:
    separator, mixture = built(), noise(3, 1, 3001)
    mixture[1] *= 100
    mixture[2] = 0
    with torch.no_grad():
        together = separator(mixture)
        for index in range(2):
            close(together[index], separator(mixture[index : index + 1])[0])


@pytest.mark.parametrize("compression", [1.0, 0.3])
@pytest.mark.parametrize("factor", [2.0, 1e-3, 1e3])
def test_the_level_goes_through(factor: float, compression: float) -> None:
    separator, mixture = built(compression=compression), noise(2, 1, 4000)
    with torch.no_grad():
        close(separator(factor * mixture), factor * separator(mixture))


@pytest.mark.parametrize("compression", [1.0, 0.3])
def test_silence_gives_silence_and_finite_gradients(compression: float) -> None:
    separator = built(sources=("a", "b"), compression=compression).train()
    mixture = torch.zeros(2, 1, 1000, requires_grad=True)
    estimates = separator(mixture)
    assert estimates.abs().max() < 1e-6
    estimates.square().sum().backward()
    gradients = [p.grad for p in separator.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in (*gradients, mixture.grad))


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_gradient_reaches_every_parameter_below_the_nyquist_frequency(sample_rate: int) -> None:
    separator = built(sample_rate=sample_rate, sources=("a", "b")).train()
    weights = torch.randn(1, 2, 1, 3000, generator=torch.Generator().manual_seed(1))
    (separator(noise(1, 1, 3000)) * weights).sum().backward()
    used = len(separator.band_bins)
    for name, parameter in separator.named_parameters():
        band = re.match(r"(?:encoders|masks|residuals)\.(\d+)\.", name)
        if band and int(band[1]) >= used:
            assert parameter.grad is None, name
        else:
            assert parameter.grad.any(), name


def test_channels_are_separated_one_by_one_and_sources_differ() -> None:
    separator, mixture = built(sources=("speech", "noise"), channels=2), noise(2, 2, 2000)
    with torch.no_grad():
        estimates = separator(mixture)
        assert estimates.shape == (2, 2, 2, 2000)
        for channel in range(2):
            close(estimates[:, :, channel], separator(mixture[:, channel : channel + 1])[:, :, 0])
    assert not torch.allclose(estimates[:, 0], estimates[:, 1], rtol=0.1)


def test_mask_one_and_residual_zero_give_the_mixture() -> None:
    """GLU halves: values from the first half, gates from the second; a real mask of 1, no residual."""
    separator, mixture = built(), noise(2, 1, 1234)
    for heads, value in ((separator.masks, 1.0), (separator.residuals, 0.0)):
        for head in heads:
            last = head.network[3]
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
            last.bias.data[: 2 * head.bins : 2] = value
            last.bias.data[2 * head.bins :] = 100
    with torch.no_grad():
        close(separator(mixture)[:, 0], mixture)


@pytest.mark.skipif(not has_bfloat16_lstm(), reason="no LSTM in bfloat16 on this CPU")
def test_it_runs_under_autocast_and_trains() -> None:
    separator, mixture = built(), noise(1, 1, 2000)
    with torch.no_grad():
        expected = separator(mixture)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        estimates = separator(mixture)
    assert estimates.dtype == torch.float32
    close(estimates, expected, relative=0.1)
    estimates.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in separator.parameters() if p.grad is not None)


def test_what_it_says_about_itself() -> None:
    separator = built(sources=["speech", "noise"], sample_rate=24000, channels=2)
    assert (separator.sources, separator.sample_rate, separator.channels) == (("speech", "noise"), 24000, 2)
    assert not [key for key in separator.state_dict() if "window" in key]
    assert used_bands([5, 5, 10], 12) == [5, 5, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 96000}, "sample_rate=96000 is above max_sample_rate=48000"),
        ({"bands": [(4, 10.0)]}, "narrower than a bin of 50 Hz"),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        BSRNN(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_every_trainable_parameter_gets_a_gradient(rate: int) -> None:
    """Distributed training waits for each of them."""
    separator = built(sample_rate=rate)
    separator(noise(1, 1, rate // 4)).square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in separator.parameters())
    assert all(p.requires_grad for p in separator.parameters()) == (rate == 48000)
