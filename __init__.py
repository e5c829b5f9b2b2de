"""Encore: one-step audio source separators, and training-free multi-step inference with them.

>>> import encore
>>> net = encore.load_separator()  # doctest: +SKIP
>>> result = encore.refine(net, mixture)  # doctest: +SKIP
>>> result.estimates, result.one_step, result.scores, result.evaluations  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encore.inference import (
        AnnealedGridSearch,
        GreedySearch,
        GridSearch,
        Refined,
        RefineOptions,
        Trajectory,
        batched,
        linear_schedule,
        overlap_add,
        refine,
        refine_fixed,
    )
    from encore.metrics import get_metric, guarded, joint, oracle
    from encore.models import as_separator, load_prior, load_separator, select

__all__ = [
    "AnnealedGridSearch",
    "GreedySearch",
    "GridSearch",
    "RefineOptions",
    "Refined",
    "Trajectory",
    "as_separator",
    "batched",
    "get_metric",
    "guarded",
    "joint",
    "linear_schedule",
    "load_prior",
    "load_separator",
    "oracle",
    "overlap_add",
    "refine",
    "refine_fixed",
    "select",
]

_FOLDERS = ("inference", "metrics", "models")


def __getattr__(name: str) -> Any:
    """Import a public name when it is used, so that ``import encore`` is quick."""
    if name in __all__:
        for folder in _FOLDERS:
            module = import_module(f"encore.{folder}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module 'encore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
