"""The user's own networks: ``python:module:name``, whose code is run, and weights for ``configs/model``."""

from __future__ import annotations

import json
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import nn

from encore.common.files import read_yaml
from encore.common.names import nearest
from encore.common.user_code import import_object, instantiate_class
from encore.models.checkpoint import instantiate
from encore.models.pretrained.functions import as_separator
from encore.models.weights import load_weights, read_state_dict


def open_python(
    name: str,
    *,
    weights: Path | None = None,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    channels: int | None = None,
    layout: str | None = None,
    **options: str,
) -> nn.Module:
    """Open a network or function of the user's own code.

    Args:
        name: ``module:name`` of a class, which is instantiated, or of a network or function; the current
            folder is searched before ``sys.path``.
        weights: What `encore.models.weights.read_state_dict` reads, set completely.
        sources: Names of the estimated sources; by default the object's attribute of that name.
        sample_rate: Rate in Hz; by default the object's.
        channels: Channels of mixture and estimates; by default the object's, or else 1.
        layout: ``bct`` or ``bt``; found by calls on noise if None.
        options: Keywords of the class, besides those of the above that it requires.

    Returns:
        The separator, see `encore.models.pretrained.functions.as_separator`.

    Raises:
        FileNotFoundError: If the weights do not exist.
        ValueError: If the object cannot be imported or made, or does not separate.
    """
    given: dict[str, Any] = {"sources": sources, "sample_rate": sample_rate, "channels": channels}
    network = instantiate_class(import_object(name), options, given)
    if not callable(network):
        raise ValueError(
            f"'{name}' is not callable ({type(network).__name__}): name a class, network or function"
        )
    if weights is not None:
        if not isinstance(network, nn.Module):
            raise ValueError(f"option weights={weights} is for a network, and '{name}' is none: leave it out")
        load_weights(network, read_state_dict(weights), weights)
    return as_separator(network, **given, layout=layout)


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
    report = load_weights(network, read_state_dict(path), path, partial=partial)
    if partial:
        print(report, file=sys.stderr)
    return network


def _read_config(model: str, values: dict[str, Any]) -> Any:
    """Return a configuration with the values in place of ``${data.<name>}``."""
    folder = files("encore.configs") / "model"
    path = Path(model) if Path(model).suffix in (".yaml", ".yml") else Path(f"{folder}/{model}.yaml")
    if not path.is_file():
        known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())
        near = ", ".join(nearest(model, known, 3))
        raise ValueError(f"option model={model} is no network of configs/model: try {near}")

    def value(reference: re.Match[str]) -> str:
        name = reference[1]
        if name not in values:
            raise ValueError(
                f"option model={model} holds {reference[0]}, which only training fills: write the value"
            )
        if values[name] is None:
            raise ValueError(f"option model={model} needs {name}: add &{name}=...")
        return json.dumps(values[name])

    config = json.dumps(read_yaml(path, "it must name a class under _target_"))
    return json.loads(re.sub(r'"(?:\$\{data\.(\w+)\}|[^"]*\$\{[^"]*)"', value, config))
