"""Options that make a separator faster on some machines: mixed precision, and compiled networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from models.types import LoadedSeparator

Precision = Literal["32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def accelerate(separator: LoadedSeparator, *, precision: Precision = "32", compiled: bool = False) -> None:
    """Change a separator so that it runs with these options from now on.

    Transforms between waveforms and spectra stay as they are: mixed precision leaves complex numbers in
    float32, and a separator names in ``compilable`` the methods between its transforms (one that names none
    is compiled as a whole). A compiled method takes long at its first calls.

    Args:
        separator: A module.
        precision: ``"32"``, or ``"bf16"`` for products in bfloat16 where torch's autocast finds them safe;
            estimates come out in the mixture's type all the same.
        compiled: Whether to use ``torch.compile``, which needs a C++ compiler on a CPU.

    Raises:
        ValueError: If the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: choose one of {', '.join(PRECISIONS)}")
    module: Any = separator
    if compiled:
        for name in getattr(module, "compilable", ("forward",)):
            # the number of blends changes from call to call, which must not mean compiling anew
            setattr(module, name, torch.compile(getattr(module, name), dynamic=True))
    if precision == "bf16":
        module.forward = _in_bfloat16(module.forward)


def _in_bfloat16(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def mixed(mixture: Tensor) -> Tensor:
        with torch.autocast(mixture.device.type, torch.bfloat16):
            estimates = forward(mixture)
        return estimates.to(mixture.dtype)

    return mixed
