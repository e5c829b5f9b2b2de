"""Encore's checkpoints: weights beside a plain configuration, and Lightning's files, read safely.

A checkpoint is untrusted input. Weights are read without unpickling objects, and a configuration can name
only network classes that this package defines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from encore.common.files import read_safely, read_yaml
from encore.models.denoisers.preconditioning import Preconditioning
from encore.models.processes.bridge import Bridge
from encore.models.processes.diffusion import Diffusion
from encore.models.weights import load_completely, read_safetensors, read_state_dict

ALLOWED_PREFIXES = ("encore.models.separators.", "encore.models.denoisers.", "encore.models.processes.")
"""Packages of the classes that a configuration may name."""

ALLOWED_KINDS = (nn.Module, Bridge, Diffusion, Preconditioning)
"""Base classes of these: networks, and parts of networks."""

_PREFIXES = ("separator.", "prior.")  # the Lightning modules keep their networks under these names


def save_separator(path: str | Path, module: nn.Module, config: Mapping[str, Any]) -> None:
    """Write a separator as ``<stem>.safetensors`` and its configuration as ``<stem>.yaml`` beside it.

    Args:
        path: The ``.safetensors`` file; existing files are replaced, missing folders made.
        module: The separator, on any device.
        config: Its model configuration: ``_target_`` (the class) and resolved constructor keywords.

    Raises:
        ValueError: If the suffix is wrong, or the configuration is not plain, not resolved, not allowed,
            or of another class than the module.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path='{path}' ends in '{path.suffix}': name a .safetensors file")
    plain = _plain(config, "config")
    target = _class_named(plain)
    if type(module) is not target:
        raise ValueError(
            f"config._target_={plain['_target_']!r} is not the module's class {type(module).__name__}"
        )
    # cloned, because the format refuses shared memory, and a network may hold a tensor under two names
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def load_checkpoint(path: str | Path, *, averaged: bool = True) -> nn.Module:
    """Rebuild the separator that a checkpoint holds, on the CPU.

    Args:
        path: A ``.safetensors`` file with its ``.yaml`` beside it, or a Lightning ``.ckpt`` file with the
            resolved model configuration in ``hyper_parameters["model"]`` and weights under ``separator.`` or
            ``prior.``.
        averaged: Whether to use averaged weights (of Lightning's ``WeightAveraging`` and
            ``EMAWeightAveraging`` callbacks) where a ``.ckpt`` has them. An average that was never updated is
            only the initialization, so the raw weights are used then.

    Returns:
        The separator, in training mode.

    Raises:
        FileNotFoundError: If the file, or the configuration beside it, is missing.
        ValueError: If it is not a checkpoint, or its configuration or weights do not match.
    """
    path = Path(path)
    config, weights = _read(path, averaged)
    try:
        module = instantiate(config)
    except ValueError as error:
        raise ValueError(f"configuration of '{path}': {error}") from error
    load_completely(module, weights, path, prefixes=())
    return module


def initial_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights from which a training starts.

    Args:
        path: A checkpoint of Encore, whose averaged weights are used where it has them, or any file that
            `encore.models.weights.read_state_dict` reads.

    Returns:
        Tensors on the CPU by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no weights.
    """
    path = Path(path)
    if _is_checkpoint(path):
        return dict(load_checkpoint(path).state_dict())
    return read_state_dict(path)


def checkpoint_config(path: str | Path) -> dict[str, Any]:
    """Read the plain model configuration of a checkpoint; errors as `load_checkpoint`."""
    return dict(_read(Path(path), averaged=True)[0])


def instantiate(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a plain configuration describes, nested ``_target_`` first.

    Args:
        config: ``_target_`` names a class below `ALLOWED_PREFIXES`, the other keys are its keywords.

    Raises:
        ValueError: If a class is not allowed or does not exist, or does not accept the keywords.
    """
    network = _instantiate(config)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"_target_={config['_target_']!r} is not allowed: it is no network, but a part of one"
        )
    return network


def _instantiate(config: Mapping[str, Any]) -> Any:
    built_class = _class_named(config)
    keywords = {
        name: _build(value) for name, value in config.items() if name not in ("_target_", "_convert_")
    }
    special = sorted(name for name in keywords if name.startswith("_"))
    if special:
        raise ValueError(f"{special[0]} is not supported beside _target_: leave it out")
    try:
        return built_class(**keywords)
    except TypeError as error:
        raise ValueError(f"{config['_target_']} does not accept the configuration: {error}") from error


def _build(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return _instantiate(value)
        return {key: _build(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_build(item) for item in value]
    return value


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


def _plain(value: Any, key_path: str) -> Any:
    """Copy a configuration as dictionaries, lists, strings, numbers, booleans and None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{key_path}.{key}") for key, item in value.items()}
    if isinstance(value, str):
        if "${" in value:
            raise ValueError(f"{key_path}={value!r} is not resolved: resolve the configuration first")
        return value
    if isinstance(value, Sequence):
        return [_plain(item, f"{key_path}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"{key_path} is a {type(value).__name__}: only plain values can be saved")


def _read(path: Path, averaged: bool) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Read configuration and weights of either kind of file."""
    if path.suffix not in (".ckpt", ".safetensors"):
        raise ValueError(f"'{path}' ends in '{path.suffix}': give a .ckpt or a .safetensors file")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint '{path}' does not exist or is not a file")
    return _read_lightning(path, averaged) if path.suffix == ".ckpt" else _read_safetensors(path)


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    config = read_yaml(path.with_suffix(".yaml"), "it names a class under _target_; copy both files")
    return config, read_safetensors(path)


def _read_lightning(path: Path, averaged: bool) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    content = read_safely(path, what="checkpoint")
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"'{path}' is not a Lightning checkpoint: it holds no state_dict")
    hyper_parameters = content.get("hyper_parameters")
    config = hyper_parameters.get("model") if isinstance(hyper_parameters, dict) else None
    if not isinstance(config, dict):
        raise ValueError(f"'{path}' holds no model configuration: hyper_parameters['model'] is missing")
    state = content["state_dict"]
    if "averaging_state" in content and "current_model_state" in content:
        # state_dict is then the average; before its first update that is a copy of the initial weights
        never_updated = int(content["averaging_state"].get("n_averaged", 1)) == 0
        if not averaged or never_updated:
            state = content["current_model_state"]
    weights = {name.split(".", 1)[1]: value for name, value in state.items() if name.startswith(_PREFIXES)}
    if not weights:
        names = " or ".join(f"'{prefix}...'" for prefix in _PREFIXES)
        raise ValueError(f"'{path}' holds no network: no weight is named {names}")
    return config, weights


def _is_checkpoint(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return path.with_suffix(".yaml").is_file()
    if path.suffix != ".ckpt":
        return False
    content = read_safely(path)
    hyper_parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    return isinstance(hyper_parameters, dict) and isinstance(hyper_parameters.get("model"), dict)
