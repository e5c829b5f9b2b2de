"""Style of all figures: colour-blind safe, and readable in black and white."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
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

# M. Okabe and K. Ito, "Color universal design", 2008; their yellow is too light for lines on white.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F4F24")
ONE_STEP_COLOUR = "#000000"
MIXTURE_COLOUR = "#7A7A7A"

PREFERRED = ("si_sdr_oracle", "dnsmos_ovrl_blind", "fixed", "pesq_oracle", "dnsmos_p808_blind", "sdr_oracle")
"""Guides that have the same colour in every report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Style of one guide: the colour distinguishes guides, line and marker oracle, blind and fixed."""

    colour: str
    line: str
    marker: str


LINES = {"oracle": ("-", "o"), "blind": ("--", "s"), "fixed": ("-.", "^")}


def guide_looks(columns: Iterable[str]) -> dict[str, Look]:
    """Assign a look to every guide of a report.

    Guides of `PREFERRED` always have the same colour; the others get the remaining ones in alphabetical
    order, repeated if there are too few.

    Args:
        columns: See `encore.reporting.scores.column_name`.
    """
    names = sorted(set(columns))
    colours = {name: HUES[PREFERRED.index(name)] for name in names if name in PREFERRED}
    others = [name for name in names if name not in PREFERRED]
    free = [hue for hue in HUES if hue not in colours.values()] or list(HUES)
    colours |= {name: free[index % len(free)] for index, name in enumerate(others)}
    looks = {}
    for name in names:
        line, marker = LINES.get(name.rsplit("_", 1)[-1], ("-", "D"))
        looks[name] = Look(colour=colours[name], line=line, marker=marker)
    return looks


P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a drawing function to use `STYLE` without changing the caller's settings."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


@styled
def save_png(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Write a figure as PNG, without date and version, so that the same figure gives the same bytes.

    Args:
        figure: Any figure.
        path: File to write; parent folders are created.
        dpi: Pixels per inch.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, format="png", metadata={"Software": None})
    return path
