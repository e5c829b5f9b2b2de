"""Objects of the user's own Python code, by name; importing them runs that code."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from encore.common.errors import one_line
from encore.common.names import nearest


def import_object(name: str) -> Any:
    """Import an object of the user's own code, with the current folder searched before ``sys.path``.

    Args:
        name: ``module:attribute``, such as ``mysep:MaskNet`` or ``package.module:score``.

    Raises:
        ValueError: If the name is malformed, the module fails to import or the attribute does not exist.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f"'{name}' names no object of Python: write python:MODULE:NAME, without .py")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = import_module(module_name)
    except Exception as error:  # the user's code raises what it likes
        raise ValueError(
            f"'{name}': importing {module_name} fails ({type(error).__name__}: {one_line(error)}): it is "
            f"searched in '{folder}' and on PYTHONPATH"
        ) from error
    finally:
        sys.path.remove(folder)
        # for what the code imports later, but behind every installed package
        if folder not in sys.path:
            sys.path.append(folder)
    if not hasattr(module, attribute):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ValueError(f"{module_name} has no '{attribute}': use {', '.join(nearest(attribute, public))}")
    return getattr(module, attribute)


def instantiate_class(found: Any, options: Mapping[str, str], given: Mapping[str, Any] | None = None) -> Any:
    """Call a class of the user's own code; any other object is returned as it is.

    Args:
        found: The class or object.
        options: Keywords of the class as text, read as YAML values: ``64``, ``0.5``, ``true``, ``[1, 2]``.
        given: Values for parameters that the class requires besides.

    Raises:
        ValueError: If the class does not take the keywords, or there are keywords for another object.
    """
    if not inspect.isclass(found):
        if options:
            raise ValueError(f"option '{next(iter(options))}' is for a class: {found!r:.60} takes none")
        return found
    try:
        parameters = inspect.signature(found).parameters.values()
        required = {p.name for p in parameters if p.default is p.empty}
        keywords: dict[str, Any] = {name: yaml.safe_load(text) for name, text in options.items()}
        keywords |= {
            name: value for name, value in (given or {}).items() if name in required and value is not None
        }
        return found(**keywords)
    except Exception as error:  # the user's code raises what it likes
        raise ValueError(
            f"{found.__name__} cannot be made: {type(error).__name__}: {one_line(error)}"
        ) from error
