"""Figures of separation with source priors: what solvers do along their chain."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from encore.reporting.palette import HUES, styled

DASHES = ("-", "--", ":", "-.")
"""One style for each round of the colours."""

SMOOTHED, LEAST = 9, 0.01
"""Levels that a running mean of the conflicts takes; the smallest residual that is drawn."""


@styled
def solver_traces_figure(traces: pd.DataFrame) -> Figure:
    """What estimates leave of the mixture, and how often guidance is at odds with the priors, by noise level.

    Args:
        traces: Columns ``way, mixture, signal, left, conflict``: a row for every level, ``signal`` its
            ``abar``, ``conflict`` a share in [0, 1], NaN for solvers without a gradient.

    Returns:
        Two panels side by side, from the noisiest level to the cleanest; means over the mixtures, of the
        conflicts over `SMOOTHED` levels too.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    for place, way in enumerate(traces["way"].unique()):
        own = traces[traces["way"] == way]
        colour, line = HUES[place % len(HUES)], DASHES[place // len(HUES) % len(DASHES)]
        for panel, column in zip(panels, ("left", "conflict"), strict=True):
            means = own.groupby("signal")[column].mean()
            if column == "conflict":
                means = means.rolling(SMOOTHED, center=True, min_periods=1).mean()
            if means.notna().any():
                sigma = ((1 - means.index) / means.index) ** 0.5
                label = way if column == "left" else None
                panel.plot(sigma, means, line, color=colour, lw=1.3, label=label)
    for panel, title in zip(panels, ("Left of the mixture", "Steps in conflict"), strict=True):
        panel.set_xscale("log")
        panel.invert_xaxis()
        panel.set_xlabel("Deviation of the noise")
        panel.set_title(title)
    panels[0].set_yscale("log")
    panels[0].set_ylim(bottom=LEAST)
    panels[0].set_ylabel("Residual over the mixture")
    panels[1].set_ylabel("Share of sources and mixtures")
    panels[1].set_ylim(-0.02, 1.02)
    figure.legend(loc="outside right center")
    return figure
