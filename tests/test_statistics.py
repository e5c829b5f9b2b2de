"""Statistics of score columns against closed forms and SciPy's bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from encore.reporting.statistics import statistics


def test_failed_items_are_counted_and_left_out() -> None:
    summary = statistics([1.0, math.nan, 3.0, 8.0, math.inf])
    assert (summary.count, summary.failed) == (3, 2)
    assert summary.mean == pytest.approx(4.0)
    assert summary.median == 3.0
    assert 1.0 <= summary.low < 4.0 < summary.high <= 8.0


def test_interval_agrees_with_scipy_and_with_the_normal_law() -> None:
    scores = np.random.default_rng(1).normal(10.0, 2.0, 400)
    summary = statistics(scores)
    interval = scipy.stats.bootstrap(
        (scores,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert summary.low == pytest.approx(interval.low, abs=0.03)
    assert summary.high == pytest.approx(interval.high, abs=0.03)
    assert summary.high - summary.low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.05)


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    summaries = [statistics(generator.exponential(1.0, 60), seed=trial) for trial in range(60)]
    covered = sum(summary.low <= 1.0 <= summary.high for summary in summaries)
    assert 50 <= covered <= 59


def test_same_seed_same_interval() -> None:
    scores = np.random.default_rng(4).normal(size=30)
    assert statistics(scores, seed=5) == statistics(scores, seed=5)
    assert statistics(scores, seed=5).low != statistics(scores, seed=6).low


def test_too_few_items_give_nan_not_an_error() -> None:
    empty, one = statistics([]), statistics([2.0])
    assert (empty.count, empty.failed) == (0, 0)
    assert math.isnan(empty.mean)
    assert math.isnan(empty.median)
    assert (one.mean, one.median) == (2.0, 2.0)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
