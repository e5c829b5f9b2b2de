from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from separator_toys import check_stated_costs, close, configured, noise
from torch import nn

from encore.models import load_separator
from encore.models.acceleration import accelerate, has_bfloat16_lstm
from encore.models.checkpoint import instantiate, save_separator
from encore.models.costs import count_macs, parameters
from encore.models.export import Extent, write
from encore.models.separators.dttnet import DTTNet
from encore.models.types import LoadedSeparator

SIZES = ("tiny", "small", "medium", "large", "bass")
STEMS = ("vocals", "drums", "bass", "other")
SMALL = {"growth": 8, "scales": 2, "convolutions": 1, "layers": 1}
WINDOW = {"window_seconds": 0.064, "hop_seconds": 0.016}


def built(sources: tuple[str, ...] = ("a",), sample_rate: int = 8000, channels: int = 1, **options) -> DTTNet:
    torch.manual_seed(0)
    return DTTNet(sources, sample_rate, channels, **SMALL | WINDOW | options).eval()


@pytest.mark.parametrize("size", SIZES)
def test_stated_sizes_and_costs(size: str) -> None:
    check_stated_costs(f"dttnet_{size}", counted=True)


def test_published_sizes() -> None:
    """4.97 M for vocals, drums and other, 4.20 M for bass, of one source of stereo."""
    with torch.device("meta"):
        large, bass = (
            instantiate(configured(f"dttnet_{name}", ("a",), 44100, 2)) for name in ("large", "bass")
        )
    assert (large.transform.window_length, large.transform.hop_length, large.bins) == (6144, 1024, 2048)
    assert (bass.transform.window_length, bass.transform.hop_length, bass.bins) == (6144, 1024, 864)
    assert parameters(large) / 1e6 == pytest.approx(4.97, rel=0.005)
    assert parameters(bass) / 1e6 == pytest.approx(4.20, rel=0.005)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_smaller_ones_are_below_a_million_for_four_sources(size: str) -> None:
    with torch.device("meta"):
        separator = instantiate(configured(f"dttnet_{size}", STEMS, 22050, 2))
    assert parameters(separator) < 1e6
    assert separator.bins == separator.transform.window_length // 2


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


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("output", ["spectrum", "mask"])
def test_the_contract_at_every_rate(sample_rate: int, channels: int, output: str) -> None:
    separator = built(("a", "b"), sample_rate, channels, subbands=2, output=output)
    assert isinstance(separator, LoadedSeparator)
    said = separator.sources, separator.sample_rate, separator.channels
    assert said == (("a", "b"), sample_rate, channels)
    with torch.no_grad():
        estimates = separator(noise(2, channels, 3001))
    assert estimates.shape == (2, 2, channels, 3001)
    assert estimates.isfinite().all()


@pytest.mark.parametrize("scales", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 4001])
def test_any_length_comes_out_as_it_went_in(length: int, scales: int) -> None:
    with torch.no_grad():
        estimates = built(scales=scales)(noise(2, 1, length))
    assert estimates.shape == (2, 1, 1, length)
    assert estimates.isfinite().all()


@pytest.mark.parametrize("length", [1, 100, 640, 3001])
@pytest.mark.parametrize("subbands", [1, 3])
def test_masks_of_one_give_what_the_network_sees(length: int, subbands: int) -> None:
    """All of the mixture but what is at the Nyquist frequency, in every source."""
    separator = built(("a", "b"), channels=2, subbands=subbands, output="mask")
    nn.init.zeros_(separator.last.weight)
    separator.last.bias.data *= 2
    mixture = noise(2, 2, length)
    spectrum = separator.transform(mixture, separator.frame_multiple)
    spectrum[..., -1] = 0
    with torch.no_grad():
        estimates = separator(mixture)
        seen = separator.transform.inverse(spectrum[:, None], length)[:, 0]
    for source in range(2):
        close(estimates[:, source], seen, relative=1e-5)


@pytest.mark.parametrize("output", ["spectrum", "mask"])
def test_nothing_is_estimated_above_the_highest_frequency(output: str) -> None:
    separator = built(highest_frequency=1000.0, output=output)
    assert separator.bins == 64
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


def test_batch_mates_do_not_matter_even_in_training() -> None:
    separator, mixture = built().train(), noise(3, 1, 3001)
    mixture[1] *= 100
    mixture[2] = 0
    with torch.no_grad():
        together = separator(mixture)
        for index in range(2):
            close(together[index], separator(mixture[index : index + 1])[0])


@pytest.mark.parametrize("compression", [1.0, 0.3])
@pytest.mark.parametrize("output", ["spectrum", "mask"])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_level_goes_through(factor: float, output: str, compression: float) -> None:
    separator, mixture = built(output=output, compression=compression), noise(2, 1, 4000)
    with torch.no_grad():
        close(separator(factor * mixture), factor * separator(mixture))


@pytest.mark.parametrize("compression", [1.0, 0.3])
@pytest.mark.parametrize("output", ["spectrum", "mask"])
def test_silence_gives_next_to_silence_and_finite_gradients(output: str, compression: float) -> None:
    separator = built(("a", "b"), output=output, compression=compression).train()
    mixture = torch.zeros(2, 1, 1000, requires_grad=True)
    estimates = separator(mixture)
    assert estimates.abs().max() < 1e-6
    estimates.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in (*separator.parameters(), mixture))


@pytest.mark.parametrize("output", ["spectrum", "mask"])
def test_every_parameter_learns(output: str) -> None:
    separator = built(("a", "b"), channels=2, subbands=2, output=output).train()
    (separator(noise(2, 2, 3000)) * noise(2, 2, 2, 3000, seed=1)).sum().backward()
    assert [name for name, p in separator.named_parameters() if p.grad is None or not p.grad.any()] == []


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


@pytest.mark.skipif(not has_bfloat16_lstm(), reason="no LSTM in bfloat16 on this CPU")
def test_it_runs_in_bfloat16_and_trains() -> None:
    separator, mixture = built(), noise(1, 1, 4000)
    with torch.no_grad():
        expected = separator(mixture)
    accelerate(separator, precision="bf16")
    estimates = separator(mixture)
    assert estimates.dtype == torch.float32
    assert 1e-6 < (estimates - expected).norm() / expected.norm() < 0.1
    estimates.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in separator.parameters())


def test_it_learns() -> None:
    """Two tones, each a source of its own; from the mixture's equal shares, 0 dB, on."""
    separator = built(("low", "high"), output="mask").train()
    time = torch.arange(4000) / 8000
    tones = 0.1 * torch.stack([torch.sin(2 * torch.pi * f * time) for f in (440, 1230)])[None, :, None]
    optimizer, errors = torch.optim.Adam(separator.parameters(), 3e-3), []
    for _ in range(25):
        error = (separator(tones.sum(1)) - tones).square().sum() / tones.square().sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.05 * errors[0]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    options = {"sources": ["a", "b"], "sample_rate": 8000, "channels": 2, **SMALL, **WINDOW, "output": "mask"}
    target = {"_target_": "encore.models.separators.dttnet.DTTNet", **options}
    separator, mixture = DTTNet(**options).eval(), noise(1, 2, 3000)
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
    separator, reference = (built(scales=1).requires_grad_(False) for _ in range(2))
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
    separator = built(("a", "b"), compression=0.5, highest_frequency=3000.0).requires_grad_(False)
    run, extent = write(tmp_path / f"a{suffix}", separator)
    # torch.export refuses recurrences over a single step, which the lowest scale has of one frame
    assert extent == Extent(shortest=129 if suffix == ".pt2" else 1)
    for shape in ((1, 1, 4001), (3, 1, 2000), (2, 1, extent.shortest)):
        close(run(noise(*shape)), separator(noise(*shape)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": "speech"}, "sources='speech'"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"channels": 0}, "channels=0"),
        ({"layers": 0}, "layers=0: give 1 or more"),
        ({"subbands": 0}, "subbands=0: give 1 or more"),
        ({"growth": 3}, "growth=3: give 4 or more"),
        ({"heads": 5}, "heads=5 cannot split 16 channels, growth times scales: give a divisor"),
        ({"heads": 16}, "heads=16 leaves one of 16 channels to each"),
        ({"output": "waveform"}, "output='waveform': choose 'spectrum' or 'mask'"),
        ({"compression": 0.0}, "compression=0.0: give an exponent above 0, at most 1"),
        ({"highest_frequency": 5.0}, "highest_frequency=5 holds no bin: give 15.62 Hz or more"),
        ({"window_seconds": 0.0}, "window_seconds=0 is 0 samples: give 0.0005 or more"),
        ({"hop_seconds": 0.04}, "hop_seconds=0.04 is 320 samples: give 1 to 256"),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict, message: str) -> None:
    complete = {"sources": ["a"], "sample_rate": 8000, "channels": 1} | SMALL | WINDOW | options
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        DTTNet(**complete)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 100), (1, 2, 100), (1, 1, 0)])
def test_wrong_mixtures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mixture has shape .*give \(batch, channel, time\) with 1 channel"):
        built()(torch.zeros(shape))
