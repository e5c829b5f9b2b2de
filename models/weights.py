"""Weights of any project: read without running code, and set in a network by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from encore.common.files import file_kind, opened_safetensors, read_safely

NESTS = ("state_dict", "model_state_dict", "state", "model")
"""Keys under which training scripts keep the weights, in the order in which they are looked for."""

NETWORKS = ("separator.", "prior.")
"""Prefixes of the weights of a network in this project's Lightning modules."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a file.

    Args:
        path: A safetensors file, or one of ``torch.save`` that is a state dictionary or holds one under
            a key of `NESTS`.

    Returns:
        Tensors on the CPU by name, the names as they are in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state dictionary, or more than tensors and plain values.
    """
    path = Path(path)
    if path.suffix == ".safetensors" or file_kind(path) == "safetensors":
        with opened_safetensors(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = read_safely(path)
    found = weights_in(content)
    if not found:
        held = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"'{path}' holds no state dictionary, neither as a whole nor under {', '.join(NESTS)}: "
            f"it holds {held:.200}"
        )
    return found


def weights_in(content: Any, *, averaged: bool = True) -> dict[str, Tensor]:
    """Return the weights in a loaded file; empty if there are none.

    In a checkpoint of this project they are those of its network; any other file is a state dictionary, or
    holds one under a key of `NESTS`.

    Lightning's ``WeightAveraging`` and ``EMAWeightAveraging`` keep the average as the state. Before its first
    update that is only a copy of the initial weights, so the raw weights are used then, and without
    ``averaged``.
    """
    if own_config(content) is not None:
        averaging = content.get("averaging_state")
        has_average = isinstance(averaging, Mapping) and int(averaging.get("n_averaged", 1)) > 0
        raw = averaging is not None and not (averaged and has_average)
        state = content.get("current_model_state" if raw else "state_dict")
        named = state.items() if isinstance(state, Mapping) else ()
        return {name.split(".", 1)[1]: value for name, value in named if name.startswith(NETWORKS)}
    nested = [content[key] for key in NESTS if key in content] if isinstance(content, Mapping) else []
    for candidate in (content, *nested):
        items = candidate.items() if isinstance(candidate, Mapping) else ()
        if items and all(isinstance(value, Tensor) for _, value in items):
            return {str(name): value for name, value in items}
    return {}


def own_config(content: Any) -> Mapping[str, Any] | None:
    """Return the configuration of the network in a loaded checkpoint of this project; None in other files."""
    hyper_parameters = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    config = hyper_parameters.get("model") if isinstance(hyper_parameters, Mapping) else None
    return config if isinstance(config, Mapping) and "_target_" in config else None


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], origin: object, *, partial: bool = False
) -> str:
    """Set the weights of a network that a state dictionary has under the same name and in the same shape.

    Args:
        module: The network, changed in place.
        weights: Tensors by name. Wrappers of networks put prefixes before names, such as ``module.``: the one
            is removed that makes the most names fit.
        origin: Their file, for the error.
        partial: Whether to leave the weights as they are that do not fit; without it, all must fit.

    Returns:
        A line of counts, and a line for each weight that was not loaded.

    Raises:
        ValueError: If a weight is missing, unexpected or of another shape; with ``partial``, if none fits.
    """
    expected = module.state_dict()
    named = _without_prefix(weights, expected)
    mismatched = {
        name: f"{name} is {tuple(named[name].shape)} in the file and {tuple(weight.shape)} in the network"
        for name, weight in expected.items()
        if name in named and named[name].shape != weight.shape
    }
    loaded = {name: named[name] for name in expected if name in named and name not in mismatched}
    faults = {
        "missing": [name for name in expected if name not in named],
        "unexpected": [name for name in named if name not in expected],
        "of another shape": list(mismatched.values()),
    }
    first = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in faults.items() if names]
    if first and not (partial and loaded):
        raise ValueError(f"weights of '{origin}' do not fit {type(module).__name__}: {'; '.join(first)}")
    module.load_state_dict(loaded, strict=False)
    counts = [f"{len(names)} {kind}" for kind, names in faults.items()]
    lines = [f"weights: {', '.join([f'{len(loaded)} loaded', *counts])}"]
    return "\n".join(lines + [f"{kind}: {name}" for kind, names in faults.items() for name in names])


def _without_prefix(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights without the prefix that makes the most names fit; of equals, the shortest."""
    # behind the beginning and every dot of a name
    starts = ((name, found.start()) for name in weights for found in re.finditer(r"(?<![^.])", name))
    counts = Counter(name[:start] for name, start in starts if name[start:] in expected)
    prefix = max(sorted(counts, key=len), key=lambda prefix: counts[prefix], default="")
    stripped = {name.removeprefix(prefix): value for name, value in weights.items()}
    # two names that become one would lose a weight
    return stripped if len(stripped) == len(weights) else weights
