"""Load trained separators and priors, of this project and of others."""

from __future__ import annotations

from pathlib import Path

import torch

from encore.models.checkpoint import load_checkpoint
from encore.models.denoisers.diffusion_prior import DiffusionPrior
from encore.models.pretrained.uri import open_uri
from encore.models.types import LoadedSeparator

SHIPPED = Path(__file__).parent / "shipped" / "speech_denoiser.safetensors"
"""The separator that comes with the package: 16 kHz, one channel, one source, ``speech``."""


def load_separator(uri: str | Path | None = None, *, device: str | torch.device = "cpu") -> LoadedSeparator:
    """Load a trained separator, ready to separate.

    Args:
        uri: Path of a file whose content says what it is, such as a checkpoint of this project; or
            ``scheme:rest?key=value&key=value`` with a scheme of `encore.models.pretrained.registry.LOADERS`,
            see docs/separators.md. A Path is taken literally. By default the separator shipped with the
            package.
        device: Device to move it to, such as ``"cuda"``.

    Returns:
        A module in evaluation mode, without gradients, with ``sources``, ``sample_rate`` and ``channels``;
        averaged weights where a checkpoint of this project holds them.

    Raises:
        FileNotFoundError: If there is no such file, or no separator is shipped.
        ValueError: If scheme or options are unknown, a package is missing, or the file holds no separator.
    """
    if uri is None:
        if not SHIPPED.is_file():
            raise FileNotFoundError(f"no separator is shipped at '{SHIPPED}': give the path of a checkpoint")
        uri = SHIPPED
    module = open_uri(uri)
    missing = [name for name in ("sources", "sample_rate", "channels") if not hasattr(module, name)]
    if missing or not isinstance(module, LoadedSeparator):
        together = isinstance(module, DiffusionPrior)
        other = "; priors separate together (--method diffusion_prior)" if together else ""
        raise ValueError(
            f"'{uri}' holds a {type(module).__name__}, no separator: it lacks {', '.join(missing)}{other}"
        )
    module.to(device).eval().requires_grad_(False)
    return module


def load_prior(path: str | Path, *, device: str | torch.device = "cpu") -> DiffusionPrior:
    """Load a trained diffusion prior, ready to separate with.

    Args:
        path: A Lightning ``.ckpt`` file, or a ``.safetensors`` file with its ``.yaml`` beside it.
        device: Device to move it to.

    Returns:
        A module in evaluation mode, its weights without gradients; averaged ones where the file holds them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no prior.
    """
    module = load_checkpoint(path)
    if not isinstance(module, DiffusionPrior):
        raise ValueError(
            f"'{path}' holds a {type(module).__name__}, no diffusion prior: train one, module=prior"
        )
    module.to(device).eval().requires_grad_(False)
    return module
