"""Count a network's parameters, and its multiply-accumulates per second of audio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

_RECURRENCES = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


def parameters(module: nn.Module) -> int:
    """Count the parameters, trainable or frozen, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs_per_second(
    separator: nn.Module, sample_rate: int | None = None, seconds: float = 1.0, channels: int | None = None
) -> float:
    """Count the multiply-accumulates per second of audio, all channels together, as `count_macs` does.

    For networks whose cost is not proportional to the length (attention over the whole input, padding to
    whole chunks) the result depends on ``seconds``. A network on the meta device (``with
    torch.device("meta")``) is counted without any arithmetic.

    Args:
        separator: Maps ``(batch, channel, time)`` to anything.
        sample_rate: Rate in Hz; ``separator.sample_rate`` if None.
        seconds: Length of the measured input.
        channels: Channels of the measured input; ``separator.channels`` if None.

    Raises:
        ValueError: If the length is not positive, or rate or channels are neither given nor known.
    """
    rate = _given_or_attribute(separator, "sample_rate", sample_rate)
    number_of_channels = _given_or_attribute(separator, "channels", channels)
    frames = round(rate * seconds)
    if frames < 1:
        raise ValueError(f"seconds={seconds} at {rate} Hz is less than one sample: give a longer input")
    first = next(separator.parameters(), torch.zeros(()))
    # noise, not zeros: a network may treat silence differently
    noise = torch.randn(1, number_of_channels, frames, generator=torch.Generator().manual_seed(0))
    return count_macs(separator, 0.1 * noise.to(first)) * rate / frames


def count_macs(module: nn.Module, *inputs: Tensor | PackedSequence) -> int:
    """Count the multiply-accumulates of one evaluation.

    Convolutions, linear layers, matrix products and attention are counted by torch's operation counter,
    recurrent layers from the shapes of their weights. Not counted: element-wise operations, normalization,
    activations, Fourier transforms.

    Args:
        module: Any network; run without gradients in evaluation mode, its modes are restored.
        *inputs: Its inputs.

    Returns:
        Multiply-accumulates, half the floating point operations.
    """
    counter, replaced = FlopCounterMode(display=False), _Replacements()
    # attention as matrix products, which the counter sees, in place of fused kernels
    with _evaluation_mode(module), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), replaced, counter:
        module(*inputs)
    return counter.get_total_flops() // 2 + replaced.macs


class _Replacements(TorchFunctionMode):
    """Replaces two kinds of functions by tensors of the shapes that they return.

    Recurrent layers, which the counter misses where one kernel computes them, and which the meta device runs
    step by step; inverse Fourier transforms, whose check of the windows' overlap fails on the meta device.
    While it is active, torch takes no fused path through a whole layer of attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _RECURRENCES:
            return self._recurrence(*args)
        if func is torch.istft and args[0].is_meta:
            return _inverse_transform(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _recurrence(self, sequence: Tensor, *others: Any) -> tuple[Tensor, ...]:
        """Count torch.lstm or its like: of ``(..., feature)``, or of all steps of a packed sequence."""
        # a packed sequence has its batch sizes before the states
        position = next(index for index, other in enumerate(others) if isinstance(other, list))
        states, weights, bidirectional = others[position - 1], others[position], others[position + 5]
        # each weight matrix (input, hidden, projection; every gate, layer and direction) is used once a step
        self.macs += sequence.shape[:-1].numel() * sum(
            weight.numel() for weight in weights if weight.ndim == 2
        )
        states = (states,) if isinstance(states, Tensor) else tuple(states)
        features = states[0].shape[-1] * (2 if bidirectional else 1)
        return sequence.new_zeros(*sequence.shape[:-1], features), *states


def _inverse_transform(
    spectrum: Tensor, n_fft: int, hop_length: int, *, length: int | None = None, **options: Any
) -> Tensor:
    """Return an empty waveform ``(..., time)`` of a centered spectrum ``(..., f, frame)``."""
    time = hop_length * (spectrum.shape[-1] - 1) if length is None else length
    return spectrum.real.new_empty(*spectrum.shape[:-2], time)


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and restore every part's mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _given_or_attribute(separator: nn.Module, name: str, given: int | None) -> int:
    value = given if given is not None else getattr(separator, name, None)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: {type(separator).__name__} has none, give a positive number")
    return value
