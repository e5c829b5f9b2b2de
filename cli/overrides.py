"""Check Hydra overrides before anything runs, and report users' mistakes in one line."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from encore.common.names import similar

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SWEEP_FLAGS = {"-m", "--multirun"}


class UserError(ValueError):
    """A mistake in an option or configuration; the message is one line that names it and the fix."""


class Job(NamedTuple):
    """A run, or one of a sweep: its overrides, folder and values, as typed and with references resolved."""

    overrides: list[str]
    folder: Path
    typed: dict[str, Any]
    values: dict[str, Any]


def composed_jobs(arguments: Sequence[str], *, config_name: str) -> list[Job]:
    """Compose every job of a command line, so that a wrong key or option fails before any of them starts.

    Args:
        arguments: The command line: of a run, or of a sweep (``-m``), which is split as Hydra does it.
        config_name: The primary configuration.

    Returns:
        The jobs; none where there are other flags, such as ``--cfg job``, which are left to Hydra.

    Raises:
        UserError: Names the override that does not fit, and what is near it; or a value that nobody gave.
    """
    flags = {argument for argument in arguments if argument.startswith("-")}
    if not flags <= SWEEP_FLAGS:
        return []
    overrides = [argument for argument in arguments if argument not in flags]
    jobs = [overrides]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            if flags:
                parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
                (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(overrides), None)
            return [_composed(config_name, job, is_sweep=bool(flags)) for job in jobs]
        except HydraException as error:
            raise UserError(_explain(str(error), config_name, jobs[0])) from None
        except OmegaConfBaseException as error:
            raise UserError(" ".join(str(error).split())) from None


def _composed(config_name: str, overrides: list[str], *, is_sweep: bool) -> Job:
    """Compose a job as Hydra does when it starts."""
    config = compose(config_name, overrides=overrides, return_hydra_config=True)
    check_complete(config)
    HydraConfig.instance().set_config(config)
    sweep = config.hydra.sweep
    folder = Path(sweep.dir, sweep.subdir) if is_sweep else Path(config.hydra.run.dir)
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder.absolute())
    HydraConfig.instance().set_config(config)
    own = deepcopy(config)
    with open_dict(own):
        del own["hydra"]
    typed, values = (OmegaConf.to_container(own, resolve=resolve) for resolve in (False, True))
    return Job(overrides, folder, typed, values)  # type: ignore[arg-type]


def check_paths(jobs: Sequence[Job]) -> None:
    """Refuse jobs whose files or folders do not exist, and those that write one folder.

    Raises:
        UserError: Names the key, its value and the fix.
    """
    for number, job in enumerate(jobs):
        for key, path in (("data.root", job.values["data"].get("root")), ("init", job.values["init"])):
            if isinstance(path, str) and not Path(path).exists():
                raise UserError(f"{key}={path}: there is no such {'file' if key == 'init' else 'folder'}")
        if job.folder in [other.folder for other in jobs[:number]]:
            raise UserError(
                f"two jobs of the sweep write to {job.folder}: put what differs into the name, such as "
                "name='rate_${module.optimizer.lr}'"
            )


def sweep_name(jobs: Sequence[Job]) -> str:
    """Return a name of the sweep that is the same when it is resumed: the swept keys, and eight digits."""
    kept = [[override for override in job.overrides if not override.startswith("ckpt=")] for job in jobs]
    swept = {override.split("=")[0] for own in kept for override in own if override not in kept[0]}
    digits = sha1(repr(kept).encode(), usedforsecurity=False).hexdigest()[:8]
    return "_".join(["sweep", *sorted(key.rsplit(".", 1)[-1].rsplit("/", 1)[-1] for key in swept), digits])


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
    for key, value in _flat({key: node for key, node in plain.items() if key != "hydra"}):
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
