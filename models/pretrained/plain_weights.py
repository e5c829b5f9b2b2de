"""Bare state dictionaries, for the networks of ``configs/model``."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import nn

from encore.common.files import read_yaml
from encore.common.names import nearest
from encore.models.checkpoint import instantiate
from encore.models.weights import load_completely, load_partially, read_state_dict


def open_weights(
    path: str,
    *,
    model: str,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    channels: int | None = None,
    partial: bool = False,
) -> nn.Module:
    """Build a network of this project and set its weights from any file of weights.

    Args:
        path: What `encore.models.weights.read_state_dict` reads.
        model: Name of a file in ``configs/model``, such as ``conv_tasnet_small``, or path of such a file.
        sources: Value of ``${data.sources}`` in it.
        sample_rate: Value of ``${data.sample_rate}``.
        channels: Value of ``${data.channels}``.
        partial: Set the weights that fit and print a report of the others; without it, all must fit.

    Returns:
        The separator.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the model is unknown, a value that it needs is not given, or the weights do not fit.
    """
    values = {"sources": sources, "sample_rate": sample_rate, "channels": channels}
    network = instantiate(_read_config(model, values))
    weights = read_state_dict(path)
    if not partial:
        load_completely(network, weights, path)
        return network
    report = load_partially(network, weights)
    if not report.loaded:
        raise ValueError(f"weights of '{path}' do not fit {model} at all: {report.summary()}")
    print(report.describe(), file=sys.stderr)
    return network


def _read_config(model: str, values: dict[str, Any]) -> Any:
    """Return a configuration with the values in place of ``${data.<name>}``."""
    folder = files("encore.configs") / "model"
    path = Path(model) if Path(model).suffix in (".yaml", ".yml") else Path(f"{folder}/{model}.yaml")
    if not path.is_file():
        known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())
        near = ", ".join(nearest(model, known, 3))
        raise ValueError(f"option model={model} is no network of configs/model: try {near}")
    return _fill(read_yaml(path, "it must name a class under _target_"), values, model)


def _fill(config: Any, values: dict[str, Any], model: str) -> Any:
    """Return a configuration with the values in place of ``${data.<name>}``."""
    if isinstance(config, dict):
        return {key: _fill(item, values, model) for key, item in config.items()}
    if isinstance(config, list):
        return [_fill(item, values, model) for item in config]
    if not isinstance(config, str) or "${" not in config:
        return config
    name = config.removeprefix("${data.").removesuffix("}")
    if name not in values:
        raise ValueError(f"option model={model} holds {config}, which only training fills: write the value")
    if values[name] is None:
        raise ValueError(f"option model={model} needs {name}: add &{name}=...")
    return values[name]
