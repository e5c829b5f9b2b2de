"""Files that other projects keep on the network: fetched into their own caches, once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from encore.models.weights import one_line

log = logging.getLogger(__name__)
"""Says at level INFO where each file landed."""


def fetched(what: str, fetch: Callable[[], str | Path]) -> Path:
    """Fetch a file, or find it in the cache of its project.

    Args:
        what: What it is, for messages.
        fetch: Downloads where needed, and returns where the file lies.

    Returns:
        The file.

    Raises:
        ValueError: If it is neither in the cache nor to be had.
    """
    try:
        path = Path(fetch())
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{what} is not in the cache and cannot be fetched ({one_line(error)}): check the name; where "
            "there is no network, run python -m encore.cli.prefetch on a machine that has one"
        ) from error
    log.info("%s: %s", what, path)
    return path
