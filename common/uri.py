"""Names of separators and metrics: ``scheme:rest?key=value&key=value``, parsed and converted to types."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints
from urllib.parse import unquote

from encore.common.names import nearest

_SWITCHES = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Uri:
    """A name in its parts.

    Attributes:
        text: The whole name.
        scheme: What stands before the first colon; empty for a path.
        rest: What follows, without the options.
        options: Values of the options, as text.
        argument: Argument that held the name, for messages.
    """

    text: str
    scheme: str
    rest: str
    options: Mapping[str, str]
    argument: str = "uri"

    def fault(self, reason: str) -> ValueError:
        """Return the error that names argument and value before a reason."""
        return ValueError(f"{self.argument}='{self.text}' {reason}")


def parse_uri(text: str | Path, *, argument: str = "uri") -> Uri:
    """Parse a name.

    Args:
        text: ``scheme:rest?key=value&key=value``, or a path with or without options. Options begin at the
            last ``?``; in their values ``%26`` is ``&``. A file that exists under the whole name, or under
            the name without its scheme, is taken literally, as is a Path.
        argument: See `Uri`.

    Raises:
        ValueError: If an option is not ``key=value``, or is given twice.

    >>> parse_uri("demucs:htdemucs?level=none").options
    {'level': 'none'}
    """
    if isinstance(text, Path) or Path(text).is_file():
        return Uri(str(text), "", str(text), {}, argument)
    # two letters at least: C:\model.ckpt is a path
    match = re.match(r"([A-Za-z][A-Za-z0-9_+.-]+):(.*)", text, flags=re.DOTALL)
    scheme, rest = match.groups() if match else ("", text)
    if Path(rest).is_file() or "?" not in rest:
        return Uri(text, scheme, rest, {}, argument)
    rest, _, query = rest.rpartition("?")
    uri = Uri(text, scheme, rest, {}, argument)
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise uri.fault(f"has the option '{part}': write key=value")
        if key in options:
            raise uri.fault(f"has the option '{key}' twice: leave one out")
        options[key] = unquote(value)
    return Uri(text, scheme, rest, options, argument)


def check_scheme(uri: Uri, scheme: str, known: Collection[str]) -> None:
    """Raise a ValueError that names the nearest known scheme if a scheme is unknown."""
    if uri.rest.startswith("//"):
        raise uri.fault("is an address: download the file and give its path")
    if scheme not in known:
        raise uri.fault(
            f"has the unknown scheme '{scheme}': use {', '.join(nearest(scheme, sorted(known)))}, or a path"
        )


def option_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword-only parameters of a function, with their types."""
    hints = get_type_hints(getattr(function, "func", function))  # of a partial function
    parameters = inspect.signature(function).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def convert_options(
    uri: Uri, function: Callable[..., Any], common: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Convert the options of a URI to the types that a function declares for its keyword-only parameters.

    Args:
        uri: The URI.
        function: What takes them: text, numbers, truth values, paths or tuples of names. One with
            ``**options`` takes further ones as text.
        common: Types of further options.

    Returns:
        The options that are given.

    Raises:
        ValueError: If an option is unknown or has an invalid value, or a required one is missing.
    """
    known = {**(common or {}), **option_types(function)}
    parameters = inspect.signature(function).parameters.values()
    is_open = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in uri.options:
        if name not in known and not is_open:
            raise uri.fault(f"has the unknown option '{name}': use {', '.join(nearest(name, sorted(known)))}")
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in uri.options:
            raise uri.fault(f"lacks the option '{p.name}': add {'&' if uri.options else '?'}{p.name}=...")
    return {name: _convert(uri, name, known.get(name, str)) for name in uri.options}


def _convert(uri: Uri, name: str, kind: Any) -> Any:
    text = uri.options[name]
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if not text:
        raise uri.fault(f"has no value for the option '{name}': write {name}=..., or leave it out")
    if bool in kinds:
        if text not in _SWITCHES:
            raise uri.fault(f"has {name}={text}: write true or false")
        return _SWITCHES[text]
    if int in kinds:
        if not text.isdecimal():
            raise uri.fault(f"has {name}={text}: give a whole number")
        return int(text)
    if float in kinds:
        try:
            return float(text)
        except ValueError:
            raise uri.fault(f"has {name}={text}: give a number") from None
    if Path in kinds:
        return Path(text)
    return text if str in kinds else tuple(part.strip() for part in text.split(","))
