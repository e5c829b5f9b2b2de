"""Names of separators, ``scheme:rest?key=value&key=value``: taken apart, checked and opened."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints
from urllib.parse import unquote

from torch import nn

from encore.models.pretrained.conventions import CONVENTIONS, with_conventions
from encore.models.pretrained.registry import DOORS


def open_uri(uri: str) -> nn.Module:
    """Open the separator that a URI names, with the conventions that every door takes.

    Args:
        uri: ``scheme:rest?key=value&key=value`` with a scheme of `models.pretrained.registry.DOORS`, or the
            path of a checkpoint of ours, with or without options. Options begin at the last ``?``; in their
            values ``%26`` is ``&``. A file that exists under the whole name is taken literally.

    Returns:
        A network with ``sources``, ``sample_rate`` and ``channels``, on the CPU, as its door left it.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If scheme or options are unknown, a package is missing, or the file does not fit.
    """
    scheme, rest, options = split_uri(uri)
    door = DOORS[scheme]
    if not door.installed:
        raise ValueError(f"uri='{uri}' needs the package {door.package}: {door.install}")
    opener = door.function()
    try:
        keywords = _keywords(scheme, opener, options)
        conventions = {name: keywords[name] for name in CONVENTIONS if name in keywords}
        own = {name: value for name, value in keywords.items() if name in _options_of(opener)}
        return with_conventions(opener(rest, **own), **conventions)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"uri='{uri}' needs the package {error.name}: {door.install or 'install it'}"
        ) from error


def split_uri(uri: str) -> tuple[str, str, dict[str, str]]:
    """Take a URI apart: scheme, what follows it, and the options as strings.

    >>> split_uri("demucs:htdemucs?level=none")
    ('demucs', 'htdemucs', {'level': 'none'})

    Raises:
        ValueError: If the scheme is unknown or an option is not ``key=value``.
    """
    if Path(uri).is_file():
        return "file", uri, {}
    # two letters at least: C:\model.ckpt is a path
    match = re.match(r"([A-Za-z][A-Za-z0-9_+.-]+):(.*)", uri, flags=re.DOTALL)
    scheme, rest = match.groups() if match else ("file", uri)
    if scheme not in DOORS:
        near = get_close_matches(scheme.lower(), DOORS)
        hint = f"did you mean {' or '.join(near)}? Known" if near else "known"
        raise ValueError(
            f"uri='{uri}' has an unknown scheme: {hint} are {', '.join(sorted(DOORS))}, or give a path"
        )
    if Path(rest).is_file() or "?" not in rest:
        return scheme, rest, {}
    rest, _, tail = rest.rpartition("?")
    return scheme, rest, _pairs(tail, uri)


def _pairs(tail: str, uri: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, tail.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise ValueError(f"uri='{uri}': '{part}' is no option, write key=value")
        if key in pairs:
            raise ValueError(f"uri='{uri}': option '{key}' is given twice, leave one out")
        pairs[key] = unquote(value)
    return pairs


def _options_of(opener: Callable[..., nn.Module]) -> dict[str, Any]:
    """Keyword options of an opener with their types, from its signature."""
    hints = get_type_hints(opener)
    parameters = inspect.signature(opener).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _keywords(scheme: str, opener: Callable[..., nn.Module], options: Mapping[str, str]) -> dict[str, Any]:
    """Options in the types that opener and conventions declare; those not given are left out."""
    known = {**CONVENTIONS, **_options_of(opener)}
    keywords = {}
    for name, text in options.items():
        if name not in known:
            near = get_close_matches(name, known, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}? Known" if near else "known"
            raise ValueError(f"option '{name}' is unknown to {scheme}: {hint} are {', '.join(sorted(known))}")
        keywords[name] = _converted(name, text, known[name])
    parameters = inspect.signature(opener).parameters.values()
    required = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    for name in required:
        if name not in keywords:
            raise ValueError(f"{scheme} needs the option '{name}': add ?{name}=...")
    return keywords


def _converted(name: str, text: str, kind: Any) -> Any:
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if not text:
        raise ValueError(f"option '{name}' has no value: write {name}=..., or leave it out")
    if int in kinds:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"option {name}={text}: give a whole number, 1 or more")
        return int(text)
    if bool in kinds:
        if text not in ("true", "false"):
            raise ValueError(f"option {name}={text}: write true or false")
        return text == "true"
    if Path in kinds:
        return Path(text)
    if str in kinds:
        return text
    return tuple(part.strip() for part in text.split(","))
