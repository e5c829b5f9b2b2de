"""Figures of separation with diffusion priors: the traces of solvers along their chain."""

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
    """Draw the residual of the mixture and the conflicts of guidance with the priors by noise level.

    Args:
        traces: Columns ``variant, mixture, alpha_bar, residual, conflict``: a row for every level with its
            ``abar``, ``conflict`` a fraction in [0, 1], NaN for solvers without a gradient.

    Returns:
        Two panels side by side, from the noisiest level to the cleanest; means over the mixtures, of the
        conflicts over `SMOOTHED` levels too.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    for index, variant in enumerate(traces["variant"].unique()):
        own = traces[traces["variant"] == variant]
        colour, line = HUES[index % len(HUES)], DASHES[index // len(HUES) % len(DASHES)]
        for panel, column in zip(panels, ("residual", "conflict"), strict=True):
            means = own.groupby("alpha_bar")[column].mean()
            if column == "conflict":
                means = means.rolling(SMOOTHED, center=True, min_periods=1).mean()
            if means.notna().any():
                sigma = ((1 - means.index) / means.index) ** 0.5
                label = variant if column == "residual" else None
                panel.plot(sigma, means, line, color=colour, lw=1.3, label=label)
    for panel, title in zip(panels, ("Residual of the mixture", "Steps in conflict"), strict=True):
        panel.set_xscale("log")
        panel.invert_xaxis()
        panel.set_xlabel("Deviation of the noise")
        panel.set_title(title)
    panels[0].set_yscale("log")
    panels[0].set_ylim(bottom=LEAST)
    panels[0].set_ylabel("Residual over the mixture")
    panels[1].set_ylabel("Fraction of sources and mixtures")
    panels[1].set_ylim(-0.02, 1.02)
    figure.legend(loc="outside right center")
    return figure
