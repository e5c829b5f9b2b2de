"""Checkpoints in other projects' own formats, made on the spot, and how those projects call them."""

from __future__ import annotations

import argparse
import os
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchaudio
import yaml
from bs_roformer import BSRoformer, MelBandRoformer
from demucs.apply import apply_model
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from demucs.states import serialize_model
from omegaconf import OmegaConf
from onnx import TensorProto, helper, numpy_helper
from packaged_toys import (
    convtasnet_own,
    deepfilternet_own,
    dtln_own,
    gtcrn_own,
    nsnet2_own,
    rnnoise_own,
    spleeter_own,
)
from separator_toys import ASTEROID, described, small
from torch import Tensor, nn

from encore.models import load_separator
from encore.models.checkpoint import save_separator

ABOUT = "{sources: [low, high], sample_rate: 8000, channels: 1}"
ROFORMER = {
    "dim": 8,
    "depth": 2,
    "dim_head": 8,
    "heads": 2,
    "time_transformer_depth": 1,
    "freq_transformer_depth": 1,
    "stft_n_fft": 128,
    "stft_hop_length": 32,
    "stft_win_length": 128,
    "dim_freqs_in": 65,
    "flash_attn": False,
}
BANDS = {**ROFORMER, "stereo": True, "num_stems": 2, "freqs_per_bands": (5, 20, 40)}
MEL = {**ROFORMER, "num_bands": 4, "sample_rate": 8000}


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint that a loader opens.

    Attributes:
        uri: Its name.
        own: How its project calls it, ``(b, c, t)`` to ``(b, s, c, t)``, where t is 3200.
        differentiable: Whether gradients go through.
        rounding: Deviation by which its project's own arithmetic may differ.
    """

    uri: str
    own: Callable[[Tensor], Tensor]
    differentiable: bool = True
    rounding: float = 1e-6


class TwoFilters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 2, 3, padding=1)

    def forward(self, mixture: Tensor) -> Tensor:
        return self.filters(mixture)


def two_filters() -> TwoFilters:
    torch.manual_seed(0)
    return TwoFilters().eval()


def tiny_asteroid() -> nn.Module:
    from asteroid.models import ConvTasNet

    torch.manual_seed(0)
    return ConvTasNet(2, **ASTEROID["ConvTasNet"]).eval()


def tiny_demucs(kind: str = "hybrid", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    common = {"sources": ["drums", "voice"], "channels": 8, "dconv_comp": 2, "nfft": 1024}
    if kind == "hybrid":
        return HDemucs(**common, depth=5).eval()
    return HTDemucs(**common, t_layers=1, t_heads=2, segment=Fraction(1, 8)).eval()


def demucs_package(model: Any) -> dict[str, Any]:
    return serialize_model(model, OmegaConf.create({}), half=False)


def item_by_item(separate: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A network for mixtures of mean 0 and deviation 1, called as demucs and torchaudio's tutorial do."""

    def one(mixture: Tensor) -> Tensor:
        mono = mixture.mean(1)
        mean, deviation = mono.mean(), mono.std() + 1e-8
        return separate((mixture - mean) / deviation) * deviation + mean

    return lambda mixture: torch.cat([one(item) for item in mixture.split(1)])


def demucs_own(model: Any, *, split: bool = False) -> Callable[[Tensor], Tensor]:
    """What ``demucs.api.Separator`` does to a track, without random shifts."""
    return item_by_item(lambda mixture: apply_model(model, mixture, shifts=0, split=split, overlap=0.25))


def tiny_torchaudio() -> nn.Module:
    torch.manual_seed(0)
    sources = ["drums", "bass", "other", "vocals"]
    return torchaudio.models.HDemucs(sources, channels=8, nfft=1024, depth=5, kernel_size=8).eval()


def roformer_files(folder: Path, options: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """``model.ckpt`` and ``model.yaml`` as trainers of music separators write them."""
    target = None if options.get("num_stems", 1) > 1 else "vocals"
    config = {
        "model": options,
        "audio": {"sample_rate": 8000, "num_channels": 2},
        "training": {"instruments": ["vocals", "other"], "target_instrument": target},
    }
    (folder / "model.yaml").write_text(yaml.dump(config))
    torch.save({"state_dict": weights}, folder / "model.ckpt")
    return f"bs_roformer:{folder / 'model.ckpt'}"


def onnx_file(
    path: Path, *, batch: int | str = "b", length: int | str = "t", about: str = ABOUT
) -> TwoFilters:
    """One convolution as an ONNX graph, and the same as a network."""
    network = two_filters()
    weight, bias = (value.detach().numpy() for value in network.filters.parameters())
    node = helper.make_node("Conv", ["mixture", "weight", "bias"], ["estimates"], pads=[1, 1])
    graph = helper.make_graph(
        [node],
        "filters",
        [helper.make_tensor_value_info("mixture", TensorProto.FLOAT, [batch, 1, length])],
        [helper.make_tensor_value_info("estimates", TensorProto.FLOAT, [batch, 2, length])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if about:
        helper.set_model_props(model, {"encore": about})
    onnx.save(model, path)
    return network


def script_file(path: Path, network: nn.Module, about: str = ABOUT) -> str:
    """A network as a TorchScript file; returns its URI."""
    torch.jit.save(torch.jit.script(network), path, _extra_files={"encore.yaml": about} if about else {})
    return f"torchscript:{path}"


def exported_file(path: Path, network: nn.Module, *, dynamic: bool = True) -> Path:
    size, time = torch.export.Dim("size"), torch.export.Dim("time", min=3)
    shapes = ({0: size, 2: time},) if dynamic else None
    example = torch.randn(2 if dynamic else 1, 1, 3200)
    program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={"encore.yaml": ABOUT})
    return path


class FakeSpeech:
    """The interface of ``espnet2.bin.enh_inference.SeparateSpeech``: arrays out, one for each speaker."""

    def __init__(self, train_config: str, model_file: None) -> None:
        options = yaml.safe_load(Path(train_config).read_text())
        self.enh_train_args = argparse.Namespace(**options)
        self.enh_model = TwoFilters().eval()
        self.num_spk, self.device = 2, "cpu"

    @torch.no_grad()
    def __call__(self, speech_mix: Tensor, fs: int) -> list[np.ndarray]:
        assert fs == 8000
        return [wave.numpy() for wave in self.enh_model(speech_mix[:, None]).unbind(1)]


def fake_espnet(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("espnet2.bin.enh_inference")
    module.SeparateSpeech = FakeSpeech  # type: ignore[attr-defined]
    for name in ("espnet2", "espnet2.bin"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def fails(uri: object, message: str, kind: Any = ValueError) -> None:
    """A separator cannot be opened, and the error says why in one line."""
    with pytest.raises(kind, match=re.escape(message)) as error:
        load_separator(uri)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Trap:
    """What is run when it is unpickled: it touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def mono(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``(b, 1, t)`` to ``(b, s, t)`` with the channel axis that separators have here."""
    return lambda mixture: network(mixture)[:, :, None]


def bsrnn(*sources: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A small network of this project with its configuration."""
    names = sources or ("speech",)
    return small("BSRNN", names, **options), described("BSRNN", names, **options)


def open_file(folder: Path) -> Opened:
    network, config = bsrnn()
    save_separator(folder / "ours.safetensors", network, config)
    return Opened(f"file:{folder / 'ours.safetensors'}", network)


def open_per_source(folder: Path) -> Opened:
    paths, networks = [], []
    for features, name in ((4, "vocals"), (8, "drums")):
        network, config = bsrnn(name, features=features)
        paths.append(str(folder / f"{name}.safetensors"))
        networks.append(network)
        save_separator(paths[-1], network, config)
    return Opened(
        f"per_source:{','.join(paths)}", lambda x: torch.cat([network(x) for network in networks], dim=1)
    )


def open_python(folder: Path) -> Opened:
    network = two_filters()
    torch.save(network.state_dict(), folder / "raw.pt")
    options = f"weights={folder / 'raw.pt'}&sources=low,high&sample_rate=8000"
    return Opened(f"python:pretrained_toys:TwoFilters?{options}", mono(network))


def open_weights(folder: Path) -> Opened:
    network, config = bsrnn()
    config |= {name: f"${{data.{name}}}" for name in ("sources", "sample_rate", "channels")}
    (folder / "net.yaml").write_text(yaml.safe_dump(config))
    torch.save({"state_dict": {f"model.{k}": v for k, v in network.state_dict().items()}}, folder / "net.pt")
    values = "sources=speech&sample_rate=8000&channels=1"
    return Opened(f"weights:{folder / 'net.pt'}?model={folder / 'net.yaml'}&{values}", network)


def open_asteroid(folder: Path) -> Opened:
    network = tiny_asteroid()
    torch.save(network.serialize(), folder / "model.pth")
    return Opened(f"asteroid:{folder / 'model.pth'}", mono(network))


def open_torchaudio(folder: Path) -> Opened:
    network = tiny_torchaudio()
    torch.save(network.state_dict(), folder / "hdemucs.pt")
    return Opened(f"torchaudio:HDEMUCS_HIGH_MUSDB?weights={folder / 'hdemucs.pt'}", item_by_item(network))


def open_demucs(folder: Path) -> Opened:
    network = tiny_demucs()
    torch.save(demucs_package(network), folder / "abc.th")
    return Opened(f"demucs:abc?repo={folder}", demucs_own(network))


def open_bs_roformer(folder: Path) -> Opened:
    torch.manual_seed(0)
    network = BSRoformer(**BANDS).eval()
    return Opened(roformer_files(folder, BANDS, network.state_dict()), network)


def open_mel_roformer(folder: Path) -> Opened:
    torch.manual_seed(0)
    network = MelBandRoformer(**MEL).eval()
    return Opened(
        roformer_files(folder, MEL, network.state_dict()), lambda mixture: network(mixture)[:, None]
    )


def open_espnet(folder: Path) -> Opened:
    network = two_filters()
    (folder / "config.yaml").write_text("encoder_conf: {default_fs: 16000}")
    torch.save(network.state_dict(), folder / "model.pth")
    options = f"config={folder / 'config.yaml'}&weights={folder / 'model.pth'}&sample_rate=8000"
    return Opened(f"espnet:?{options}", mono(network), differentiable=False)


def open_torchscript(folder: Path) -> Opened:
    network = two_filters()
    return Opened(script_file(folder / "model.pt", network), mono(network))


def open_exported(folder: Path) -> Opened:
    network = two_filters()
    return Opened(f"exported:{exported_file(folder / 'model.pt2', network)}", mono(network))


def open_onnx(folder: Path) -> Opened:
    network = onnx_file(folder / "model.onnx")
    return Opened(f"onnx:{folder / 'model.onnx'}", mono(network), differentiable=False)


def open_dtln(_: Path) -> Opened:
    return Opened("dtln:", dtln_own())


def open_gtcrn(_: Path) -> Opened:
    return Opened("gtcrn:", gtcrn_own())


def open_deepfilternet(_: Path) -> Opened:
    return Opened("deepfilternet:", deepfilternet_own())


def open_nsnet2(_: Path) -> Opened:
    return Opened("nsnet2:", nsnet2_own(16000))


def open_nsnet2_48k(_: Path) -> Opened:
    return Opened("nsnet2:48k", nsnet2_own(48000))


def open_convtasnet(_: Path) -> Opened:
    # its graph sums for a norm in single precision: double precision agrees with ours to 1e-6
    return Opened("convtasnet:", convtasnet_own(), rounding=1e-5)


def open_spleeter(_: Path) -> Opened:
    return Opened("spleeter:2stems", spleeter_own())


def open_rnnoise(_: Path) -> Opened:
    return Opened("rnnoise:", rnnoise_own(), differentiable=False)


FAMILIES: dict[str, Callable[[Path], Opened]] = {
    name.removeprefix("open_"): value for name, value in list(globals().items()) if name.startswith("open_")
}
