"""What may steer a refinement: a measure's name, or a node of ``configs/quality`` by its name or path."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from encore.cli.overrides import CONFIGS, UserError
from encore.metrics import DOOR_NAMES, METRIC_NAMES, Quality, get_quality, is_door
from encore.metrics.self_consistency import SELF_CHECKS


def cached_guide(guide: Any, sample_rate: int) -> Quality:
    """See `build_guide`; the same object each time, as joint guides remember what they scored."""
    return _cached(yaml.safe_dump(guide), sample_rate)


def build_guide(guide: Any, sample_rate: int) -> Quality:
    """Build a guide: a measure's name or file, a file of ``configs/quality`` by name or path, or a node.

    Args:
        guide: Which one.
        sample_rate: Rate in Hz of the audio that it will score.

    Raises:
        UserError: If there is none, it cannot be built, or the rate is below its own.
    """
    if isinstance(guide, str):
        own = sorted(path.stem for path in (CONFIGS / "quality").glob("*.yaml"))
        if guide in own or Path(guide).suffix in (".yaml", ".yml"):
            path = CONFIGS / "quality" / f"{guide}.yaml" if guide in own else Path(guide)
            if not path.is_file():
                raise UserError(f"--guide {guide}: there is no such file; use one of {', '.join(own)}")
            guide = OmegaConf.load(path)
        elif guide not in (*METRIC_NAMES, *SELF_CHECKS, "pesq_wb") and not is_door(guide):
            names = (*METRIC_NAMES, *SELF_CHECKS, *DOOR_NAMES, *own)
            near = get_close_matches(guide, names, n=3, cutoff=0.4) or names
            raise UserError(f"--guide {guide}: there is no such guide; use {', '.join(near)}")
    try:
        if isinstance(guide, str):
            return get_quality(guide, sample_rate=sample_rate)
        tree = OmegaConf.create({"data": {"sample_rate": sample_rate}, "quality": guide})
        built = instantiate(tree, _convert_="all")["quality"]
    except (HydraException, OmegaConfBaseException, TypeError, ValueError, OSError) as error:
        raise UserError(f"guide: {cause(error)}") from error
    if not isinstance(built, Quality):
        raise UserError(f"guide: {type(built).__name__} is no Quality; give a node whose _target_ makes one")
    return built


@lru_cache(maxsize=16)
def _cached(guide: str, sample_rate: int) -> Quality:
    return build_guide(yaml.safe_load(guide), sample_rate)


def cause(error: BaseException) -> str:
    """The first line of what really went wrong: Hydra wraps errors in its own."""
    while isinstance(error, HydraException | OmegaConfBaseException) and error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
