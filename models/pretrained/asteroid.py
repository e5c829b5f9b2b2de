"""Asteroid's models: files of ``model.serialize()``, and the names that asteroid downloads by."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encore.common.errors import one_line
from encore.common.files import read_safely
from encore.common.names import nearest
from encore.models.pretrained.downloads import fetch
from encore.models.separators.asteroid import ARCHITECTURES, frames
from encore.models.separators.contract import AdaptedSeparator, default_names

ENHANCERS = ("DCUNet", "DeMask")
"""Classes of ``asteroid.models`` that are opened besides those that this project trains."""

_UNFIT = {
    "DCCRNet": "cannot be built on this version of torch",
    "XUMX": "cannot be built on torch 2 by asteroid 0.7",
    "FasNetTAC": "maps several microphones to one channel, which is no (batch, source, channel, time)",
}


def open_asteroid(name: str, *, sample_rate: int | None = None) -> nn.Module:
    """Open one of asteroid's waveform models.

    The file is read without running code from it, which ``BaseModel.from_pretrained`` cannot do on today's
    torch. Levels are left alone: ``asteroid.separate`` rescales by sums over the whole batch, after which an
    estimate depends on its batch-mates.

    Args:
        name: Path of a file of ``torch.save(model.serialize(), path)``, or a name that asteroid downloads: a
            name on the Hugging Face hub with or without ``@revision``, of its Zenodo list, or a URL.
        sample_rate: Rate in Hz of a model whose file does not say it.

    Returns:
        A separator of one channel; sources ``speech`` for one, ``speech`` and ``noise`` for a model of both,
        ``speaker1``, ``speaker2``, ... else.

    Raises:
        FileNotFoundError: If a path has no file.
        ValueError: If the name cannot be fetched, or the file holds no model that fits.

    Source: M. Pariente et al., "Asteroid: the PyTorch-based audio source separation toolkit for
    researchers", 2020.
    """
    path = _find(name)
    content = read_safely(path, classes=[torch.torch_version.TorchVersion])
    kinds = {"model_name": str, "model_args": Mapping, "state_dict": Mapping}
    held = content if isinstance(content, Mapping) else {}
    if lacking := [key for key, kind in kinds.items() if not isinstance(held.get(key), kind)]:
        raise ValueError(
            f"'{path}' is no file of asteroid's model.serialize(): it lacks {', '.join(lacking)}; for a bare "
            "state dictionary there is weights:"
        )
    hub = import_module("asteroid.utils.hub_utils")
    arguments = dict(content["model_args"])
    rate = arguments.get("sample_rate") or hub.SR_HASHTABLE.get(name) or sample_rate
    if rate is None:
        raise ValueError(f"asteroid model '{name}' does not say its sampling rate: add ?sample_rate=8000")
    network = _build({**content, "model_args": arguments | {"sample_rate": float(rate)}}, path)
    shortest, step = frames(network)
    with torch.no_grad():
        # not every class has the number as an attribute
        count = network.eval()(torch.zeros(1, 1, shortest + step * 100)).shape[1]
    task = str(content.get("task", "")) + name
    names = ("speech", "noise") if count == 2 and "both" in task.lower() else default_names(count)
    return AdaptedSeparator(names, round(float(rate)), 1, network, shortest=shortest, step=step)


def _find(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    if Path(name).suffix in (".pth", ".pt", ".bin", ".ckpt") and not name.startswith(("http:", "https:")):
        raise FileNotFoundError(f"asteroid model '{name}' does not exist or is not a file: check the path")
    hub = import_module("asteroid.utils.hub_utils")
    return fetch(f"asteroid model '{name}'", lambda: hub.cached_download(name))


def _build(content: Mapping[str, Any], path: Path) -> nn.Module:
    allowed = {known.lower(): known for known in (*ARCHITECTURES, *ENHANCERS)}
    given = content["model_name"]
    unfit = {known.lower(): reason for known, reason in _UNFIT.items()}.get(given.lower())
    if given.lower() not in allowed:
        near = ", ".join(nearest(given, allowed.values()))
        raise ValueError(f"'{path}' holds a {given}: {unfit or 'unknown'}; use {near}")
    # asteroid looks names up among all that its package imports, functions too: only networks may be named
    base = import_module("asteroid.models").BaseModel
    try:
        network: nn.Module = base.from_pretrained({**content, "model_name": allowed[given.lower()]})
    except (TypeError, RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"'{path}' does not fit asteroid's {given}: {one_line(error)}") from error
    return network
