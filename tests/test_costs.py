"""Counted operations are those of the layers' equations, with data and without."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from separator_toys import small
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from encore.models.costs import count_macs, macs_per_second, parameters

BATCH, STEPS, FEATURES, HIDDEN = 3, 11, 8, 6
KINDS = ((nn.LSTM, nn.LSTMCell, 4), (nn.GRU, nn.GRUCell, 3), (nn.RNN, nn.RNNCell, 1))
SHAPE = (BATCH, STEPS, FEATURES)


def gates(number: int, inputs: int, hidden: int) -> int:
    """Multiply-accumulates of one step of a recurrent layer, from its equations."""
    return number * hidden * (inputs + hidden)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(FEATURES, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


# the fast path of whole layers would hide their products
ATTENTION = 4 * BATCH * STEPS * FEATURES**2 + 2 * BATCH * STEPS**2 * FEATURES
FRAMES = (50 - 7) // 3 + 1
LAYERS = [
    (nn.Linear(FEATURES, 5), SHAPE, BATCH * STEPS * FEATURES * 5),
    (nn.Conv1d(4, 6, 7, stride=3), (2, 4, 50), 2 * FRAMES * 6 * 4 * 7),
    (nn.Conv1d(4, 8, 7, stride=3, groups=4), (2, 4, 50), 2 * FRAMES * 8 * 7),
    # every input sample meets the whole kernel
    (nn.ConvTranspose1d(4, 6, 7, stride=3), (2, 4, 50), 2 * 50 * 4 * 6 * 7),
    *(
        (cell(FEATURES, HIDDEN), (BATCH, FEATURES), BATCH * gates(n, FEATURES, HIDDEN))
        for _, cell, n in KINDS
    ),
    (
        nn.LSTM(FEATURES, HIDDEN, proj_size=2, batch_first=True),
        SHAPE,
        BATCH * STEPS * (4 * HIDDEN * (FEATURES + 2) + 2 * HIDDEN),
    ),
    (nn.LSTM(FEATURES, HIDDEN), (STEPS, FEATURES), STEPS * gates(4, FEATURES, HIDDEN)),
    (Attention(), (2, 4, 9, 5), 2 * 2 * 4 * 9 * 9 * 5),
    (SelfAttention(), SHAPE, ATTENTION),
    (
        nn.TransformerEncoderLayer(FEATURES, 2, dim_feedforward=16, batch_first=True),
        SHAPE,
        ATTENTION + 2 * BATCH * STEPS * FEATURES * 16,
    ),
]


@pytest.mark.parametrize(("layer", "shape", "macs"), LAYERS, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_layers(layer: nn.Module, shape: tuple[int, ...], macs: int, device: str) -> None:
    assert count_macs(layer.to(device), torch.zeros(shape, device=device)) == macs


@pytest.mark.parametrize(("bidirectional", "batch_first"), product([False, True], repeat=2))
@pytest.mark.parametrize(("kind", "cell", "number"), KINDS)
def test_recurrent_layers_keep_their_shapes(
    kind, cell, number: int, bidirectional: bool, batch_first
) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            options = {"num_layers": 2, "bidirectional": bidirectional, "batch_first": batch_first}
            self.recurrent = kind(FEATURES, HIDDEN, **options)
            self.linear = nn.Linear((1 + bidirectional) * HIDDEN, 7)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.recurrent(x)[0])

    wide = (1 + bidirectional) * HIDDEN
    first, second = ((1 + bidirectional) * gates(number, inputs, HIDDEN) for inputs in (FEATURES, wide))
    module, expected = Product(), BATCH * STEPS * (first + second + 7 * wide)
    assert count_macs(module, torch.zeros(SHAPE)) == expected
    assert count_macs(module.to("meta"), torch.zeros(SHAPE, device="meta")) == expected


def test_packed_sequences_cost_their_own_steps() -> None:
    packed = pack_sequence([torch.zeros(5, FEATURES), torch.zeros(2, FEATURES)])
    assert count_macs(nn.LSTM(FEATURES, HIDDEN), packed) == (5 + 2) * gates(4, FEATURES, HIDDEN)


@pytest.mark.parametrize("name", ["BSRNN", "HDemucs", "DPTNet", "DPRNNTasNet", "ConditionedBSRNN"])
def test_networks_without_data_cost_the_same(name: str) -> None:
    network = small(name)
    expected = macs_per_second(network, seconds=0.4)
    assert macs_per_second(network.to("meta"), seconds=0.4) == expected > 0


@pytest.mark.parametrize("length", [None, 1000])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_inverse_transforms_keep_their_shapes(length: int | None, device: str) -> None:
    class Inverse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            window = torch.hann_window(64, device=x.device)
            spectrum = torch.stft(x, 64, 16, window=window, return_complex=True)
            waveform = torch.istft(spectrum, 64, 16, window=window, length=length)
            return waveform @ torch.ones(waveform.shape[-1], 3, device=x.device)

    assert count_macs(Inverse(), torch.zeros(2, 1024, device=device)) == 2 * (length or 1024) * 3


class Filter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sample_rate, self.channels = 8000, 2
        self.filter = nn.Conv1d(2, 4, 5, padding=2)

    def forward(self, mixture: Tensor) -> Tensor:
        return self.filter(mixture).unflatten(1, (2, 2))


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_macs_per_second_follow_the_sample_rate(seconds: float) -> None:
    per_sample = 4 * 2 * 5
    assert macs_per_second(Filter(), seconds=seconds) == pytest.approx(8000 * per_sample, rel=1e-12)
    assert macs_per_second(Filter(), 16000, seconds) == pytest.approx(16000 * per_sample, rel=1e-12)


def test_counting_leaves_the_module_and_torch_as_they_were() -> None:
    module = nn.Sequential(nn.LSTM(2, 2), nn.Identity()).train()
    module[1].eval()
    with pytest.raises(RuntimeError):
        count_macs(module, torch.zeros(3, 3))
    assert [part.training for part in module.modules()] == [True, True, False]
    assert torch.is_grad_enabled()
    found = module[0](torch.randn(3, 2))[0]
    assert found.any()  # and recurrent layers compute again


def test_parameters_are_counted_once_and_frozen_ones_too() -> None:
    shared = nn.Linear(3, 4)
    module = nn.Sequential(shared, nn.Linear(4, 3), shared).requires_grad_(False)
    assert parameters(module) == 3 * 4 + 4 + 4 * 3 + 3
