"""Statistics of score columns: mean, median, a confidence interval, and the number of failed items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2000
_SLICE = 2_000_000
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of the ``count`` items that were scored and the ``failed`` ones, NaN or infinite.

    Mean and median need one item, else they are NaN; ``low`` and ``high``, the ends of the 95 % confidence
    interval of the mean, need two.
    """

    mean: float
    low: float
    high: float
    median: float
    count: int
    failed: int

    @property
    def interval(self) -> tuple[float, float, float]:
        """Mean and ends of its interval."""
        return self.mean, self.low, self.high


def statistics(values: ArrayLike, *, seed: int = 0) -> Statistics:
    """Compute the statistics of scores ``(item,)``, NaN for an item that could not be scored.

    The interval is that of the percentile bootstrap over items, seeded by ``seed``; it does not depend on
    their order.

    Source: B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.

    Example:
        >>> found = statistics([1.0, 2.0, 6.0, float("nan")])
        >>> found.mean, found.median, found.count, found.failed
        (3.0, 2.0, 3, 1)
    """
    column = np.sort(np.asarray(values, dtype=np.float64).reshape(-1))
    scored = column[np.isfinite(column)]
    mean, median = (float(of(scored)) if len(scored) else np.nan for of in (np.mean, np.median))
    low, high = (
        _bootstrap_interval(scored, np.random.default_rng(seed)) if len(scored) > 1 else (np.nan, np.nan)
    )
    return Statistics(mean, float(low), float(high), median, len(scored), len(column) - len(scored))


def _bootstrap_interval(
    scored: NDArray[np.float64], generator: np.random.Generator
) -> tuple[np.float64, np.float64]:
    """Return the percentiles of the means of items drawn with replacement."""
    count = len(scored)
    means = np.empty(_RESAMPLES)
    # how often each item is drawn; in slices, since a matrix of all samples would not fit for long columns
    slices = max(1, _SLICE // count)
    for start in range(0, _RESAMPLES, slices):
        size = min(slices, _RESAMPLES - start)
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=size)
        means[start : start + size] = drawn @ scored / count
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return low, high
