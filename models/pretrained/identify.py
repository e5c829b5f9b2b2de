"""Which loader opens a file: found by its content, without running code from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.serialization import get_unsafe_globals_in_checkpoint

from encore.common.files import check_file, file_kind, opened_safetensors, read_safely, read_yaml
from encore.models.weights import own_config, weights_in

_KINDS = "checkpoint, weights file, TorchScript, program of torch.export or ONNX graph"


def scheme_of_file(path: Path) -> str:
    """Return the scheme whose loader opens a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If no loader opens it as it is; names the scheme to add, with an example.
    """
    kind = file_kind(check_file(path))
    if kind == "unknown":
        raise ValueError(f"'{path}' is not a {_KINDS}: was it cut off, or is it of another kind?")
    if kind == "safetensors":
        return _safetensors_scheme(path)
    return _pickle_scheme(path) if kind == "pickle" else kind


def _safetensors_scheme(path: Path) -> str:
    with opened_safetensors(path) as file:
        metadata = file.metadata() or {}
    if {"klass", "args", "kwargs"} <= metadata.keys():
        return "demucs"
    beside = _yaml_beside(path)
    if beside is None:
        raise _lacks_architecture(path)
    return "bs_roformer" if _is_roformer(beside) else "file"


def _pickle_scheme(path: Path) -> str:
    foreign = [name for name in _classes(path) if name != "torch.torch_version.TorchVersion"]
    if any(name.startswith("demucs.") for name in foreign):
        return "demucs"
    if foreign:
        # a network is pickled by its parts' names, its own last
        module, _, name = foreign[-1].rpartition(".")
        own = "MODULE:CLASS" if module.startswith("torch") or not module else f"{module}:{name}"
        raise ValueError(
            f"'{path}' is refused: it is not a file of tensors and plain values, but of Python objects "
            f"({', '.join(foreign[-3:])}), which run code when they are loaded: save the state_dict of the "
            f"network alone, and give {_example(path.with_name('weights.pt'), own)}"
        )
    content = read_safely(path, classes=[torch.torch_version.TorchVersion], mapped=True)
    if not isinstance(content, Mapping):
        raise ValueError(f"'{path}' holds no weights but a {type(content).__name__}: give a checkpoint")
    if {"model_name", "model_args", "state_dict"} <= content.keys():
        return "asteroid"
    if own_config(content) is not None:
        return "file"
    if not weights_in(content):
        raise ValueError(
            f"'{path}' holds no weights, but {', '.join(map(str, list(content)[:5])) or 'nothing'}"
        )
    if _is_roformer(_yaml_beside(path)):
        return "bs_roformer"
    raise _lacks_architecture(path)


def _classes(path: Path) -> list[str]:
    """Return the names of classes and functions that a file wants to call; empty where they are not known."""
    try:
        return sorted(
            get_unsafe_globals_in_checkpoint(str(path)), key=lambda name: not name.startswith("torch.")
        )
    except (RuntimeError, ValueError):
        # a file of before torch 1.6, or a damaged one: reading it says more
        return []


def _yaml_beside(path: Path) -> dict[str, Any] | None:
    """Return the content of the YAML file beside a file, None without one."""
    beside = path.with_suffix(".yaml")
    # without its tags, as trainers write tuples as Python's
    return read_yaml(beside, "correct it", loader=yaml.BaseLoader) if beside.is_file() else None


def _is_roformer(beside: dict[str, Any] | None) -> bool:
    return beside is not None and {"model", "training"} <= beside.keys()


def _lacks_architecture(path: Path) -> ValueError:
    return ValueError(
        f"'{path}' holds weights without an architecture, and no '{path.with_suffix('.yaml').name}' beside "
        f"it describes one: give {_example(path, 'MODULE:CLASS')}, or --separator 'weights:{path}"
        "?model=conv_tasnet_small&sources=speech&sample_rate=16000&channels=1'"
    )


def _example(path: Path, name: str) -> str:
    return f"--separator 'python:{name}?weights={path}&sources=speech,noise&sample_rate=16000'"
