"""Tables and figures of an experiment by stem, beside the published numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from encore.reporting.labels import decimals, title
from encore.reporting.page import Block, Section, write_pages
from encore.reporting.palette import save_png
from encore.reporting.plots import UNGUIDED
from encore.reporting.published_progressive import FIXED_SCHEDULE, ORACLE_PREDICTOR
from encore.reporting.scores import write_scores
from encore.reporting.stem_figures import one_step_bars, predictor_curves, schedule_curves
from encore.reporting.summary import statistics, summarise
from encore.reporting.tables import number

_MEDIANS = ("csdr",)
"""Metrics that papers report as the median over songs; all others as the mean."""


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
        summary = stem_summary(scores)
        songs = scores["item"].nunique() / scores["source"].nunique()
        sections.append(_one_step_section(folder, summary, songs))
        if (~summary["kind"].isin(UNGUIDED)).any():
            sections += [_guided_section(folder, summary, metric) for metric in _metrics(summary)]
    if not predictor.empty:
        sections.append(_predictor_section(folder, predictor_summary(predictor)))
    return write_pages(folder / "stems.html", "By stem", sections)


def stem_summary(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Apply `encore.reporting.summary.summarise` to every stem, with the column ``source``."""
    parts = [
        summarise(group, seed=seed).assign(source=source)
        for source, group in scores.groupby("source", sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def predictor_summary(predictor: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Average SI-SDR over songs, with its 95 % interval, by target, form, source and beta."""
    rows = []
    for keys, group in predictor.groupby(["target", "form", "source", "beta"], sort=False):
        found = statistics(group["si_sdr"], seed=seed)
        labels = dict(zip(("target", "form", "source", "beta"), keys, strict=True))
        rows.append(labels | {"mean": found.mean, "low": found.low, "high": found.high, "count": found.count})
    return pd.DataFrame(rows)


def one_step_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return stems by metrics: one step, in brackets the gain over the mixture; the published SI-SDR last."""
    metrics = _metrics(summary)
    rows = []
    for source, group in summary[summary["kind"] == "one_step"].groupby("source", sort=False):
        cells = {"stem": str(source)}
        for metric in metrics:
            row = group[group["metric"] == metric].iloc[0]
            places = decimals(metric)
            value = number(_value(row), places)
            cells[_head(metric)] = f"{value} ({number(row['improvement'], places, signed=True)})"
        failed = int(group["failed"].max())
        cells["songs"] = f"{int(group['count'].max())}" + (f", {failed} silent" if failed else "")
        if source in FIXED_SCHEDULE:
            cells["published SI-SDR"] = number(FIXED_SCHEDULE[str(source)][0], 2)
        rows.append(cells)
    return pd.DataFrame(rows).fillna("")


def gains_table(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the gain of every stem and guide at its best and last step over one step, paired by song."""
    rows = []
    own = summary[(summary["metric"] == metric) & ~summary["kind"].isin(UNGUIDED)]
    for (source, column), group in own.groupby(["source", "column"], sort=False):
        steps = group[group["step"] > 0]
        if steps["gain"].isna().all():
            continue
        best, last = steps.sort_values("gain").dropna(subset="gain").iloc[-1], steps.iloc[-1]
        rows.append(
            {
                "stem": str(source),
                "guide": str(column),
                "best step": str(int(best["step"])),
                "gain there": _gain(best, metric),
                "gain at the end": _gain(last, metric),
                "NFE": number(last["evaluations"], 1),
                "songs": str(int(last["gain_count"])),
            }
        )
    return pd.DataFrame(rows)


def steps_table(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a row for every stem and guide, a column for every step; the published rows for SI-SDR."""
    rows = []
    own = summary[(summary["metric"] == metric) & ~summary["kind"].isin(UNGUIDED)]
    for source in dict.fromkeys(own["source"]):
        for column, group in own[own["source"] == source].groupby("column", sort=False):
            values = {
                str(int(row["step"])): number(_value(row), decimals(metric)) for _, row in group.iterrows()
            }
            rows.append({"stem": source, "guide": str(column)} | values)
        if metric == "si_sdr" and source in FIXED_SCHEDULE:
            values = {str(step): number(value, 2) for step, value in enumerate(FIXED_SCHEDULE[source])}
            rows.append({"stem": source, "guide": "published"} | values)
    return pd.DataFrame(rows).fillna("")


def predictor_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Return target and mean of the other stems at every beta, in both forms, and the published row."""
    rows = []
    for (target, form), group in curves.groupby(["target", "form"], sort=False):
        for name, part in (
            ("target", group[group["source"] == target]),
            ("others", group[group["source"] != target]),
        ):
            means = part.groupby("beta")["mean"].mean()
            values = {f"{beta:g}": number(value, 2) for beta, value in means.items()}
            rows.append({"target": str(target), "remix": str(form), "SI-SDR (dB) of": name} | values)
        if form == "published_code" and target in ORACLE_PREDICTOR:
            published = {f"{n / 10:g}": number(v, 2) for n, v in enumerate(ORACLE_PREDICTOR[str(target)])}
            rows.append({"target": str(target), "remix": "published", "SI-SDR (dB) of": "target"} | published)
    return pd.DataFrame(rows).fillna("")


def _one_step_section(folder: Path, summary: pd.DataFrame, songs: float) -> Section:
    metrics = _metrics(summary)
    chosen = "si_sdr" if "si_sdr" in metrics else metrics[0]
    picture = save_png(one_step_bars(summary, chosen), folder / "one_step.png")
    note = f"{songs:g} songs; in brackets the gain over the unprocessed mixture. uSDR: mean, cSDR: median."
    return Section(
        title="One step",
        blocks=[
            Block(text=note, table=one_step_table(summary)),
            Block(picture=picture, caption="One step, by stem"),
        ],
    )


def _guided_section(folder: Path, summary: pd.DataFrame, metric: str) -> Section:
    picture = save_png(schedule_curves(summary, metric), folder / f"steps_{metric}.png")
    note = (
        "Every stem is refined on its own; only its estimate is mixed back. The best step of a fixed schedule"
        " is chosen with the references. Brackets are 95 % intervals of the mean over songs."
    )
    caption = f"{title(metric)} gained over one step, by step"
    return Section(
        title=f"{title(metric)} over the steps",
        blocks=[
            Block(text=note, table=gains_table(summary, metric)),
            Block(picture=picture, caption=caption),
            Block(table=steps_table(summary, metric), caption=f"{_head(metric)} at every step", folded=True),
        ],
    )


def _predictor_section(folder: Path, curves: pd.DataFrame) -> Section:
    picture = save_png(predictor_curves(curves), folder / "oracle_predictor.png")
    note = (
        "The true stems are remixed with the target at gain 1 and all others at 1 - beta (intended), or at"
        " 3 (1 - beta) / (3 - 2 beta), as in the paper's code. Where the target's curve rises, mixing back a"
        " perfect estimate would help."
    )
    return Section(
        title="Oracle predictor",
        blocks=[
            Block(text=note, table=predictor_table(curves)),
            Block(picture=picture, caption="SI-SDR over the fraction of accompaniment removed"),
        ],
    )


def _metrics(summary: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(summary["metric"]))


def _value(row: pd.Series) -> float:
    """Return the median or mean over songs, as papers report the metric."""
    return float(row["median" if row["metric"] in _MEDIANS else "mean"])


def _head(metric: str) -> str:
    return f"{title(metric)} (dB)" if decimals(metric) == 2 else title(metric)


def _gain(row: pd.Series, metric: str) -> str:
    places = decimals(metric)
    interval = ", ".join(number(row[name], places) for name in ("gain_low", "gain_high"))
    return f"{number(row['gain'], places, signed=True)} [{interval}]"
