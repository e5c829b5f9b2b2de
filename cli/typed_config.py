"""Check the types of a configuration's values against what the classes that it builds take.

``data.batch_size=two`` would otherwise fail somewhere inside, in the words of the code that counts with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object

from encore.cli.overrides import UserError


class _Object:
    """What only a node with a ``_target_`` makes; no value is one."""


_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a name",
    list: "a list such as [A,B]",
    dict: "keys and values",
    _Object: "a node {_target_: ...}",
    NoneType: "null",
}


def check_types(node: Any, key: str) -> None:
    """Check every value below a node against the annotations of what the node's ``_target_`` names.

    Args:
        node: Plain mappings, lists and values.
        key: Where it stands, for the message.

    Raises:
        UserError: Names the first value of another type, and the types that are allowed.
    """
    if isinstance(node, list):
        for place, value in enumerate(node):
            check_types(value, f"{key}[{place}]")
    if not isinstance(node, Mapping):
        return
    known = arguments(node.get("_target_"))
    for name, value in node.items():
        own = f"{key}.{name}" if key else str(name)
        # what a node makes may be of any type, and so may what is looked up
        if name in known and "_target_" not in str(value) and "${" not in str(value):
            _check(value, known[name].annotation, own)
        check_types(value, own)


def arguments(target: str | None) -> dict[str, Parameter]:
    """Return the arguments of a ``_target_``, with types as annotations; none where they cannot be found."""
    if target is None:
        return {}
    try:
        found = get_object(target)
        # a dataclass is annotated class by class, in whose modules the names are known
        whole = is_dataclass(found) or not isinstance(found, type)
        # our classes hand **options to their bases
        bases = [] if whole else [own for own in found.__mro__[:0:-1] if own.__module__.startswith("encore.")]
        own = [*(base.__init__ for base in bases), found if whole else found.__init__]
        hints = {name: hint for base in own for name, hint in get_type_hints(base).items()}
        hints.pop("return", None)
        known = {name: Parameter(name, Parameter.KEYWORD_ONLY, annotation=hints[name]) for name in hints}
        for name, parameter in signature(found).parameters.items():
            known[name] = parameter.replace(annotation=hints.get(name, Any))
        return known
    except (ImportError, AttributeError, NameError, TypeError, ValueError):
        return {}  # a wrong name is reported when it is built


def _check(value: Any, hint: Any, key: str) -> None:
    allowed = _types(hint)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e5
    # a whole number is a number, but True is none
    fits = type(value) in allowed or (type(value) is int and float in allowed)
    choices = [own for own in allowed if isinstance(own, tuple)]
    if fits or Any in allowed or any(value in names for names in choices):
        return
    words = [" or ".join(own) if own in choices else _WORDS[own] for own in allowed]
    verb = "choose" if allowed[0] in choices else "give"
    raise UserError(f"{key}={value}: {verb} {' or '.join(words)}")


def _types(hint: Any) -> tuple[Any, ...]:
    """Return the types that a file can hold of an annotation, names to choose from as a tuple of them.

    Any where everything is allowed.
    """
    plain = get_origin(hint) or hint
    if plain in (Union, UnionType):
        parts = dict.fromkeys(own for part in get_args(hint) for own in _types(part))
        if Any in parts:
            return (Any,)
        # a node may stand for any of them
        return tuple(own for own in parts if own is not _Object or set(parts) <= {_Object, NoneType})
    if plain is Literal and all(isinstance(value, str) for value in get_args(hint)):
        return (get_args(hint),)
    if plain in _WORDS:
        return (plain,)
    if plain in (Any, object) or not isinstance(plain, type):
        return (Any,)
    if issubclass(plain, Path | Enum):
        return (str,)
    if issubclass(plain, Mapping):
        return (dict,)
    return (list,) if issubclass(plain, Iterable) else (_Object,)
