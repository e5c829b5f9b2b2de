"""What may steer a refinement: a metric's name, or a node of ``configs/quality`` by its name or path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from encore.cli.overrides import CONFIGS, UserError
from encore.common.errors import one_line
from encore.common.files import check_file
from encore.common.names import nearest
from encore.metrics import Metric, get_metric
from encore.metrics.external import is_external
from encore.metrics.table import ALIASES, TABLE


def build_guide(guide: Any, sample_rate: int, separator: str | None = None) -> Metric:
    """Build a guide: a metric's name or file, a file of ``configs/quality`` by name or path, or a node.

    Args:
        guide: Which one.
        sample_rate: Rate in Hz of the audio that it will score.
        separator: The name of what has that rate, for the remedy where it is too low.

    Raises:
        UserError: If there is none, it cannot be built, or the rate is below its own.
    """
    own = {path.stem: path for path in (CONFIGS / "quality").glob("*.yaml")}
    said = f"--guide {guide}" if isinstance(guide, str) else "guide"
    try:
        if isinstance(guide, str):
            path = own.get(guide, Path(guide))
            if path.suffix not in (".yaml", ".yml"):
                if guide not in (*TABLE, *ALIASES) and not is_external(guide):
                    near = ", ".join(nearest(guide, (*TABLE, *own), 3))
                    raise ValueError(f"there is no such guide; use {near}")
                return get_metric(guide, sample_rate=sample_rate)
            guide = OmegaConf.load(check_file(path))
        tree = OmegaConf.create({"data": {"sample_rate": sample_rate}, "quality": guide})
        built = instantiate(tree, _convert_="all")["quality"]
    except (HydraException, OmegaConfBaseException, TypeError, ValueError, OSError) as error:
        reason = cause(error)
        low = f"sample_rate={sample_rate} is below" in reason
        if separator is not None and low and "sample_rate=" not in separator:
            whole = f"{separator}{'&' if '?' in separator else '?'}sample_rate=16000"
            reason += f"; --separator '{whole}' works on audio resampled to another rate"
        raise UserError(f"{said}: {reason}") from error
    if not isinstance(built, Metric):
        raise UserError(
            f"{said}: {type(built).__name__} is not a Metric; give a node whose _target_ makes one"
        )
    return built


def cause(error: BaseException) -> str:
    """Return the first line of the root cause: Hydra wraps errors in its own."""
    while isinstance(error, HydraException | OmegaConfBaseException) and error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)
