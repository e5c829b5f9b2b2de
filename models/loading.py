"""Load trained separators and priors, of this project and of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from encore.common.packages import require
from encore.common.uri import check_scheme, convert_options, option_types, parse_uri
from encore.models.checkpoint import load_checkpoint
from encore.models.denoisers.diffusion_prior import DiffusionPrior
from encore.models.pretrained.identify import scheme_of_file
from encore.models.pretrained.registry import LOADERS
from encore.models.separators.contract import check_description
from encore.models.types import LoadedSeparator
from encore.models.wrappers import LEVELS, PerSource, Resampled

SHIPPED = Path(__file__).parent / "shipped"
"""Separators and priors that come with the package; see its README.md."""
DEFAULT = "deepfilternet:"
"""The separator where none is named: the best of full-band speech in one step, see docs/results.md."""


def load_separator(uri: str | Path | None = None, *, device: str | torch.device = "cpu") -> LoadedSeparator:
    """Load a trained separator, ready to separate.

    Args:
        uri: Path of a file whose content says what it is, such as a checkpoint of this project; or
            ``scheme:rest?key=value&key=value`` with a scheme of `encore.models.pretrained.registry.LOADERS`,
            see docs/separators.md. A Path is taken literally. By default `DEFAULT`.
        device: Device to move it to, such as ``"cuda"``.

    Returns:
        A module in evaluation mode, without gradients, with ``sources``, ``sample_rate`` and ``channels``;
        averaged weights where a checkpoint of this project holds them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If scheme or options are unknown, a package is missing, or the file holds no separator.
    """
    uri = DEFAULT if uri is None else uri
    module = _open(uri)
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


def open_per_source(names: str) -> nn.Module:
    """Open several separators of different sources as one.

    Args:
        names: What `load_separator` takes, with commas between; none may hold one itself.

    Returns:
        A separator of all their sources, in that order, at their common rate and channels.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one cannot be opened, or they do not fit together.
    """
    return PerSource([_open(name.strip()) for name in names.split(",") if name.strip()])


def open_shipped(name: str) -> nn.Module:
    """Open a separator that comes with the package.

    Args:
        name: Of its model card.

    Raises:
        ValueError: If there is none of this name.
    """
    names = [file.stem for file in sorted(SHIPPED.glob("*.yaml")) if not file.stem.startswith("prior_")]
    if name not in names:
        raise ValueError(f"uri='shipped:{name}' is unknown: use {', '.join(f'shipped:{n}' for n in names)}")
    return load_checkpoint(SHIPPED / f"{name}.safetensors")


def _open(text: str | Path) -> nn.Module:
    """Open the network of a URI as its loader returns it, and apply the options that every scheme takes."""
    uri = parse_uri(text)
    if not uri.scheme and not Path(uri.rest).is_file():
        advice = f"check the path, or write scheme:name with one of {', '.join(LOADERS)}"
        if uri.rest in LOADERS:
            advice = f"for the scheme write a colon, as in {LOADERS[uri.rest].example}"
        raise FileNotFoundError(f"'{uri.rest}' does not exist or is not a file: {advice}")
    scheme = uri.scheme or scheme_of_file(Path(uri.rest))
    check_scheme(uri, scheme, LOADERS)
    loader = LOADERS[scheme]
    # what is installed is imported by the opener, if at all: some packages only hold weights
    if loader.missing is not None:
        require(loader.missing, needed_by=f"uri='{text}'", install=loader.install)
    opener = loader.function()
    own, common = option_types(opener), option_types(_with_common_options)
    options = convert_options(uri, opener, common)
    for_all = {name: value for name, value in options.items() if name in common}
    for_it = {name: value for name, value in options.items() if name in own or name not in common}
    opened: nn.Module = _with_common_options(opener(uri.rest, **for_it), **for_all)
    return opened


def _with_common_options(
    separator: Any,
    *,
    sources: tuple[str, ...] | None = None,
    sample_rate: int | None = None,
    level: str = "none",
) -> Any:
    """Rename the sources of a separator, resample around it or change its level.

    Args:
        separator: With ``sources``, ``sample_rate`` and ``channels``.
        sources: New names of its sources, in the order of the source axis.
        sample_rate: Rate in Hz of mixture and estimates. Where the network's own differs, the mixture is
            resampled to it and the estimates back.
        level: One of `LEVELS`.

    Raises:
        ValueError: If the names do not fit the sources, or the level is unknown.
    """
    if level not in LEVELS:
        raise ValueError(f"option level={level}: choose one of {', '.join(LEVELS)}")
    if sources is not None:
        if len(sources) != len(separator.sources):
            raise ValueError(
                f"option sources={','.join(sources)} names {len(sources)}, but the separator estimates "
                f"{len(separator.sources)} ({', '.join(separator.sources)}): give one name for each"
            )
        check_description(sources, separator.sample_rate, separator.channels)
        separator.sources = sources
    if sample_rate is not None and sample_rate != separator.sample_rate:
        separator = Resampled(separator, sample_rate)
    wrapper = LEVELS[level]
    return separator if wrapper is None else wrapper(separator)
