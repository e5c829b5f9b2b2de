"""The names of ``encore``, and refinement in one line."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from refinement_toys import of_sources, same, squash
from torch import Tensor

import encore
from encore.cli.method_options import load_method
from encore.inference import BrentSearch, CoarseToFine, GoldenSection, GreedySearch, LocalSearch
from encore.inference.quality import DEFAULT_GUIDE, SEARCHES


class Net:
    """A separator that says what it separates."""

    sources, channels = ("speech",), 1

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def __call__(self, x: Tensor) -> Tensor:
        return of_sources(squash)(x)


def voiced(seconds: float, sample_rate: int) -> Tensor:
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    tones = sum(torch.sin(2 * torch.pi * k * 140 * time) / k for k in range(1, 12))
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return (0.1 * tones * torch.sin(9 * time).clamp_min(0) + 0.02 * noise)[None, None]


def test_every_public_name_is_there() -> None:
    for name in encore.__all__:
        value = getattr(encore, name)
        assert inspect.getdoc(value), name
        assert callable(value)
    assert set(encore.__all__) <= set(dir(encore))
    with pytest.raises(AttributeError, match="module 'encore' has no attribute 'refines'"):
        _ = encore.refines


@pytest.mark.parametrize("sample_rate", [16000, 24000])
def test_the_defaults_are_those_of_infer(sample_rate: int) -> None:
    method = load_method("multi_step")
    assert (method.guide, method.search) == (DEFAULT_GUIDE, GreedySearch())
    net, mixture = Net(sample_rate), voiced(1.0, sample_rate)
    found = encore.refine(net, mixture)
    same(found, method(net, mixture), rtol=1e-4, atol=1e-5)
    assert 2 < int(found.evaluations) <= method.max_calls(1)
    metric = encore.get_metric("dnsmos_ovrl", sample_rate=sample_rate)
    torch.testing.assert_close(found.scores[0], metric(found.one_step), rtol=1e-4, atol=1e-4)


def test_quality_and_search_are_given_by_name() -> None:
    net, mixture = Net(16000), voiced(0.2, 16000)
    ovrl, short = encore.get_metric("dnsmos_ovrl", sample_rate=16000), encore.GridSearch(2, steps=1)
    same(encore.refine(net, mixture, "dnsmos_ovrl", short), encore.refine(net, mixture, ovrl, short))
    metric = encore.get_metric("disjointness", sample_rate=16000)
    for name, search in {
        "greedy": GreedySearch(),
        "grid": encore.GridSearch(),
        "annealed": encore.AnnealedGridSearch(),
        "local": LocalSearch(),
        "coarse_to_fine": CoarseToFine(),
        "golden": GoldenSection(),
        "brent": BrentSearch(),
    }.items():
        assert SEARCHES[name]() == search
        expected = encore.refine(net, mixture, metric.bind(mixture=mixture), search)
        same(encore.refine(net, mixture, "disjointness", name), expected)
        # a blind metric is bound to mixture and separator
        same(encore.refine(net, mixture, metric, search), expected)
    assert len(SEARCHES) == 7


@pytest.mark.parametrize(
    ("separate", "options", "message"),
    [
        (Net(16000), {"quality": "dnsmos_ovr"}, "dnsmos_ovrl"),
        (Net(16000), {"search": "gready"}, "search='gready': use greedy"),
        (Net(16000), {"quality": "si_sdr"}, "quality='si_sdr': is an oracle and needs the references"),
        (Net(8000), {}, "sample_rate=8000 is below the 16000 Hz that 'dnsmos_ovrl' needs"),
        (of_sources(squash), {}, "quality=None: dnsmos_ovrl needs the sampling rate"),
        (of_sources(squash), {"quality": "disjointness"}, "quality='disjointness': disjointness needs the"),
        (squash, {"quality": "disjointness"}, "encore.as_separator adapts other layouts"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(separate: Any, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as error:
        encore.refine(separate, torch.ones(1, 1, 400), **options)
    assert "\n" not in str(error.value)


def test_what_the_message_about_the_rate_proposes_works() -> None:
    mixture = voiced(0.2, 16000)
    with pytest.raises(ValueError, match=r"use encore\.as_separator\(net, sources=\[\.\.\.\], sample_rate"):
        encore.refine(of_sources(squash), mixture)
    net = encore.as_separator(of_sources(squash), sources=["speech"], sample_rate=16000)
    named = encore.refine(net, mixture, "disjointness")
    metric = encore.get_metric("disjointness", sample_rate=16000)
    same(named, encore.refine(of_sources(squash), mixture, metric), rtol=1e-5, atol=1e-6)


def test_importing_is_quick_and_from_any_folder(tmp_path: Path) -> None:
    for name in ("data", "models", "inference", "metrics", "common", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('another package')")
    code = """
import sys
import encore
assert "torch" not in sys.modules, "import encore imports torch"
assert "refine" in dir(encore)
assert not [name for name in sys.modules if name.startswith("encore.")]
import torch
shrink = lambda mixture: 0.5 * mixture[:, None]
result = encore.refine(shrink, torch.ones(1, 1, 9), lambda estimates: estimates.mean((1, 2, 3)), "grid")
assert result.evaluations.tolist() == [10], result
assert encore.load_separator().sources == ("speech",)
assert not {"lightning", "hydra", "data", "models", "inference"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_python_block_of_the_readme_runs() -> None:
    readme = (Path(encore.__file__).parent / "README.md").read_text(encoding="utf-8")
    block = readme.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["result"].estimates.shape == (2, 1, 1, 48000)
