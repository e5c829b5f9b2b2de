"""Networks and functions of the user's own as separators: equal to the function for any length and batch."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pretrained_toys import TwoFilters, fails
from torch import Tensor, nn

from encore.models import as_separator, load_separator
from encore.models.types import LoadedSeparator

RATE = 8000
OPTIONS = {"sources": ["a"], "sample_rate": RATE}


def noise(channels: int, length: int, batch: int = 2) -> Tensor:
    return 0.1 * torch.randn(batch, channels, length, generator=torch.Generator().manual_seed(0)) + 0.01


def masks(mixture: Tensor) -> Tensor:
    """``(..., t)`` to two sources ``(2, ..., t)`` that sum to it."""
    mask = torch.linspace(0, 1, mixture.shape[-1])
    return torch.stack([mask * mixture, (1 - mask) * mixture])


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "b t -> b t": lambda x: masks(x.reshape(len(x), x.shape[1]))[0],
    "b t -> b s t": lambda x: masks(x.reshape(len(x), x.shape[1])).movedim(0, 1),
    "b t -> b s c t": lambda x: masks(x.reshape(len(x), x.shape[1])).movedim(0, 1)[:, :, None],
    "b c t -> b c t": lambda x: masks(x.reshape(len(x), 2, -1))[0],
    "b 1 t -> b t": lambda x: masks(x.reshape(len(x), 1, x.shape[2]))[0, :, 0],
    "b 1 t -> b 1 t": lambda x: masks(x.reshape(len(x), 1, x.shape[2]))[0],
    "b 1 t -> b s t": lambda x: masks(x.reshape(len(x), 1, x.shape[2]))[:, :, 0].movedim(0, 1),
    "b 1 t -> b s 1 t": lambda x: masks(x.reshape(len(x), 1, x.shape[2])).movedim(0, 1),
    "b c t -> b s c t": lambda x: masks(x.reshape(len(x), 2, x.shape[2])).movedim(0, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_what_the_function_gives(layout: str) -> None:
    channels, names = 2 if layout.startswith("b c") else 1, ("speech", "noise")[: 2 if " s " in layout else 1]
    separator = as_separator(LAYOUTS[layout], sources=names, sample_rate=RATE, channels=channels)
    assert isinstance(separator, LoadedSeparator)
    assert (separator.sources, separator.sample_rate, separator.channels) == (names, RATE, channels)
    for length in (1, 2, 3201):
        for batch in (1, 3):
            mixture = noise(channels, length, batch)
            torch.testing.assert_close(separator(mixture), masks(mixture)[: len(names)].movedim(0, 1))


class Framed(nn.Module):
    """Takes whole frames only, two at least, and has dropout."""

    def __init__(self, frame: int) -> None:
        super().__init__()
        self.frame, self.scale = frame, nn.Parameter(torch.tensor(0.5))
        self.dropout = nn.Dropout(0.5)

    def forward(self, mixture: Tensor) -> Tensor:
        if mixture.shape[-1] % self.frame or mixture.shape[-1] < 2 * self.frame:
            raise RuntimeError("whole frames")
        return self.scale * self.dropout(mixture)


@pytest.mark.parametrize("frame", [1, 16, 80, 256])
def test_any_length_is_padded_to_what_the_network_takes(frame: int) -> None:
    separator = as_separator(Framed(frame), **OPTIONS)
    for length in (1, 5, frame + 1, 3000):
        torch.testing.assert_close(separator(noise(1, length)), 0.5 * noise(1, length)[:, None])


def test_a_network_whose_estimates_are_too_short_is_padded_to_whole_frames() -> None:
    torch.manual_seed(0)
    encoder, decoder = nn.Conv1d(1, 4, 16, 8), nn.ConvTranspose1d(4, 1, 16, 8)
    network = nn.Sequential(encoder, decoder)
    separator = as_separator(network, **OPTIONS)
    for length in (1, 100, 801):
        padded = nn.functional.pad(noise(1, length), (0, -length % 8 + max(0, 16 - length - -length % 8)))
        torch.testing.assert_close(separator(noise(1, length)), network(padded)[:, None, :, :length])


def test_a_function_that_takes_one_item_or_mixes_items_is_called_item_by_item() -> None:
    def single(mixture: Tensor) -> Tensor:
        assert len(mixture) == 1
        return 0.5 * mixture

    def normalized(mixture: Tensor) -> Tensor:
        return mixture / mixture.abs().max()

    for function in (single, normalized):
        separator = as_separator(function, **OPTIONS)
        mixture = torch.tensor([1.0, 0.1])[:, None, None] * noise(1, 900)
        torch.testing.assert_close(
            separator(mixture), torch.stack([function(item) for item in mixture.split(1)])
        )


def test_a_network_is_evaluated_and_moves_and_tells_what_it_is() -> None:
    network = Framed(1)
    network.sources, network.sample_rate = ["voice"], 16000  # type: ignore[assignment]
    separator = as_separator(network)
    assert not network.training
    assert (separator.sources, separator.sample_rate, separator.channels) == (("voice",), 16000, 1)
    assert separator.to("meta") is separator  # type: ignore[attr-defined]
    assert network.scale.device.type == "meta"


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    as_separator(lambda x: x + 0.001 * torch.randn(x.shape), **OPTIONS)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("function", "changes", "message"),
    [
        (lambda x: x, {"sources": None}, "<lambda> does not say its sources: add sources=speech,noise"),
        (lambda x: x, {"sample_rate": None}, "<lambda> does not say its sample_rate: add sample_rate=16000"),
        (lambda x: x, {"sources": ["a", "a"]}, "sources=['a', 'a']: give different names"),
        (
            TwoFilters(),
            {"sources": ["a", "b", "c"]},
            "TwoFilters does not separate noise of shape (2, 1, 8000) with sources=a,b,c and channels=1: as "
            "(batch, channel, time) it fails (estimates are (2, 2, 8000), not (batch, source, channel, time) "
            "= (2, 3, 1, 8000): check sources=a,b,c",
        ),
        (
            lambda x: x.cumsum(1),
            {},
            "layout=None is ambiguous: (batch, channel, time) and (batch, time) both work, with different "
            "estimates: give layout=bct or layout=bt",
        ),
        (lambda x: x, {"layout": "tb"}, "layout=tb: choose one of bct, bt"),
        (lambda x: [x], {}, "it returns a list, not a tensor"),
        (
            lambda x: x[..., : len(x[0, 0]) // 7 * 7] if x.ndim == 3 else 1 / 0,
            {"sample_rate": 7210},
            "the function separates some lengths only",
        ),
        (lambda x: x[..., :-1], {}, "(2, 1, 1, 7999), not (batch, source"),
    ],
)
def test_mistakes_are_named_in_one_line(function: Callable, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        as_separator(function, **OPTIONS | changes)
    assert "\n" not in str(error.value)


def test_the_layout_decides_what_is_ambiguous() -> None:
    for layout, axis in (("bt", 2), ("bct", 1)):
        separator = as_separator(lambda x: x.cumsum(1), layout=layout, **OPTIONS)
        torch.testing.assert_close(separator(noise(1, 9)), noise(1, 9).cumsum(axis)[:, None])


OWN_CODE = """
import torch
from torch import nn
from pretrained_toys import TwoFilters

class Scaled(nn.Module):
    def __init__(self, scale=1.0, offsets=(0.0,)):
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.tensor(float(scale))), sum(offsets)

    def forward(self, x):
        return self.scale * x + self.offset

class Named(TwoFilters):
    def __init__(self, sources, sample_rate):
        super().__init__()
        assert len(sources) == 2
        self.sources, self.sample_rate = sources, sample_rate

def half(x):
    return 0.5 * x

instance = Scaled(3)
number = 3

class Broken(nn.Module):
    def __init__(self):
        raise RuntimeError("cannot be built\\nreally")
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "encore_test_code.py").write_text(OWN_CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "encore_test_code", raising=False)
    return "python:encore_test_code"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Scaled", 1), ("Scaled?scale=0.25", 0.25), ("half", 0.5), ("instance", 3), ("Scaled?weights=w.pt", 7)],
)
def test_own_code_is_opened_by_name(own_code: str, name: str, expected: float) -> None:
    torch.save({"module.scale": torch.tensor(7.0)}, "w.pt")
    joint = "&" if "?" in name else "?"
    separator = load_separator(f"{own_code}:{name}{joint}sources=speech&sample_rate=8000")
    torch.testing.assert_close(separator(noise(1, 500)), expected * noise(1, 500)[:, None])
    assert (separator.sources, separator.sample_rate, separator.channels) == (("speech",), 8000, 1)


def test_options_of_a_class_are_plain_values(own_code: str) -> None:
    separator = load_separator(f"{own_code}:Scaled?offsets=[0.5, 0.25]&sources=a&sample_rate=8000&channels=2")
    torch.testing.assert_close(separator(noise(2, 500)), noise(2, 500)[:, None] + 0.75)


def test_a_class_gets_sources_and_rate_if_it_requires_them(own_code: str) -> None:
    separator = load_separator(f"{own_code}:Named?sources=a,b&sample_rate=8000&level=least_squares")
    assert (separator.sources, separator.sample_rate) == (("a", "b"), 8000)


def test_the_current_folder_is_searched_first_and_last(own_code: str, tmp_path: Path) -> None:
    before = list(sys.path)
    load_separator(f"{own_code}:half?sources=a&sample_rate=8000")
    assert sys.path == [*before, str(tmp_path)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half?sources=a&sample_rate=8000&scale=2", "option 'scale' is for a class"),
        ("half?sources=a&sample_rate=8000&weights=w.pt", "option weights=w.pt is for a network"),
        ("Scaled?sources=a&sample_rate=8000&scael=2", "Scaled cannot be made: TypeError: "),
        ("Scaled?sources=a&sample_rate=8000&weights=none.pt", "'none.pt' does not exist"),
        (
            "Scaled?sources=a&sample_rate=8000&weights=w.pt",
            "do not fit Scaled: 1 missing (scale); 1 unexpected (x)",
        ),
        ("Scaled?sources=a,b&sample_rate=8000", "Scaled does not separate noise of shape"),
        ("Broken", "Broken cannot be made: RuntimeError: cannot be built"),
        ("number?sources=a&sample_rate=8000", "is not callable (int)"),
        ("haff", "encore_test_code has no 'haff': use half"),
    ],
)
def test_mistakes_with_own_code_are_named_in_one_line(own_code: str, name: str, message: str) -> None:
    torch.save({"x": torch.tensor(7.0)}, "w.pt")
    fails(f"{own_code}:{name}", message, (ValueError, FileNotFoundError))
