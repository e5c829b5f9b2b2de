"""Tables and figures of an experiment by stem, beside the published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from encore.reporting.figures import (
    HUES,
    MIXTURE_COLOUR,
    ONE_STEP_COLOUR,
    curves,
    guide_looks,
    legend_below,
    panels,
    styled,
)
from encore.reporting.labels import axis_label, decimals, title, unit_suffix
from encore.reporting.page import Block, Section, write_pages
from encore.reporting.scores import write_scores
from encore.reporting.summary import guided, summarise
from encore.reporting.tables import gain_cell, number, pivot

BETAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

FIXED_SCHEDULE: dict[str, tuple[float, ...]] = {
    "vocals": (9.956, 9.986, 9.997, 9.988, 9.950, 9.876, 9.761, 9.605, 9.416, 9.209),
    "drums": (12.366, 12.365, 12.344, 12.301, 12.226, 12.109, 11.936, 11.677, 11.338, 10.942),
    "bass": (11.146, 11.260, 11.342, 11.389, 11.399, 11.363, 11.268, 11.107, 10.871, 10.569),
    "other": (6.667, 6.695, 6.704, 6.687, 6.638, 6.547, 6.395, 6.165, 5.833, 5.470),
}
"""Target SI-SDR in dB at each of `BETAS`: Hybrid Demucs, 30 s of each of the 50 songs of MUSDB18-HQ.

Source: Magalini, Manattini and Marri, "Progressive inference for music demixing", 2025.
"""

ORACLE_PREDICTOR: dict[str, tuple[float, ...]] = {
    "vocals": (9.956, 10.152, 10.390, 10.680, 11.042, 11.510, 12.144, 13.066, 14.565, 17.641),
}
"""Target SI-SDR in dB of remixes of the true sources by its code (form ``published_code``)."""

PUBLISHED: dict[str, Any] = {"color": MIXTURE_COLOUR, "linestyle": ":", "label": "published (HDemucs)"}


def write_stem_report(folder: str | Path, scores: pd.DataFrame, predictor: pd.DataFrame) -> list[Path]:
    """Write ``stems.md``, ``stems.html`` and their figures into a run folder.

    Args:
        folder: An existing folder.
        scores: Score table with a column ``source``, one item per song and stem; may be empty.
        predictor: Rows of the oracle predictor with the columns ``target, source, form, beta, si_sdr``; may
            be empty.

    Returns:
        The pages and the pictures.
    """
    folder = Path(folder)
    sections = []
    if not scores.empty:
        write_scores(folder / "scores.parquet", scores)
        summary = with_published(stem_summary(scores))
        songs = scores["item"].nunique() / scores["source"].nunique()
        sections.append(_one_step_section(summary, songs))
        measured = guided(summary).dropna(subset="count")["metric"].unique()
        sections += [_guided_section(summary, metric) for metric in measured]
    if not predictor.empty:
        sections.append(_predictor_section(predictor_summary(predictor)))
    return write_pages(folder / "stems.html", "By stem", sections)


def stem_summary(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Apply `encore.reporting.summary.summarise` to every stem, with the column ``source``."""
    stems = scores.groupby("source", sort=False)
    parts = [summarise(group, seed=seed).assign(source=source) for source, group in stems]
    return pd.concat(parts, ignore_index=True)


def with_published(summary: pd.DataFrame) -> pd.DataFrame:
    """Add the published fixed schedule of every known stem to a summary, as a guide ``"published"``."""
    rows = [
        {"source": stem, "metric": "si_sdr", "kind": "fixed", "column": "published", "step": step}
        | {"mean": value, "gain": value - values[0]}
        for stem, values in FIXED_SCHEDULE.items()
        if stem in set(summary.loc[summary["metric"] == "si_sdr", "source"])
        for step, value in enumerate(values)
    ]
    table = pd.concat([summary, pd.DataFrame(rows)], ignore_index=True) if rows else summary
    return table.sort_values("source", key=lambda column: pd.factorize(column)[0], kind="stable")


def predictor_summary(predictor: pd.DataFrame) -> pd.DataFrame:
    """Average SI-SDR over songs by target, form, source and beta."""
    keys = ["target", "form", "source", "beta"]
    return predictor.groupby(keys, sort=False)["si_sdr"].mean().reset_index()


def one_step_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return stems by metrics: one step, in brackets the gain over the mixture; the published SI-SDR last."""
    once = summary[summary["kind"] == "one_step"]
    once = once.assign(head=once["metric"].map(_head), stem=once["source"])

    def cell(row: pd.Series) -> str:
        return f"{_value(row)} ({number(row['improvement'], decimals(row['metric']), signed=True)})"

    table = pivot(once, ["stem"], "head", cell)
    counts = once.groupby("stem")[["count", "failed"]].max().loc[table["stem"]]
    table["songs"] = [
        f"{n:g}" + (f", {failed:g} silent" if failed else "") for n, failed in counts.to_numpy()
    ]
    if set(table["stem"]) & set(FIXED_SCHEDULE):
        published = {stem: number(values[0], 2) for stem, values in FIXED_SCHEDULE.items()}
        table["published SI-SDR"] = table["stem"].map(published).fillna("")
    return table


def gains_table(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the gain of every stem and guide at its best and last step over one step, paired by song."""
    rows = []
    own = guided(summary[summary["metric"] == metric]).query("step > 0 and gain_count > 0")
    for (source, column), steps in own.groupby(["source", "column"], sort=False):
        best, last = steps.sort_values("gain").iloc[-1], steps.iloc[-1]
        rows.append(
            {
                "stem": source,
                "guide": column,
                "best step": str(best["step"]),
                "gain there": gain_cell(best),
                "gain at the end": gain_cell(last),
                "NFE": number(last["evaluations"], 1),
                "songs": number(last["gain_count"], 0),
            }
        )
    return pd.DataFrame(rows)


def steps_table(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a row for every stem and guide, a column for every step; the published rows for SI-SDR."""
    own = guided(summary[summary["metric"] == metric])
    table = pivot(own, ["source", "column"], "step", _value)
    return table.rename(columns={"source": "stem", "column": "guide"})


def predictor_table(predictor: pd.DataFrame) -> pd.DataFrame:
    """Return target and mean of the other stems at every beta, in both forms, and the published row."""
    keys = ["target", "form", "beta"]
    is_target = predictor["source"] == predictor["target"]
    published = [
        {"target": target, "form": "published", "beta": beta, "si_sdr": value}
        for target, values in ORACLE_PREDICTOR.items()
        for beta, value in zip(BETAS, values, strict=True)
        if target in set(predictor["target"])
    ]
    others = predictor[~is_target].groupby(keys, sort=False)["si_sdr"].mean().reset_index()
    own = pd.concat([predictor[is_target], pd.DataFrame(published)])
    table = pd.concat([own.assign(of="target"), others.assign(of="others")], ignore_index=True)
    table = table.sort_values(["target", "form"], key=lambda name: pd.factorize(name)[0], kind="stable")
    table["beta"] = table["beta"].map("{:g}".format)
    table = pivot(table, ["target", "form", "of"], "beta", lambda row: number(row["si_sdr"], 2))
    return table.rename(columns={"form": "remix", "of": "SI-SDR (dB) of"})


@styled
def one_step_bars(summary: pd.DataFrame, metric: str) -> Figure:
    """Draw one-step scores by stem, with 95 % intervals, beside the mixture's and the published ones."""
    rows = summary[(summary["metric"] == metric) & (summary["step"] == 0)]
    stems = list(rows["source"].unique())
    title_ = f"{title(metric)} of one step (mean and 95 % interval)"
    figure, ((panel,),) = panels([title_], ylabels=[axis_label(metric)], size=(1.2 + 1.5 * len(stems), 2.7))
    bars = {"mixture": ("mixture", MIXTURE_COLOUR), "one_step": ("one step", HUES[0])}
    if "published" in set(rows["column"]):
        bars["published"] = (PUBLISHED["label"], HUES[4])
    width = 0.8 / len(bars)
    for index, (column, (label, colour)) in enumerate(bars.items()):
        own = rows[rows["column"] == column].set_index("source").reindex(stems)
        at = np.arange(len(stems)) + (index - (len(bars) - 1) / 2) * width
        errors = (own[["low", "high"]].T - own["mean"]).abs().to_numpy()
        panel.bar(at, own["mean"], width, color=colour, label=label, yerr=errors, ecolor=ONE_STEP_COLOUR)
    panel.axhline(0, color=ONE_STEP_COLOUR, linewidth=0.8)
    panel.set_xticks(range(len(stems)), stems)
    panel.grid(axis="x", visible=False)
    legend_below(figure)
    return figure


@styled
def schedule_curves(summary: pd.DataFrame, metric: str) -> Figure:
    """Draw the gain of every guide over one step, by stem, with the published fixed schedule for SI-SDR.

    A panel per stem: mean gain and its 95 % interval, paired by song, over the steps.
    """
    rows = summary[summary["metric"] == metric]
    looks = {name: look for name, look in guide_looks(guided(rows)["column"]).items() if name != "published"}
    once = rows[rows["kind"] == "one_step"].set_index("source")["mean"]
    titles = [f"{stem} (one step {mean:.2f} dB)" for stem, mean in once.items()]
    figure, columns = _stem_panels(titles, "Step", f"{title(metric)} gain{unit_suffix(metric)}")
    for (panel,), stem in zip(columns, once.index, strict=True):
        panel.axhline(0, color=ONE_STEP_COLOUR, linewidth=0.8)
        own = guided(rows[rows["source"] == stem])
        curves(panel, own, "step", "gain", "column", looks, band=("gain_low", "gain_high"))
        curves(panel, own, "step", "gain", "column", {"published": PUBLISHED})
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    legend_below(figure, columns=3)
    return figure


@styled
def predictor_curves(predictor: pd.DataFrame) -> Figure:
    """Draw the SI-SDR of every stem over remixes that attenuate all stems but the target, a panel per target.

    Solid are the remixes of the paper's text, dashed those of its code, for the target.
    """
    targets = list(predictor["target"].unique())
    colours = dict(zip(predictor["source"].unique(), HUES, strict=False))
    titles = [f"target: {target}" for target in targets]
    figure, columns = _stem_panels(titles, "Accompaniment removed (beta)", axis_label("si_sdr"))
    for (panel,), target in zip(columns, targets, strict=True):
        own = predictor[predictor["target"] == target]
        looks = {
            source: {"color": colour, "marker": "o", "linewidth": 2.4 if source == target else 1.2}
            for source, colour in colours.items()
        }
        curves(panel, own[own["form"] == "intended"], "beta", "si_sdr", "source", looks)
        label = f"{target}, remixes of the published code"
        look = {target: {"color": colours[target], "linestyle": "--", "label": label}}
        curves(panel, own[own["form"] == "published_code"], "beta", "si_sdr", "source", look)
        if target in ORACLE_PREDICTOR:
            panel.plot(BETAS, ORACLE_PREDICTOR[target], **PUBLISHED)
    legend_below(figure, columns=3)
    return figure


def _one_step_section(summary: pd.DataFrame, songs: float) -> Section:
    metrics = list(summary["metric"].unique())
    figure = one_step_bars(summary, "si_sdr" if "si_sdr" in metrics else metrics[0])
    note = f"{songs:g} songs; in brackets the gain over the unprocessed mixture. uSDR: mean, cSDR: median."
    blocks = [
        Block(text=note, table=one_step_table(summary)),
        Block(figure=figure, name="one_step", caption="One step, by stem"),
    ]
    return Section("One step", blocks)


def _guided_section(summary: pd.DataFrame, metric: str) -> Section:
    note = (
        "Every stem is refined on its own (`all`: all together); only its estimate is mixed back. The best"
        " step of a fixed schedule is chosen with the references. Brackets are 95 % intervals of the mean"
        " over songs."
    )
    caption, figure = f"{title(metric)} gained over one step, by step", schedule_curves(summary, metric)
    steps = f"{_head(metric)} at every step"
    blocks = [
        Block(text=note, table=gains_table(summary, metric)),
        Block(figure=figure, name=f"steps_{metric}", caption=caption),
        Block(table=steps_table(summary, metric), caption=steps, folded=True),
    ]
    return Section(f"{title(metric)} over the steps", blocks)


def _predictor_section(predictor: pd.DataFrame) -> Section:
    note = (
        "The true stems are remixed with the target at gain 1 and all others at 1 - beta (intended), or at"
        " 3 (1 - beta) / (3 - 2 beta), as in the paper's code. Where the target's curve rises, mixing back a"
        " perfect estimate would help."
    )
    caption, figure = "SI-SDR over the fraction of accompaniment removed", predictor_curves(predictor)
    blocks = [
        Block(text=note, table=predictor_table(predictor)),
        Block(figure=figure, name="oracle_predictor", caption=caption),
    ]
    return Section("Oracle predictor", blocks)


def _stem_panels(titles: Sequence[str], xlabel: str, ylabel: str) -> tuple[Figure, list[list[Any]]]:
    return panels(titles, xlabel=xlabel, ylabels=[ylabel], columns=2, size=(3.8, 2.7))


def _value(row: pd.Series) -> str:
    """Format the median or mean over songs, as papers report the metric."""
    return number(row["median" if row["metric"] == "csdr" else "mean"], decimals(row["metric"]))


def _head(metric: str) -> str:
    return f"{title(metric)} (dB)" if decimals(metric) == 2 else title(metric)
