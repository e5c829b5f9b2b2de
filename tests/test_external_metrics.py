"""Measures that are files or published networks: the same numbers as theirs, one item at a time, safely."""

from __future__ import annotations

import math
import pickle
import urllib.request
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.hub import set_dir

from encore.cli.guides import build_guide
from encore.cli.overrides import UserError
from encore.inference import GridSearch, refine
from encore.metrics import DOOR_NAMES, JointQuality, external, get_quality, network_measures

RATE = 16000


class Loudness(nn.Module):
    """Mean square of ``(batch, time)`` in dB, over the whole batch: a measure that mixes its items."""

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
    before = torch.hub.get_dir()
    set_dir(str(tmp_path / "hub"))
    yield tmp_path
    set_dir(before)


def test_torchscript_scores_each_channel_of_each_item_by_itself(tmp_path: Path) -> None:
    quality = get_quality(f"{torchscript(tmp_path, Loudness())}?sample_rate={RATE}", sample_rate=RATE)
    levels = torch.tensor([[1.0, 0.1], [10.0, 1.0]])
    scores = quality(levels[..., None] * torch.ones(2, 2, RATE))
    torch.testing.assert_close(scores, torch.tensor([-10.0, 10.0]))
    assert (quality.name, quality.kind) == ("loudness", "blind")


def test_a_lower_rate_is_resampled_to(tmp_path: Path) -> None:
    # a tone that only the higher rate can hold is gone at the lower one
    tone = torch.sin(2 * math.pi * 6000 / RATE * torch.arange(RATE))[None, None]
    uri = torchscript(tmp_path, Loudness())
    assert get_quality(f"{uri}?sample_rate={RATE}", sample_rate=RATE)(tone) > -3.02
    assert get_quality(f"{uri}?sample_rate=8000", sample_rate=RATE)(tone) < -20


def test_an_oracle_file_is_given_the_reference_and_negated(tmp_path: Path) -> None:
    uri = f"{torchscript(tmp_path, Distance())}?sample_rate=8000&needs_reference=true&negate=true&name=near"
    quality = get_quality(uri, sample_rate=8000)
    estimate, reference = noise(3, 1, 500), torch.zeros(3, 1, 500)
    torch.testing.assert_close(quality(estimate, reference=reference), -estimate.square().mean((1, 2)))
    assert (quality.name, quality.kind) == ("near", "oracle")
    with pytest.raises(ValueError, match="'near' needs reference="):
        quality(estimate)


def test_onnx_numbers_by_index(tmp_path: Path) -> None:
    uri = f"{onnx_file(tmp_path)}?sample_rate=8000"
    estimate = noise(2, 1, 900)
    top = get_quality(f"{uri}&output=0", sample_rate=8000)(estimate)
    bottom = get_quality(f"{uri}&output=1", sample_rate=8000)(estimate)
    torch.testing.assert_close(top, estimate.amax((1, 2)))
    torch.testing.assert_close(bottom, estimate.amin((1, 2)))
    with pytest.raises(ValueError, match=r"gives 2 numbers for one signal: add output=N, 0 to 1"):
        get_quality(uri, sample_rate=8000)


@pytest.mark.parametrize("write", [lambda folder: torchscript(folder, Loudness()), onnx_file])
def test_files_go_to_other_processes_and_are_joined(write, tmp_path: Path) -> None:
    quality = get_quality(f"{write(tmp_path)}?sample_rate=8000&output=0&scale=2", sample_rate=8000)
    estimate, one_step = noise(2, 1, 900), 0.5 * noise(2, 1, 900)
    assert torch.equal(pickle.loads(pickle.dumps(quality))(estimate), quality(estimate))
    joint = JointQuality([quality])(estimate, one_step=one_step)
    torch.testing.assert_close(joint, (quality(estimate) - quality(one_step)) / 2)


def test_what_cannot_be_scored_is_nan_for_that_item_alone(tmp_path: Path) -> None:
    quality = get_quality(f"{torchscript(tmp_path, Loudness())}?sample_rate=8000", sample_rate=8000)
    estimate = noise(2, 1, 900)
    estimate[0, 0, 3] = torch.inf
    assert quality(estimate).isnan().tolist() == [True, False]


def test_a_file_guides_a_refinement(tmp_path: Path) -> None:
    quality = get_quality(f"{torchscript(tmp_path, Loudness())}?sample_rate=8000", sample_rate=8000)
    result = refine(
        lambda x: (x * x.abs())[:, None], noise(2, 1, 800), steps=1, search=GridSearch(4), quality=quality
    )
    torch.testing.assert_close(result.scores[-1], quality(result.estimate))
    assert (result.scores[1] >= result.scores[0]).all()


def test_options_and_files_that_are_wrong_are_named(tmp_path: Path) -> None:
    uri = torchscript(tmp_path, Loudness())
    (tmp_path / "text.pt").write_text("no measure")
    for name, words in {
        uri: r"does not say which rate the file wants: add \?sample_rate=HZ",
        f"{uri}?sample_rate=high": "sample_rate='high': give a whole number",
        f"{uri}?sample_rate=8000&negated=true": "unknown option 'negated': use negate",
        f"{uri}?sample_rate=8000&negate=yes": "negate='yes': give true or false",
        f"{uri}?sample_rate=8000&scale=-1": "scale='-1': give a number above 0",
        f"{uri}?sample_rate=48000": "sample_rate=8000 is below the 48000 Hz",
        f"{uri}?sample_rate=8000&output=1": "output=1: .* gives 1 numbers",
        f"{uri}?sample_rate=8000&needs_reference=true": "scores no second of noise",
        f"torchscipt:{tmp_path}/a.pt": "unknown scheme 'torchscipt': use torchscript",
        f"torchscript:{tmp_path}/text.pt?sample_rate=8000": "is not a TorchScript file",
        f"onnx:{tmp_path}/text.pt?sample_rate=8000": "is not an ONNX file",
        "utmos": r"torchscript:utmos\.pt",
    }.items():
        with pytest.raises(ValueError, match=words) as raised:
            get_quality(name, sample_rate=8000)
        assert "\n" not in str(raised.value)
        with pytest.raises(UserError, match=words):
            build_guide(name, 8000)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt' does not exist"):
        get_quality(f"torchscript:{tmp_path}/nowhere.pt?sample_rate=8000", sample_rate=8000)


class Payload:
    """A pickle that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("door", ["torchscript", "onnx", "squim_pesq", "nisqa_mos"])
def test_a_pickle_is_never_executed(door: str, no_network: Path) -> None:
    name = door
    path = no_network / "measure.pt"
    if door in network_measures.NETWORKS:
        path = network_measures.NETWORKS[door].weights()
        path.parent.mkdir(parents=True)
    else:
        name = f"{door}:{path}?sample_rate={RATE}"
    torch.save(Payload(no_network / "executed"), path)
    with pytest.raises(ValueError, match=r"holds no weights|is not a"):
        get_quality(name, sample_rate=RATE)
    assert not (no_network / "executed").exists()


def test_without_weights_and_network_one_line_says_what_to_do(no_network: Path) -> None:
    for name, file in {"nisqa_mos": "nisqa.tar", "squim_stoi": "squim_objective_dns2020.pth"}.items():
        with pytest.raises(ValueError, match=f"{file}.*no network.*encore.cli.prefetch --measures") as raised:
            get_quality(name, sample_rate=RATE)
        assert "\n" not in str(raised.value)
    assert not [path for path in no_network.rglob("*") if path.is_file()]
    reasons = dict(external.prefetch())
    assert tuple(reasons) == DOOR_NAMES
    assert "could not be fetched" in reasons["squim_pesq"]


def test_squim_is_torchaudios_for_any_batch(no_network: Path) -> None:
    from torchaudio.models import squim_objective_base

    torch.manual_seed(0)
    network = squim_objective_base().eval()
    path = network_measures.NETWORKS["squim_pesq"].weights()
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    estimate = noise(3, 1, 8000)
    estimate[2] = 0
    with torch.no_grad():
        expected = network(estimate[:2, 0])
    for name, scores in zip(("squim_stoi", "squim_pesq", "squim_si_sdr"), expected, strict=True):
        quality = get_quality(name, sample_rate=RATE)
        got = quality(estimate)
        torch.testing.assert_close(got[:2], scores, rtol=1e-4, atol=1e-5)
        assert got[2].isnan()
        assert quality(estimate[:1])[0] == got[0]
    assert dict(external.prefetch())["squim_pesq"] == str(path)
    with pytest.raises(ValueError, match="below the 16000 Hz"):
        get_quality("squim_pesq", sample_rate=8000)


def test_a_long_signal_is_scored_in_equal_pieces(no_network: Path, monkeypatch) -> None:
    seen = []

    def load(path: Path) -> network_measures.Scorer:
        def score(signal: Tensor, rate: int) -> Tensor:
            seen.append(signal.shape[1] / rate)
            return signal.mean().reshape(1)

        return score

    network = network_measures.Network(
        load=load,
        weights=lambda: no_network,
        address=None,
        packages=(),
        number=0,
        scale=1.0,
        rate=8000,
        maximum_seconds=10,
    )
    monkeypatch.setitem(network_measures.NETWORKS, "mean", network)
    estimate = torch.linspace(0, 1, 25 * 8000)[None, None]
    score = network_measures.NetworkQuality("mean", sample_rate=8000)(estimate)
    assert max(seen) < 10
    assert len(seen) == 3
    torch.testing.assert_close(score, torch.tensor([0.5]))
    assert network_measures.NetworkQuality("mean", sample_rate=8000)(estimate[..., :1500]).isnan().all()


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
    path = network_measures.NETWORKS["nisqa_mos"].weights()
    assert path == no_network / ".torchmetrics" / "NISQA" / "nisqa.tar"
    path.parent.mkdir(parents=True)
    torch.save({"args": NISQA_OPTIONS, "model_state_dict": network.state_dict()}, path)
    estimate = noise(2, 1, 2 * RATE)
    names = ("nisqa_mos", "nisqa_noisiness", "nisqa_discontinuity", "nisqa_coloration", "nisqa_loudness")
    got = torch.stack([get_quality(name, sample_rate=RATE)(estimate) for name in names], dim=-1)
    expected = nisqa.non_intrusive_speech_quality_assessment(estimate, RATE)[:, 0]
    nisqa._load_nisqa_model.cache_clear()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_distillmos_is_the_packages() -> None:
    package = pytest.importorskip("distillmos")
    estimate = noise(2, 1, 2 * RATE)
    with torch.no_grad():
        expected = package.ConvTransformerSQAModel().eval()(estimate[:, 0])[:, 0]
    torch.testing.assert_close(get_quality("distillmos", sample_rate=RATE)(estimate), expected)
