"""Published files, fetched once into their projects' own caches; checkpoints of this project on the hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from pkgutil import resolve_name
from urllib.parse import unquote

from torch import nn

from encore.common.errors import one_line
from encore.models.checkpoint import load_checkpoint

log = logging.getLogger(__name__)
"""Logs at level INFO the path of each file."""

DEFAULT_FILE = "model.safetensors"
"""File of a repository that is opened if none is named."""


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


def fetch_from_hub(repository: str, file: str, revision: str | None = None) -> Path:
    """Fetch a file from the Hugging Face hub into its cache (``HF_HOME``); errors as `fetch`.

    With ``HF_HUB_OFFLINE=1`` nothing but the cache is used.
    """
    download = resolve_name("huggingface_hub.hf_hub_download")
    return fetch(
        f"'{file}' of {repository} on the Hugging Face hub",
        lambda: download(repository, file, revision=revision),
    )


def open_hugging_face(name: str) -> nn.Module:
    """Open a ``.safetensors`` file of this project, with its ``.yaml``, from the Hugging Face hub.

    Args:
        name: ``owner/repository[@revision][/folder/file.safetensors]``; ``%2F`` is a slash in a revision.
            Without a file, `DEFAULT_FILE`.

    Returns:
        The separator.

    Raises:
        ValueError: If the name is malformed, a file cannot be fetched, or is no checkpoint of this project.
    """
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([^/@]+))?(?:/(.+))?", name)
    if match is None:
        raise ValueError(
            f"hf name '{name}' is malformed: write owner/repository[@revision][/file.safetensors]"
        )
    repository, revision, file = match[1], match[2] and unquote(match[2]), match[3] or DEFAULT_FILE
    if not file.endswith(".safetensors"):
        raise ValueError(f"hf file '{file}' is no .safetensors file: name one, with its .yaml beside it")
    fetch_from_hub(repository, str(PurePosixPath(file).with_suffix(".yaml")), revision)
    return load_checkpoint(fetch_from_hub(repository, file, revision))
