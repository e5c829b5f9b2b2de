"""Whether random draws follow the law that they should, within four standard deviations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from torch import Generator


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def check_frequency(hits: Any, expected: float) -> None:
    """Check the relative frequency of hits, booleans of any shape."""
    hits = np.asarray(hits)
    spread = 4 * math.sqrt(expected * (1 - expected) / hits.size)
    assert hits.mean() == pytest.approx(expected, abs=spread)


def check_uniform(values: Any, low: float, high: float, tolerance: float = 1e-3) -> None:
    """Check range, extremes, mean and variance of draws."""
    values, width = np.asarray(values), high - low
    nearest, spread = 9 * width / values.size, 4 * width / math.sqrt(12 * values.size)
    assert low - tolerance <= values.min() <= low + max(nearest, tolerance)
    assert high - max(nearest, tolerance) <= values.max() <= high + tolerance
    assert values.mean() == pytest.approx((low + high) / 2, abs=max(spread, tolerance))
    # the fourth moment of a uniform distribution is 9/5 of its squared variance
    spread = 4 * math.sqrt(0.8 / values.size) * width**2 / 12
    assert values.var() == pytest.approx(width**2 / 12, abs=max(spread, tolerance))
