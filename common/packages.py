"""Import optional packages and find their files, or say in one line how to install them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

DISTRIBUTION = "encore-separation"


class MissingPackageError(ValueError):
    """An optional package is not installed."""


def require(
    module: str, *, needed_by: str, extra: str | None = None, install: str | None = None
) -> ModuleType:
    """Import an optional package.

    Args:
        module: Its import name, such as ``"pesq"``.
        needed_by: What cannot be used without it, as the user names it.
        extra: The extra of this project that installs it.
        install: What to type instead, for a package that no extra holds.

    Raises:
        MissingPackageError: If it is not installed; names the command that installs it.

    >>> require("no_such_package", needed_by="metric 'pesq'", extra="metrics")
    Traceback (most recent call last):
    encore.common.packages.MissingPackageError: metric 'pesq' needs the package no_such_package: \
pip install "encore-separation[metrics]"
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        raise _missing(module, needed_by, extra, install) from None


def packaged_file(package: str, name: str, *, needed_by: str, install: str) -> Path:
    """Find a file of an installed package, of which no code is run.

    Args:
        package: Its import name, dotted for one in a namespace, such as ``"livekit"``.
        name: The file's path below the package's folder.
        needed_by: What cannot be used without it, as the user names it.
        install: What installs the package.

    Raises:
        MissingPackageError: If the package is not installed.
        ValueError: If it has no such file: another version.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package, needed_by, None, install)
    for folder in spec.submodule_search_locations:
        if (path := Path(folder, name)).is_file():
            return path
    raise ValueError(f"package {package} holds no {name}, which {needed_by} needs: {install}")


def _missing(module: str, needed_by: str, extra: str | None, install: str | None) -> MissingPackageError:
    command = install or f'pip install "{DISTRIBUTION}[{extra}]"'
    return MissingPackageError(f"{needed_by} needs the package {module.split('.')[0]}: {command}")
