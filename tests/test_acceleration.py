"""Mixed precision and compiled networks give the same estimates, to their precision, for any batch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from bridge_toys import BSRNN as BSRNN_BRIDGE
from bridge_toys import MASKS as MASKS_BRIDGE
from bridge_toys import toy_bridge
from infer_toys import separator_file
from separator_toys import close, noise, small

from encore import infer
from encore.inference import BridgeSampler
from encore.models import acceleration
from encore.models.acceleration import accelerate, has_bfloat16_lstm
from encore.models.separators.bsrnn import BSRNN

# torch.compile takes long for many
TWO_BANDS = {"bands": [[1, 1000.0]]}
needs_lstm = pytest.mark.skipif(not has_bfloat16_lstm(), reason="no LSTM in bfloat16 on this CPU")


def bsrnn() -> BSRNN:
    return small("BSRNN", layers=1).requires_grad_(False)


def test_without_options_nothing_changes() -> None:
    separator, mixture = bsrnn(), noise(3, 1, 4000)
    accelerate(separator)
    assert torch.equal(separator(mixture), bsrnn()(mixture))


@pytest.fixture
def graphs(monkeypatch) -> list[torch.fx.GraphModule]:
    """What the C++ compiler would be given by torch.compile."""
    found: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        found.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    return found


def transforms(graphs: list[torch.fx.GraphModule]) -> list[str]:
    targets = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    return [target for target in targets if "stft" in target]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BSRNN", {"layers": 1, **TWO_BANDS}),
        ("DTTNet mask", {"scales": 1}),
        ("SpectrogramUNet", {"filters": [8, 8]}),
    ],
)
def test_a_compiled_network_takes_any_batch_without_being_compiled_anew(name, options, graphs) -> None:
    separator, reference = (small(name, **options).requires_grad_(False) for _ in range(2))
    accelerate(separator, compiled=True)
    needed = []
    for shape in ((3, 1, 4000), (2, 1, 3000)):
        close(separator(noise(*shape)), reference(noise(*shape)))
        needed.append(len(graphs))
    assert needed[0] == needed[1] > 0
    assert not transforms(graphs)
    # a batch of one has graphs of its own
    close(separator(noise(1, 1, 4000)), reference(noise(1, 1, 4000)))


@pytest.mark.parametrize("network", [pytest.param(BSRNN_BRIDGE | TWO_BANDS, marks=needs_lstm), MASKS_BRIDGE])
def test_sampling_a_bridge_is_accelerated_as_its_one_step_is(network, graphs) -> None:
    sampler, mixture = BridgeSampler(steps=2), noise(3, 1, 4000)
    plain, compiled, half = (toy_bridge(network) for _ in range(3))
    accelerate(compiled, compiled=True)
    accelerate(half, precision="bf16")
    expected, found, rough = (
        sampler(separator, mixture, generator=torch.Generator().manual_seed(0)).estimates
        for separator in (plain, compiled, half)
    )
    assert graphs
    assert not transforms(graphs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert rough.dtype == mixture.dtype
    assert 1e-6 < (rough - expected).norm() / expected.norm() < 0.02


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these instructions are x86's")
def test_a_cpu_without_avx512_refuses_lstms_in_bfloat16_in_one_line(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * torch.randn(8000).numpy(), 16000)
    lstm = separator_file(tmp_path, "lstm")
    done = subprocess.run(
        [sys.executable, infer.__file__, "a.wav", "-o", "out", "--precision", "bf16", "--separator", lstm],
        cwd=tmp_path,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "precision=bf16: this CPU has no bfloat16 LSTM" in line


def test_only_recurrent_networks_on_cpus_need_bfloat16_lstms(monkeypatch) -> None:
    monkeypatch.setattr(acceleration, "has_bfloat16_lstm", lambda: False)
    cpu = torch.device("cpu")
    acceleration.check_bfloat16(torch.nn.Linear(1, 1), cpu)
    acceleration.check_bfloat16(bsrnn(), torch.device("cuda"))
    with pytest.raises(ValueError, match="use precision=32"):
        acceleration.check_bfloat16(bsrnn(), cpu)
    with pytest.raises(ValueError, match="use precision=32"):
        accelerate(bsrnn(), precision="bf16")
