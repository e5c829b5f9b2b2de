"""Encore's checkpoints: weights beside a plain configuration, and Lightning's files, read safely.

A checkpoint is untrusted input. Weights are read without unpickling objects, and a configuration can name
only network classes that this package defines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.files import check_file, file_kind, read_safely, read_yaml
from encore.models.denoisers.preconditioning import Preconditioning
from encore.models.processes.bridge import Bridge
from encore.models.processes.diffusion import Diffusion
from encore.models.weights import NETWORKS, load_weights, own_config, read_state_dict, weights_in

ALLOWED_PREFIXES = ("encore.models.separators.", "encore.models.denoisers.", "encore.models.processes.")
"""Packages of the classes that a configuration may name."""

ALLOWED_KINDS = (nn.Module, Bridge, Diffusion, Preconditioning)
"""Base classes of these: networks, and parts of networks."""


def save_separator(path: str | Path, module: nn.Module, config: Mapping[str, Any]) -> None:
    """Write a separator as ``<stem>.safetensors`` and its configuration as ``<stem>.yaml`` beside it.

    Args:
        path: The ``.safetensors`` file; existing files are replaced, missing folders made.
        module: The separator, on any device.
        config: Its model configuration: ``_target_`` (the class) and resolved constructor keywords.

    Raises:
        ValueError: If the suffix is wrong, or the configuration is not plain, not allowed, or of another
            class than the module.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path='{path}' ends in '{path.suffix}': name a .safetensors file")
    if type(module) is not _class_named(config):
        raise ValueError(
            f"config._target_={config['_target_']!r} is not the module's class {type(module).__name__}"
        )
    try:
        text = yaml.safe_dump(dict(config), sort_keys=False)
    except yaml.YAMLError as error:
        raise ValueError(f"config holds more than plain values: {one_line(error)}") from error
    # cloned, because the format refuses shared memory, and a network may hold a tensor under two names
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    path.with_suffix(".yaml").write_text(text, encoding="utf-8")


def load_checkpoint(path: str | Path, *, averaged: bool = True) -> nn.Module:
    """Rebuild the network that a checkpoint holds, on the CPU.

    Args:
        path: See `read_checkpoint`.
        averaged: Whether to use averaged weights where a ``.ckpt`` has them, see `weights_in`.

    Returns:
        The network, in training mode.

    Raises:
        FileNotFoundError: If the file, or the configuration beside it, is missing.
        ValueError: If it is not a checkpoint, or its configuration or weights do not match.
    """
    config, weights = read_checkpoint(path, averaged=averaged)
    try:
        module = instantiate(config)
    except ValueError as error:
        raise ValueError(f"configuration of '{path}': {error}") from error
    load_weights(module, weights, path)
    return module


def read_checkpoint(
    path: str | Path, *, averaged: bool = True
) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Read the model configuration and the weights of a checkpoint.

    Args:
        path: A safetensors file with its ``.yaml`` beside it, or a Lightning ``.ckpt`` file with the resolved
            model configuration in ``hyper_parameters["model"]`` and weights under `NETWORKS`.
        averaged: See `load_checkpoint`.

    Raises:
        FileNotFoundError: If the file, or the configuration beside it, is missing.
        ValueError: If it is not a checkpoint.
    """
    path = check_file(path)
    if file_kind(path) == "safetensors":
        remedy = "copy it beside the weights; it names a class under _target_"
        return read_yaml(path.with_suffix(".yaml"), remedy), read_state_dict(path)
    content = read_safely(path)
    config = own_config(content)
    if config is None:
        raise ValueError(f"'{path}' is no checkpoint of this project: hyper_parameters['model'] is missing")
    weights = weights_in(content, averaged=averaged)
    if not weights:
        raise ValueError(f"'{path}' holds no network: no weight is named {' or '.join(NETWORKS)}...")
    return config, weights


def instantiate(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a plain configuration describes, nested ``_target_`` first.

    Args:
        config: ``_target_`` names a class below `ALLOWED_PREFIXES`, the other keys are its keywords.

    Raises:
        ValueError: If a class is not allowed or does not exist, or does not accept the keywords.
    """
    network = _build(config)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"_target_={config.get('_target_')!r} is not allowed: it is no network, but a part of one"
        )
    return network


def _build(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_build(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {key: _build(item) for key, item in value.items()}
    built_class = _class_named(value)
    keywords = {name: _build(item) for name, item in value.items() if name not in ("_target_", "_convert_")}
    special = sorted(name for name in keywords if name.startswith("_"))
    if special:
        raise ValueError(f"{special[0]} is not supported beside _target_: leave it out")
    try:
        return built_class(**keywords)
    except TypeError as error:
        raise ValueError(f"{value['_target_']} does not accept the configuration: {error}") from error


def _class_named(config: Mapping[str, Any]) -> type[Any]:
    """Return the class that ``_target_`` names, if its kind and its module are allowed."""
    target = config.get("_target_")
    allowed = " and ".join(prefix + "*" for prefix in ALLOWED_PREFIXES)
    # no part may begin with an underscore, and the name has a module between the prefix and the class
    pattern = r"[a-z]+(\.[A-Za-z]\w*){4,}"
    if not (
        isinstance(target, str) and target.startswith(ALLOWED_PREFIXES) and re.fullmatch(pattern, target)
    ):
        raise ValueError(f"_target_={target!r} is not allowed: only classes of {allowed} are")
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"_target_={target!r} does not exist: no module {error.name!r}") from error
    # not names that a module imports, such as nn or a helper from the standard library
    if not isinstance(found, type) or not issubclass(found, ALLOWED_KINDS) or found.__module__ != module_name:
        raise ValueError(
            f"_target_={target!r} is not allowed: {module_name} defines no such network or part of one"
        )
    return found
