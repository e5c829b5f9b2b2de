"""Whether a separator knows how far along the path its input is: a linear probe of what goes on in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PENALTIES = 10.0 ** torch.arange(-4, 5, dtype=torch.float64)


def layer_statistics(module: nn.Module, call: Callable[[], object]) -> Tensor:
    """What the layers of a network give while it is called, in three numbers each.

    Args:
        module: The network; of every module without modules of its own, the first output tensor counts.
        call: Calls it.

    Returns:
        ``(3 * layers,)`` float64: the logarithm of the root mean square, the mean and the mean absolute
        value, the last two over the root mean square, in the order in which layers were first run.

    Raises:
        ValueError: If no layer was run.
    """
    found: dict[int, Tensor] = {}

    def look(layer: nn.Module, inputs: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and id(layer) not in found:
            values = tensor.detach().double()
            size = values.square().mean().sqrt() + 1e-12
            found[id(layer)] = torch.stack((size.log(), values.mean() / size, values.abs().mean() / size))

    leaves = [layer for layer in module.modules() if not any(True for _ in layer.children())]
    hooks = [layer.register_forward_hook(look) for layer in leaves]
    try:
        call()
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


def linear_probe(features: Tensor, target: Tensor, items: Sequence[object], *, folds: int = 5) -> Probe:
    """Predict a number from features by ridge regression, item by item from the others.

    The penalty is chosen within the training items by generalised cross-validation.

    Args:
        features: ``(n, k)``.
        target: ``(n,)``.
        items: To which item each row belongs; an item is never on both sides.
        folds: Parts that the items are cut into.

    Returns:
        The predictions.

    Raises:
        ValueError: If there are fewer items than folds.
    """
    names = list(dict.fromkeys(items))
    if len(names) < folds or folds < 2:
        raise ValueError(
            f"items: {len(names)} cannot be cut into folds={folds}; give 2 folds or more, and as many items"
        )
    fold = torch.tensor([names.index(item) % folds for item in items])
    x, y = features.double(), target.double()
    predicted = torch.empty_like(y)
    for index in range(folds):
        held = fold == index
        predicted[held] = _ridge(x[~held], y[~held], x[held])
    rest = (predicted - y).square().sum() / (y - y.mean()).square().sum()
    return Probe(predicted=predicted, explained=1 - float(rest))


def _ridge(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """Predictions for ``new``, by the penalty with the smallest generalised cross-validation error."""
    mean, deviation, centre = x.mean(0), x.std(0).clamp_min(1e-9), y.mean()
    u, s, v = torch.linalg.svd((x - mean) / deviation, full_matrices=False)
    projected = u.T @ (y - centre)
    scores = []
    for penalty in _PENALTIES * len(y):
        shrink = s.square() / (s.square() + penalty)
        rest = (y - centre - u @ (shrink * projected)).square().mean()
        scores.append(rest / (1 - (shrink.sum() + 1) / len(y)).clamp_min(1e-6) ** 2)
    penalty = _PENALTIES[int(torch.stack(scores).argmin())] * len(y)
    weights = v.T @ (s / (s.square() + penalty) * projected)
    return (new - mean) / deviation @ weights + centre
