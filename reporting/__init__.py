"""Score tables, their summaries, figures and the one-page report.

Used by ``report.py``, ``infer.py``, the callbacks and notebooks; further figures are in
`encore.reporting.plots`, tables in `encore.reporting.tables`.
"""

from __future__ import annotations

from encore.reporting.assembly import write_report
from encore.reporting.runs import load_all
from encore.reporting.scores import COLUMNS, read_scores, write_scores
from encore.reporting.summary import final_steps, summarise

__all__ = ["COLUMNS", "final_steps", "load_all", "read_scores", "summarise", "write_report", "write_scores"]
