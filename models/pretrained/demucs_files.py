"""Files of Demucs models: found, and read without running code from them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from torch import nn

from encore.common.errors import one_line
from encore.common.files import download, file_kind, opened_safetensors, read_safely, read_yaml
from encore.common.names import nearest
from encore.models.pretrained.downloads import fetch, fetch_from_hub

log = logging.getLogger(__name__)

CLASSES = ("demucs.demucs.Demucs", "demucs.hdemucs.HDemucs", "demucs.htdemucs.HTDemucs")
"""The networks that a file may name."""

SUFFIXES = (".safetensors", ".th")

Weights = list[list[float]] | None
"""For each model a weight for each source; None for equal ones."""

Files = tuple[list[Path], Weights]
"""Files of the models of a bag, and their weights."""


def find_bag(name: str, repo: str | None) -> Any:
    """Return the ``demucs.apply.BagOfModels`` of a name, as `open_demucs` takes it."""
    if Path(name).suffix in SUFFIXES or Path(name).is_file():
        paths, weights = [Path(name)], None
    elif repo is not None:
        paths, weights = _local_files(name, Path(repo))
    else:
        try:
            paths, weights = _hub_files(name)
        except ValueError as error:
            paths, weights = _older_files(name, error)
    models = [read_model(path) for path in paths]
    try:
        bag = resolve_name("demucs.apply.BagOfModels")(models, weights)
        fits = all(sum(column) > 0 for column in zip(*bag.weights, strict=True))
    except (AssertionError, TypeError):
        fits = False
    if not fits:
        raise ValueError(
            f"demucs bag '{name}' cannot be averaged: its {len(models)} models must have the same sources, "
            "sampling rate and channels, and a weight for each source"
        )
    return bag


def read_model(path: Path) -> nn.Module:
    """Build the model that a ``.th`` package or a ``.safetensors`` file of demucs describes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, names another class, or is quantised.
    """
    networks = {name: resolve_name(name) for name in CLASSES}
    if path.suffix == ".safetensors" or file_kind(path) == "safetensors":
        package = _read_safetensors(path)
    else:
        package = read_safely(path, classes=[*networks.values(), Fraction])
    if not isinstance(package, dict) or not {"klass", "args", "kwargs", "state"} <= package.keys():
        raise ValueError(f"'{path}' is no model of demucs: it lacks klass, args, kwargs or state")
    # demucs itself imports and calls any name in this entry
    named = [name for name, network in networks.items() if package["klass"] in (name, network)]
    if not named:
        raise ValueError(
            f"'{path}' names the class {package['klass']!r}: only {', '.join(CLASSES)} are opened"
        )
    if not isinstance(package["state"], Mapping) or package["state"].get("__quantized"):
        raise ValueError(
            f"'{path}' is quantised, which needs code from it: take a model that is not, such as mdx_extra"
        )
    try:
        model: nn.Module = resolve_name("demucs.states.load_model")(package | {"klass": networks[named[0]]})
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(f"'{path}' does not fit {named[0]}: {one_line(error)}") from error
    return model.eval()


def _read_safetensors(path: Path) -> dict[str, Any]:
    with opened_safetensors(path) as file:
        package = dict(file.metadata() or {})
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    decode = resolve_name("demucs.hf._decode_json")
    try:
        arguments = {key: decode(json.loads(package[key])) for key in ("args", "kwargs") if key in package}
    except (ValueError, ZeroDivisionError, TypeError, KeyError) as error:
        raise ValueError(
            f"'{path}': args or kwargs in its metadata are damaged: {one_line(error)}"
        ) from error
    quantised = {"__quantized": True} if "structure" in package else {}
    return package | arguments | {"state": state | quantised}


def _local_files(name: str, folder: Path) -> Files:
    if not folder.is_dir():
        raise FileNotFoundError(f"option repo={folder} is no folder: check the path")
    # after a dash, the name of a .th file has its checksum
    found = {path.stem.split("-")[0]: path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES}
    if name in found:
        return [found[name]], None
    description = folder / f"{name}.yaml"
    if not description.is_file():
        bags = sorted(path.stem for path in folder.glob("*.yaml"))
        known = ", ".join(nearest(name, [*sorted(found), *bags], 3)) or "a folder with models"
        raise ValueError(f"demucs model '{name}' is not in {folder}: use {known}")
    signatures, weights = _read_description(description)
    if absent := [signature for signature in signatures if signature not in found]:
        raise FileNotFoundError(f"'{description}' names {absent[0]}, which is not in {folder}: copy it there")
    return [found[signature] for signature in signatures], weights


def _hub_files(name: str) -> Files:
    hub = import_module("demucs.hf")
    owner, _, short = name.rpartition("/")
    repository = f"{owner or hub.DEFAULT_NAMESPACE}/{hub.hf_repo_name(short)}"

    signatures, weights = _read_description(fetch_from_hub(repository, f"{short}.yaml"))
    return [fetch_from_hub(repository, f"{signature}.safetensors") for signature in signatures], weights


def _older_files(name: str, error: ValueError) -> Files:
    """Fetch what the Hugging Face hub lacks from the older host of demucs."""
    pretrained = import_module("demucs.pretrained")
    urls = pretrained._parse_remote_files(pretrained.REMOTE_ROOT / "files.txt")
    description = pretrained.REMOTE_ROOT / f"{name}.yaml"
    if name not in urls and not description.is_file():
        bags = sorted(path.stem for path in pretrained.REMOTE_ROOT.glob("*.yaml"))
        raise ValueError(f"{error}; use {', '.join(nearest(name, bags, 3))}") from error
    log.warning("%s; trying the older host of demucs", error)
    signatures, weights = ([name], None) if name in urls else _read_description(description)
    return [_downloaded(signature, urls[signature]) for signature in signatures], weights


def _downloaded(signature: str, url: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]

    def fetched() -> Path:
        if not path.is_file():
            download(url, path, hash_prefix=path.stem.split("-")[-1])
        return path

    return fetch(f"demucs model '{signature}'", fetched)


def _read_description(path: Path) -> tuple[list[str], Weights]:
    content = read_yaml(path, "a bag of demucs lists signatures under models")
    if not isinstance(content.get("models"), list) or not content["models"]:
        raise ValueError(f"'{path}' is no bag of demucs: it must list signatures under models")
    return content["models"], content.get("weights")
