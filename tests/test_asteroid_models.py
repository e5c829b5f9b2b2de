from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from encore.common.packages import MissingPackageError
from encore.models.checkpoint import instantiate
from encore.models.costs import macs_per_second, parameters
from encore.models.separators.asteroid import ARCHITECTURES, INSTALL, AsteroidSeparator
from encore.models.types import LoadedSeparator

ROOT = Path(__file__).parents[1]
FAMILIES = ("conv_tasnet", "dprnn_tasnet", "sudormrf", "dptnet")
SIZES = ("tiny", "small", "medium", "large")
LENGTHS = (1, 2, 31, 32, 33, 100, 997, 8000)
# millions of parameters in the papers, one or two sources
PUBLISHED = {"conv_tasnet": 5.1, "dprnn_tasnet": 2.6, "sudormrf": 2.6, "dptnet": 2.7}
# short options for the tests that need no configuration
OPTIONS = {
    "ConvTasNet": {
        "n_filters": 16,
        "bn_chan": 8,
        "hid_chan": 8,
        "skip_chan": 8,
        "n_blocks": 2,
        "n_repeats": 1,
    },
    "DPRNNTasNet": {"n_filters": 16, "bn_chan": 8, "hid_size": 8, "chunk_size": 10, "n_repeats": 1},
    "DPTNet": {"n_filters": 16, "ff_hid": 8, "chunk_size": 10, "n_repeats": 1},
    "LSTMTasNet": {"n_filters": 16, "hid_size": 8, "n_layers": 1, "dropout": 0.0},
    "SuDORMRFImprovedNet": {"n_filters": 16, "bn_chan": 8, "num_blocks": 1, "upsampling_depth": 2},
    "SuDORMRFNet": {
        "n_filters": 16,
        "bn_chan": 8,
        "num_blocks": 1,
        "upsampling_depth": 2,
        "mask_act": "sigmoid",
    },
}


def config(family: str, size: str, sources: tuple[str, ...] = ("speech",), channels: int = 1):
    node = OmegaConf.create(
        {
            "data": {"sources": list(sources), "sample_rate": 16000, "channels": channels},
            "model": OmegaConf.load(ROOT / "configs" / "model" / f"{family}_{size}.yaml"),
        }
    )
    return OmegaConf.to_container(node, resolve=True)["model"]


def built(family: str, size: str, sources: tuple[str, ...] = ("speech",), channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return instantiate(config(family, size, sources, channels)).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((actual - expected).abs().max()) <= relative * scale


@pytest.mark.parametrize("family", FAMILIES)
def test_any_length_comes_out_as_it_went_in(family: str) -> None:
    separator = built(family, "tiny")
    for length in LENGTHS:
        with torch.no_grad():
            estimates = separator(noise(2, 1, length))
        assert estimates.shape == (2, 1, 1, length)
        assert estimates.isfinite().all()
        # the bare networks leave the samples after the last whole frame silent
        assert (estimates[..., -1] != 0).all(), length


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_allowed_architecture_keeps_the_contract(architecture: str) -> None:
    torch.manual_seed(0)
    separator = AsteroidSeparator(architecture, ["a", "b"], 16000, 2, OPTIONS[architecture]).eval()
    assert isinstance(separator, LoadedSeparator)
    assert (separator.sources, separator.sample_rate, separator.channels) == (("a", "b"), 16000, 2)
    for length in (1, 101):
        assert separator(noise(3, 2, length)).shape == (3, 2, 2, length)


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_mates_do_not_matter(family: str) -> None:
    separator = built(family, "tiny")
    mixture = noise(3, 1, 3001)
    mixture[1] *= 100
    mixture[2] = 0
    with torch.no_grad():
        together = separator(mixture)
        alone = torch.cat([separator(mixture[i : i + 1]) for i in range(2)])
    for i in range(2):
        close(together[i], alone[i])


@pytest.mark.parametrize("family", FAMILIES)
def test_silence_is_finite(family: str) -> None:
    with torch.no_grad():
        assert built(family, "tiny")(torch.zeros(1, 1, 500)).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_channels_are_separated_one_by_one(family: str) -> None:
    sources = ("speech", "noise")
    stereo, mono = built(family, "tiny", sources, channels=2), built(family, "tiny", sources)
    mono.load_state_dict(stereo.state_dict())
    mixture = noise(2, 2, 1500)
    with torch.no_grad():
        estimates = stereo(mixture)
        for channel in range(2):
            close(estimates[:, :, channel], mono(mixture[:, channel : channel + 1])[:, :, 0])


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_frames_give_what_the_bare_network_gives(family: str) -> None:
    separator = built(family, "tiny")
    mixture = noise(1, 1, 32 + 16 * 50)
    with torch.no_grad():
        torch.testing.assert_close(separator(mixture)[:, :, 0], separator.network(mixture), rtol=0, atol=0)


@pytest.mark.parametrize("family", ["conv_tasnet", "dprnn_tasnet", "dptnet"])
def test_padding_is_the_least_that_holds_the_mixture(family: str) -> None:
    separator = built(family, "tiny")  # kernel 32, stride 16
    for length, whole in ((1, 32), (33, 48), (48, 48), (49, 64), (1000, 1008)):
        mixture = noise(1, 1, length)
        padded = torch.cat([mixture, torch.zeros(1, 1, whole - length)], dim=-1)
        with torch.no_grad():
            expected = separator.network(padded)[..., :length]
            torch.testing.assert_close(separator(mixture)[:, :, 0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trainable_parameter_learns(family: str) -> None:
    separator = built(family, "tiny").train()
    separator(noise(1, 1, 2000)).square().sum().backward()
    trainable = {name: p for name, p in separator.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or not p.grad.any()] == []
    # the last block's residual of Conv-TasNet goes nowhere
    frozen = len(list(separator.parameters())) - len(trainable)
    assert frozen == (2 if family == "conv_tasnet" else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_stated_and_published_sizes(family: str) -> None:
    millions = {}
    for size in SIZES:
        header = (ROOT / "configs" / "model" / f"{family}_{size}.yaml").read_text().splitlines()[0]
        stated = float(re.match(r"# ([\d.]+) M parameters, ", header)[1])
        millions[size] = parameters(built(family, size)) / 1e6
        assert stated == pytest.approx(millions[size], abs=0.005)
    assert 0.1 <= millions["tiny"] <= 0.3
    assert millions["small"] > 2 * millions["tiny"]
    assert millions["medium"] > 2 * millions["small"]
    assert millions["large"] == pytest.approx(PUBLISHED[family], rel=0.05)


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stated_cost(family: str, size: str) -> None:
    header = (ROOT / "configs" / "model" / f"{family}_{size}.yaml").read_text().splitlines()[0]
    stated = float(re.search(r", ([\d.]+) G multiply-accumulates", header)[1])
    assert macs_per_second(built(family, size), seconds=4.0) / 1e9 == pytest.approx(stated, abs=0.005)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_hydra_builds_the_same_network(family: str, size: str) -> None:
    node = OmegaConf.create(config(family, size, ("speech", "noise"), 2))
    separator = hydra.utils.instantiate(node)
    assert (separator.sources, separator.sample_rate, separator.channels) == (("speech", "noise"), 16000, 2)
    expected = built(family, size, ("speech", "noise"), 2).state_dict()
    assert {k: v.shape for k, v in separator.state_dict().items()} == {
        k: v.shape for k, v in expected.items()
    }


def test_a_network_already_built_is_wrapped() -> None:
    class Halves(nn.Module):
        def forward(self, waveform: Tensor) -> Tensor:
            return waveform.repeat(1, 2, 1) / 2

    mixture = noise(2, 3, 7)
    estimates = AsteroidSeparator(Halves(), ["a", "b"], 8000, 3)(mixture)
    torch.testing.assert_close(estimates.sum(dim=1), mixture, rtol=0, atol=0)
    with pytest.raises(ValueError, match="names 1, but the network estimates 2"):
        AsteroidSeparator(Halves(), ["a"], 8000, 3)(mixture)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "ConvTasnet"}, "architecture='ConvTasnet' is unknown: did you mean ConvTasNet"),
        ({"architecture": "get"}, "architecture='get' is unknown: "),
        ({"architecture": "DCCRNet"}, "architecture='DCCRNet' is unknown"),
        ({"options": {"n_filter": 4}}, "options.n_filter is unknown to ConvTasNet: did you mean n_filters"),
        ({"options": {"n_src": 2}}, "options.n_src follows from sources"),
        ({"options": {"mask_act": "softmax"}}, "needs two sources or more"),
        ({"architecture": "SuDORMRFNet"}, "needs two sources or more"),
        ({"sources": "speech"}, "sources='speech'"),
        ({"sources": []}, "sources="),
        ({"sources": ["a", "a"]}, "sources="),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_mistakes_are_named_in_one_line(arguments: dict, message: str) -> None:
    complete = {"architecture": "ConvTasNet", "sources": ["speech"], "sample_rate": 16000} | arguments
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        AsteroidSeparator(**complete)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 100), (1, 2, 100), (1, 1, 0)])
def test_wrong_mixtures_are_refused(shape: tuple[int, ...]) -> None:
    separator = AsteroidSeparator("ConvTasNet", ["speech"], 16000, 1, OPTIONS["ConvTasNet"])
    with pytest.raises(ValueError, match=r"mixture has shape .*give \(batch, channel, time\) with 1 channel"):
        separator(torch.zeros(shape))


def test_without_asteroid_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asteroid.models", None)
    with pytest.raises(MissingPackageError, match="'ConvTasNet' needs the package asteroid: pip ") as error:
        AsteroidSeparator("ConvTasNet", ["speech"], 16000)
    assert str(error.value).endswith(INSTALL)


def test_importing_models_is_quiet_and_leaves_asteroid_out() -> None:
    code = "import sys, encore.models; sys.exit(not {'asteroid', 'lightning'}.isdisjoint(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
