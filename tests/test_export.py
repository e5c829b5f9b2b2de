"""Written graphs compute what the separator does, for lengths and batches that were not traced."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import onnx
import pytest
import torch
import yaml
from asteroid.models import ConvTasNet
from separator_toys import ASTEROID, noise, small
from torch import Tensor, nn

from encore.models.checkpoint import instantiate, save_separator
from encore.models.export import Extent, largest_difference, write
from encore.models.export.__main__ import main
from encore.models.loading import load_separator
from encore.models.separators.asteroid import frames
from encore.models.separators.contract import AdaptedSeparator

BSRNN_CONFIG = {
    "_target_": "encore.models.separators.bsrnn.BSRNN",
    "sources": ["speech"],
    "sample_rate": 8000,
    "channels": 2,
    "features": 4,
    "layers": 1,
    "bands": [[1, 1000.0]],
    "max_sample_rate": 8000,
    "compression": 0.5,
}


def frozen(name: str) -> nn.Module:
    """A network of `small`, or one as asteroid built it."""
    if name == "asteroid's own":
        torch.manual_seed(0)
        network = ConvTasNet(n_src=2, norm_type="fgLN", sample_rate=8000, **ASTEROID["ConvTasNet"])
        shortest, step = frames(network)
        separator = AdaptedSeparator(["a", "b"], 8000, 1, network, shortest=shortest, step=step)
        return separator.eval().requires_grad_(False)
    options = {"highest_frequency": 3000.0} if name.startswith(("DTTNet", "SpectrogramUNet")) else {}
    return small(name, **options).requires_grad_(False)


def bsrnn() -> nn.Module:
    torch.manual_seed(0)
    separator = instantiate(BSRNN_CONFIG)
    # the decoders start out near identity; random ones tell masks and residuals apart
    for parts in (separator.masks, separator.residuals):
        for part in parts:
            nn.init.normal_(part.network[3].weight, std=0.3)
    return separator.eval().requires_grad_(False)


# torch.export refuses recurrences over a single step, and then the file says so
SHORTEST = {"LSTMTasNet": 17, "DTTNet": 129}
NETWORKS = ["ConvTasNet", "asteroid's own", "DPRNNTasNet", "LSTMTasNet", "SuDORMRFNet", "DTTNet"]
NETWORKS += ["SpectrogramUNet shared", "ConditionedMasks"]
ONNX = [("ConvTasNet", ".onnx"), ("DPRNNTasNet", ".onnx")]


@pytest.mark.parametrize(("name", "suffix"), [*product(NETWORKS, (".pt2", ".pt")), *ONNX])
def test_graphs_keep_any_length(name: str, suffix: str, tmp_path: Path) -> None:
    separator = frozen(name)
    run, extent = write(tmp_path / f"a{suffix}", separator)
    assert extent == Extent(shortest=SHORTEST.get(name, 1) if suffix == ".pt2" else 1)
    # whole frames or not, few frames or many, one item or many
    for shape in ((1, 1, 4001), (3, 1, 4002), (2, 1, 8000), (1, 1, 129), (2, 1, extent.shortest)):
        torch.testing.assert_close(run(noise(*shape)), separator(noise(*shape)), rtol=1e-4, atol=1e-5)


def test_bsrnn_in_every_format(tmp_path: Path) -> None:
    separator = bsrnn()
    for name, whole, part in (
        ("a.pt2", False, "whole"),
        ("a.pt", False, "whole"),
        ("core.onnx", False, "core"),
        ("whole.onnx", True, "whole"),
    ):
        run, extent = write(tmp_path / name, separator, whole=whole)
        assert extent == Extent(part=part)
        for shape in ((1, 2, 4001), (3, 2, 1), (2, 2, 79), (2, 2, 160)):
            torch.testing.assert_close(run(noise(*shape)), separator(noise(*shape)), rtol=1e-4, atol=1e-5)
    # the bounds of a program that takes every length begin at 0 samples
    opened = load_separator(tmp_path / "a.pt2")
    torch.testing.assert_close(opened(noise(1, 2, 1)), separator(noise(1, 2, 1)), rtol=1e-4, atol=1e-5)
    described = {
        item.key: yaml.safe_load(item.value) for item in onnx.load(tmp_path / "core.onnx").metadata_props
    }["encore"]
    assert (described["sources"], described["sample_rate"], described["channels"]) == (["speech"], 8000, 2)
    assert described["transform"]["hop_length"] == 80
    for name, names in (("whole", ["mixture", "estimates"]), ("core", ["spectrum", "masks", "residuals"])):
        graph = onnx.load(tmp_path / f"{name}.onnx").graph
        assert [value.name for value in (*graph.input, *graph.output)] == names
    files = {"encore.yaml": ""}
    torch.export.load(tmp_path / "a.pt2", extra_files=files)
    assert yaml.safe_load(files["encore.yaml"])["sample_rate"] == 8000
    files = {"encore.yaml": ""}
    torch.jit.load(str(tmp_path / "a.pt"), _extra_files=files)
    assert yaml.safe_load(files["encore.yaml"])["channels"] == 2


class FixedLength(nn.Module):
    """A network that is traced for one length only."""

    sources, sample_rate, channels = ("speech",), 8000, 1

    def forward(self, mixture: Tensor) -> Tensor:
        weights = torch.linspace(0, 1, int(mixture.shape[2]))
        return (mixture * weights)[:, None]


def test_a_length_that_cannot_stay_open_is_fixed_on_demand(tmp_path: Path) -> None:
    separator = FixedLength().eval()
    with pytest.raises(ValueError, match="FixedLength is not exported for any length; fix one by --seconds"):
        write(tmp_path / "a.pt2", separator)
    run, extent = write(tmp_path / "a.pt2", separator, seconds=0.1)
    assert extent == Extent(time=800)
    assert extent.describe() == "whole, any batch, 800 samples only"
    assert largest_difference(run, separator, extent) == 0


def test_a_difference_is_measured_against_the_peak() -> None:
    separator = FixedLength().eval()
    peak = separator(noise(1, 1, 100)).abs().max()
    off = largest_difference(lambda x: separator(x) + 0.01, separator, Extent(time=100, batch=1))
    assert 0.5 < off / (0.01 / peak) < 2
    nothing = largest_difference(lambda x: separator(x)[..., :-1], separator, Extent())
    assert nothing == float("inf")
    assert largest_difference(lambda x: separator(x) / 0 * 0, separator, Extent()) != 0


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_separator(tmp_path / "given.safetensors", bsrnn(), BSRNN_CONFIG)
    return tmp_path / "given.safetensors"


def test_the_command_writes_and_compares(checkpoint: Path, capsys) -> None:
    out = checkpoint.parent / "new" / "out.pt"
    assert main([str(checkpoint), str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"wrote {out}: whole, any batch, any length; largest difference ")
    again = checkpoint.parent / "again.safetensors"
    assert main([str(checkpoint), str(again)]) == 0
    states = load_separator(checkpoint).state_dict(), load_separator(again).state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_file_that_differs_is_deleted(checkpoint: Path, capsys, monkeypatch) -> None:
    out = checkpoint.parent / "out.pt"
    original = torch.jit.trace

    def wrong(module: nn.Module, *given: object, **options: object) -> object:
        monkeypatch.setattr(module, "compression", 1.0)
        return original(module, *given, **options)

    monkeypatch.setattr(torch.jit, "trace", wrong)
    # the comparison is with a separator that is as it was
    separator = load_separator(checkpoint)
    monkeypatch.setattr(
        "encore.models.export.__main__.largest_difference",
        lambda run, _, extent: largest_difference(run, separator, extent),
    )
    assert main([str(checkpoint), str(out)]) == 1
    assert "differed from the separator by" in capsys.readouterr().err
    assert not out.exists()


def test_a_file_that_fails_is_deleted(checkpoint: Path, capsys, monkeypatch) -> None:
    out = checkpoint.parent / "out.pt"

    def only_one_length(path: Path, kind: str) -> object:
        def run(mixture: Tensor) -> Tensor:
            raise RuntimeError("Traceback of TorchScript\nit has 4000 samples")

        return run

    monkeypatch.setattr("encore.models.export.files.load_graph", only_one_length)
    assert main([str(checkpoint), str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "(1, 2, 2961): it has 4000 samples; fix the length by --seconds S" in line
    assert not out.exists()


INSTALL = 'pip install "encore-separation[onnx]"'
MISTAKES = [
    ("given.safetensors", "h5", [], None, "ends in '.h5': choose one of .safetensors, .pt2, .onnx, .pt"),
    ("given.safetensors", "pt2", ["--whole"], None, "--whole is for .onnx"),
    ("given.safetensors", "pt2", ["--seconds", "0"], None, "--seconds 0 is no sample"),
    ("no.ckpt", "pt2", [], None, "no.ckpt' does not exist"),
    ("given.safetensors", "onnx", [], "onnx", f"package onnx: {INSTALL}"),
    ("given.safetensors", "onnx", [], "onnxscript", f"package onnxscript: {INSTALL}"),
    ("given.safetensors", "onnx", [], "onnxruntime", f"package onnxruntime: {INSTALL}"),
]


@pytest.mark.parametrize(("given", "suffix", "options", "missing", "words"), MISTAKES)
def test_mistakes_are_one_line_and_nothing_is_written(
    given, suffix, options, missing, words, checkpoint: Path, capsys, monkeypatch
) -> None:
    if missing is not None:
        monkeypatch.setitem(sys.modules, missing, None)
    folder = checkpoint.parent
    assert main([str(folder / given), str(folder / f"out.{suffix}"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (folder / f"out.{suffix}").exists()
