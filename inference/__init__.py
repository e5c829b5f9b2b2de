"""Multi-step inference: pure loops over callables."""

from inference.bridge_guide import BridgeSampler
from inference.bridge_sampling import BridgeSample, sample_bridge, time_grid
from inference.chunking import overlap_add
from inference.evaluation import Evaluation, Guide, Way, evaluate
from inference.execution import BatchSize, Lanes
from inference.fitting import fit_schedule
from inference.greedy_search import GreedySearch
from inference.interpolation import ParabolicSearch, SlopeSearch
from inference.limits import Capped, Stopping
from inference.line_search import CoarseToFine, GoldenSection
from inference.refinement import Refinement, refine
from inference.search import AnnealedGridSearch, FixedSchedule, GridSearch, Search, Trace
from inference.warm_search import ScheduledSearch, WarmSearch
from inference.wiener import Wiener

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
