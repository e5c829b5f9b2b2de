from __future__ import annotations

import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_toys import (
    bsrnn,
    fails,
    fake_espnet,
    mono,
    open_espnet,
    open_file,
    open_weights,
    tiny_asteroid,
)
from separator_toys import ASTEROID
from torch import nn

from encore.models import load_separator
from encore.models.pretrained.espnet import EspnetSeparator

pytestmark = pytest.mark.filterwarnings("ignore")
ENHANCERS: dict[str, dict[str, Any]] = {
    "DCUNet": {
        "architecture": "DCUNet-10",
        "stft_n_filters": 256,
        "stft_kernel_size": 256,
        "stft_stride": 64,
    },
    "DeMask": {"hidden_dims": [8], "n_filters": 64, "kernel_size": 64, "stride": 32},
}
MIXTURE = 0.1 * torch.randn(2, 1, 256 + 64 * 32, generator=torch.Generator().manual_seed(0))


def asteroid_file(path: Path, **changes: Any) -> str:
    torch.save({**tiny_asteroid().serialize(), **changes}, path)  # type: ignore[operator]
    return f"asteroid:{path}"


@pytest.mark.parametrize("architecture", [*ASTEROID, *ENHANCERS])
def test_every_waveform_model_of_asteroid_opens(architecture: str, tmp_path: Path) -> None:
    sources = ("speaker1", "speaker2") if architecture in ASTEROID else ("speech",)
    options = ENHANCERS.get(architecture) or {"n_src": 2, **ASTEROID[architecture]}
    torch.manual_seed(0)
    network = getattr(import_module("asteroid.models"), architecture)(**options).eval()
    torch.save(network.serialize(), tmp_path / "model.pth")
    separator = load_separator(f"asteroid:{tmp_path / 'model.pth'}")
    with torch.no_grad():
        torch.testing.assert_close(separator(MIXTURE), mono(network)(MIXTURE), rtol=1e-5, atol=1e-6)
    assert (separator.sources, separator.sample_rate) == (sources, network.sample_rate)
    for length in (1, 333):
        assert separator(MIXTURE[..., :length]).shape == (2, len(sources), 1, length)


def test_asteroid_models_that_cannot_be_opened_say_why(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for name, reason in {
        "DCCRNet": "cannot be built on this version of torch",
        "XUMX": "cannot be built on torch 2",
        "FasNetTAC": "maps several microphones",
        "save_publishable": "unknown; use ",
    }.items():
        fails(asteroid_file(path, model_name=name), f"holds a {name}: {reason}")
    fails(
        asteroid_file(path, model_args={"n_src": 2, "sample_rate": 8000}),
        "does not fit asteroid's ConvTasNet: ",
    )
    torch.save({"state_dict": {}}, path)
    fails(f"asteroid:{path}", "lacks model_name, model_args; for a bare state dictionary there is weights:")
    fails("asteroid:none.pth", "'none.pth' does not exist", FileNotFoundError)


def test_asteroid_files_that_lack_a_rate(tmp_path: Path) -> None:
    arguments = tiny_asteroid().serialize()["model_args"]  # type: ignore[operator]
    uri = asteroid_file(
        tmp_path / "a.pth", model_args={k: v for k, v in arguments.items() if k != "sample_rate"}
    )
    fails(uri, "does not say its sampling rate: add ?sample_rate=8000")
    assert load_separator(f"{uri}?sample_rate=16000").sample_rate == 16000


def test_asteroid_names_come_through_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asteroid_file(tmp_path / "model.pth")
    fetched = []

    def download(name: str) -> str:
        fetched.append(name)
        return str(tmp_path / "model.pth")

    monkeypatch.setattr("asteroid.utils.hub_utils.cached_download", download)
    separator = load_separator("asteroid:mpariente/ConvTasNet_WHAM_enhboth@main")
    assert fetched == ["mpariente/ConvTasNet_WHAM_enhboth@main"]
    assert separator.sources == ("speech", "noise")

    def absent(name: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr("asteroid.utils.hub_utils.cached_download", absent)
    fails("asteroid:a/b", "'a/b' is not in the cache and cannot be fetched (no network): check the name")


def test_espnet_rates_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_espnet(monkeypatch)
    uri = open_espnet(tmp_path).uri
    separator = load_separator(uri)
    assert isinstance(separator, EspnetSeparator)
    assert separator.sources == ("speaker1", "speaker2")
    # the rate in a configuration counts only for networks for many rates
    fails(uri.replace("&sample_rate=8000", ""), "does not say its sampling rate")
    separator.speech.sfi_processing = True
    monkeypatch.setattr(type(separator.speech), "sfi_processing", True, raising=False)
    assert load_separator(uri.replace("&sample_rate=8000", "")).sample_rate == 16000
    fails("espnet:?config=c.yaml", "give ?config=config.yaml&weights=model.pth, both")
    fails(uri.replace("model.pth", "none.pth"), "none.pth' does not exist", FileNotFoundError)
    torch.save({"x": torch.ones(1)}, tmp_path / "model.pth")
    fails(uri, "do not fit TwoFilters: 2 missing (filters.weight, filters.bias); 1 unexpected (x)")


def test_espnet_tags_go_to_its_model_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_espnet(monkeypatch)
    open_espnet(tmp_path)

    class Zoo:
        def download_and_unpack(self, tag: str) -> dict[str, str]:
            if tag != "someone/model":
                raise RuntimeError("no such tag")
            return {"train_config": str(tmp_path / "config.yaml"), "model_file": str(tmp_path / "model.pth")}

    module = types.ModuleType("espnet_model_zoo.downloader")
    module.ModelDownloader = Zoo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "espnet_model_zoo", types.ModuleType("espnet_model_zoo"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert load_separator("espnet:someone/model?sample_rate=8000").sample_rate == 8000
    fails(
        "espnet:else?sample_rate=8000",
        "espnet model 'else' is not in the cache and cannot be fetched (no such",
    )


@pytest.mark.parametrize(
    ("name", "revision", "file"),
    [
        ("me/net/deep/ours.safetensors", None, "deep/ours"),
        ("me/net@v1/ours.safetensors", "v1", "ours"),
        ("me/net@refs%2Fpr%2F1/ours.safetensors", "refs/pr/1", "ours"),
        ("me/net", None, "model"),
    ],
)
def test_our_checkpoints_come_from_the_hub(
    name: str, revision: str | None, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file(tmp_path)
    fetched = []

    def download(repository: str, part: str, *, revision: str | None) -> str:
        fetched.append((repository, part, revision))
        return str(tmp_path / f"ours{Path(part).suffix}")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_separator(f"hf:{name}").sources == ("speech",)
    assert fetched == [("me/net", file + suffix, revision) for suffix in (".yaml", ".safetensors")]


def test_hub_names_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    fails("hf:net", "hf name 'net' is malformed")
    fails("hf:me/net/model.ckpt", "is no .safetensors file")
    fails(
        "hf:me/net",
        "'model.yaml' of me/net on the Hugging Face hub is not in the cache and cannot be fetched",
    )


def test_bare_weights_need_what_the_network_needs(tmp_path: Path) -> None:
    uri = open_weights(tmp_path).uri
    fails(uri.replace("&channels=1", ""), "needs channels: add &channels=...")
    fails(uri.replace("net.yaml", "none.yaml"), "is no network of configs/model: try ")
    fails(uri.replace(str(tmp_path / "net.yaml"), "bsrnn_tinny"), "try bsrnn_tiny")
    fails(uri.replace(str(tmp_path / "net.yaml"), "bsrnn_tiny"), "do not fit BSRNN: ")


def test_networks_of_our_configurations_take_bare_weights(tmp_path: Path) -> None:
    network, _ = bsrnn(features=16, layers=6)
    torch.save(nn.ModuleDict({"module": network}).state_dict(), tmp_path / "w.pt")
    values = "sources=voice&sample_rate=8000&channels=1"
    separator = load_separator(f"weights:{tmp_path / 'w.pt'}?model=bsrnn_xtiny&{values}")
    assert (separator.sources, separator.sample_rate) == (("voice",), 8000)


def test_partial_weights_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = open_weights(tmp_path).uri
    weights = torch.load(tmp_path / "net.pt")["state_dict"]
    gone = next(iter(weights))
    del weights[gone]
    torch.save(weights, tmp_path / "net.pt")
    fails(uri, f"1 missing ({gone.removeprefix('model.')})")
    load_separator(f"{uri}&partial=true")
    assert f"missing: {gone.removeprefix('model.')}" in capsys.readouterr().err
    torch.save({"x": torch.ones(1)}, tmp_path / "net.pt")
    fails(f"{uri}&partial=true", "do not fit")
