"""The report of the bridge experiment: tables and figures of a separator read as a bridge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from encore.reporting.bridge_figures import (
    PATHS,
    bounds_figure,
    gain_figure,
    path_figure,
    ratio_figure,
    time_figure,
)
from encore.reporting.page import Block, Section, write_pages
from encore.reporting.palette import save_png
from encore.reporting.summary import statistics
from encore.reporting.tables import number

TOLERANCE = 1e-3
"""Tolerance of bounds, in dB and in relative error: estimates of other batches differ by rounding."""

PREDICTORS = {
    "delta": "delta, f(s) against s",
    "secant": "secant of f from s to the mixture",
    "worst_clean": "worst direction at s",
    "worst_mixture": "worst direction at the mixture",
    "worst_estimate": "worst direction at the estimate",
    "noise": "noise over the source",
    "one_step": "one-step SNR",
    "disjointness": "disjointness (blind)",
    "fixed_point": "fixed point (blind)",
    "remix_agreement": "remix agreement (blind)",
}
"""Possible predictors of the gain by refinement of an item; the last three need no reference."""


def write_bridge_report(folder: str | Path, tables: Mapping[str, pd.DataFrame], *, name: str) -> list[Path]:
    """Write ``bridge.md``, ``bridge.html`` and their figures into a run folder.

    Args:
        folder: An existing folder.
        tables: By the file names of `encore.cli.theory_experiment.TheoryExperiment`; may be empty.
        name: Name of the run.

    Returns:
        The pages and the pictures.
    """
    folder = Path(folder)
    found = {file.removeprefix("bridge_").removesuffix(".parquet"): frame for file, frame in tables.items()}
    sections = []
    if not found["path"].empty:
        picture = save_png(path_figure(found["path"]), folder / "path.png")
        blocks = [
            Block(table=path_table(found["path"])),
            Block(picture=picture, caption="Error along the path"),
        ]
        sections.append(Section(title="Along the path", blocks=blocks))
    if not found["steps"].empty:
        sections += [_bounds(folder, found["steps"], found["items"]), _ratios(folder, found)]
    if not found["probe"].empty:
        picture = save_png(time_figure(found["probe"]), folder / "time.png")
        sections.append(
            Section(title="Time", blocks=[Block(text=_time_note(found["probe"]), picture=picture)])
        )
    if not found["items"].empty and "delta" in found["items"]:
        sections.append(_items(folder, found["items"]))
    return write_pages(folder / "bridge.html", f"{name} as a bridge", sections)


def path_table(path: pd.DataFrame) -> pd.DataFrame:
    """Return the median relative error in dB by mixing ratio, a row for each map."""
    rows = []
    for what, (label, *_) in PATHS.items():
        own = path[path["what"] == what]
        if own.empty:
            continue
        middle = own.groupby("ratio")["error"].median()
        cells = {f"{ratio:g}": number(_decibels(error), 1) for ratio, error in middle.items()}
        rows.append({"error over the source (dB) at r": label} | cells)
    return pd.DataFrame(rows)


def bounds_table(steps: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Count how often each bound held, and measure how tight it is."""
    starts = dict(zip(items["item"], items["one_step"], strict=True))
    falls = [
        max(-np.diff([starts[str(item)], *own["score"]]).min(), 0.0)
        for item, own in steps.sort_values("step").groupby("item")
    ]
    taken = steps.dropna(subset="signal_bound")
    over = taken["error"] - taken["signal_bound"]
    slack = steps["score"] - steps["grid_bound"]
    allowed, missed = steps["best"] - steps["grid_bound"], steps["best"] - steps["score"]
    ratio = taken["signal_bound"] / taken["error"]
    rows = [
        {
            "bound": "monotone: the measured score never falls",
            "checked": str(len(falls)),
            "held": str(sum(fall <= TOLERANCE for fall in falls)),
            "how tight": f"largest fall {max(falls):.1e} dB",
        },
        {
            "bound": "grid: dB below the best of a finer grid",
            "checked": str(len(steps)),
            "held": str(int((slack >= -TOLERANCE).sum())),
            "how tight": f"median {missed.median():.3f} dB of {allowed.median():.2f} allowed",
        },
        {
            "bound": "signal: error over the source",
            "checked": str(len(taken)),
            "held": str(int((over <= TOLERANCE * taken["signal_bound"]).sum())),
            "how tight": f"bound over error: median {ratio.median():.2f}, at most {ratio.max():.2f}",
        },
    ]
    if "eps" in items:
        blind = items.dropna(subset="eps")
        rows.append(
            {
                "bound": "monotone under a blind guide: true fall at most 2 eps",
                "checked": str(len(blind)),
                "held": str(int((-blind["worst_fall"] <= 2 * blind["eps"] + TOLERANCE).sum())),
                "how tight": f"largest fall {-blind['worst_fall'].min():.2f} dB; 2 eps: median "
                f"{2 * blind['eps'].median():.2f} dB",
            }
        )
    return pd.DataFrame(rows)


def predictor_table(items: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlations of the predictors with the gain by refinement, over items."""
    rows = []
    for column, label in PREDICTORS.items():
        if column not in items or items[column].isna().all():
            continue
        cells = {"predictor": label, "median": number(float(items[column].median()), 3)}
        for gain, head in (("gain_oracle", "oracle guide"), ("gain_blind", "blind guide")):
            if gain in items:
                cells[f"correlation with the gain, {head}"] = correlation(items[column], items[gain])
        rows.append(cells)
    return pd.DataFrame(rows)


def correlation(x: pd.Series, y: pd.Series, *, draws: int = 500, seed: int = 0) -> str:
    """Format Spearman's correlation with its 95 % bootstrap interval over rows."""
    both = pd.DataFrame({"x": x, "y": y}).dropna()
    if len(both) < 3 or both["x"].nunique() < 2 or both["y"].nunique() < 2:
        return ""
    ranks = both.rank().to_numpy()
    indices = np.random.default_rng(seed).integers(len(ranks), size=(draws, len(ranks)))
    # a draw of one item only has no correlation
    drawn = [
        np.corrcoef(rankdata(ranks[own], axis=0).T)[0, 1] for own in indices if np.ptp(ranks[own], 0).all()
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{np.corrcoef(ranks.T)[0, 1]:+.2f} [{low:+.2f}, {high:+.2f}]"


def schedules_table(items: pd.DataFrame, schedules: pd.DataFrame) -> pd.DataFrame:
    """Return the gains at the last step of the search and of schedules."""
    last = schedules[schedules["step"] == schedules["step"].max()]
    rows = [{"method": "search, oracle guide", "ratios": "", "gain (dB)": _mean(items["gain_oracle"])}]
    for name, own in last.groupby("schedule", sort=False):
        steps = schedules[(schedules["schedule"] == name) & (schedules["step"] > 0)]
        ratios = ", ".join(f"{ratio:g}" for ratio in steps.groupby("step")["ratio"].first().round(3))
        rows.append({"method": f"{name} schedule", "ratios": ratios, "gain (dB)": _mean(own["gain"])})
    return pd.DataFrame(rows)


def _bounds(folder: Path, steps: pd.DataFrame, items: pd.DataFrame) -> Section:
    note = (
        "Constants are measured for the inputs of the bounds, on a grid ten times as fine. So the bounds "
        "must hold for every item and step; how tight they are is the result."
    )
    picture = save_png(bounds_figure(steps), folder / "bounds.png")
    caption = "Measured values against bounds; no point may be above the diagonals"
    return Section(
        title="Bounds",
        blocks=[Block(text=note, table=bounds_table(steps, items)), Block(picture=picture, caption=caption)],
    )


def _ratios(folder: Path, found: Mapping[str, pd.DataFrame]) -> Section:
    picture = save_png(ratio_figure(found["steps"], found["schedules"]), folder / "ratios.png")
    blocks = [Block(picture=picture, caption="Mixing ratios that refinement chose")]
    if not found["schedules"].empty:
        note = "Test items; the fitted schedule was found on validation items and needs no guide."
        blocks.append(Block(text=note, table=schedules_table(found["items"], found["schedules"])))
    return Section(title="Ratios and schedules", blocks=blocks)


def _items(folder: Path, items: pd.DataFrame) -> Section:
    columns = [name for name in PREDICTORS if name in items and items[name].notna().any()]
    blocks = [
        Block(
            text=f"{int(items['delta'].notna().sum())} items; mean gain with an oracle guide "
            f"{_mean(items['gain_oracle'])} dB.",
            table=predictor_table(items),
        )
    ]
    if columns:
        picture = save_png(gain_figure(items, columns), folder / "gains.png")
        blocks.append(Block(picture=picture, caption="Gain with an oracle guide against its predictors"))
    return Section(title="Will refinement help?", blocks=blocks)


def _time_note(probe: pd.DataFrame) -> str:
    layers, own = probe["explained_layers"].iloc[0], probe["explained_input"].iloc[0]
    return (
        f"On held-out items a linear probe of the layers explains {layers:.2f} of the variance of the time, "
        f"one of the input's band levels {own:.2f}."
    )


def _mean(values: pd.Series) -> str:
    found = statistics(values)
    return f"{found.mean:+.2f} [{found.low:.2f}, {found.high:.2f}]"


def _decibels(error: float) -> float:
    return float(20 * np.log10(error)) if error > 0 else -np.inf
