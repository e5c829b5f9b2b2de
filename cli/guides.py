"""What may steer a refinement: a metric's name, or a node of ``configs/quality`` by its name or path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from encore.cli.overrides import CONFIGS, UserError
from encore.common.names import nearest
from encore.metrics import (
    EXTERNAL_METRICS,
    METRIC_NAMES,
    SELF_CONSISTENCY_METRICS,
    Metric,
    get_metric,
    is_external,
)


def build_guide(guide: Any, sample_rate: int) -> Metric:
    """Build a guide: a metric's name or file, a file of ``configs/quality`` by name or path, or a node.

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
        elif guide not in (*METRIC_NAMES, *SELF_CONSISTENCY_METRICS, "pesq_wb") and not is_external(guide):
            names = (*METRIC_NAMES, *SELF_CONSISTENCY_METRICS, *EXTERNAL_METRICS, *own)
            near = ", ".join(nearest(guide, names, 3))
            raise UserError(f"--guide {guide}: there is no such guide; use {near}")
    try:
        if isinstance(guide, str):
            return get_metric(guide, sample_rate=sample_rate)
        tree = OmegaConf.create({"data": {"sample_rate": sample_rate}, "quality": guide})
        built = instantiate(tree, _convert_="all")["quality"]
    except (HydraException, OmegaConfBaseException, TypeError, ValueError, OSError) as error:
        raise UserError(f"guide: {cause(error)}") from error
    if not isinstance(built, Metric):
        raise UserError(
            f"guide: {type(built).__name__} is not a Metric; give a node whose _target_ makes one"
        )
    return built


def cause(error: BaseException) -> str:
    """Return the first line of the root cause: Hydra wraps errors in its own."""
    while isinstance(error, HydraException | OmegaConfBaseException) and error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
