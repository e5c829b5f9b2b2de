"""Separators by name: the URI is parsed, its loader found and called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from encore.common.packages import require
from encore.common.uri import Uri, check_scheme, convert_options, option_types, parse_uri
from encore.models.pretrained.common_options import COMMON_OPTIONS, with_common_options
from encore.models.pretrained.identify import scheme_of_file
from encore.models.pretrained.registry import LOADERS


def open_uri(text: str | Path) -> nn.Module:
    """Open the separator that a URI names.

    Args:
        text: ``scheme:rest?key=value&key=value`` with a scheme of `LOADERS`; or the path of a file, with or
            without options, whose content says which loader opens it. Every scheme takes the options of
            `COMMON_OPTIONS` besides its own. A Path is taken literally.

    Returns:
        A network with ``sources``, ``sample_rate`` and ``channels``, on the CPU, as its loader returned it.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If scheme or options are unknown, a package is missing, or the file does not fit.
    """
    uri = Uri(str(text), "", str(text), {}) if isinstance(text, Path) else parse_uri(text)
    if not uri.scheme and not Path(uri.rest).is_file():
        raise FileNotFoundError(
            f"'{uri.rest}' does not exist or is not a file: check the path, or write scheme:name with one of "
            f"{', '.join(LOADERS)}"
        )
    scheme = uri.scheme or scheme_of_file(Path(uri.rest))
    check_scheme(uri, scheme, LOADERS)
    loader = LOADERS[scheme]
    if loader.package is not None:
        require(loader.package, needed_by=f"uri='{text}'", extra=loader.extra, install=loader.install)
    opener = loader.function()
    options = convert_options(uri, opener, COMMON_OPTIONS)
    own = {name: value for name, value in options.items() if name not in COMMON_OPTIONS}
    own |= {name: options[name] for name in option_types(opener) if name in options}
    common = {name: options[name] for name in COMMON_OPTIONS if name in options}
    second: dict[str | None, tuple[Any, ...]] = {None: (), "scheme": (scheme,), "open_uri": (open_uri,)}
    return with_common_options(opener(uri.rest, *second[loader.second], **own), **common)
