"""The one door to separators that somebody has trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from models.checkpoint import load_checkpoint
from models.types import LoadedSeparator

SHIPPED = Path(__file__).parent / "shipped" / "speech_denoiser.safetensors"
"""The separator that comes with the package: 16 kHz, one channel, one source, ``speech``."""

DOORS: dict[str, Callable[[str], nn.Module]] = {"file": load_checkpoint}
"""What opens ``scheme:rest``: called with ``rest``, returns a separator."""


def load_separator(uri: str | Path | None = None, *, device: str | torch.device = "cpu") -> LoadedSeparator:
    """Load a trained separator, ready to separate.

    Args:
        uri: Path of a Lightning ``.ckpt`` file or of a ``.safetensors`` file with its ``.yaml`` beside it;
            or ``scheme:rest`` with a scheme of :data:`DOORS`. Without one, the separator shipped with the
            package.
        device: Where it shall live, such as ``"cuda"``.

    Returns:
        A module in evaluation mode, without gradients, with ``sources``, ``sample_rate`` and ``channels``;
        averaged weights where the checkpoint holds them.

    Raises:
        FileNotFoundError: If there is no such file, or no separator is shipped.
        ValueError: If the scheme is unknown, or the file is not a checkpoint of this project.
    """
    if uri is None:
        if not SHIPPED.is_file():
            raise FileNotFoundError(f"no separator is shipped at '{SHIPPED}': give the path of a checkpoint")
        uri = SHIPPED
    module = load_checkpoint(uri) if isinstance(uri, Path) else _open(uri)
    missing = [name for name in ("sources", "sample_rate", "channels") if not hasattr(module, name)]
    if missing or not isinstance(module, LoadedSeparator):
        raise ValueError(
            f"'{uri}' holds a {type(module).__name__}, no separator: it lacks {', '.join(missing)}"
        )
    module.to(device).eval().requires_grad_(False)
    return module


def _open(uri: str) -> nn.Module:
    # two letters at least: C:\model.ckpt is a path
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", uri, flags=re.DOTALL)
    if match is None:
        return load_checkpoint(uri)
    scheme, rest = match.groups()
    if scheme not in DOORS:
        raise ValueError(
            f"uri='{uri}' has an unknown scheme: known are {', '.join(sorted(DOORS))}, or give a path"
        )
    return DOORS[scheme](rest)
