"""Take some items of a batch from functions that hold tensors of every item."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

Function = TypeVar("Function")


def at_items(function: Function, items: Tensor) -> Function:
    """Return the function for some items of its batch.

    Args:
        function: A separator or quality. One that holds tensors with a row per item, such as references,
            offers ``at(items)``; any other is returned as it is.
        items: ``(n,)`` indices of the items, in the order of the rows that it will be called with.
    """
    at = getattr(function, "at", None)
    return function if at is None else at(items)
