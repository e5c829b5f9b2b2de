"""Does a written file compute what the separator computes?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from encore.models.export.files import Extent
from encore.models.types import Separator

# an odd number of samples, and whole frames of most networks
_SECONDS = (0.37, 1.0)
_BATCHES = (1, 3)


def largest_difference(written: Separator, separator: Any, extent: Extent) -> float:
    """Compare a written file with its separator on white noise of rms 0.1, of two lengths and batch sizes.

    Args:
        written: What the file computes.
        separator: What it should compute; with ``sample_rate`` and ``channels``.
        extent: Where the file takes one length or batch size only, that one is compared.

    Returns:
        The largest absolute difference over the estimates' largest magnitude; infinite where shapes differ,
        NaN where a sample is.

    Raises:
        ValueError: If the file does not take the noise.
    """
    rate = int(separator.sample_rate)
    times = (
        [round(_SECONDS[0] * rate) | 1, round(_SECONDS[1] * rate)] if extent.time is None else [extent.time]
    )
    batches = _BATCHES if extent.batch is None else (extent.batch,)
    generator = torch.Generator().manual_seed(1)
    mixtures = [
        0.1 * torch.randn(batch, int(separator.channels), time, generator=generator)
        for batch in batches
        for time in times
    ]
    differences = [_difference(written, separator, mixture) for mixture in mixtures]
    return math.nan if any(map(math.isnan, differences)) else max(differences)


@torch.no_grad()
def _difference(written: Separator, separator: Separator, mixture: Tensor) -> float:
    expected = separator(mixture)
    try:
        estimates = written(mixture)
    except Exception as error:  # each runtime has exceptions of its own
        # the last line, which in TorchScript's tracebacks is the reason
        shape, reason = tuple(mixture.shape), str(error).strip().splitlines()[-1]
        raise ValueError(
            f"the file fails on a mixture of shape {shape}: {reason}; fix the length by --seconds S"
        ) from error
    if estimates.shape != expected.shape:
        return math.inf
    return float((estimates - expected).abs().max() / expected.abs().max())
