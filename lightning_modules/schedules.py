"""Learning-rate schedules."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, *, warmup: int, steps: int, floor: float = 0.02) -> LambdaLR:
    """Rise linearly over ``warmup`` steps, then fall as half a cosine to ``floor`` of the rate at ``steps``.

    Args:
        optimizer: Its learning rates are the peak.
        warmup: Steps of the rise, at most a tenth of ``steps``: short runs need no other value.
        steps: Steps of the whole schedule; beyond them the rate stays at the floor.
        floor: Last rate as a fraction of the peak, in [0, 1].

    Raises:
        ValueError: If there is no step, or ``warmup`` is negative.

    Source: I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
    """
    if steps < 1 or warmup < 0:
        raise ValueError(f"warmup={warmup}, steps={steps}: set trainer.max_steps, and a warmup of 0 or more")
    warmup = min(warmup, steps // 10)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (steps - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
