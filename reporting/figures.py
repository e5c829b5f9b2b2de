"""The parts that all figures are made of: style, colours, panels, curves, legends, files.

Colours are safe for the colour-blind, and lines readable in black and white.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

styled = mpl.rc_context(
    {
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "axes.labelsize": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
)
"""Decorator of drawing functions: their figures have this style, the caller's settings stay."""

# M. Okabe and K. Ito, "Color universal design", 2008; their yellow is too light for lines on white.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F4F24")
ONE_STEP_COLOUR = "#000000"
MIXTURE_COLOUR = "#7A7A7A"

PREFERRED = ("si_sdr_oracle", "dnsmos_ovrl_blind", "fixed", "pesq_oracle", "dnsmos_p808_blind", "sdr_oracle")
"""Guides that have the same colour in every report."""

LINES = {"fixed": ("-.", "^"), "blind": ("--", "s"), "oracle": ("-", "o")}
"""Line and marker by the kind of a guide, in the order of legends."""

Looks = Mapping[Any, dict[str, Any]]
"""Line styles by name, as arguments of matplotlib's ``plot``."""


def guide_looks(columns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Assign a colour to every guide of a report, and line and marker to oracle, blind and fixed ones.

    Guides of `PREFERRED` always have the same colour; the others get the remaining ones in alphabetical
    order, repeated if there are too few. Fixed guides come first, then blind and oracle ones.

    Args:
        columns: See `encore.reporting.scores.column_name`.
    """
    names = sorted(set(columns))
    colours = {name: HUES[PREFERRED.index(name)] for name in names if name in PREFERRED}
    free = [hue for hue in HUES if hue not in colours.values()] or list(HUES)
    others = [name for name in names if name not in PREFERRED]
    colours |= {name: free[index % len(free)] for index, name in enumerate(others)}
    ends = {name: name.rsplit("_", 1)[-1] for name in names}
    kinds = {name: end if end in LINES else "fixed" for name, end in ends.items()}
    looks = {}
    for name in sorted(names, key=lambda name: list(LINES).index(kinds[name])):
        line, marker = LINES[kinds[name]]
        looks[name] = {"color": colours[name], "linestyle": line, "marker": marker}
    return looks


def panels(
    titles: Sequence[str],
    *,
    xlabel: str = "",
    ylabels: Sequence[str] = ("",),
    heights: Sequence[float] = (1.0,),
    columns: int = 1,
    size: tuple[float, float] = (2.7, 1.85),
    same_axes: bool = False,
) -> tuple[Figure, list[list[Axes]]]:
    """Create a figure with a column of panels for every title.

    Args:
        titles: Of the uppermost panels.
        xlabel: Below every column.
        ylabels: From top to bottom, beside the leftmost columns.
        heights: Relative heights of the panels of a column, from top to bottom.
        columns: Most columns beside each other; the others go below.
        size: Width and height of a panel of height 1, in inches.
        same_axes: Whether all columns have the same axes.

    Returns:
        The figure and the panels of every column.
    """
    bands = -(-len(titles) // columns)
    width, rows = -(-len(titles) // bands), len(heights)
    inches = (max(size[0] * width + 0.6, 5.2), size[1] * sum(heights) * bands + 0.5)
    figure = Figure(figsize=inches, layout="constrained")
    grid = figure.subplots(
        rows * bands, width, squeeze=False, sharex=same_axes, height_ratios=[*heights] * bands
    )
    # columns of the grid, band by band
    found = [list(grid[rows * (n // width) :][:rows, n % width]) for n in range(bands * width)]
    for index, own in enumerate(found):
        for panel, first, label in zip(own, found[0], ylabels, strict=True):
            panel.set_visible(index < len(titles))
            if same_axes and panel is not first:
                panel.sharey(first)
            if same_axes:
                panel.tick_params(labelleft=index % width == 0, labelbottom=panel is own[-1])
            if index % width == 0:
                panel.set_ylabel(label)
    for title, own in zip(titles, found, strict=False):
        own[0].set_title(title)
        own[-1].set_xlabel(xlabel)
    return figure, found[: len(titles)]


def curves(
    panel: Axes,
    table: pd.DataFrame,
    x: str,
    y: Hashable,
    hue: str,
    looks: Looks,
    band: tuple[Hashable, Hashable] | None = None,
) -> None:
    """Draw a line through the rows of every value of a column, in the order of the looks.

    Args:
        panel: To draw on.
        table: One row per point.
        x: Column of the horizontal axis.
        y: Column of the vertical axis.
        hue: Column that names the line.
        looks: Line styles by the names to draw.
        band: Columns of the ends of an interval, drawn as an area; None for none.
    """
    for name, look in looks.items():
        own = table[table[hue] == name]
        if own[y].notna().any():
            panel.plot(own[x], own[y], **{"label": name, "markevery": max(1, len(own) // 10)} | look)
            if band is not None:
                panel.fill_between(
                    own[x], own[band[0]], own[band[1]], color=look["color"], alpha=0.15, linewidth=0
                )


def legend_below(figure: Figure, columns: int | None = None) -> None:
    """Draw one legend for all panels, every name once; in as many columns as fit if None."""
    entries: dict[Any, Any] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    # names of usual length are 1.7 inches wide
    fitting = max(1, min(len(entries), int(figure.get_figwidth() / 1.7)))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns or fitting)


DPI = 150
"""Pixels per inch of a figure's file."""


@styled
def save_png(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, without date and version, so that the same figure gives the same bytes.

    Args:
        figure: Any figure.
        path: File to write; parent folders are created.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png", metadata={"Software": None})
    return path
