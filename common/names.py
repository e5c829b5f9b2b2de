"""Find the known names that a mistyped one is nearest to."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Return the known names most like ``name``, at most ``count``; all of them if none is like it.

    >>> nearest("gready", ["greedy", "grid"])
    ['greedy']
    >>> nearest("xyz", ["greedy", "grid"])
    ['greedy', 'grid']
    """
    names = list(known)
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    close = get_close_matches(name.lower(), by_lower_case, n=count, cutoff=0.5)
    return [by_lower_case[match] for match in close] or names
