"""BS-RoFormer and Mel-Band RoFormer checkpoints, with the YAML files of their trainers."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from encore.common.errors import one_line
from encore.common.files import read_yaml
from encore.common.names import nearest
from encore.models.separators.contract import AdaptedSeparator, round_up
from encore.models.weights import load_weights, read_state_dict

_IGNORED = ("use_torch_checkpoint", "skip_connection", "linear_transformer_depth")
"""Keywords of other forks of the networks that change nothing where they are false or zero."""

_LAYER = re.compile(r"(layers\.\d+)\.(\d+)\.(?:(layers\.\d+\.\d+)\.)?")


class _PlainLoader(yaml.SafeLoader):
    """Loads YAML of plain values and Python's tuples."""


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def open_bs_roformer(path: str, *, config: Path | None = None) -> nn.Module:
    """Open a BS-RoFormer or a Mel-Band RoFormer.

    Args:
        path: A state dictionary, raw or under ``state_dict``, ``state`` or ``model_state_dict``.
        config: Its YAML: ``model`` with the keywords of the network, ``audio`` with ``sample_rate``,
            ``training`` with ``instruments`` and ``target_instrument``; without it, the file of the same
            name that ends in ``.yaml``. A network with ``num_bands`` is a Mel-Band RoFormer. Weights of the
            networks as they were before residual streams (bs-roformer 0.3 and its forks, which most public
            checkpoints are from) are recognised by their names.

    Returns:
        A separator of one channel, or two where the network is stereo.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a keyword is unknown to the network, or files do not fit.

    Source: W.-T. Lu et al., "Music source separation with band-split RoPE transformer", 2023; J.-C. Wang et
    al., "Mel-band RoFormer for music source separation", 2023.
    """
    yaml_path = config or Path(path).with_suffix(".yaml")
    content = read_yaml(yaml_path, "give the YAML of the training, ?config=file.yaml", loader=_PlainLoader)
    for key in ("model", "training"):
        if not isinstance(content.get(key), dict):
            raise ValueError(
                f"'{yaml_path}' holds no mapping '{key}': give the YAML that the model was trained with"
            )
    model, training = content["model"], content["training"]
    sources = _sources(training, int(model.get("num_stems", 1)), yaml_path)
    network, weights = _fit(model, read_state_dict(path), yaml_path)
    load_weights(network, weights, path)
    rate = content.get("audio", {}).get("sample_rate") or model.get("sample_rate")
    if not isinstance(rate, int):
        raise ValueError(f"'{yaml_path}' does not say audio.sample_rate: add it")
    # centred frames reflect half a window at each end, and the inverse transform returns whole hops only
    window, hop = (network.stft_kwargs[name] for name in ("n_fft", "hop_length"))
    shortest = round_up(window, hop)
    return AdaptedSeparator(sources, rate, network.audio_channels, network, shortest=shortest, step=hop)


def _sources(training: Mapping[str, Any], count: int, path: Path) -> tuple[str, ...]:
    target, instruments = training.get("target_instrument"), training.get("instruments")
    names = [target] if target else list(instruments or [])
    if len(names) != count:
        raise ValueError(
            f"'{path}' names {len(names)} sources ({', '.join(map(str, names))}) for num_stems={count}: "
            "set training.target_instrument, or as many training.instruments"
        )
    return tuple(map(str, names))


def _fit(
    options: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path
) -> tuple[Any, dict[str, Tensor]]:
    """Return a network, and its weights under the names of the installed package."""
    if any(".branch." in name for name in weights):
        return _build(options, path), dict(weights)
    plain: dict[str, Any] = {"num_residual_streams": 1}
    if "num_bands" in options:
        plain |= {"add_value_residual": False, "linear_transformer_depth": 0}
    network = _build({**plain, **options}, path)
    part: Any
    for part in network.modules():
        if hasattr(part, "to_value_residual_mix"):
            part.to_value_residual_mix = None
    # the installed Mel-Band RoFormer has an empty entry before the transformers of a layer
    shift = int("num_bands" in options and not options.get("linear_transformer_depth"))
    return network, {_current_name(name, shift): value for name, value in weights.items()}


def _current_name(name: str, shift: int) -> str:
    """Rename ``layers.0.1.layers.0.0.norm.g`` to ``layers.0.2.layers.0.0.branch.norm.g``, for shift 1."""
    match = _LAYER.search(name)
    if match is None:
        return name
    layer, number, inner = match.groups()
    branch = f"{inner}.branch." if inner else ""
    return f"{name[: match.start()]}{layer}.{int(number) + shift}.{branch}{name[match.end() :]}"


def _build(options: Mapping[str, Any], path: Path) -> nn.Module:
    package: Any = import_module("bs_roformer")
    kind: type[nn.Module] = package.MelBandRoformer if "num_bands" in options else package.BSRoformer
    known = inspect.signature(kind).parameters
    keywords = {n: value for n, value in options.items() if n in known or n not in _IGNORED or value}
    # the networks check types and take tuples, which plain YAML does not have
    keywords = {name: tuple(v) if isinstance(v, list) else v for name, v in keywords.items()}
    unknown = [name for name in keywords if name not in known]
    if unknown:
        near = nearest(unknown[0], sorted(known), 3)
        raise ValueError(
            f"'{path}': model.{', model.'.join(unknown)} unknown to {kind.__name__} of this bs_roformer; "
            f"nearest to the first: {', '.join(near)}"
        )
    try:
        with warnings.catch_warnings():
            # it runs a transform without a window, only to count the bins
            warnings.simplefilter("ignore", UserWarning)
            return kind(**keywords)
    except Exception as error:  # beartype raises classes of its own
        raise ValueError(f"'{path}' does not fit {kind.__name__}: {one_line(error)}") from error
