"""Count a network's parameters, and its multiply-accumulates per second of audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


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

    Convolutions, linear layers, matrix products and attention are counted by torch's operation counter. It
    misses the fused kernels of recurrent layers, multi-head attention and transformer layers, so recurrent
    layers are counted from the shapes of their weights, and attention is run in its plain form. Not counted:
    element-wise operations, normalization, activations, Fourier transforms.

    Args:
        module: Any network; run without gradients in evaluation mode, its modes are restored.
        *inputs: Its inputs.

    Returns:
        Multiply-accumulates, half the floating point operations.
    """
    counter = FlopCounterMode(display=False)
    recurrent = _RecurrentCount(counter)
    with ExitStack() as stack:
        stack.enter_context(_evaluation_mode(module))
        stack.enter_context(_plain_attention())
        stack.enter_context(recurrent.attached(module))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_MetaInverseTransforms())
        stack.enter_context(counter)
        module(*inputs)
    return counter.get_total_flops() // 2 - recurrent.macs_by_counter + recurrent.macs


class _RecurrentCount:
    """Counts recurrent layers by hooks.

    The operation counter misses fused kernels but not unrolled ones, so its own count of recurrent layers
    is recorded as well, to be subtracted.
    """

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.macs = 0
        self.macs_by_counter = 0
        self._flops_before = 0
        self._steps = 0

    @contextmanager
    def attached(self, module: nn.Module) -> Iterator[None]:
        """Hook every recurrent layer and cell of a module."""
        layers = [part for part in module.modules() if isinstance(part, nn.RNNBase | nn.RNNCellBase)]
        with ExitStack() as stack:
            for layer in layers:
                stack.callback(layer.register_forward_pre_hook(self._before).remove)
                stack.callback(layer.register_forward_hook(self._after).remove)
            yield

    def _before(
        self, layer: nn.Module, inputs: tuple[Tensor | PackedSequence, ...]
    ) -> tuple[Tensor | PackedSequence, ...]:
        self._flops_before = self.counter.get_total_flops()
        sequence = inputs[0]
        # the last axis is the feature, also of a packed sequence (steps of all items, feature)
        features = sequence.data if isinstance(sequence, PackedSequence) else sequence
        # each weight matrix (input, hidden, projection; every gate, layer and direction) is used once a step
        weights = sum(weight.numel() for weight in layer.parameters() if weight.ndim == 2)
        self.macs += features.shape[:-1].numel() * weights
        axis = _unrolled_axis(layer, sequence)
        if axis is None:
            return inputs
        self._steps = features.shape[axis]
        return (features.narrow(axis, 0, 1), *inputs[1:])

    def _after(
        self, layer: nn.Module, inputs: tuple[Tensor | PackedSequence, ...], output: Any
    ) -> tuple[Any, ...] | None:
        self.macs_by_counter += (self.counter.get_total_flops() - self._flops_before) // 2
        axis = _unrolled_axis(layer, inputs[0])
        return None if axis is None else (output[0].repeat_interleave(self._steps, axis), *output[1:])


def _unrolled_axis(layer: nn.Module, sequence: Tensor | PackedSequence) -> int | None:
    """Return the time axis of a recurrent layer on the meta device, else None.

    There torch runs it step by step, which takes long; one step is run in place of all.
    """
    if not isinstance(layer, nn.RNNBase) or isinstance(sequence, PackedSequence) or not sequence.is_meta:
        return None
    return 1 if layer.batch_first and sequence.ndim == 3 else 0


class _MetaInverseTransforms(TorchFunctionMode):
    """Inverse Fourier transforms on the meta device, where torch's check of the windows' overlap fails."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.istft and args[0].is_meta:
            return _inverse_transform_shape(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _inverse_transform_shape(
    spectrum: Tensor, n_fft: int, hop_length: int, *, length: int | None = None, **options: Any
) -> Tensor:
    """Return an empty waveform ``(..., time)`` of a centered spectrum ``(..., f, frame)``."""
    time = hop_length * (spectrum.shape[-1] - 1) if length is None else length
    return torch.empty(*spectrum.shape[:-2], time, dtype=spectrum.real.dtype, device=spectrum.device)


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


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Run attention as matrix products, which the counter sees, in place of fused kernels."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _given_or_attribute(separator: nn.Module, name: str, given: int | None) -> int:
    value = given if given is not None else getattr(separator, name, None)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: {type(separator).__name__} has none, give a positive number")
    return value
