from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from pretrained_toys import bsrnn, open_file, same
from safetensors.torch import save_file
from torch import nn

from encore.common.files import read_safely, tensors_only
from encore.models.weights import load_weights, read_state_dict


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize("nest", [None, "state_dict", "state", "model_state_dict", "model"])
def test_weights_are_found_wherever_scripts_keep_them(nest: str | None, tmp_path: Path) -> None:
    weights = dict(network().state_dict())
    torch.save({nest: weights, "epoch": 3, "optimizer": {"lr": 0.1}} if nest else weights, tmp_path / "a.pt")
    assert same(read_state_dict(tmp_path / "a.pt"), weights)


def test_safetensors_are_read(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pt"):
        save_file(network().state_dict(), tmp_path / name)
        assert same(read_state_dict(tmp_path / name), dict(network().state_dict()))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.generator."])
def test_a_prefix_is_left_out_where_that_makes_names_fit(prefix: str) -> None:
    target = network(1)
    weights = {prefix + name: value for name, value in network().state_dict().items()}
    load_weights(target, weights, "a.pt")
    assert same(dict(target.state_dict()), dict(network().state_dict()))
    # one that the network has itself stays
    outer = nn.ModuleDict({"module": nn.ModuleDict({"_orig_mod": network(1)})})
    weights = {f"module._orig_mod.{name}": value for name, value in network().state_dict().items()}
    load_weights(outer, weights, "a.pt")
    assert same(dict(outer.state_dict()), weights)


def test_partial_loading_accounts_for_every_name() -> None:
    target, before = network(1), dict(network(1).state_dict())
    weights = {f"model.{name}": value for name, value in network().state_dict().items()}
    weights["model.1.weight"] = torch.ones(5, 4)
    del weights["model.0.bias"]
    weights["loss.scale"] = torch.ones(1)
    assert load_weights(target, weights, "a.pt", partial=True).split("\n") == [
        "weights: 2 loaded, 1 missing, 1 unexpected, 1 of another shape",
        "missing: 0.bias",
        "unexpected: loss.scale",
        "of another shape: 1.weight is (5, 4) in the file and (2, 4) in the network",
    ]
    after = target.state_dict()
    assert torch.equal(after["0.weight"], weights["model.0.weight"])
    assert torch.equal(after["1.weight"], before["1.weight"])
    assert torch.equal(after["1.bias"], weights["model.1.bias"])
    words = "'a.pt' do not fit Sequential: 1 missing (0.bias); 1 unexpected (loss.scale); 1 of another shape "
    words += "(1.weight is (5, 4) in the file and (2, 4) in the network)"
    with pytest.raises(ValueError, match=re.escape(words)):
        load_weights(target, weights, "a.pt")


def test_training_starts_from_ours_or_from_anybodys_weights(tmp_path: Path) -> None:
    open_file(tmp_path)
    network, config = bsrnn()
    expected = dict(network.state_dict())
    assert same(read_state_dict(tmp_path / "ours.safetensors"), expected)
    # beside the network, a training module may have weights of its own
    state = {f"separator.{name}": value for name, value in expected.items()} | {"loss.scale": torch.ones(1)}
    torch.save({"state_dict": state, "hyper_parameters": {"model": config}}, tmp_path / "run.ckpt")
    assert same(read_state_dict(tmp_path / "run.ckpt"), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, r"holds no state dictionary, .* it holds epoch"),
        ([1], "it holds list"),
        (b"text", r"a\.pt' is not a file of tensors and plain values"),
        ({"a": torch.zeros(5000)}, r"a\.pt' .*was it cut off\?"),
    ],
)
def test_files_without_weights_are_named(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(content, path)
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=message):
        read_state_dict(path)
    for suffix in (".pt", ".safetensors"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read_state_dict(tmp_path / f"none{suffix}")


def test_other_projects_are_held_to_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    torch.save(network(), path)
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(name, raising=False)
    with tensors_only(), pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path, weights_only=False)
    assert name not in os.environ
    monkeypatch.setenv(name, "0")
    with tensors_only():
        assert os.environ[name] == "1"
    assert os.environ[name] == "0"


def test_named_classes_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"version": torch.torch_version.TorchVersion("2.0")}, path)
    with pytest.raises(ValueError, match="is not a file of tensors"):
        read_safely(path)
    assert read_safely(path, classes=[torch.torch_version.TorchVersion])["version"] == "2.0"
