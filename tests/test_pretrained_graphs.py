from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
import torch
from pretrained_toys import ABOUT, FlatFilters, TwoFilters, exported_file, onnx_file
from torch import Tensor, nn

from encore.models import load_separator

pytestmark = pytest.mark.filterwarnings("ignore")
MIXTURE = 0.1 * torch.randn(2, 1, 3200, generator=torch.Generator().manual_seed(0))


def fails(uri: str, message: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=re.escape(message)) as error:
        load_separator(uri)
    assert "\n" not in str(error.value)


def script(path: Path, network: nn.Module, about: str = ABOUT) -> str:
    extra = {"encore.yaml": about} if about else {}
    torch.jit.save(torch.jit.script(network), path, _extra_files=extra)
    return f"torchscript:{path}"


class Stereo(nn.Module):
    """Two sources of two channels, with both axes."""

    def forward(self, mixture: Tensor) -> Tensor:
        return torch.stack([mixture, -mixture], dim=1)


class Same(nn.Module):
    """One source, without an axis for it."""

    def forward(self, mixture: Tensor) -> Tensor:
        return 0.5 * mixture


def test_layouts_are_found(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.manual_seed(0)
    flat = FlatFilters()
    separator = load_separator(script(path, flat))
    assert separator.layout == "bt"  # type: ignore[attr-defined]
    torch.testing.assert_close(separator(MIXTURE)[:, :, 0], flat(MIXTURE[:, 0]).detach())
    stereo = load_separator(script(path, Stereo(), "{sources: [a, b], sample_rate: 8000, channels: 2}"))
    pair = MIXTURE.expand(-1, 2, -1)
    torch.testing.assert_close(stereo(pair), torch.stack([pair, -pair], dim=1))
    for channels in (1, 2):
        said = f"{{sources: [a], sample_rate: 8000, channels: {channels}}}"
        same = load_separator(script(path, Same(), said))
        given = MIXTURE.expand(-1, channels, -1)
        torch.testing.assert_close(same(given), 0.5 * given[:, None])


def test_graphs_that_do_not_separate_say_why(tmp_path: Path) -> None:
    uri = script(tmp_path / "m.pt", TwoFilters(), "")
    fails(
        uri,
        f"does not say its sources and sample_rate: give them, as in --separator '{tmp_path}/m.pt?sources",
    )
    fails(f"{uri}?sources=a,b", "does not say its sample_rate: give them")
    fails(
        f"{uri}?sources=a,b,c&sample_rate=8000",
        "does not separate noise of shape (2, 1, 8000) with sources=a,b,c and channels=1: as (batch, "
        "channel, time) it fails (estimates are (2, 2, 8000), not (batch, source, channel, time) = "
        "(2, 3, 1, 8000)",
    )
    fails(f"{uri}?sources=a,b&sample_rate=8000&layout=tb", "layout=tb: choose one of bct, bt")
    fails(f"{uri}?sources=a,b&sample_rate=8000&layout=bt&channels=2", "layout=bt takes one channel")
    fails(f"{uri}?sources=a,b&sample_rate=8000&layout=bt", "(batch, time) it fails")
    fails("torchscript:none.pt", "'none.pt' does not exist", FileNotFoundError)
    fails(script(tmp_path / "m.pt", TwoFilters(), "- 1"), "hold no mapping of sources")
    fails(script(tmp_path / "m.pt", TwoFilters(), "{sources: [a, b], sample_rate: 8k}"), "no whole number")


def test_options_win_over_what_a_file_says(tmp_path: Path) -> None:
    separator = load_separator(f"{script(tmp_path / 'm.pt', TwoFilters())}?sources=x,y")
    assert separator.sources == ("x", "y")


@pytest.mark.parametrize("scheme", ["onnx", "exported"])
def test_graphs_of_fixed_shape_take_items_one_by_one(scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    network: nn.Module = TwoFilters()
    if scheme == "onnx":
        network = onnx_file(path, batch=1, length=3200)
    else:
        exported_file(path.with_suffix(".pt2"), network, dynamic=False)
    separator = load_separator(f"{scheme}:{path if scheme == 'onnx' else path.with_suffix('.pt2')}")
    torch.testing.assert_close(separator(MIXTURE)[:, :, 0], network(MIXTURE).detach())
    short = torch.nn.functional.pad(MIXTURE[..., :700], (0, 2500))
    torch.testing.assert_close(separator(MIXTURE[..., :700])[:, :, 0], network(short)[..., :700].detach())
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
    path = exported_file(tmp_path / "m.pt2", TwoFilters())
    changed = tmp_path / "changed.pt2"
    count = 0
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".json"):
                text, found = re.subn(rf'"{key}": "[^"]*"', f'"{key}": {json.dumps(evil)}', data.decode())
                data, count = text.encode(), count + found
            target.writestr(name, data)
    assert count > 0
    fails(f"exported:{changed}", f"is refused: its {key} '{evil}' is no plain operator or size of torch")


def test_exported_programs_with_compiled_code_are_refused(tmp_path: Path) -> None:
    path = exported_file(tmp_path / "m.pt2", TwoFilters())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m/data/aotinductor/model/a.so", b"")
    fails(f"exported:{path}", "holds compiled code (m/data/aotinductor/model/a.so)")


def test_pickles_inside_an_exported_program_are_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "marker",)  # type: ignore[return-value]

    path = exported_file(tmp_path / "m.pt2", TwoFilters())
    changed = tmp_path / "changed.pt2"
    torch.save(Trap(), tmp_path / "trap.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        names = source.namelist()
        for name in names:
            inputs = name.endswith("sample_inputs/model.pt")
            target.writestr(name, (tmp_path / "trap.pt").read_bytes() if inputs else source.read(name))
    assert any(name.endswith("sample_inputs/model.pt") for name in names)
    fails(f"exported:{changed}", "is not a program of torch.export: ")
    assert not (tmp_path / "marker").exists()
