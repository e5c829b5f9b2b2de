"""Multi-step inference: pure loops over callables."""

from encore.inference.bridge_guide import BridgeSampler
from encore.inference.bridge_sampling import BridgeSample, sample_bridge, time_grid
from encore.inference.chunking import overlap_add
from encore.inference.evaluation import Evaluation, Guide, Way, evaluate
from encore.inference.execution import BatchSize, Lanes
from encore.inference.fitting import fit_schedule
from encore.inference.greedy_search import GreedySearch
from encore.inference.interpolation import ParabolicSearch, SlopeSearch
from encore.inference.limits import Capped, Stopping
from encore.inference.line_search import CoarseToFine, GoldenSection
from encore.inference.refinement import Refinement, refine
from encore.inference.search import AnnealedGridSearch, FixedSchedule, GridSearch, Search, Trace
from encore.inference.warm_search import ScheduledSearch, WarmSearch
from encore.inference.wiener import Wiener

__all__ = [
    "AnnealedGridSearch",
    "BatchSize",
    "BridgeSample",
    "BridgeSampler",
    "Capped",
    "CoarseToFine",
    "Evaluation",
    "FixedSchedule",
    "GoldenSection",
    "GreedySearch",
    "GridSearch",
    "Guide",
    "Lanes",
    "ParabolicSearch",
    "Refinement",
    "ScheduledSearch",
    "Search",
    "SlopeSearch",
    "Stopping",
    "Trace",
    "WarmSearch",
    "Way",
    "Wiener",
    "evaluate",
    "fit_schedule",
    "overlap_add",
    "refine",
    "sample_bridge",
    "time_grid",
]
