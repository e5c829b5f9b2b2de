from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pretrained_toys import Trap, TwoFilters, exported_file, fails, mono, onnx_file, script_file, two_filters
from torch import Tensor, nn

from encore.models import load_separator

pytestmark = pytest.mark.filterwarnings("ignore")
MIXTURE = 0.1 * torch.randn(2, 1, 3200, generator=torch.Generator().manual_seed(0))


class Negated(nn.Module):
    """The mixture and its negative, of all its channels."""

    def forward(self, mixture: Tensor) -> Tensor:
        return torch.stack([mixture, -mixture], dim=1)


def test_a_graph_takes_the_channels_that_it_says(tmp_path: Path) -> None:
    uri = script_file(tmp_path / "m.pt", Negated(), "{sources: [a, b], sample_rate: 8000, channels: 2}")
    pair = MIXTURE.expand(-1, 2, -1)
    torch.testing.assert_close(load_separator(uri)(pair), torch.stack([pair, -pair], dim=1))


def test_graphs_that_do_not_separate_say_why(tmp_path: Path) -> None:
    uri = script_file(tmp_path / "m.pt", TwoFilters(), "")
    fails(
        uri,
        f"does not say its sources and sample_rate: give them, as in --separator '{tmp_path}/m.pt?sources",
    )
    fails(f"{uri}?sources=a,b", "does not say its sample_rate: give them")
    # its shapes and layouts in words: see test_as_separator
    fails(f"{uri}?sources=a,b,c&sample_rate=8000", "does not separate noise of shape (2, 1, 8000) with ")
    fails(f"{uri}?sources=a,b&sample_rate=8000&layout=bt&channels=2", "layout=bt takes one channel")
    fails(f"{uri}?sources=a,b&sample_rate=8000&layout=bt", "(batch, time) it fails")
    fails("torchscript:none.pt", "'none.pt' does not exist", FileNotFoundError)
    fails(script_file(tmp_path / "m.pt", TwoFilters(), "- 1"), "hold no mapping of sources")
    fails(
        script_file(tmp_path / "m.pt", TwoFilters(), "{sources: [a, b], sample_rate: 8k}"), "no whole number"
    )


def test_options_win_over_what_a_file_says(tmp_path: Path) -> None:
    separator = load_separator(f"{script_file(tmp_path / 'm.pt', TwoFilters())}?sources=x,y")
    assert separator.sources == ("x", "y")


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_graphs_of_fixed_shape_take_items_one_by_one(suffix: str, tmp_path: Path) -> None:
    path, network = tmp_path / f"m.{suffix}", two_filters()
    if suffix == "onnx":
        onnx_file(path, batch=1, length=3200)
    else:
        exported_file(path, network, dynamic=False)
    separator, own = load_separator(path), mono(network.requires_grad_(False))
    torch.testing.assert_close(separator(MIXTURE), own(MIXTURE))
    short = torch.nn.functional.pad(MIXTURE[..., :700], (0, 2500))
    torch.testing.assert_close(separator(MIXTURE[..., :700]), own(short)[..., :700])
    with pytest.raises(ValueError, match=r"mixture has 3201 samples, and the graph takes 3200.* 0\.4 s"):
        separator(torch.zeros(1, 1, 3201))


def test_onnx_graphs_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx_file(path, batch=4)
    fails(f"onnx:{path}", "the graph takes batches of 4 only")
    onnx_file(path, about="")
    fails(f"onnx:{path}", "does not say its sources")
    assert load_separator(f"onnx:{path}?sources=a,b&sample_rate=8000").sample_rate == 8000


def test_double_precision_comes_back_as_it_went_in(tmp_path: Path) -> None:
    onnx_file(tmp_path / "m.onnx")
    assert load_separator(f"onnx:{tmp_path / 'm.onnx'}")(MIXTURE.double()).dtype == torch.float64


def changed(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """An exported program whose members are changed by their names and bytes."""
    out = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        members = {name: source.read(name) for name in source.namelist()}
        for name, data in members.items():
            target.writestr(name, change(name, data))
    assert any(change(name, data) != data for name, data in members.items())
    return out


@pytest.mark.parametrize(
    ("key", "evil"),
    [
        ("expr_str", "__import__('os').system('touch marker')"),
        ("expr_str", "eval(chr(49))"),
        ("expr_str", "Symbol('s0').__class__"),
        ("target", "torch.os.system"),
        ("target", "torch.ops.load_library"),
        ("target", "torch.hub.load"),
        ("target", "_operator.__class__"),
    ],
)
def test_exported_programs_can_name_sizes_and_operators_only(key: str, evil: str, tmp_path: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        written = f'"{key}": {json.dumps(evil)}'
        return (
            re.sub(rf'"{key}": "[^"]*"', written, data.decode()).encode() if name.endswith(".json") else data
        )

    path = changed(exported_file(tmp_path / "m.pt2", TwoFilters()), change)
    fails(f"exported:{path}", f"is refused: its {key} '{evil}' is no plain operator or size of torch")


def test_exported_programs_with_compiled_code_are_refused(tmp_path: Path) -> None:
    path = exported_file(tmp_path / "m.pt2", TwoFilters())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m/data/aotinductor/model/a.so", b"")
    fails(f"exported:{path}", "holds compiled code (m/data/aotinductor/model/a.so)")


def test_pickles_inside_an_exported_program_are_refused(tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "marker"), tmp_path / "trap.pt")
    trap = (tmp_path / "trap.pt").read_bytes()
    path = changed(
        exported_file(tmp_path / "m.pt2", TwoFilters()),
        lambda name, data: trap if name.endswith("sample_inputs/model.pt") else data,
    )
    fails(f"exported:{path}", "is not a program of torch.export: ")
    assert not (tmp_path / "marker").exists()
