"""The nodes of ``configs/method``, changed by options and built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from encore.cli.config_kinds import check_kinds
from encore.cli.guides import cause
from encore.cli.method import Method
from encore.cli.overrides import CONFIGS, UserError
from encore.common.names import nearest

_STEPS = {
    "multi_step": "search.steps",
    "progressive": "search.steps",
    "bridge": "sampler.steps",
    "diffusion_prior": "posterior.levels",
}
"""What ``--steps`` changes, by method."""


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
    options = ((_STEPS.get(name), "--steps", steps), ("search.candidates", "--candidates", candidates))
    for key, flag, value in (*options, ("guide", "--guide", guide)):
        if value is None:
            continue
        if key is None or (flag != "--steps" and name != "multi_step"):
            raise UserError(f"{flag}={value}: --method {name} has none; leave it out, or use multi_step")
        _make_room(config, key)
        OmegaConf.update(config, key, value, force_add=True)
    for override in overrides:
        _apply(config, override)
    try:
        node: Any = OmegaConf.to_container(config, resolve=True)
        check_kinds(node, "method")
    except (OmegaConfBaseException, UserError) as error:
        raise UserError(f"--set {cause(error)}") from error
    chosen = node.get("guide")
    placeholder = {} if chosen is None else {"guide": str(chosen)}
    try:
        built = instantiate({**node, **placeholder, "_partial_": True, "_convert_": "all"})
        method: Method = built(recipe=node)
        return method
    except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:
        raise UserError(f"--method {name}: {cause(error)}") from error


def _apply(config: DictConfig, override: str) -> None:
    """Set one value of ``method.key=value``, checked."""
    key, equals, text = override.partition("=")
    if not equals or not key.startswith("method."):
        raise UserError(f"--set {override}: write method.KEY=VALUE, such as method.search.candidates=10")
    key = key.removeprefix("method.")
    _make_room(config, key)
    known = list(_keys(OmegaConf.to_container(config)))
    if config.get("guide") is not None and "search.candidates" not in known:
        known.append("search.candidates")
    if key not in known:
        near = " or method.".join(nearest(key, known, 2))
        raise UserError(f"--set {override}: there is no method.{key}; did you mean method.{near}?")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[index,call-overload]
        whole = isinstance(value, dict) and "_target_" in value
        OmegaConf.update(config, key, value, merge=not whole, force_add=True)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise UserError(f"--set {override}: {cause(error)}") from error


def _make_room(config: DictConfig, key: str) -> None:
    """Replace a search without candidates by a grid, if their number is given."""
    guided = config.get("guide") is not None
    if key == "search.candidates" and guided and "candidates" not in _arguments(config.search._target_):
        steps = {name: config.search[name] for name in ("steps",) if name in config.search}
        grid = {"_target_": "encore.inference.GridSearch", "candidates": 5, "include_estimate": True}
        config.search = {**grid, **steps}


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of a node: those that are written, and the arguments of what it builds."""
    names = dict.fromkeys([*node, *_arguments(node.get("_target_"))])
    for key in names:
        if key not in ("_target_", "recipe"):
            yield f"{prefix}{key}"
        if isinstance(node.get(key), dict):
            yield from _keys(node[key], f"{prefix}{key}.")


def _arguments(target: str | None) -> Mapping[str, Any]:
    return {} if target is None else inspect.signature(get_object(target)).parameters
