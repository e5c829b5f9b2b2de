"""Metrics that are files or published networks: the same numbers as theirs, one item at a time, safely."""

from __future__ import annotations

import math
import pickle
import sys
import urllib.request
from functools import partial
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from encore.cli.guides import build_guide
from encore.cli.overrides import UserError
from encore.inference import GridSearch, refine
from encore.metrics import get_metric, joint, networks

RATE = 16000


class Loudness(nn.Module):
    """Mean square of ``(batch, time)`` in dB, over the whole batch: a metric that mixes its items."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.square().mean().log10().reshape(1)


class Distance(nn.Module):
    """Squared distance of ``(batch, channel, time)``."""

    def forward(self, estimate: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        channels = estimate.shape[1]
        assert channels == 1
        return (estimate - reference).square().mean((1, 2)), estimate


def torchscript(folder: Path, network: nn.Module) -> str:
    path = folder / f"{type(network).__name__}.pt"
    torch.jit.script(network).save(str(path))
    return f"torchscript:{path}"


def onnx_file(folder: Path) -> str:
    """The largest sample, and the smallest, of ``(1, time)``."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
            helper.make_node("ReduceMin", ["x"], ["bottom"], keepdims=0),
            helper.make_node("Unsqueeze", ["top", "axes"], ["first"]),
            helper.make_node("Unsqueeze", ["bottom", "axes"], ["second"]),
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


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def no_network(monkeypatch, tmp_path: Path) -> Path:
    """Empty caches, and nothing to fill them from."""

    def refuse(address: str, **_: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(networks, "_opened", {})
    # torch.hub.set_dir would outlive the test, and hide TORCH_HOME from later ones
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path


def test_torchscript_scores_each_channel_of_each_item_by_itself(tmp_path: Path) -> None:
    metric = get_metric(f"{torchscript(tmp_path, Loudness())}?sample_rate={RATE}", sample_rate=RATE)
    levels = torch.tensor([[1.0, 0.1], [10.0, 1.0]])
    scores = metric.score(levels[..., None] * torch.ones(2, 2, RATE), None)
    torch.testing.assert_close(scores, torch.tensor([-10.0, 10.0]))
    assert (metric.name, metric.kind) == ("loudness", "blind")


def test_a_lower_rate_is_resampled_to(tmp_path: Path) -> None:
    # a tone that only the higher rate can hold is gone at the lower one
    tone = torch.sin(2 * math.pi * 6000 / RATE * torch.arange(RATE))[None, None]
    uri = torchscript(tmp_path, Loudness())
    assert get_metric(f"{uri}?sample_rate={RATE}", sample_rate=RATE).score(tone, None) > -3.02
    assert get_metric(f"{uri}?sample_rate=8000", sample_rate=RATE).score(tone, None) < -20


def test_an_oracle_file_is_given_the_reference_and_negated(tmp_path: Path) -> None:
    uri = f"{torchscript(tmp_path, Distance())}?sample_rate=8000&needs_reference=true&negate=true&name=near"
    metric = get_metric(uri, sample_rate=8000)
    estimates, references = noise(3, 1, 500), torch.zeros(3, 1, 500)
    torch.testing.assert_close(metric.score(estimates, references), -estimates.square().mean((1, 2)))
    assert (metric.name, metric.kind) == ("near", "oracle")
    with pytest.raises(ValueError, match="references=None: 'near'"):
        metric.score(estimates, None)


def test_onnx_numbers_by_index(tmp_path: Path) -> None:
    uri = f"{onnx_file(tmp_path)}?sample_rate=8000"
    estimates = noise(2, 1, 900)
    top = get_metric(f"{uri}&output=0", sample_rate=8000).score(estimates, None)
    bottom = get_metric(f"{uri}&output=1", sample_rate=8000).score(estimates, None)
    torch.testing.assert_close(top, estimates.amax((1, 2)))
    torch.testing.assert_close(bottom, estimates.amin((1, 2)))
    with pytest.raises(ValueError, match=r"returns 2 numbers for one signal: add output=N, 0 to 1"):
        get_metric(uri, sample_rate=8000)


def test_graphs_need_no_scheme(tmp_path: Path) -> None:
    estimates = noise(2, 1, 900)
    program = torch.export.export(
        Loudness(), (noise(1, 8000),), dynamic_shapes=({1: torch.export.Dim("t", min=3)},)
    )
    torch.export.save(program, tmp_path / "program.pt2")
    for uri in (
        torchscript(tmp_path, Loudness()),
        f"exported:{tmp_path / 'program.pt2'}",
        onnx_file(tmp_path),
    ):
        # also under a suffix that says nothing
        path = Path(uri.partition(":")[2])
        path.with_suffix(".bin").write_bytes(path.read_bytes())
        expected = get_metric(f"{uri}?sample_rate=8000&output=0", sample_rate=8000).score(estimates, None)
        for name in (path, path.with_suffix(".bin")):
            found = get_metric(f"{name}?sample_rate=8000&output=0", sample_rate=8000)
            assert torch.equal(found.score(estimates, None), expected)


@pytest.mark.parametrize("write", [lambda folder: torchscript(folder, Loudness()), onnx_file])
def test_files_go_to_other_processes_and_are_joined(write, tmp_path: Path) -> None:
    metric = get_metric(f"{write(tmp_path)}?sample_rate=8000&output=0&scale=2", sample_rate=8000)
    estimates, one_step = noise(2, 1, 1, 900), 0.5 * noise(2, 1, 1, 900)
    assert torch.equal(pickle.loads(pickle.dumps(metric))(estimates), metric(estimates))
    both = joint([metric]).relative_to(one_step)(estimates)
    torch.testing.assert_close(both, (metric(estimates) - metric(one_step)) / 2)


def test_what_cannot_be_scored_is_nan_for_that_item_alone(tmp_path: Path) -> None:
    metric = get_metric(f"{torchscript(tmp_path, Loudness())}?sample_rate=8000", sample_rate=8000)
    estimates = noise(2, 1, 900)
    estimates[0, 0, 3] = torch.inf
    assert metric.score(estimates, None).isnan().tolist() == [True, False]


def test_a_file_guides_a_refinement(tmp_path: Path) -> None:
    metric = get_metric(f"{torchscript(tmp_path, Loudness())}?sample_rate=8000", sample_rate=8000)
    search = GridSearch(steps=1, candidates=4)
    result = refine(lambda x: (x * x.abs())[:, None], noise(2, 1, 800), metric, search)
    torch.testing.assert_close(result.scores[-1], metric(result.estimates))
    assert (result.scores[1] >= result.scores[0]).all()


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


@pytest.mark.parametrize(
    "function", ["rows", "items", "arrays", "stereo_arrays", "one_item", "mixing", "Scaled", "instance"]
)
def test_a_function_scores_however_it_takes_its_signals(own_metrics: str, function: str) -> None:
    metric = get_metric(f"{own_metrics}:{function}?scale=0.5", sample_rate=8000)
    estimates = torch.tensor([1.0, 0.1, 0.5])[:, None, None] * noise(3, 2, 900)
    torch.testing.assert_close(metric.score(estimates, None), estimates.square().mean((1, 2)))
    assert (metric.name, metric.kind, metric.scale) == (function.lower(), "blind", 0.5)
    estimates[1, 0, 3] = torch.nan
    assert metric.score(estimates, None).isnan().tolist() == [False, True, False]
    assert torch.equal(
        pickle.loads(pickle.dumps(metric)).score(estimates[:1], None), metric.score(estimates[:1], None)
    )


def test_a_function_of_references_is_an_oracle_at_its_own_rate(own_metrics: str) -> None:
    uri = f"{own_metrics}:distance?needs_reference=1&negate=1&name=near"
    metric = get_metric(f"{uri}&sample_rate=8000", sample_rate=8000)
    estimates, references = noise(3, 1, 1, 500), torch.zeros(3, 1, 1, 500)
    expected = -estimates.square().mean((1, 2, 3))
    torch.testing.assert_close(metric.bind(references=references)(estimates), expected)
    assert (metric.name, metric.kind) == ("near", "oracle")
    with pytest.raises(ValueError, match="references=None: 'near' is an oracle"):
        metric.score(estimates[:, 0], None)
    tone = torch.sin(2 * math.pi * 6000 / RATE * torch.arange(RATE))[None, None]
    assert get_metric(f"{own_metrics}:rows?sample_rate=8000", sample_rate=RATE).score(tone, None) < 0.01


def test_a_function_may_need_utterances(own_metrics: str) -> None:
    pytest.importorskip("pesq")
    metric = get_metric(f"{own_metrics}:pesq_8k?needs_reference=true&sample_rate=8000", sample_rate=8000)
    assert metric.kind == "oracle"


def test_a_function_guides_a_refinement_as_it_does_from_python(own_metrics: str) -> None:
    guide = build_guide(f"{own_metrics}:rows?sample_rate=8000", 8000)
    search = GridSearch(steps=1, candidates=4)

    def separate(x: Tensor) -> Tensor:
        return (x * x.abs())[:, None]

    result = refine(separate, noise(2, 1, 800), guide, search)
    plain = refine(separate, noise(2, 1, 800), lambda x: x.square().mean((1, 2, 3)), search)
    torch.testing.assert_close(result.estimates, plain.estimates)


def test_options_and_files_that_are_wrong_are_named(tmp_path: Path, own_metrics: str) -> None:
    uri = torchscript(tmp_path, Loudness())
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


class Payload:
    """A pickle that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("source", ["torchscript", "onnx", "squim_pesq", "nisqa_mos"])
def test_a_pickle_is_never_executed(source: str, no_network: Path) -> None:
    name = source
    path = no_network / "metric.pt"
    if (family := source.partition("_")[0]) in networks.NETWORKS:
        path = networks.NETWORKS[family].weights()
        path.parent.mkdir(parents=True)
    else:
        name = f"{source}:{path}?sample_rate={RATE}"
    torch.save(Payload(no_network / "executed"), path)
    with pytest.raises(ValueError, match=r"holds no weights|is not a"):
        get_metric(name, sample_rate=RATE)
    assert not (no_network / "executed").exists()


def test_without_weights_and_network_one_line_says_what_to_do(no_network: Path) -> None:
    for name, file in {"nisqa_mos": "nisqa.tar", "squim_stoi": "squim_objective_dns2020.pth"}.items():
        with pytest.raises(ValueError, match=f"{file}.*no network.*encore.cli.prefetch --metrics") as raised:
            get_metric(name, sample_rate=RATE)
        assert "\n" not in str(raised.value)
    assert not [path for path in no_network.rglob("*") if path.is_file()]


def test_squim_is_torchaudios_for_any_batch(no_network: Path) -> None:
    from torchaudio.models import squim_objective_base

    torch.manual_seed(0)
    network = squim_objective_base().eval()
    path = networks.NETWORKS["squim"].weights()
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    estimate = noise(3, 1, 8000)
    estimate[2] = 0
    with torch.no_grad():
        expected = network(estimate[:2, 0])
    for name, scores in zip(("squim_stoi", "squim_pesq", "squim_si_sdr"), expected, strict=True):
        metric = get_metric(name, sample_rate=RATE)
        got = metric.score(estimate, None)
        torch.testing.assert_close(got[:2], scores, rtol=1e-4, atol=1e-5)
        assert got[2].isnan()
        assert metric.score(estimate[:1], None)[0] == got[0]
    assert networks.fetch_weights("squim_pesq") == path


def test_a_long_signal_is_scored_in_equal_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    def load(path: Path, device: torch.device) -> networks.Scorer:
        def score(signal: Tensor, rate: int) -> Tensor:
            seen.append(signal.shape[1] / rate)
            return signal.mean().reshape(1)

        return score

    network = networks.Network(scales={"mean": 1.0}, weights=lambda: tmp_path, load=load, maximum_seconds=10)
    monkeypatch.setitem(networks.NETWORKS, "mean", network)
    estimate = torch.linspace(0, 1, 25 * 8000)
    own = partial(networks.network_scores, "mean", sample_rate=8000, names=("mean",))
    assert own(estimate)["mean"].item() == pytest.approx(0.5, rel=1e-5)
    assert (len(seen), max(seen) < 10) == (3, True)
    assert own(estimate[..., :1500])["mean"].isnan()


NISQA_OPTIONS = {
    "cnn_c_out_1": 2,
    "cnn_c_out_2": 2,
    "cnn_c_out_3": 4,
    "cnn_dropout": 0.2,
    "cnn_kernel_size": [3, 3],
    "cnn_pool_1": [24, 7],
    "cnn_pool_2": [12, 5],
    "cnn_pool_3": [6, 3],
    "td_sa_d_model": 8,
    "td_sa_dropout": 0.1,
    "td_sa_h": 8,
    "td_sa_nhead": 1,
    "td_sa_num_layers": 1,
    "pool_att_dropout": 0.1,
    "pool_att_h": 8,
    "ms_seg_length": 15,
    "ms_seg_hop_length": 4,
    "ms_max_segments": 1300,
    "ms_hop_length": 0.01,
    "ms_win_length": 0.02,
    "ms_n_fft": 4096,
    "ms_n_mels": 48,
    "ms_fmax": 20000,
}


def test_nisqa_is_torchmetrics(no_network: Path) -> None:
    from torchmetrics.functional.audio import nisqa

    nisqa._load_nisqa_model.cache_clear()
    torch.manual_seed(0)
    network = nisqa._NISQADIM(NISQA_OPTIONS)
    path = networks.NETWORKS["nisqa"].weights()
    assert path == no_network / ".torchmetrics" / "NISQA" / "nisqa.tar"
    path.parent.mkdir(parents=True)
    torch.save({"args": NISQA_OPTIONS, "model_state_dict": network.state_dict()}, path)
    estimate = noise(2, 1, 2 * RATE)
    names = ("nisqa_mos", "nisqa_noisiness", "nisqa_discontinuity", "nisqa_coloration", "nisqa_loudness")
    got = torch.stack([get_metric(name, sample_rate=RATE).score(estimate, None) for name in names], dim=-1)
    expected = nisqa.non_intrusive_speech_quality_assessment(estimate, RATE)[:, 0]
    nisqa._load_nisqa_model.cache_clear()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_distillmos_is_the_packages() -> None:
    package = pytest.importorskip("distillmos")
    estimate = noise(2, 1, 2 * RATE)
    with torch.no_grad():
        expected = package.ConvTransformerSQAModel().eval()(estimate[:, 0])[:, 0]
    torch.testing.assert_close(get_metric("distillmos", sample_rate=RATE).score(estimate, None), expected)
