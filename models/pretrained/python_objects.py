"""Separators in the user's own Python code: ``python:module:name``. Opening one runs that code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from encore.common.user_code import import_object, instantiate_class
from encore.models.pretrained.functions import as_separator
from encore.models.weights import load_completely, read_state_dict


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
        load_completely(network, read_state_dict(weights), weights)
    for key, example in (("sources", "speech,noise"), ("sample_rate", "16000")):
        if given[key] is None and not hasattr(network, key):
            raise ValueError(f"'{name}' does not say its {key}: add &{key}={example}")
    separator: Any = as_separator(network, **given, layout=layout)
    return separator
