"""Linear probe: whether the layers of a separator encode the mixing ratio of its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PENALTIES = 10.0 ** torch.arange(-4, 6, dtype=torch.float64)


def layer_statistics(module: nn.Module, x: Tensor) -> Tensor:
    """Return two statistics of the output of every layer, which do not depend on its level.

    Args:
        module: The network; its layers are the modules without submodules, each by its first output tensor.
        x: Its input.

    Returns:
        ``(2 * layers,)`` float64: the mean and the mean absolute value, both over the root mean square, in
        the order in which layers were first run.

    Raises:
        ValueError: If no layer was run.
    """
    found: dict[int, Tensor] = {}

    def record(layer: nn.Module, inputs: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and id(layer) not in found:
            values = tensor.detach().double()
            size = values.square().mean().sqrt() + 1e-12
            found[id(layer)] = torch.stack((values.mean() / size, values.abs().mean() / size))

    leaves = [layer for layer in module.modules() if not any(True for _ in layer.children())]
    hooks = [layer.register_forward_hook(record) for layer in leaves]
    try:
        module(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(f"{type(module).__name__} ran no layer: its forward must call its submodules")
    return torch.cat(list(found.values())).cpu()


def band_levels(x: Tensor, *, bands: int = 24) -> Tensor:
    """Return levels ``(bands,)`` of ``(1, c, t)`` in even frequency bands, over the whole."""
    power = torch.fft.rfft(x.double()).abs().square().mean(dim=(0, 1))
    parts = torch.stack([part.mean() for part in power.tensor_split(bands)])
    return (parts / power.mean().clamp_min(1e-30) + 1e-8).log().cpu()


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Predictions of a number from features, on items that the probe was not fitted on.

    Args:
        predicted: ``(n,)``.
        explained: Fraction of the variance that the predictions explain: 1 for all, 0 and below for none.
    """

    predicted: Tensor
    explained: float


def linear_probe(features: Tensor, target: Tensor, items: Sequence[object], *, folds: int = 20) -> Probe:
    """Predict a number from features by ridge regression, item by item from the others.

    The penalty is chosen by cross-validation within the training items.

    Args:
        features: ``(n, k)``.
        target: ``(n,)``.
        items: The item of each row; one item is never in both training and test rows.
        folds: Number of parts of the items; at most one item per part.

    Returns:
        The predictions.

    Raises:
        ValueError: If there are fewer than two folds or items.
    """
    names = list(dict.fromkeys(items))
    if len(names) < 2 or folds < 2:
        raise ValueError(f"items: {len(names)} in folds={folds}; give 2 or more of both")
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
    """Return masks of the rows of every ``count``-th item; none is empty."""
    indices = torch.unique(items, return_inverse=True)[1]
    masks = [indices % count == index for index in range(count)]
    return [mask for mask in masks if bool(mask.any())]


def _ridge(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """Return predictions ``(penalties, n)`` for ``new`` under every penalty."""
    mean, deviation, centre = x.mean(0), x.std(0).clamp_min(1e-9), y.mean()
    known = (x - mean) / deviation
    # features far outside of their range in training must not dominate a prediction
    new = ((new - mean) / deviation).clamp(-5, 5)
    # the rows' products: there are fewer rows than features
    squares, u = torch.linalg.eigh(known @ known.T)
    weights = (u.T @ (y - centre)) / (squares.clamp_min(0) + len(y) * _PENALTIES[:, None])
    return weights @ (new @ known.T @ u).T + centre
