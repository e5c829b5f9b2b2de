"""Metrics that are files or functions of your own: the same numbers as theirs, one item at a time."""

from __future__ import annotations

import math
import pickle
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from separator_toys import noise
from torch import Tensor, nn

from encore.cli.guides import build_guide
from encore.cli.overrides import UserError
from encore.inference import GridSearch, refine
from encore.metrics import get_metric, joint

RATE = 8000


class Loudness(nn.Module):
    """Mean square of ``(batch, time)`` in dB, over the whole batch: a metric that mixes its items."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.square().mean().log10().reshape(1)


class Power(nn.Module):
    """Mean square of ``(batch, channel, time)``, and its input."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.shape[1] == 1
        return x.square().mean((1, 2)), x


class Distance(nn.Module):
    """Squared distance of ``(batch, time)``."""

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        return (estimate - reference).square().mean(1)


def torchscript(folder: Path, network: nn.Module) -> str:
    path = folder / f"{type(network).__name__}.pt"
    torch.jit.script(network).save(str(path))
    return f"torchscript:{path}"


def exported(folder: Path) -> str:
    length = {2: torch.export.Dim("t", min=3)}
    program = torch.export.export(Power(), (noise(1, 1, 8000),), dynamic_shapes=(length,))
    torch.export.save(program, folder / "power.pt2")
    return f"exported:{folder / 'power.pt2'}"


def onnx_file(folder: Path) -> str:
    """The largest sample of ``(1, time)``, and the mean square."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "x"], ["square"]),
            helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
            helper.make_node("ReduceMean", ["square"], ["power"], keepdims=0),
            helper.make_node("Unsqueeze", ["top", "axes"], ["first"]),
            helper.make_node("Unsqueeze", ["power", "axes"], ["second"]),
            helper.make_node("Concat", ["first", "second"], ["both"], axis=0),
        ],
        "range",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "time"])],
        [helper.make_tensor_value_info("both", TensorProto.FLOAT, [2])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "range.onnx")
    return f"onnx:{folder / 'range.onnx'}"


OWN_METRICS = """
import numpy as np
import torch

def rows(x):
    return x.square().mean(-1)

def items(x):
    n, c, t = x.shape
    return x.square().mean((1, 2))

def arrays(x):
    assert isinstance(x, np.ndarray) and x.ndim == 2
    return (x ** 2).mean(-1)

def stereo_arrays(x):
    n, c, t = x.shape
    return list(np.einsum("nct,nct->n", x, x) / (c * t))

def one_item(x):
    assert len(x) == 1
    return float((x ** 2).mean())

def mixing(x):
    return 2 * x.square().mean(-1) - x.square().mean()

def distance(x, reference):
    return (x - reference).square().mean(-1)

def pesq_8k(x, reference):
    import pesq
    return [pesq.pesq(8000, r, e, "nb") for e, r in zip(x, reference)]

def matrix(x):
    return x

class Scaled:
    def __call__(self, x):
        return 1.0 * x.square().mean(-1)

instance = Scaled()
number = 3
"""


@pytest.fixture
def own_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "encore_test_metrics.py").write_text(OWN_METRICS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "encore_test_metrics", raising=False)
    return "python:encore_test_metrics"


FUNCTIONS = ["rows", "items", "arrays", "stereo_arrays", "one_item", "mixing", "Scaled", "instance"]
GRAPHS = {
    "power": lambda folder: f"{torchscript(folder, Power())}?name=power",
    "program": lambda folder: f"{exported(folder)}?name=program",
    "range": lambda folder: f"{onnx_file(folder)}?output=1",
}


@pytest.mark.parametrize("source", [*FUNCTIONS, *GRAPHS])
def test_a_source_scores_each_item_by_itself_however_it_takes_its_signals(
    source: str, own_metrics: str, tmp_path: Path
) -> None:
    uri = GRAPHS[source](tmp_path) if source in GRAPHS else f"{own_metrics}:{source}?name={source}"
    metric = get_metric(f"{uri}&sample_rate={RATE}&scale=0.5", sample_rate=RATE)
    estimates = torch.tensor([1.0, 0.1, 0.5])[:, None, None] * noise(3, 2, 900)
    scores = metric.score(estimates)
    torch.testing.assert_close(scores, estimates.square().mean((1, 2)))
    assert (metric.name, metric.kind, metric.scale) == (source.lower(), "blind", 0.5)
    assert torch.equal(pickle.loads(pickle.dumps(metric)).score(estimates[:1]), scores[:1])
    gain = joint([metric]).relative_to(estimates[:, None])(2 * estimates[:, None])
    torch.testing.assert_close(gain, 6 * scores)
    estimates[1, 0, 3] = torch.nan
    assert metric.score(estimates).isnan().tolist() == [False, True, False]
    # a tone that only the higher rate can hold is gone at the lower one
    tone = torch.sin(2 * math.pi * 6000 / 16000 * torch.arange(16000))[None, None]
    assert get_metric(f"{uri}&sample_rate={RATE}", sample_rate=16000).score(tone) < 0.01


def test_a_graph_scores_each_channel_by_itself(tmp_path: Path) -> None:
    metric = get_metric(f"{torchscript(tmp_path, Loudness())}?sample_rate={RATE}", sample_rate=RATE)
    levels = torch.tensor([[1.0, 0.1], [10.0, 1.0]])
    scores = metric.score(levels[..., None] * torch.ones(2, 2, RATE))
    torch.testing.assert_close(scores, torch.tensor([-10.0, 10.0]))
    assert metric.name == "loudness"


@pytest.mark.parametrize("kind", ["graph", "function"])
def test_an_oracle_is_given_the_reference_and_negated(kind: str, own_metrics: str, tmp_path: Path) -> None:
    uri = torchscript(tmp_path, Distance()) if kind == "graph" else f"{own_metrics}:distance"
    uri = f"{uri}?sample_rate={RATE}&needs_reference=true&negate=1&name=near"
    metric = get_metric(uri, sample_rate=RATE)
    estimates, references = noise(3, 1, 500), torch.zeros(3, 1, 500)
    torch.testing.assert_close(metric.score(estimates, references), -estimates.square().mean((1, 2)))
    assert (metric.name, metric.kind) == ("near", "oracle")
    with pytest.raises(ValueError, match="references=None: 'near' is an oracle"):
        metric.score(estimates)


def test_a_function_may_need_utterances(own_metrics: str) -> None:
    pytest.importorskip("pesq")
    uri = f"{own_metrics}:pesq_8k?needs_reference=true&sample_rate={RATE}"
    assert get_metric(uri, sample_rate=RATE).kind == "oracle"


@pytest.mark.parametrize("source", GRAPHS)
def test_graphs_need_no_scheme(source: str, tmp_path: Path) -> None:
    uri = f"{GRAPHS[source](tmp_path)}&sample_rate={RATE}"
    path = Path(uri.partition(":")[2].partition("?")[0])
    # also under a suffix that says nothing
    path.with_suffix(".bin").write_bytes(path.read_bytes())
    expected = get_metric(uri, sample_rate=RATE).score(noise(2, 1, 900))
    for name in (path, path.with_suffix(".bin")):
        found = get_metric(f"{name}?{uri.partition('?')[2]}", sample_rate=RATE)
        assert torch.equal(found.score(noise(2, 1, 900)), expected)


@pytest.mark.parametrize("source", ["power", "rows"])
def test_they_guide_a_refinement_as_from_python(source: str, own_metrics: str, tmp_path: Path) -> None:
    uri = GRAPHS[source](tmp_path) if source in GRAPHS else f"{own_metrics}:{source}?name=rows"
    guide, search = build_guide(f"{uri}&sample_rate={RATE}", RATE), GridSearch(steps=1, candidates=4)

    def separate(x: Tensor) -> Tensor:
        return (x * x.abs())[:, None]

    result = refine(separate, noise(2, 1, 800), guide, search)
    plain = refine(separate, noise(2, 1, 800), lambda x: x.square().mean((1, 2, 3)), search)
    torch.testing.assert_close(result.estimates, plain.estimates)


def test_options_and_files_that_are_wrong_are_named(tmp_path: Path, own_metrics: str) -> None:
    uri, several = torchscript(tmp_path, Loudness()), onnx_file(tmp_path)
    (tmp_path / "text.pt").write_text("no metric")
    torch.save({"weight": torch.ones(1)}, tmp_path / "raw.pt")
    for name, words in {
        uri: r"lacks the option 'sample_rate': add \?sample_rate=",
        f"{uri}?sample_rate=high": "sample_rate=high: give a whole number",
        f"{uri}?sample_rate=8000&negated=true": "unknown option 'negated': use negate",
        f"{uri}?sample_rate=8000&negate=yes": "negate=yes: write true or false",
        f"{uri}?sample_rate=8000&scale=-1": "scale=-1: give a number above 0",
        f"{uri}?sample_rate=8000&scale=a": "scale=a: give a number",
        f"{uri}?sample_rate=48000": "sample_rate=8000 is below the 48000 Hz",
        f"{uri}?sample_rate=8000&output=1": "output=1: it returns 1 numbers",
        f"{uri}?sample_rate=8000&needs_reference=true": "scores no noise",
        f"{several}?sample_rate=8000": "returns 2 numbers for one signal: add output=N, 0 to 1",
        f"torchscipt:{tmp_path}/a.pt": "unknown scheme 'torchscipt': use torchscript",
        f"torchscript:{tmp_path}/text.pt?sample_rate=8000": "is not a TorchScript file",
        f"onnx:{tmp_path}/text.pt?sample_rate=8000": "is not an ONNX graph",
        f"{tmp_path}/text.pt?sample_rate=8000": "is not a graph: give torchscript",
        f"{tmp_path}/raw.pt?sample_rate=8000": "holds weights without a network: .*--guide 'python:MODULE:",
        "utmos": r"torchscript:utmos\.pt",
        f"{own_metrics}:row": "has no 'row': use rows",
        f"{own_metrics}.py:rows": "importing encore_test_metrics.py fails",
        "python:rows": "names no object of Python: write python:MODULE:NAME",
        "python:encore_no_such:rows": r"importing encore_no_such fails \(ModuleNotFoundError",
        f"{own_metrics}:number": r"is not callable \(int\): name a function",
        f"{own_metrics}:matrix": r"tensors \(n, t\): it returns 12000 numbers for one signal: add output=N",
        f"{own_metrics}:rows?sample_rate=16000": "sample_rate=8000 is below the 16000 Hz",
        f"{own_metrics}:rows?output=1": "output=1: it returns 1 numbers, counted from 0",
    }.items():
        with pytest.raises(ValueError, match=words) as raised:
            get_metric(name, sample_rate=8000)
        assert "\n" not in str(raised.value)
        with pytest.raises(UserError, match=words):
            build_guide(name, 8000)
    for name in (f"torchscript:{tmp_path}/nowhere.pt?sample_rate=8000", f"{tmp_path}/nowhere.pt"):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.pt' does not exist"):
            get_metric(name, sample_rate=8000)
