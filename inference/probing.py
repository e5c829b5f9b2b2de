"""Whether a separator knows how far along the path its input is: a linear probe of what goes on in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PENALTIES = 10.0 ** torch.arange(-4, 6, dtype=torch.float64)


def layer_statistics(module: nn.Module, x: Tensor) -> Tensor:
    """What the layers of a network give for an input, in two numbers each, whatever its level.

    Args:
        module: The network; of every module without modules of its own, the first output tensor counts.
        x: What it is called with.

    Returns:
        ``(2 * layers,)`` float64: the mean and the mean absolute value, both over the root mean square, in
        the order in which layers were first run.

    Raises:
        ValueError: If no layer was run.
    """
    found: dict[int, Tensor] = {}

    def look(layer: nn.Module, inputs: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and id(layer) not in found:
            values = tensor.detach().double()
            size = values.square().mean().sqrt() + 1e-12
            found[id(layer)] = torch.stack((values.mean() / size, values.abs().mean() / size))

    leaves = [layer for layer in module.modules() if not any(True for _ in layer.children())]
    hooks = [layer.register_forward_hook(look) for layer in leaves]
    try:
        module(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(f"{type(module).__name__} ran no layer that can be looked at")
    return torch.cat(list(found.values())).cpu()


def band_levels(x: Tensor, *, bands: int = 24) -> Tensor:
    """Levels of ``(1, c, t)`` in even bands over the whole, ``(bands,)``: what anyone sees of it."""
    power = torch.fft.rfft(x.double()).abs().square().mean(dim=(0, 1))
    parts = torch.stack([part.mean() for part in power.tensor_split(bands)])
    return (parts / power.mean().clamp_min(1e-30) + 1e-8).log().cpu()


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """How well a number can be read off features, on items that the probe was not fitted on.

    Args:
        predicted: ``(n,)``.
        explained: Share of the variance that the predictions explain: 1 for all, 0 and below for none.
    """

    predicted: Tensor
    explained: float


def linear_probe(features: Tensor, target: Tensor, items: Sequence[object], *, folds: int = 20) -> Probe:
    """Predict a number from features by ridge regression, item by item from the others.

    The penalty is chosen within the training items, by leaving parts of those out in turn.

    Args:
        features: ``(n, k)``.
        target: ``(n,)``.
        items: To which item each row belongs; an item is never on both sides.
        folds: Parts that the items are cut into; each item by itself if there are no more.

    Returns:
        The predictions.

    Raises:
        ValueError: If there are fewer than two folds or items.
    """
    names = list(dict.fromkeys(items))
    if len(names) < 2 or folds < 2:
        raise ValueError(f"items: {len(names)} cannot be told apart in folds={folds}; give 2 or more of both")
    own = torch.tensor([names.index(item) for item in items])
    x, y = features.double(), target.double()
    predicted = torch.empty_like(y)
    for held in _parts(own, min(folds, len(names))):
        inner = own[~held]
        errors = torch.zeros(len(_PENALTIES), dtype=torch.float64)
        for left_out in _parts(inner, 5):
            fitted = _ridge(x[~held][~left_out], y[~held][~left_out], x[~held][left_out])
            errors += (fitted - y[~held][left_out]).square().sum(1)
        predicted[held] = _ridge(x[~held], y[~held], x[held])[int(errors.argmin())]
    rest = (predicted - y).square().sum() / (y - y.mean()).square().sum()
    return Probe(predicted=predicted, explained=1 - float(rest))


def _parts(items: Tensor, count: int) -> list[Tensor]:
    """Masks of the rows of every so manieth item; none is empty."""
    places = torch.unique(items, return_inverse=True)[1]
    masks = [places % count == index for index in range(count)]
    return [mask for mask in masks if bool(mask.any())]


def _ridge(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """Predictions for ``new`` under every penalty, ``(penalties, n)``."""
    mean, deviation, centre = x.mean(0), x.std(0).clamp_min(1e-9), y.mean()
    seen = (x - mean) / deviation
    # what was seen of a feature in training bounds what it may say
    asked = ((new - mean) / deviation).clamp(-5, 5)
    # by the rows' products: there are fewer rows than features
    squares, u = torch.linalg.eigh(seen @ seen.T)
    weights = (u.T @ (y - centre)) / (squares.clamp_min(0) + len(y) * _PENALTIES[:, None])
    return weights @ (asked @ seen.T @ u).T + centre
