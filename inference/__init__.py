"""Multi-step inference: loops over separators that are functions."""

from encore.inference.bridge_separation import BridgeSampler, as_bridge
from encore.inference.bridges import with_ratio
from encore.inference.chunking import overlap_add, shift_average
from encore.inference.evaluation import Evaluation, RefinementMethod, evaluate
from encore.inference.execution import BatchSize, WorkerPool, batched
from encore.inference.fast import refine
from encore.inference.fitting import fit_schedule
from encore.inference.limits import EarlyStopping, MaxEvaluations
from encore.inference.line_search import BrentSearch, CoarseToFine, GoldenSection, GradientLineSearch
from encore.inference.local_search import FixedListSearch, GreedySearch, LocalSearch
from encore.inference.options import RefineOptions
from encore.inference.paths import NoisyPath, endpoint, state
from encore.inference.refinement import Refined, Step, Trajectory, refine_fixed
from encore.inference.search import (
    AnnealedGridSearch,
    GridSearch,
    Search,
    SearchState,
    linear_schedule,
    linear_state_schedule,
)
from encore.inference.wiener import Wiener
from encore.inference.wrappers import aligned, at_level_of, mixture_consistent, wiener_filtered

__all__ = [
    "AnnealedGridSearch",
    "BatchSize",
    "BrentSearch",
    "BridgeSampler",
    "CoarseToFine",
    "EarlyStopping",
    "Evaluation",
    "FixedListSearch",
    "GoldenSection",
    "GradientLineSearch",
    "GreedySearch",
    "GridSearch",
    "LocalSearch",
    "MaxEvaluations",
    "NoisyPath",
    "RefineOptions",
    "Refined",
    "RefinementMethod",
    "Search",
    "SearchState",
    "Step",
    "Trajectory",
    "Wiener",
    "WorkerPool",
    "aligned",
    "as_bridge",
    "at_level_of",
    "batched",
    "endpoint",
    "evaluate",
    "fit_schedule",
    "linear_schedule",
    "linear_state_schedule",
    "mixture_consistent",
    "overlap_add",
    "refine",
    "refine_fixed",
    "shift_average",
    "state",
    "wiener_filtered",
    "with_ratio",
]
