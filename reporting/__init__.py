"""Score tables, their summaries, figures and the one-page report.

Shared by ``report.py``, ``infer.py``, the callbacks and notebooks.
"""

from __future__ import annotations

from encore.reporting.assembly import write_report
from encore.reporting.cost import equal_cost, operating_points
from encore.reporting.palette import guide_looks, save_png
from encore.reporting.plots import gain_figure, ratio_figure, scale_figure, step_figure
from encore.reporting.runs import Run, RunError, RunRecord, load_all, load_runs
from encore.reporting.scores import (
    COLUMNS,
    ScoreTableError,
    column_name,
    read_scores,
    validate_scores,
    write_scores,
)
from encore.reporting.spectrograms import spectrogram_figure
from encore.reporting.summary import final_steps, pair_scores, summarise
from encore.reporting.tables import (
    comparison_frame,
    comparison_table,
    overview_table,
    step_table,
    to_markdown,
)

__all__ = [
    "COLUMNS",
    "Run",
    "RunError",
    "RunRecord",
    "ScoreTableError",
    "column_name",
    "comparison_frame",
    "comparison_table",
    "equal_cost",
    "final_steps",
    "gain_figure",
    "guide_looks",
    "load_all",
    "load_runs",
    "operating_points",
    "overview_table",
    "pair_scores",
    "ratio_figure",
    "read_scores",
    "save_png",
    "scale_figure",
    "spectrogram_figure",
    "step_figure",
    "step_table",
    "summarise",
    "to_markdown",
    "validate_scores",
    "write_report",
    "write_scores",
]
