"""Files that other projects publish, fetched once into the projects' own caches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from encore.common.errors import one_line

log = logging.getLogger(__name__)
"""Logs at level INFO the path of each file."""


def fetch(what: str, download: Callable[[], str | Path]) -> Path:
    """Fetch a file, or find it in the cache of its project.

    Args:
        what: What it is, for messages.
        download: Downloads it if needed, and returns its path.

    Returns:
        The file.

    Raises:
        ValueError: If it is not in the cache and cannot be fetched.
    """
    try:
        path = Path(download())
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{what} is not in the cache and cannot be fetched ({one_line(error)}): check the name; where "
            "there is no network, run python -m encore.cli.prefetch on a machine that has one"
        ) from error
    log.info("%s: %s", what, path)
    return path
