from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from separator_toys import check_stated_costs, close, configured, noise
from torch import nn

from encore.models import load_separator
from encore.models.acceleration import accelerate
from encore.models.checkpoint import instantiate, save_separator
from encore.models.costs import count_macs, parameters
from encore.models.export import Extent, write
from encore.models.separators.spectral import WindowedTransform
from encore.models.separators.spectrogram_unet import SpectrogramUNet
from encore.models.types import LoadedSeparator

SIZES = ("tiny", "small", "large")
STEMS = ("vocals", "drums", "bass", "other")
SMALL = {"filters": [8, 8, 16, 16]}
WINDOW = {"window_seconds": 0.064, "hop_seconds": 0.016}


def built(
    sources: tuple[str, ...] = ("a", "b"), sample_rate: int = 8000, channels: int = 1, **options
) -> SpectrogramUNet:
    torch.manual_seed(0)
    return SpectrogramUNet(sources, sample_rate, channels, **SMALL | WINDOW | options).eval()


@pytest.mark.parametrize("size", SIZES)
def test_stated_sizes_and_costs(size: str) -> None:
    check_stated_costs(f"spectrogram_unet_{size}", counted=True)


def test_the_large_one_is_spleeters() -> None:
    """9.8 M a source, 39.3 M for four, on 1024 bins of 4096 samples."""
    with torch.device("meta"):
        one, four = (
            instantiate(configured("spectrogram_unet_large", stems, 44100, 2)) for stems in (("a",), STEMS)
        )
    assert (one.transform.window_length, one.transform.hop_length, one.bins) == (4096, 1024, 1024)
    assert parameters(one) / 1e6 == pytest.approx(9.82, rel=0.005)
    assert parameters(four) == 4 * parameters(one)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_smaller_ones_are_below_a_million_for_four_sources(size: str) -> None:
    with torch.device("meta"):
        separator = instantiate(configured(f"spectrogram_unet_{size}", STEMS, 22050, 2))
    assert parameters(separator) < 1e6
    assert separator.bins == separator.transform.window_length // 2


def test_costs_are_those_of_the_layers() -> None:
    """Every product by hand, of 8 frames of 16 bins and two layers."""
    separator = built(filters=[4, 6], window_seconds=32 / 8000, hop_seconds=16 / 8000)
    down = 25 * (1 * 4 * 4 * 8 + 4 * 6 * 2 * 4)
    up = 25 * (6 * 4 * 2 * 4 + 8 * 1 * 4 * 8)
    masks = 16 * 1 * 8 * 16
    assert count_macs(separator, noise(1, 1, 16 * 7)) == 2 * (down + up + masks)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_the_contract_at_every_rate(sample_rate: int, channels: int, shared: bool) -> None:
    separator = built(("a", "b"), sample_rate, channels, shared=shared)
    assert isinstance(separator, LoadedSeparator)
    said = separator.sources, separator.sample_rate, separator.channels
    assert said == (("a", "b"), sample_rate, channels)
    with torch.no_grad():
        estimates = separator(noise(2, channels, 3001))
    assert estimates.shape == (2, 2, channels, 3001)
    assert estimates.isfinite().all()


@pytest.mark.parametrize("filters", [[8], [8, 12, 16], [4, 4, 4, 8, 8, 8]])
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 4001])
def test_any_length_comes_out_as_it_went_in(length: int, filters: list[int]) -> None:
    with torch.no_grad():
        estimates = built(filters=filters)(noise(2, 1, length))
    assert estimates.shape == (2, 2, 1, length)
    assert estimates.isfinite().all()


@pytest.mark.parametrize("masks", ["ratio", "softmax"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("length", [1, 640, 3001])
def test_estimates_of_several_sources_sum_to_the_mixture(length: int, shared: bool, masks: str) -> None:
    separator = built(STEMS, channels=2, shared=shared, masks=masks, highest_frequency=2500.0)
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
    spectrum = torch.view_as_real(average.transform(noise(1, 1, 4000), average.multiple))
    with torch.no_grad():
        masks, cut = average._predict(spectrum), zeros._predict(spectrum)
    assert average.bins == 160
    assert torch.equal(masks[..., :160], cut[..., :160])
    assert not cut[..., 160:].any()
    close(masks[..., 160:], masks[..., :160].mean(-1, keepdim=True).expand(-1, -1, -1, -1, 97), relative=1e-6)


def test_batch_mates_do_not_matter_even_in_training() -> None:
    separator, mixture = built(dropout=0.0).train(), noise(3, 1, 3001)
    mixture[1] *= 100
    mixture[2] = 0
    with torch.no_grad():
        together = separator(mixture)
        for index in range(2):
            close(together[index], separator(mixture[index : index + 1])[0])


@pytest.mark.parametrize("compression", [1.0, 0.3])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_level_goes_through(factor: float, compression: float) -> None:
    separator, mixture = built(compression=compression), noise(2, 1, 4000)
    with torch.no_grad():
        close(separator(factor * mixture), factor * separator(mixture))


@pytest.mark.parametrize("compression", [1.0, 0.3])
def test_silence_gives_silence_and_finite_gradients(compression: float) -> None:
    separator = built(compression=compression).train()
    mixture = torch.zeros(2, 1, 1000, requires_grad=True)
    estimates = separator(mixture)
    assert not estimates.any()
    (estimates - 1).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in (*separator.parameters(), mixture))


@pytest.mark.parametrize("shared", [False, True])
def test_every_parameter_learns(shared: bool) -> None:
    separator = built(channels=2, shared=shared, features=4).train()
    (separator(noise(2, 2, 3000)) * noise(2, 2, 2, 3000, seed=1)).sum().backward()
    assert [name for name, p in separator.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_dropout_is_for_training_and_for_the_first_three_layers_up_only() -> None:
    separator, mixture = built(), noise(1, 1, 2000)
    rates = [
        [part.p for part in norm if isinstance(part, nn.Dropout)] for norm in separator.networks[0].up_norms
    ]
    assert rates == [[0.5], [0.5], [0.5], []]
    with torch.no_grad():
        assert torch.equal(separator(mixture), separator(mixture))
        separator.train()
        assert not torch.equal(separator(mixture), separator(mixture))


def test_it_runs_in_bfloat16_and_trains() -> None:
    separator, mixture = built(), noise(1, 1, 4000)
    with torch.no_grad():
        expected = separator(mixture)
    accelerate(separator, precision="bf16")
    estimates = separator(mixture)
    assert estimates.dtype == torch.float32
    assert 1e-6 < (estimates - expected).norm() / expected.norm() < 0.05
    close(estimates.detach().sum(dim=1), mixture, relative=1e-5)
    estimates.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in separator.parameters())


@pytest.mark.parametrize("masks", ["ratio", "softmax"])
def test_it_learns(masks: str) -> None:
    """Two tones, each a source of its own."""
    separator = built(("low", "high"), shared=True, features=4, masks=masks, dropout=0.0).train()
    time = torch.arange(4000) / 8000
    tones = 0.1 * torch.stack([torch.sin(2 * torch.pi * f * time) for f in (440, 1230)])[None, :, None]
    optimizer, errors = torch.optim.Adam(separator.parameters(), 1e-2), []
    for _ in range(40):
        error = (separator(tones.sum(1)) - tones).square().sum() / tones.square().sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.05 * errors[0]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    options = {"sources": ["a", "b"], "sample_rate": 8000, "channels": 2, **SMALL, **WINDOW, "shared": True}
    target = {"_target_": "encore.models.separators.spectrogram_unet.SpectrogramUNet", **options}
    separator, mixture = SpectrogramUNet(**options).eval(), noise(1, 2, 3000)
    assert not [name for name in separator.state_dict() if "window" in name]
    save_separator(tmp_path / "saved.safetensors", separator, target)
    with torch.no_grad():
        # matrix products round differently where a file's weights lie in memory
        close(load_separator(tmp_path / "saved.safetensors")(mixture), separator(mixture), relative=1e-5)


def test_compiled_it_takes_any_batch_without_being_compiled_anew(monkeypatch) -> None:
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    # what the C++ compiler would be given
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    separator, reference = (built().requires_grad_(False) for _ in range(2))
    accelerate(separator, compiled=True)
    needed = []
    for shape in ((3, 1, 4000), (2, 1, 3000)):
        close(separator(noise(*shape)), reference(noise(*shape)))
        needed.append(len(graphs))
    assert needed[0] == needed[1] > 0
    targets = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert not any("stft" in target for target in targets)


@pytest.mark.parametrize("suffix", [".pt2", ".pt"])
def test_written_graphs_keep_any_length(suffix: str, tmp_path: Path) -> None:
    separator = built(compression=0.5, highest_frequency=3000.0).requires_grad_(False)
    run, extent = write(tmp_path / f"a{suffix}", separator)
    assert extent == Extent()
    for shape in ((1, 1, 4001), (3, 1, 2000), (2, 1, 1)):
        close(run(noise(*shape)), separator(noise(*shape)))


@pytest.mark.parametrize("length", [1, 127, 512, 3001])
@pytest.mark.parametrize("multiple", [1, 4, 64])
def test_the_transform_and_its_inverse_undo_each_other(length: int, multiple: int) -> None:
    transform, waveform = WindowedTransform(8000, 0.064, 0.016), noise(2, 3, length)
    spectrum = transform(waveform, multiple)
    assert spectrum.shape == (2, 3, spectrum.shape[2], 257)
    assert spectrum.shape[2] % multiple == 0
    assert (spectrum.shape[2] - multiple - 1) * 128 < length <= (spectrum.shape[2] - 1) * 128
    close(transform.inverse(spectrum[:, None], length)[:, 0], waveform, relative=1e-5)


def test_the_level_is_that_of_the_bins() -> None:
    transform, waveform = WindowedTransform(8000, 0.064, 0.016), noise(2, 2, 80000)
    waveform[1] *= 3
    power = transform(waveform).abs().square().mean(dim=(1, 2, 3))
    close(transform.level(waveform).flatten().square(), power, relative=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": []}, "sources=[]"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"channels": 0}, "channels=0"),
        ({"filters": []}, "filters=[]: give one positive number of channels per layer down"),
        ({"filters": [4, 0]}, "filters=[4, 0]: give one positive number"),
        ({"features": 0}, "features=0: give 1 or more"),
        ({"masks": "hard"}, "masks='hard': choose 'ratio' or 'softmax'"),
        ({"extension": "copy"}, "extension='copy': choose 'average' or 'zeros'"),
        ({"compression": 2.0}, "compression=2.0: give an exponent above 0, at most 1"),
        ({"dropout": 1.0}, "dropout=1.0: give a rate of at least 0, below 1"),
        ({"highest_frequency": 5.0}, "highest_frequency=5 holds no bin: give 15.62 Hz or more"),
        ({"window_seconds": 0.0}, "window_seconds=0 is 0 samples: give 0.0005 or more"),
        ({"hop_seconds": 0.04}, "hop_seconds=0.04 is 320 samples: give 1 to 256"),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict, message: str) -> None:
    complete = {"sources": ["a"], "sample_rate": 8000, "channels": 1} | SMALL | WINDOW | options
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        SpectrogramUNet(**complete)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 100), (1, 2, 100), (1, 1, 0)])
def test_wrong_mixtures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mixture has shape .*give \(batch, channel, time\) with 1 channel"):
        built()(torch.zeros(shape))
