from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrained_toys import fails, open_file, open_onnx, open_torchscript
from torch import Generator

from encore import infer
from encore.cli import prefetch
from encore.common.dsp import resample
from encore.common.uri import parse_uri
from encore.metrics import EXTERNAL_METRICS
from encore.models import load_separator
from encore.models.pretrained import registry
from encore.models.pretrained.registry import LOADERS, describe_loaders
from encore.models.separators.contract import AdaptedSeparator
from encore.models.wrappers import LeastSquares, Resampled

ROOT = Path(infer.__file__).parent


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("a.ckpt", ("", "a.ckpt", {})),
        ("C:\\a.ckpt", ("", "C:\\a.ckpt", {})),
        ("a.ckpt?level=none", ("", "a.ckpt", {"level": "none"})),
        ("demucs:htdemucs", ("demucs", "htdemucs", {})),
        ("demucs:a?repo=/x y/z&sources=a,b", ("demucs", "a", {"repo": "/x y/z", "sources": "a,b"})),
        ("asteroid:https://x.org/a.pth?download=1?", ("asteroid", "https://x.org/a.pth?download=1", {})),
        ("onnx:a.onnx?sources=r%26b,rest", ("onnx", "a.onnx", {"sources": "r&b,rest"})),
    ],
)
def test_uris_are_parsed(uri: str, parts: tuple[str, str, dict[str, str]]) -> None:
    parsed = parse_uri(uri)
    assert (parsed.scheme, parsed.rest, parsed.options) == parts


def test_files_that_exist_are_taken_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened = open_file(tmp_path)
    for name in ("onnx:a?b=c.safetensors", "what?level=none.safetensors"):
        for suffix in (".safetensors", ".yaml"):
            source = tmp_path / f"ours{suffix}"
            Path(name).with_suffix(suffix).write_bytes(source.read_bytes())
        assert load_separator(name).sources == ("speech",)
    assert load_separator(opened.uri + "?sources=voice").sources == ("voice",)


def test_mistakes_name_the_nearest_right_value(tmp_path: Path) -> None:
    uri = open_onnx(tmp_path).uri
    fails("asteroids:x", "uri='asteroids:x' has the unknown scheme 'asteroids': use asteroid, or a path")
    fails("https://x.org/a", "is an address: download the file and give its path")
    with pytest.raises(
        FileNotFoundError,
        match=r"'spleeter' does not .*: for the scheme write a colon, as in spleeter:2stems$",
    ):
        load_separator("spleeter")
    fails("zzz:x", "has the unknown scheme 'zzz': use asteroid, bs_roformer, ")
    fails(f"{uri}?sample_rat=8000", "has the unknown option 'sample_rat': use sample_rate")
    fails(f"{uri}?weights=x", "has the unknown option 'weights': use channels, layout, level, ")
    fails(f"{uri}?level", "has the option 'level': write key=value")
    fails(f"{uri}?level=none&level=none", "has the option 'level' twice")
    fails(f"{uri}?level=loud", "option level=loud: choose one of none, standardise, least_squares")
    fails(f"{uri}?sample_rate=8k", "has sample_rate=8k: give a whole number")
    fails(f"{uri}?sources=", "has no value for the option 'sources'")
    fails(f"{uri}?sources=a,a", "give different names")
    fails(f"{uri}?sources=../a,b", "give different names")
    fails("weights:a.pt", "lacks the option 'model': add ?model=...")
    fails("weights:a.pt?model=bsrnn_tiny&partial=yes", "has partial=yes: write true or false")
    file_uri = open_file(tmp_path).uri
    fails(f"{file_uri}?sources=a,b", "names 2, but the separator estimates 1 (speech)")


@pytest.mark.parametrize("scheme", [scheme for scheme, loader in LOADERS.items() if loader.packages])
def test_a_missing_package_is_named_with_what_installs_it(
    scheme: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = replace(LOADERS[scheme], packages=(*LOADERS[scheme].packages[:-1], "no_such_package"))
    monkeypatch.setitem(registry.LOADERS, scheme, loader)
    missing = loader.missing
    fails(f"{scheme}:x", f"uri='{scheme}:x' needs the package {missing}: {loader.install}")
    with pytest.raises(SystemExit):
        infer.main(["--list-separators"])
    assert capsys.readouterr().out.count(f"[not installed: {loader.install}]") >= 1
    assert infer.main(["README.md", "-o", "none", "--separator", f"{scheme}:x"]) == 1
    assert (
        capsys.readouterr().err == f"error: uri='{scheme}:x' needs the package {missing}: {loader.install}\n"
    )


def test_no_package_is_imported_before_its_scheme_is_used() -> None:
    code = (
        "import sys; from encore.models import load_separator;"
        "from encore.models.pretrained.registry import LOADERS, describe_loaders;"
        "describe_loaders(); load_separator();"
        "names = ['lightning'] + [p for loader in LOADERS.values() for p in loader.packages];"
        "print(sorted(sys.modules.keys() & names))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("arguments", [["--list-separators"], ["a.wav", "--list-separators", "-o", "x"]])
def test_the_loaders_are_listed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        infer.main(arguments)
    printed = capsys.readouterr().out
    assert left.value.code == 0
    for scheme, loader in LOADERS.items():
        assert f"{scheme}:" in printed
        assert loader.example in printed
    missing = [loader for loader in LOADERS.values() if loader.missing is not None]
    assert printed.count("not installed") == len(missing)


def test_the_list_has_at_most_110_columns_with_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, loader in LOADERS.items():
        if loader.packages:
            monkeypatch.setitem(registry.LOADERS, scheme, replace(loader, packages=("no_such_package",)))
    lines = describe_loaders().splitlines()
    assert sum("[not installed: pip install" in line for line in lines) == sum(
        bool(loader.packages) for loader in LOADERS.values()
    )
    assert max(map(len, lines)) <= 110


def test_prefetching_says_what_it_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = open_file(tmp_path).uri
    assert prefetch.main([uri]) == 0
    assert capsys.readouterr().out == f"{uri}: speech; 8000 Hz, 1 channel(s)\n"
    assert prefetch.main([uri, "file:none.ckpt"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "none.ckpt" in captured.err


def test_prefetching_metrics_says_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(name: str) -> str:
        if name == EXTERNAL_METRICS[0]:
            raise ValueError("no network")
        return f"/cache/{name}"

    monkeypatch.setattr(prefetch, "fetch_weights", fetch)
    assert prefetch.main(["--metrics"]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"error: {EXTERNAL_METRICS[0]}: no network\n"
    assert captured.out == "".join(f"{name}: /cache/{name}\n" for name in EXTERNAL_METRICS[1:])


HALVES = AdaptedSeparator(("a", "b"), 8000, 1, lambda x: torch.stack([0.5 * x, -0.25 * x], dim=1))


def test_another_rate_is_the_input_that_a_file_of_that_rate_would_be(generator: Generator) -> None:
    outer = Resampled(HALVES, 44100)
    mixture = torch.randn(2, 1, 5001, generator=generator)
    expected = resample(0.5 * resample(mixture, 44100, 8000), 8000, 44100)[..., :5001]
    torch.testing.assert_close(outer(mixture)[:, 0], expected)
    assert (outer.sources, outer.sample_rate, outer.channels) == (("a", "b"), 44100, 1)


def test_the_rate_of_a_graph_is_its_own(tmp_path: Path) -> None:
    uri = open_torchscript(tmp_path).uri
    assert load_separator(f"{uri}?sample_rate=16000").sample_rate == 16000
    assert isinstance(load_separator(f"{uri}?sample_rate=16000"), Resampled)
    assert not isinstance(load_separator(f"{uri}?sample_rate=8000"), Resampled)


def test_least_squares_finds_the_level_that_a_network_lost(generator: Generator) -> None:
    mixture = torch.randn(3, 1, 1000, generator=generator)
    mixture[2] = 0
    estimates = LeastSquares(HALVES)(mixture)
    # halves and quarters add up to a quarter of the mixture: four times as loud, they add up to it
    torch.testing.assert_close(estimates.sum(1), mixture)
    torch.testing.assert_close(estimates[:, 0], 2 * mixture)
