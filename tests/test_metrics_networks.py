"""Published networks: the numbers of their packages, one signal at a time, weights never run as code."""

from __future__ import annotations

import json
import socket
from functools import partial
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from separator_toys import noise
from torch import Tensor

from encore.metrics import MetricPanel, get_metric, networks

RATE = 16000


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty caches, and nothing to fill them from."""

    def refuse(address: str, **_: object) -> None:
        assert socket.getdefaulttimeout() == 20  # a firewall that drops packets must not be waited for
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(networks, "_opened", {})
    # torch.hub.set_dir would outlive the test, and hide TORCH_HOME from later ones
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path


def weights_of(family: str) -> Path:
    path = networks.NETWORKS[family].weights()
    path.parent.mkdir(parents=True)
    return path


class Payload:
    """A pickle that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("source", ["torchscript", "onnx", "squim_pesq", "nisqa_mos"])
def test_a_pickle_is_never_executed(source: str, no_network: Path) -> None:
    family, path = source.partition("_")[0], no_network / "metric.pt"
    name = source if family in networks.NETWORKS else f"{source}:{path}?sample_rate={RATE}"
    if family in networks.NETWORKS:
        path = weights_of(family)
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


def test_squim_is_torchaudios_for_any_batch_and_in_panels(no_network: Path) -> None:
    from torchaudio.models import squim_objective_base

    torch.manual_seed(0)
    network, path = squim_objective_base().eval(), weights_of("squim")
    torch.save(network.state_dict(), path)
    estimate = noise(3, 1, 8000)
    estimate[2] = 0
    with torch.no_grad():
        expected = network(estimate[:2, 0])
    names = ("squim_stoi", "squim_pesq", "squim_si_sdr")
    panel = MetricPanel(names, sample_rate=RATE)(estimate)
    for name, scores in zip(names, expected, strict=True):
        metric = get_metric(name, sample_rate=RATE)
        got = metric.score(estimate)
        torch.testing.assert_close(got[:2], scores, rtol=1e-4, atol=1e-5)
        assert got[2].isnan()
        assert metric.score(estimate[:1])[0] == got[0] == panel[name][0]
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
    estimate = torch.linspace(0, 1, 25 * 8000)[None]
    own = partial(networks.network_scores, "mean", sample_rate=8000, names=("mean",))
    assert own(estimate)["mean"].item() == pytest.approx(0.5, rel=1e-5)
    assert (len(seen), max(seen) < 10) == (3, True)
    assert own(estimate[..., :1500])["mean"].isnan()


NISQA_OPTIONS = json.loads("""
{"cnn_c_out_1": 2, "cnn_c_out_2": 2, "cnn_c_out_3": 4, "cnn_dropout": 0.2, "cnn_kernel_size": [3, 3],
"cnn_pool_1": [24, 7], "cnn_pool_2": [12, 5], "cnn_pool_3": [6, 3], "td_sa_d_model": 8, "td_sa_dropout":
0.1, "td_sa_h": 8, "td_sa_nhead": 1, "td_sa_num_layers": 1, "pool_att_dropout": 0.1, "pool_att_h": 8,
"ms_seg_length": 15, "ms_seg_hop_length": 4, "ms_max_segments": 1300, "ms_hop_length": 0.01,
"ms_win_length": 0.02, "ms_n_fft": 4096, "ms_n_mels": 48, "ms_fmax": 20000}
""")


def test_nisqa_is_torchmetrics(no_network: Path) -> None:
    from torchmetrics.functional.audio import nisqa

    nisqa._load_nisqa_model.cache_clear()
    torch.manual_seed(0)
    network, path = nisqa._NISQADIM(NISQA_OPTIONS), weights_of("nisqa")
    assert path == Path(nisqa.NISQA_DIR).expanduser() / "nisqa.tar"
    torch.save({"args": NISQA_OPTIONS, "model_state_dict": network.state_dict()}, path)
    estimate = noise(2, 1, 2 * RATE)
    got = MetricPanel(list(networks.NETWORKS["nisqa"].scales), sample_rate=RATE)(estimate)
    expected = nisqa.non_intrusive_speech_quality_assessment(estimate, RATE)[:, 0]
    nisqa._load_nisqa_model.cache_clear()
    torch.testing.assert_close(torch.stack(list(got.values()), dim=-1), expected, rtol=1e-4, atol=1e-5)


def test_distillmos_is_the_packages() -> None:
    package = pytest.importorskip("distillmos")
    estimate = noise(2, 1, 2 * RATE)
    with torch.no_grad():
        expected = package.ConvTransformerSQAModel().eval()(estimate[:, 0])[:, 0]
    torch.testing.assert_close(get_metric("distillmos", sample_rate=RATE).score(estimate), expected)
