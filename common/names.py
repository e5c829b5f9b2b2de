"""Find the known names that a mistyped one is like."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def similar(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the known names most like ``name``, at most ``count``, upper and lower case alike.

    >>> similar("gready", ["greedy", "grid"], 1), similar("xyz", ["greedy", "grid"])
    (['greedy'], [])
    """
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), by_lower_case, n=count, cutoff=0.5)
    return [by_lower_case[match] for match in close]


def nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Return the known names most like ``name``, at most ``count``; all of them if none is like it.

    >>> nearest("gready", ["greedy", "grid"]), nearest("xyz", ["greedy", "grid"])
    (['greedy'], ['greedy', 'grid'])
    """
    names = list(known)
    return similar(name, names, count) or names
