"""Check that the values of a configuration are of the kinds that their classes take, before any is built.

``data.batch_size=two`` would otherwise fail somewhere inside, with the words of whatever first tried to count
with it. Kinds are coarse (a number, a text, a list, an object), so that nothing is refused which a class
would take; what is within a kind, the classes check.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object

from encore.cli.overrides import UserError

Kind = Literal["nothing", "switch", "whole", "number", "text", "list", "mapping", "object"]

_WORDS: Mapping[Kind, str] = {
    "switch": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "text": "a name",
    "list": "a list such as [A,B]",
    "mapping": "keys and values",
    "object": "a node {_target_: ...}",
    "nothing": "null",
}
_SIMPLE: Mapping[Any, frozenset[Kind]] = {
    type(None): frozenset({"nothing"}),
    bool: frozenset({"switch"}),
    int: frozenset({"whole"}),
    float: frozenset({"number", "whole"}),
    str: frozenset({"text"}),
    Path: frozenset({"text"}),
}
_ALL: frozenset[Kind] = frozenset(_WORDS)


def check_kinds(node: Any, key: str) -> None:
    """Check every value below a node that has a ``_target_``, by the annotations of what that names.

    Args:
        node: Plain.
        key: Where it stands, for the message.

    Raises:
        UserError: Names the first value of another kind, and what would do.
    """
    if isinstance(node, list):
        for place, value in enumerate(node):
            check_kinds(value, f"{key}[{place}]")
    if not isinstance(node, Mapping):
        return
    hints = _hints(node["_target_"]) if "_target_" in node else {}
    for name, value in node.items():
        own = f"{key}.{name}" if key else str(name)
        allowed = kinds_of(hints[name]) if name in hints else _ALL
        # what a node makes may be of any kind, and so may what is to be looked up
        if kind_of(value) not in allowed | {"object"} and "${" not in str(value):
            # any number may be whole, and any value a node
            understood = {"whole"} if "number" in allowed else set()
            understood |= {"object"} if allowed - {"object", "nothing"} else set()
            wanted = [words for kind, words in _WORDS.items() if kind in allowed - understood]
            raise UserError(f"{own}={value}: give {' or '.join(wanted)}")
        check_kinds(value, own)


def kind_of(value: Any) -> Kind:
    """Return the kind of a plain value.

    >>> [kind_of(value) for value in (None, True, 2.5, 1e5, "a", [1], {"a": 1}, {"_target_": "a.B"})]
    ['nothing', 'switch', 'number', 'whole', 'text', 'list', 'mapping', 'object']
    """
    if isinstance(value, Mapping):
        return "object" if "_target_" in value else "mapping"
    if isinstance(value, float):
        return "whole" if value.is_integer() else "number"
    simple: dict[type, Kind] = {type(None): "nothing", bool: "switch", int: "whole"}
    return simple.get(type(value), "list" if isinstance(value, list | tuple) else "text")


def kinds_of(hint: Any) -> frozenset[Kind]:
    """Return the kinds that an annotation allows; all of them if it is open.

    >>> sorted(kinds_of(float | None)), sorted(kinds_of(Literal["a", 32])), sorted(kinds_of(list[int]))
    (['nothing', 'number', 'whole'], ['text', 'whole'], ['list', 'object'])
    """
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return frozenset().union(*map(kinds_of, get_args(hint)))
    if origin is Literal:
        return frozenset(kind_of(value) for value in get_args(hint))
    plain: Any = origin or hint
    if plain is Any or plain is object or isinstance(plain, TypeVar) or not isinstance(plain, type):
        return _ALL
    if issubclass(plain, Enum):
        return frozenset({"text"})
    if issubclass(plain, Callable):  # type: ignore[arg-type]
        return frozenset({"object"})
    if issubclass(plain, Mapping):
        return frozenset({"mapping", "object"})
    if issubclass(plain, Iterable):
        return frozenset({"list", "object"})
    return frozenset({"object"})


def _hints(target: str) -> Mapping[str, Any]:
    """Return the annotations of the arguments of a ``_target_``; none where they cannot be found."""
    try:
        found = get_object(target)
        # a dataclass says it class by class, in whose modules the names are known
        if is_dataclass(found) or not isinstance(found, type):
            return get_type_hints(found)
        # our classes hand **options to their bases
        own = [base for base in found.__mro__ if base is found or base.__module__.startswith("encore.")]
        return {name: hint for base in own[::-1] for name, hint in get_type_hints(base.__init__).items()}  # type: ignore[misc]
    except (ImportError, AttributeError, NameError, TypeError, ValueError):
        # a wrong name is reported when it is built
        return {}
