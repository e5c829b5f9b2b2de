"""Import optional packages, or say in one line how to install them."""

from __future__ import annotations

from importlib import import_module
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
        command = install or f'pip install "{DISTRIBUTION}[{extra}]"'
        raise MissingPackageError(
            f"{needed_by} needs the package {module.split('.')[0]}: {command}"
        ) from None
