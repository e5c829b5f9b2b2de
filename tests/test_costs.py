from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from encore.models.costs import count_macs, macs_per_second, parameters
from encore.models.separators.asteroid import AsteroidSeparator
from encore.models.separators.bsrnn import BSRNN
from encore.models.separators.hdemucs import HDemucs

BATCH, STEPS, FEATURES, HIDDEN = 3, 11, 8, 6


def sequence() -> Tensor:
    return torch.zeros(BATCH, STEPS, FEATURES)


def gates(number: int, inputs: int, hidden: int) -> int:
    """Multiply-accumulates of one step of a recurrent layer, from its equations."""
    return number * hidden * inputs + number * hidden * hidden


def test_linear() -> None:
    assert count_macs(nn.Linear(FEATURES, 5), sequence()) == BATCH * STEPS * FEATURES * 5


def test_convolutions() -> None:
    x = torch.zeros(2, 4, 50)
    frames = (50 - 7) // 3 + 1
    assert count_macs(nn.Conv1d(4, 6, 7, stride=3), x) == 2 * frames * 6 * 4 * 7
    assert count_macs(nn.Conv1d(4, 8, 7, stride=3, groups=4), x) == 2 * frames * 8 * 7
    # transposed: every input sample meets the whole kernel
    assert count_macs(nn.ConvTranspose1d(4, 6, 7, stride=3), x) == 2 * 50 * 4 * 6 * 7


@pytest.mark.parametrize(("layer", "number"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers(
    layer: type[nn.RNNBase], number: int, bidirectional: bool, batch_first: bool
) -> None:
    directions = 1 + bidirectional
    module = layer(FEATURES, HIDDEN, num_layers=2, bidirectional=bidirectional, batch_first=batch_first)
    first = directions * gates(number, FEATURES, HIDDEN)
    second = directions * gates(number, directions * HIDDEN, HIDDEN)
    x = sequence() if batch_first else sequence().transpose(0, 1)
    assert count_macs(module, x) == BATCH * STEPS * (first + second)


def test_lstm_with_projection_unbatched_and_packed() -> None:
    projected = nn.LSTM(FEATURES, HIDDEN, proj_size=2, batch_first=True)
    step = 4 * HIDDEN * (FEATURES + 2) + 2 * HIDDEN
    assert count_macs(projected, sequence()) == BATCH * STEPS * step
    plain = nn.LSTM(FEATURES, HIDDEN)
    assert count_macs(plain, torch.zeros(STEPS, FEATURES)) == STEPS * gates(4, FEATURES, HIDDEN)
    packed = pack_sequence([torch.zeros(5, FEATURES), torch.zeros(2, FEATURES)])
    assert count_macs(plain, packed) == (5 + 2) * gates(4, FEATURES, HIDDEN)


@pytest.mark.parametrize(("cell", "number"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells(cell: type[nn.RNNCellBase], number: int) -> None:
    assert count_macs(cell(FEATURES, HIDDEN), torch.zeros(BATCH, FEATURES)) == BATCH * gates(
        number, FEATURES, HIDDEN
    )


def attention(batch: int, steps: int, width: int) -> int:
    projections = 4 * batch * steps * width * width
    products = 2 * batch * steps * steps * width
    return projections + products


def test_scaled_dot_product_attention() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert count_macs(Attention(), torch.zeros(2, 4, 9, 5)) == 2 * 2 * 4 * 9 * 9 * 5


def test_transformer_layers_are_counted_where_the_fast_path_would_hide_them() -> None:
    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(FEATURES, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x)[0]

    expected = attention(BATCH, STEPS, FEATURES)
    assert count_macs(SelfAttention(), sequence()) == expected
    layer = nn.TransformerEncoderLayer(FEATURES, 2, dim_feedforward=16, batch_first=True)
    assert count_macs(layer, sequence()) == expected + 2 * BATCH * STEPS * FEATURES * 16


def test_a_composition_is_the_sum_of_its_parts() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv1d(FEATURES, FEATURES, 1)
            self.lstm = nn.LSTM(FEATURES, HIDDEN, bidirectional=True, batch_first=True)
            self.gru = nn.GRU(2 * HIDDEN, HIDDEN, batch_first=True)
            self.linear = nn.Linear(HIDDEN, FEATURES)

        def forward(self, x: Tensor) -> Tensor:
            x = self.convolution(x.transpose(1, 2)).transpose(1, 2)
            return self.linear(self.gru(self.lstm(x)[0])[0]) @ torch.ones(FEATURES, 3)

    step = (
        FEATURES * FEATURES
        + 2 * gates(4, FEATURES, HIDDEN)
        + gates(3, 2 * HIDDEN, HIDDEN)
        + HIDDEN * FEATURES
        + FEATURES * 3
    )
    assert count_macs(Stack(), sequence()) == BATCH * STEPS * step


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


@pytest.mark.parametrize(
    "build",
    [
        lambda: BSRNN(features=8, layers=2, sample_rate=8000),
        lambda: HDemucs(["a", "b"], 8000, 2, width=4, depth=5),
        lambda: AsteroidSeparator(
            "DPTNet", ["a"], 8000, options={"n_filters": 16, "ff_hid": 8, "n_repeats": 1}
        ),
        lambda: AsteroidSeparator("DPRNNTasNet", ["a"], 8000, options={"n_filters": 16, "n_repeats": 1}),
    ],
)
def test_networks_without_data_cost_the_same(build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        empty = build()
    assert macs_per_second(empty, seconds=0.4) == macs_per_second(build(), seconds=0.4) > 0


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(("batch_first", "shape"), [(False, (5, 3, 4)), (True, (3, 5, 4)), (True, (5, 4))])
def test_recurrent_layers_without_data_keep_their_shapes(layer: type[nn.RNNBase], batch_first, shape) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = layer(4, 6, num_layers=2, bidirectional=True, batch_first=batch_first)
            self.linear = nn.Linear(12, 7)

        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.recurrent(x)
            assert out.shape == (*x.shape[:-1], 12)
            return self.linear(out)

    module = Product()
    expected = count_macs(module, torch.zeros(shape))
    assert count_macs(module.to("meta"), torch.zeros(shape, device="meta")) == expected > 0


@pytest.mark.parametrize("length", [None, 1000])
def test_inverse_transforms_without_data_keep_their_shapes(length: int | None) -> None:
    class Inverse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            window = torch.hann_window(64, device=x.device)
            spectrum = torch.stft(x, 64, 16, window=window, return_complex=True)
            waveform = torch.istft(spectrum, 64, 16, window=window, length=length)
            return waveform @ torch.ones(waveform.shape[-1], 3, device=x.device)

    assert count_macs(Inverse(), torch.zeros(2, 1024, device="meta")) == 2 * (length or 1024) * 3
    assert count_macs(Inverse(), torch.zeros(2, 1024)) == 2 * (length or 1024) * 3


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="sample_rate=None: Conv1d has none"):
        macs_per_second(nn.Conv1d(1, 1, 1))
    with pytest.raises(ValueError, match=r"seconds=1e-05 at 8000 Hz is less than one sample"):
        macs_per_second(Filter(), seconds=1e-5)


def test_counting_leaves_the_module_and_torch_as_they_were() -> None:
    module = nn.Sequential(nn.LSTM(2, 2), nn.Identity()).train()
    module[1].eval()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(RuntimeError):
        count_macs(module, torch.zeros(3, 3))
    assert [part.training for part in module.modules()] == [True, True, False]
    assert not module[0]._forward_hooks
    assert not module[0]._forward_pre_hooks
    assert torch.backends.mha.get_fastpath_enabled() is fast_path
    assert torch.is_grad_enabled()


def test_parameters_are_counted_once_and_frozen_ones_too() -> None:
    shared = nn.Linear(3, 4)
    module = nn.Sequential(shared, nn.Linear(4, 3), shared).requires_grad_(False)
    assert parameters(module) == 3 * 4 + 4 + 4 * 3 + 3
