"""Solvers along their chain: means over mixtures, and no conflict where there is no gradient."""

from __future__ import annotations

import pandas as pd
import pytest

from encore.reporting.prior_figures import solver_traces_figure


def test_traces_are_means_by_level_from_the_noisiest_on() -> None:
    points = [
        {
            "variant": variant,
            "mixture": mixture,
            "alpha_bar": alpha_bar,
            "residual": left,
            "conflict": conflict,
        }
        for variant, conflict in (("hybrid", 0.5), ("projection", float("nan")))
        for mixture, shift in (("0000", 0.0), ("0001", 0.2))
        for alpha_bar, left in ((0.2, 0.8 + shift), (0.5, 0.4 + shift))
    ]
    left, conflict = solver_traces_figure(pd.DataFrame(points)).axes
    lines = {line.get_label(): line for line in left.get_lines()}
    assert lines.keys() == {"hybrid", "projection"}
    # sigma of abar = 0.2 and 0.5
    assert list(lines["hybrid"].get_xdata()) == pytest.approx([2.0, 1.0])
    assert list(lines["hybrid"].get_ydata()) == pytest.approx([0.9, 0.5])
    assert left.get_xlim()[0] > left.get_xlim()[1]
    (only,) = conflict.get_lines()
    assert list(only.get_ydata()) == [0.5, 0.5]
    assert only.get_color() == lines["hybrid"].get_color()
