"""Files of Demucs models: found, and read without running code from them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import nn

from encore.common.errors import one_line
from encore.common.names import nearest
from encore.common.torch_files import file_kind, read_safely
from encore.models.pretrained.downloads import fetch

log = logging.getLogger(__name__)

CLASSES = ("demucs.demucs.Demucs", "demucs.hdemucs.HDemucs", "demucs.htdemucs.HTDemucs")
"""The networks that a file may name."""

SUFFIXES = (".safetensors", ".th")


@dataclass(frozen=True, slots=True)
class Bag:
    """Models whose estimates are averaged.

    Attributes:
        models: One or more, of the same sources, sampling rate and channels.
        weights: For each model a weight for each source.
    """

    models: list[nn.Module]
    weights: list[list[float]]


def find_bag(name: str, repo: str | None) -> Bag:
    """Return the models of a name; see `encore.models.pretrained.demucs.open_demucs`."""
    path = Path(name)
    if path.suffix in SUFFIXES or path.is_file():
        return _bag([read_model(path)], None, name)
    if repo is not None:
        return _local_bag(name, Path(repo))
    return _remote_bag(name)


def read_model(path: Path) -> nn.Module:
    """Build the model that a ``.th`` package or a ``.safetensors`` file of demucs describes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, names another class, or is quantised.
    """
    is_safetensors = path.suffix == ".safetensors" or file_kind(path) == "safetensors"
    package = _read_safetensors(path) if is_safetensors else _read_package(path)
    if not isinstance(package["state"], Mapping) or package["state"].get("__quantized"):
        raise ValueError(
            f"'{path}' is quantised, which needs code from it: take a model that is not, such as mdx_extra"
        )
    try:
        model: nn.Module = import_module("demucs.states").load_model(package)
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(f"'{path}' does not fit {package['klass'].__name__}: {one_line(error)}") from error
    return model.eval()


def _read_package(path: Path) -> dict[str, Any]:
    content = read_safely(path, classes=[*(_network_class(name, path) for name in CLASSES), Fraction])
    if not isinstance(content, dict) or not {"klass", "args", "kwargs", "state"} <= content.keys():
        raise ValueError(f"'{path}' is no model package of demucs: it lacks klass, args, kwargs or state")
    if content["klass"] not in [_network_class(name, path) for name in CLASSES]:
        raise ValueError(
            f"'{path}' names the class {content['klass']!r}: only {', '.join(CLASSES)} are opened"
        )
    return content


def _read_safetensors(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"demucs model '{path}' does not exist or is not a file: check the path")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"'{path}' is not a safetensors file: {one_line(error)}") from error
    if "structure" in metadata:
        raise ValueError(
            f"'{path}' is quantised, which needs code from it: take a model that is not, such as mdx_extra"
        )
    if not {"klass", "args", "kwargs"} <= metadata.keys():
        raise ValueError(
            f"'{path}' is no safetensors file of demucs: its metadata lack klass, args or kwargs"
        )
    # demucs itself imports and calls any name in this entry
    klass = _network_class(metadata["klass"], path)
    try:
        arguments = [_plain(json.loads(metadata[key])) for key in ("args", "kwargs")]
    except (json.JSONDecodeError, ZeroDivisionError, TypeError, KeyError) as error:
        raise ValueError(
            f"'{path}': args or kwargs in its metadata are damaged: {one_line(error)}"
        ) from error
    return {"klass": klass, "args": arguments[0], "kwargs": arguments[1], "state": state}


def _network_class(name: str, path: Path) -> type:
    if name not in CLASSES:
        raise ValueError(f"'{path}' names the class '{name}': only {', '.join(CLASSES)} are opened")
    module, _, attribute = name.rpartition(".")
    found: type = getattr(import_module(module), attribute)
    return found


def _plain(value: Any) -> Any:
    """Return JSON values with the fractions that demucs writes."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return Fraction(value["numerator"], value["denominator"])
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _local_bag(name: str, folder: Path) -> Bag:
    if not folder.is_dir():
        raise FileNotFoundError(f"option repo={folder} is no folder: check the path")
    description = folder / f"{name}.yaml"
    found = _local_models(folder)
    if name in found:
        return _bag([read_model(found[name])], None, name)
    if not description.is_file():
        bags = sorted(path.stem for path in folder.glob("*.yaml"))
        known = ", ".join(nearest(name, [*sorted(found), *bags], 3)) or "a folder with models"
        raise ValueError(f"demucs model '{name}' is not in {folder}: use {known}")
    content = _read_description(description)
    absent = [signature for signature in content["models"] if signature not in found]
    if absent:
        raise FileNotFoundError(f"'{description}' names {absent[0]}, which is not in {folder}: copy it there")
    return _bag([read_model(found[signature]) for signature in content["models"]], content, name)


def _local_models(folder: Path) -> dict[str, Path]:
    """Return files by signature; after a dash, the name of a .th file has its checksum."""
    return {path.stem.split("-")[0]: path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES}


def _remote_bag(name: str) -> Bag:
    """Fetch models from the Hugging Face hub, or if it lacks them, from the older host of demucs."""
    pretrained = import_module("demucs.pretrained")
    try:
        return _hub_bag(name)
    except ValueError as error:
        urls = pretrained._parse_remote_files(pretrained.REMOTE_ROOT / "files.txt")
        description = pretrained.REMOTE_ROOT / f"{name}.yaml"
        if name not in urls and not description.is_file():
            bags = sorted(path.stem for path in pretrained.REMOTE_ROOT.glob("*.yaml"))
            raise ValueError(f"{error}; use {', '.join(nearest(name, bags, 3))}") from error
        log.warning("%s; trying the older host of demucs", error)
    content = _read_description(description) if name not in urls else {"models": [name]}
    paths = [_downloaded(signature, urls[signature]) for signature in content["models"]]
    return _bag([read_model(path) for path in paths], content, name)


def _hub_bag(name: str) -> Bag:
    hub = import_module("demucs.hf")
    from huggingface_hub import hf_hub_download

    owner, _, short = name.rpartition("/")
    repository = f"{owner or hub.DEFAULT_NAMESPACE}/{hub.hf_repo_name(short)}"
    what = f"demucs model '{name}' ({repository} on the Hugging Face hub)"
    content = _read_description(fetch(what, lambda: hf_hub_download(repository, f"{short}.yaml")))
    models = []
    for signature in content["models"]:
        file = f"{signature}.safetensors"
        models.append(read_model(fetch(what, lambda file=file: hf_hub_download(repository, file))))  # type: ignore[misc]
    return _bag(models, content, name)


def _downloaded(signature: str, url: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]

    def download() -> Path:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.split("-")[-1])
        return path

    return fetch(f"demucs model '{signature}'", download)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("models"), list) or not content["models"]:
        raise ValueError(f"'{path}' is no bag of demucs: it must list signatures under models")
    return content


def _bag(models: list[nn.Module], description: Mapping[str, Any] | None, name: str) -> Bag:
    first: Any = models[0]
    count = len(first.sources)
    weights = (description or {}).get("weights") or [[1.0] * count for _ in models]
    fits = len(weights) == len(models) and all(len(row) == count for row in weights)
    if not fits or any(sum(column) <= 0 for column in zip(*weights, strict=True)):
        raise ValueError(f"weights of demucs bag '{name}' do not fit {len(models)} models of {count} sources")
    for other in models[1:]:
        for attribute in ("sources", "samplerate", "audio_channels"):
            if getattr(other, attribute) != getattr(first, attribute):
                raise ValueError(
                    f"models of demucs bag '{name}' differ in {attribute}: they cannot be averaged"
                )
    return Bag(models, [[float(value) for value in row] for row in weights])
