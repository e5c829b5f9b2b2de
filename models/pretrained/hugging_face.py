"""Checkpoints of this project on the Hugging Face hub."""

from __future__ import annotations

import re
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import unquote

from torch import nn

from encore.models.checkpoint import load_checkpoint
from encore.models.pretrained.downloads import fetch

DEFAULT_FILE = "model.safetensors"
"""File that is opened if none is named."""


def open_hugging_face(name: str) -> nn.Module:
    """Open a ``.safetensors`` file of this project, with its ``.yaml``, from the Hugging Face hub.

    Files are kept in the hub's own cache (``HF_HOME``); with ``HF_HUB_OFFLINE=1`` nothing else is used.

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
    import huggingface_hub

    config = str(PurePosixPath(file).with_suffix(".yaml"))
    paths = [
        fetch(
            f"'{part}' of {repository}",
            partial(huggingface_hub.hf_hub_download, repository, part, revision=revision),
        )
        for part in (config, file)
    ]
    return load_checkpoint(paths[-1])
