"""The nodes of ``configs/method``, changed by options and built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from encore.cli.config_kinds import check_kinds
from encore.cli.guides import cause
from encore.cli.method import Method
from encore.cli.overrides import CONFIGS, UserError


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
        steps: Replaces its ``steps``, of a diffusion prior the number of levels.
        candidates: Replaces its ``search.candidates``; a search without gives way to a grid of so many.
        guide: Replaces its ``guide``.
        overrides: ``method.key=value``; a value that is a node with ``_target_`` replaces a whole node.

    Raises:
        UserError: If a key does not exist (names the nearest) or a value does not fit.
    """
    config = OmegaConf.load(CONFIGS / "method" / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    # steps of a chain are its levels
    own_steps = "posterior.levels" if name == "diffusion_prior" else "steps"
    for key, value in ((own_steps, steps), ("search.candidates", candidates), ("guide", guide)):
        if value is None:
            continue
        flag = "--steps" if key == own_steps else f"--{key.rpartition('.')[2]}"
        if name == "one_step" or (name in ("progressive", "bridge", "diffusion_prior") and key != own_steps):
            raise UserError(f"{flag}={value}: --method {name} has none; leave it out, or use multi_step")
        _make_room(config, key)
        OmegaConf.update(config, key, value)
    for override in overrides:
        _apply(config, override)
    try:
        node: Any = OmegaConf.to_container(config, resolve=True)
        check_kinds(node, "method")
    except (OmegaConfBaseException, UserError) as error:
        raise UserError(f"--set {cause(error)}") from error
    # a guide is built later, for the rate of the audio
    chosen = node.pop("guide", None)
    try:
        built = instantiate({**node, "_partial_": True, "_convert_": "all"})
        method: Method = built(guide=chosen, recipe=node)
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
        near = get_close_matches(key, known, n=2, cutoff=0.4) or known
        raise UserError(
            f"--set {override}: there is no method.{key}; did you mean method.{' or method.'.join(near)}?"
        )
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[index,call-overload]
        OmegaConf.update(config, key, value, merge=not (isinstance(value, dict) and "_target_" in value))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise UserError(f"--set {override}: {cause(error)}") from error


def _make_room(config: DictConfig, key: str) -> None:
    """A number of candidates is a grid's: a guided search without one gives way to it."""
    guided = config.get("guide") is not None
    if key == "search.candidates" and guided and "candidates" not in config.search:
        config.search = {"_target_": "encore.inference.GridSearch", "candidates": 5, "include_estimate": True}


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if key != "_target_":
            yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
