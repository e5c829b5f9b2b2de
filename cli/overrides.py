"""Check Hydra overrides before anything runs, and report users' mistakes in one line."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf

from encore.common.names import similar

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class UserError(ValueError):
    """A mistake in an option or configuration; the message is one line that names it and the fix."""


def check_overrides(arguments: Sequence[str], *, config_name: str) -> None:
    """Compose the configuration once, so that a wrong key or option fails with the nearest right one.

    Args:
        arguments: The command line; flags (``-m``, ``--cfg job``) are left to Hydra.
        config_name: The primary configuration.

    Raises:
        UserError: Names the override that does not fit, and what is near it.
    """
    if any(argument.startswith("-") and argument not in ("-m", "--multirun") for argument in arguments):
        return
    # of a sweep the first value: the others are checked when their jobs are composed
    overrides = [
        re.sub(r"=([^\[\{'\"(]*?),.*$", r"=\1", argument)
        for argument in arguments
        if not argument.startswith("-")
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            compose(config_name, overrides=overrides, return_hydra_config=True)
        except HydraException as error:
            raise UserError(_explain(str(error), config_name, overrides)) from None


def _explain(message: str, config_name: str, overrides: Sequence[str]) -> str:
    """Return one line with the nearest key or option."""
    key = re.search(r"Could not (?:override|append to|delete from) '([^']+)'", message)
    if key:
        groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
        try:
            config = compose(config_name, overrides=[own for own in overrides if own.split("=")[0] in groups])
        except HydraException:
            config = compose(config_name)
        plain: Any = OmegaConf.to_container(config)
        near = _nearest(key[1], [*dict.fromkeys([*(name for name, _ in _flat(plain)), *groups])])
        return f"there is no '{key[1]}' in the configuration{near}; a new key is added with +{key[1]}=..."
    option = re.search(
        r"Could not find '([^']+)'.*?Available options in '([^']+)':\n(.*?)(?:\nConfig|$)", message, re.S
    )
    if option:
        name, options = Path(option[1]).name, option[3].split()
        near = _nearest(name, options)
        return f"{option[2]} has no option '{name}'{near}; it has {', '.join(options)}"
    return " ".join(message.split())


def check_complete(config: DictConfig) -> None:
    """Refuse a configuration with mandatory values that nobody gave.

    Raises:
        UserError: Names the first of them. (OmegaConf's own check fails at what refers to it.)
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for key, value in _flat(plain):
        if value == "???":
            raise UserError(f"{key} is not set: give {key}=...")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key and its value."""
    for key, node in config.items():
        yield f"{prefix}{key}", node
        if isinstance(node, Mapping):
            yield from _flat(node, f"{prefix}{key}.")


def _nearest(word: str, words: Sequence[str]) -> str:
    near = similar(word, words, 2)
    last = [key for key in words if key.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1] and key != word]
    found = list(dict.fromkeys([*near, *last[:2]]))
    return f": did you mean {' or '.join(repr(match) for match in found)}?" if found else ""


def one_line_errors(run: Callable[..., Any]) -> Callable[..., Any]:
    """Report a user's mistake as one line on standard error with exit status 1, without a traceback.

    ``ValueError`` is the project's way to name a mistake, ``MisconfigurationException`` Lightning's, and
    ``OSError`` that of files; anything else is a fault of the program and keeps its traceback.
    """

    @functools.wraps(run)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return run(*arguments, **options)
        except Exception as error:
            # Hydra wraps what a constructor said
            cause = error.__cause__ if isinstance(error, InstantiationException) else error
            # by its name, so that what needs no training does not load Lightning
            lightning = type(cause).__name__ == "MisconfigurationException"
            if not (lightning or isinstance(cause, ValueError | OSError)):
                raise
            sys.exit(f"error: {' '.join(str(cause).split())}")

    return wrapped
