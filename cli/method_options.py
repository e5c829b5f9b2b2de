"""The nodes of ``configs/method``, changed by options and built."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from encore.cli.guides import cause
from encore.cli.method import Method
from encore.cli.overrides import CONFIGS, UserError
from encore.cli.typed_config import arguments, check_types
from encore.common.names import nearest

_STEPS = {"bridge": "sampler.steps", "diffusion_prior": "posterior.levels", "one_step": None}
"""What ``--steps`` changes, by method; ``search.steps`` of all others."""


def load_method(
    name: str,
    *,
    steps: int | None = None,
    candidates: int | None = None,
    guide: str | None = None,
    overrides: Sequence[str] = (),
) -> Method:
    """Build a node of ``configs/method``.

    Args:
        name: Its file name without the ending.
        steps: Replaces its number of steps, for a diffusion prior of levels.
        candidates: Replaces its ``search.candidates``; a search without gives way to a grid of so many.
        guide: Replaces its ``guide``.
        overrides: ``method.key=value``; a value that is a node with ``_target_`` replaces a whole node.

    Returns:
        The method; a guide that is a node is still in its ``recipe``, to be built for the audio's rate.

    Raises:
        UserError: If a key does not exist (names the nearest) or a value does not fit.
    """
    config = OmegaConf.load(CONFIGS / "method" / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    guided = {"search.candidates": candidates, "guide": guide}
    for key, value in ({_STEPS.get(name, "search.steps"): steps} | guided).items():
        flag = "steps" if key not in guided else str(key).rpartition(".")[2]
        if value is not None and (key is None or (key in guided and name != "multi_step")):
            raise UserError(f"--{flag}={value}: --method {name} has none; leave it out, or use multi_step")
        if value is not None and key is not None:
            _set(config, key, value)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.startswith("method."):
            raise UserError(f"--set {override}: write method.KEY=VALUE, such as method.search.candidates=10")
        try:
            _set(config, key.removeprefix("method."), OmegaConf.from_dotlist([f"value={text}"]).value)
        except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise UserError(f"--set {override}: {cause(error)}") from error
    node = _with_defaults(OmegaConf.to_container(config, resolve=True))
    try:
        check_types(node, "method")
    except UserError as error:
        raise UserError(f"--set {error}") from error
    chosen = None if node["guide"] is None else str(node["guide"])
    try:
        built = instantiate({**node, "guide": chosen, "_partial_": True, "_convert_": "all"})
        method: Method = built(recipe=node)
        return method
    except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:
        raise UserError(f"--method {name}: {cause(error)}") from error


def _set(config: DictConfig, key: str, value: Any) -> None:
    """Set a value; candidates of a search without them make it a grid.

    Raises:
        UserError: If there is no such key.
    """
    to_grid = key == "search.candidates" and config.get("guide") is not None
    if to_grid and "candidates" not in arguments(config.search._target_):
        steps = {name: own for name, own in config.search.items() if name == "steps"}
        config.search = {"_target_": "encore.inference.GridSearch", "include_estimate": True, **steps}
    known = _keys(OmegaConf.to_container(config))
    if key not in known:
        near = " or method.".join(nearest(key, known, 2))
        raise UserError(f"there is no method.{key}; did you mean method.{near}?")
    whole = OmegaConf.is_dict(value) and "_target_" in value
    OmegaConf.update(config, key, value, merge=not whole, force_add=True)


def _keys(node: Any, prefix: str = "") -> list[str]:
    """Return the dotted keys of a node: those that are written, and the arguments of what it builds."""
    keys: list[str] = []
    for name in dict.fromkeys([*node, *arguments(node.get("_target_"))]):
        if name not in ("_target_", "_partial_", "recipe"):
            keys.append(f"{prefix}{name}")
        if isinstance(node.get(name), dict):
            keys += _keys(node[name], f"{prefix}{name}.")
    return keys


def _with_defaults(node: Any) -> Any:
    """Return a node with the plain defaults of what it builds, so that a run's record is complete."""
    if not isinstance(node, dict):
        return node
    plain = (NoneType, bool, int, float, str)
    known = arguments(node.get("_target_")).items()
    defaults = {name: own.default for name, own in known if isinstance(own.default, plain)}
    return defaults | {name: _with_defaults(value) for name, value in node.items()}
