"""The figure of quality against cost shows what refinement adds, whatever items a guide has refined."""

from __future__ import annotations

import pandas as pd
import pytest

from encore.inference.evaluation import score_rows
from encore.reporting.cost import operating_points
from encore.reporting.plots import scale_figure
from encore.reporting.summary import summarise


def rows(item: str, one_step: float, refined: float | None) -> list[dict]:
    base = {"run": "run", "item": item, "input_si_sdr": 0.0}
    scores = {"si_sdr": one_step, "relative_delta": 0.1}
    found = score_rows(base, scores, guide="none", kind="one_step", step=0, evaluations=1)
    for step, value in enumerate(() if refined is None else (one_step, refined)):
        found += score_rows(
            base, {"si_sdr": value}, guide="dnsmos_ovrl", kind="blind", step=step, evaluations=5
        )
    return found


def test_a_guide_that_refined_fewer_items_is_drawn_by_its_paired_gain() -> None:
    """The one refined item is far below the mean of all: its own mean would look like a loss of 7 dB."""
    scores = pd.DataFrame(rows("a", 10, None) + rows("b", 12, None) + rows("c", 2, 3))
    figure = scale_figure(operating_points(summarise(scores), {"run": 100.0}))
    (panel,) = [axes for axes in figure.axes if axes.get_visible()]  # no guide was scored by relative_delta
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert list(lines["dnsmos_ovrl_blind"].get_xdata()) == [100, 500]
    assert list(lines["dnsmos_ovrl_blind"].get_ydata()) == pytest.approx([8, 9])
