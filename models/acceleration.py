"""Options that make a separator faster on some machines: mixed precision, compiled and sharded networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from encore.models.types import LoadedSeparator

Precision = Literal["32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

BLOCKS = frozenset(
    {
        "Recurrence",  # BSRNN, DTTNet
        "_TimeFrequencyBlock",  # DTTNet
        "MaskUNet",  # SpectrogramUNet
        "Conv1DBlock",  # ConvTasNet
        "DPRNNBlock",
        "ImprovedTransformedLayer",  # DPTNet
        "UBlock",  # SuDORMRF
        "UConvBlock",
        "Transformer",  # BSRoFormer
        "GridAttention",  # TFAttentionUNet
        "GlobalTemporal",
    }
)
"""Names of the classes that separators repeat between their transforms."""


def accelerate(separator: LoadedSeparator, *, precision: Precision = "32", compiled: bool = False) -> None:
    """Change a separator so that it runs with these options from now on.

    Transforms between waveforms and spectra stay as they are: mixed precision leaves complex numbers in
    float32, and a separator, or a network in it, names in ``compilable`` the methods between its transforms
    (where none does it is compiled as a whole). A compiled method takes long at its first calls. All this
    holds for a bridge's sampling (``denoise``) as for its one step.

    Args:
        separator: A module.
        precision: ``"32"``, or ``"bf16"`` for products in bfloat16 where torch's autocast finds them safe;
            estimates come out in the mixture's type all the same.
        compiled: Whether to use ``torch.compile``, which needs a C++ compiler on a CPU.

    Raises:
        ValueError: If the precision is unknown, or the separator's device does not support it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: choose one of {', '.join(PRECISIONS)}")
    module: Any = separator
    if precision == "bf16":
        check_bfloat16(module, next((weight.device for weight in module.parameters()), torch.device("cpu")))
    if compiled:
        parts = [(part, name) for part in module.modules() for name in getattr(part, "compilable", ())]
        for part, name in parts or [(module, "forward")]:
            # the number of inputs changes from call to call, which must not mean compiling anew
            setattr(part, name, torch.compile(getattr(part, name), dynamic=True))
    if precision == "bf16":
        for name in ("forward", "denoise"):
            if hasattr(module, name):
                setattr(module, name, _in_bfloat16(getattr(module, name)))


def check_bfloat16(network: nn.Module, device: torch.device) -> None:
    """Check that a network can run in bfloat16 on a device.

    Args:
        network: Module that will run under autocast.
        device: Where it will run.

    Raises:
        ValueError: If the network has LSTMs and the device is a CPU without AVX-512: torch fails there, or,
            where the input is in bfloat16 already, takes ten times as long as in float32.
    """
    recurrent = any(isinstance(part, nn.LSTM) for part in network.modules())
    if recurrent and device.type == "cpu" and not has_bfloat16_lstm():
        raise ValueError("precision=bf16: this CPU has no bfloat16 LSTM (needs AVX-512): use precision=32")


@cache
def has_bfloat16_lstm() -> bool:
    """Return whether torch runs LSTMs in bfloat16 on this machine's CPU; tried once, on one sample."""
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
    except RuntimeError:
        return False
    return True


def wrap_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """Policy for torch's fully sharded data parallel: every block of `BLOCKS` is a shard of its own.

    Args:
        module: A module of the network.
        recurse: Whether torch is about to visit the module's children; they are always visited.
        nonwrapped_numel: Parameters that are in no shard yet; unused.

    Returns:
        Whether to visit the children (``recurse``), or to wrap the module.
    """
    return recurse or type(module).__name__ in BLOCKS


def compile_blocks(separator: nn.Module) -> int:
    """Compile each repeated block in place, for training; transforms and losses stay as they are.

    The blocks keep their classes and the state dictionary its keys, so checkpoints are the same with and
    without. Blocks of one class share their code: a deep network compiles as fast as a shallow one. Call it
    after `encore.models.costs.count_macs`: torch never compiles what first ran under a counter.

    Args:
        separator: A network with blocks of `BLOCKS`.

    Returns:
        How many blocks were found.

    Raises:
        ValueError: If there is none.
    """
    blocks = [module for module in separator.modules() if type(module).__name__ in BLOCKS]
    if not blocks:
        raise ValueError(
            f"compile=true: {type(separator).__name__} repeats none of {', '.join(sorted(BLOCKS))}:"
            " use compile=false, or add its block to encore.models.acceleration.BLOCKS"
        )
    for block in blocks:
        # batches of unrolled training and of validation differ in size and length
        block.compile(dynamic=True)
    return len(blocks)


def _in_bfloat16(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method with autocast; what it returns is of the type of its first argument."""

    def mixed(first: Tensor, *others: Tensor | None) -> Tensor:
        with torch.autocast(first.device.type, torch.bfloat16):
            found = method(first, *others)
        return found.to(first.dtype)

    return mixed
