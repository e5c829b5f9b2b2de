"""Names of songs that nobody sings."""

from __future__ import annotations

from math import prod

from encore.data.synthesis.corpus_files import generator

_FIRST = ("The", "Slow", "Little", "Northern", "Paper", "Velvet", "Broken", "Silver", "Second", "Distant")
_SECOND = (
    "Lanterns",
    "Harbour",
    "Foxes",
    "Avenue",
    "Mirrors",
    "Orchard",
    "Satellites",
    "Weather",
    "Tides",
    "Kites",
)
_VERBS = (
    "Waiting for",
    "Under",
    "Leaving",
    "Almost",
    "Before",
    "Letters from",
    "Counting",
    "Beyond",
    "Without",
    "Into",
)
_NOUNS = (
    "Rain",
    "Morning",
    "the Station",
    "Summer",
    "the Wire",
    "Home",
    "Glass",
    "the River",
    "Night",
    "Snow",
)


def artist_and_title(seed: int, split: int, index: int) -> str:
    """Name of a song, unique in its corpus: splits have names of their own, and numbers where names run out.

    >>> artist_and_title(0, 0, 3) != artist_and_title(0, 1, 3)
    True
    """
    words = (_FIRST, _SECOND, _VERBS, _NOUNS)
    order = generator(seed, 100, split).permutation(prod(map(len, words)) // 2)
    turn, place = divmod(index, len(order))
    # even names train, odd ones test
    number = 2 * int(order[place]) + split
    number, noun = divmod(number, len(_NOUNS))
    number, verb = divmod(number, len(_VERBS))
    first, second = divmod(number, len(_SECOND))
    name = f"{_FIRST[first]} {_SECOND[second]} - {_VERBS[verb]} {_NOUNS[noun]}"
    return name if not turn else f"{name} {turn + 1}"
