"""Files without a scheme: recognised by their content, or one line that names the scheme."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretrained_toys import (
    BANDS,
    FAMILIES,
    TwoFilters,
    demucs_package,
    exported_file,
    fails,
    onnx_file,
    open_file,
    roformer_files,
    script_file,
    tiny_asteroid,
    tiny_demucs,
)
from safetensors.torch import save_file

from encore.common.files import file_kind
from encore.models import load_separator

pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_kind_is_recognised_under_any_name(tmp_path: Path) -> None:
    path, network = tmp_path / "file.bin", TwoFilters()
    script_file(path, network)
    assert file_kind(path) == "torchscript"
    exported_file(tmp_path / "file.pt2", network)
    assert file_kind((tmp_path / "file.pt2").replace(path)) == "exported"
    onnx_file(path)
    assert file_kind(path) == "onnx"
    save_file(network.state_dict(), path)
    assert file_kind(path) == "safetensors"
    for content in (network.state_dict(), network, {}, [1], torch.ones(3)):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            assert file_kind(path) == "pickle"
    torch.save(network.state_dict(), path)
    for data in (
        b"",
        b"PK",
        b"\x08",
        b"{}",
        b"text, and more of it",
        b"RIFF....WAVE",
        path.read_bytes()[:300],
    ):
        path.write_bytes(data)
        assert file_kind(path) == "unknown"


@pytest.mark.parametrize("family", ["torchscript", "exported", "onnx", "asteroid", "bs_roformer", "file"])
def test_files_that_say_what_they_are_need_no_scheme(family: str, tmp_path: Path) -> None:
    uri = FAMILIES[family](tmp_path).uri
    expected, path = load_separator(uri), uri.partition(":")[2]
    mixture = 0.1 * torch.randn(2, expected.channels, 800, generator=torch.Generator().manual_seed(0))
    for name in (path, f"{path}?level=none", Path(path)):
        separator = load_separator(name)
        assert separator.sources == expected.sources
        torch.testing.assert_close(separator(mixture), expected(mixture))


def test_demucs_files_and_safetensors_with_their_yaml_need_no_scheme(tmp_path: Path) -> None:
    torch.save(demucs_package(tiny_demucs()), tmp_path / "a.pt")
    assert load_separator(tmp_path / "a.pt").sources == ("drums", "voice")
    open_file(tmp_path)
    assert load_separator(str(tmp_path / "ours.safetensors")).sources == ("speech",)
    from bs_roformer import BSRoformer

    roformer_files(tmp_path, BANDS, BSRoformer(**BANDS).state_dict())
    weights = torch.load(tmp_path / "model.ckpt")["state_dict"]
    save_file({name: value.clone() for name, value in weights.items()}, tmp_path / "model.safetensors")
    assert load_separator(tmp_path / "model.safetensors").sources == ("vocals", "other")


def test_options_follow_a_path(tmp_path: Path) -> None:
    script_file(tmp_path / "net.pt", TwoFilters(), "")
    separator = load_separator(f"{tmp_path / 'net.pt'}?sources=a,b&sample_rate=8000&level=least_squares")
    assert (separator.sources, separator.sample_rate) == (("a", "b"), 8000)
    fails(
        str(tmp_path / "net.pt"),
        f"--separator '{tmp_path / 'net.pt'}?sources=speech,noise&sample_rate=16000'",
    )


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
def test_bare_weights_name_the_schemes_that_give_an_architecture(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"raw{suffix}"
    if suffix == ".safetensors":
        save_file(TwoFilters().state_dict(), path)
    else:
        torch.save({"state_dict": TwoFilters().state_dict(), "epoch": 3}, path)
    example = f"--separator 'python:MODULE:CLASS?weights={path}&sources=speech,noise&sample_rate=16000'"
    fails(path, f"'{path}' holds weights without an architecture")
    fails(str(path), example)
    fails(str(path), f"--separator 'weights:{path}?model=conv_tasnet_small&")
    # the example works as it is typed
    uri = example.removeprefix("--separator '").removesuffix("'")
    separator = load_separator(uri.replace("MODULE:CLASS", "pretrained_toys:TwoFilters"))
    assert separator.sources == ("speech", "noise")


def test_files_of_objects_name_their_class(tmp_path: Path) -> None:
    torch.save(TwoFilters(), tmp_path / "whole.pt")
    fails(
        tmp_path / "whole.pt",
        "is refused: it is not a file of tensors and plain values, but of Python objects "
        "(torch.nn.modules.conv.Conv1d, pretrained_toys.TwoFilters)",
    )
    fails(tmp_path / "whole.pt", "python:pretrained_toys:TwoFilters?weights=")
    torch.save({"state_dict": {}, "hyper_parameters": {"path": Path("a")}}, tmp_path / "run.ckpt")
    fails(tmp_path / "run.ckpt", "but of Python objects (pathlib.")
    torch.save(TwoFilters(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    fails(tmp_path / "old.pt", "is not a file of tensors and plain values")


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    fails(tmp_path / "none.pt", "none.pt' does not exist or is not a file", FileNotFoundError)
    fails(
        "htdemucs",
        "'htdemucs' does not exist or is not a file: check the path, or write scheme:name",
        FileNotFoundError,
    )
    (tmp_path / "song.wav").write_bytes(b"RIFF" + bytes(40))
    fails(tmp_path / "song.wav", "song.wav' is not a checkpoint, weights file, TorchScript")
    torch.save([1], tmp_path / "list.pt")
    fails(tmp_path / "list.pt", "holds no weights but a list")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    fails(tmp_path / "epoch.pt", "holds no weights, but epoch")
    open_file(tmp_path)
    for suffix in ("safetensors", "yaml"):
        name = "moved.st" if suffix == "safetensors" else "moved.yaml"
        (tmp_path / f"ours.{suffix}").rename(tmp_path / name)
    assert load_separator(tmp_path / "moved.st").sources == ("speech",)
    torch.save(tiny_asteroid().serialize(), tmp_path / "a.bin")  # type: ignore[operator]
    assert load_separator(tmp_path / "a.bin").sources == ("speaker1", "speaker2")
