"""Mixed precision and compiled networks give the same estimates, to their precision, for any batch."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from bridge_toys import BSRNN as BSRNN_BRIDGE
from bridge_toys import MASKS as MASKS_BRIDGE
from bridge_toys import toy_bridge

from encore.inference import BridgeSampler
from encore.models.acceleration import accelerate
from encore.models.separators.bsrnn import BSRNN


def small() -> BSRNN:
    torch.manual_seed(0)
    return BSRNN(features=8, layers=1, sample_rate=8000).eval().requires_grad_(False)


@pytest.fixture
def mixture() -> torch.Tensor:
    return torch.randn(3, 1, 4000, generator=torch.Generator().manual_seed(1))


def test_bfloat16_is_used_and_estimates_come_out_as_mixtures_went_in(mixture) -> None:
    separator, expected = small(), small()(mixture)
    seen = []
    separator.layers[0][0].rnn.register_forward_hook(lambda module, given, out: seen.append(out[0].dtype))
    accelerate(separator, precision="bf16")
    estimates = separator(mixture)
    assert seen == [torch.bfloat16]
    assert estimates.dtype == mixture.dtype
    difference = (estimates - expected).norm() / expected.norm()
    assert 1e-6 < difference < 0.02


def test_without_options_nothing_changes(mixture) -> None:
    separator = small()
    accelerate(separator)
    assert torch.equal(separator(mixture), small()(mixture))


def test_a_compiled_network_takes_any_batch_without_being_compiled_anew(mixture, monkeypatch) -> None:
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    # what the C++ compiler would be given
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    separator, reference, needed = small(), small(), []
    accelerate(separator, compiled=True)
    for items in (3, 2, 1):
        torch.testing.assert_close(separator(mixture[:items]), reference(mixture[:items]))
        needed.append(len(graphs))
    # a batch of one has graphs of its own
    assert needed[0] == needed[1] > 0
    targets = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert not any("stft" in target for target in targets)


@pytest.mark.parametrize("network", [BSRNN_BRIDGE, MASKS_BRIDGE])
def test_sampling_a_bridge_is_accelerated_as_its_one_step_is(network, mixture, monkeypatch) -> None:
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    sampler = BridgeSampler(steps=2)
    plain, compiled, half = (toy_bridge(network) for _ in range(3))
    accelerate(compiled, compiled=True)
    accelerate(half, precision="bf16")
    expected, found, rough = (
        sampler(separator, mixture, generator=torch.Generator().manual_seed(0)).estimate
        for separator in (plain, compiled, half)
    )
    assert graphs
    targets = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert not any("stft" in target for target in targets)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert rough.dtype == mixture.dtype
    assert 1e-6 < (rough - expected).norm() / expected.norm() < 0.02


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="precision='16'"):
        accelerate(small(), precision="16")
