"""Multi-step inference: pure loops over callables."""

from inference.evaluation import Evaluation, Guide, evaluate
from inference.refinement import Refinement, refine
from inference.search import AnnealedGridSearch, FixedSchedule, GridSearch, Search, Trace

__all__ = [
    "AnnealedGridSearch",
    "Evaluation",
    "FixedSchedule",
    "GridSearch",
    "Guide",
    "Refinement",
    "Search",
    "Trace",
    "evaluate",
    "refine",
]
