"""Refinement on closed-form curves of the score over the mixing ratio, and the curves.

`climb` calls `encore.refine` with a separator whose estimates hold no audio but four numbers: the item, the
mixing ratio, how often the estimate moved, and its score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from encore.inference import refine
from encore.inference.search import Search, SearchState

NAN = math.nan
Curve = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Ratio, item, number of moves and score of the estimate, each ``(n,)``, to the candidate's score ``(n,)``.

The one-step estimate scores 0.
"""


@dataclass
class Climb:
    """The result of a refinement, and the ratios ``(b, n)`` that each step tried, NaN behind them."""

    scores: Tensor
    chosen: Tensor
    calls: Tensor
    tried: list[Tensor]


class Recorded:
    """A search that checks its proposals and keeps the ratios tried, by step and state."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.tried: dict[int, dict[int, list[float]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.search, name)

    def propose(self, state: SearchState) -> Sequence[float]:
        ratios = self.search.propose(state)
        assert all(0 <= ratio <= 1 for ratio in ratios)
        assert len(state.ratios) < 20
        # the list of the state: in the end it holds all rounds
        self.tried.setdefault(state.step, {})[id(state)] = state.ratios
        return ratios


def climb(search: Search, curve: Curve, items: int | Sequence[int], unscored: Sequence[int] = ()) -> Climb:
    """Refine items on a curve; the one-step estimates of those in ``unscored`` have no score."""
    item = torch.arange(items) if isinstance(items, int) else torch.tensor(items)
    zeros, out = torch.zeros(len(item)), torch.tensor([*unscored])
    mixture = torch.stack((item.float(), zeros + 1, zeros, zeros), dim=-1)[:, None]

    def path(mixture: Tensor, estimate: Tensor, ratio: Tensor) -> Tensor:
        ratio = ratio[:, None, None]
        rest = (estimate[..., 2], estimate[..., 3])
        return torch.stack((mixture[..., 0], ratio.expand_as(rest[0]), *rest), dim=-1)

    def separate(inputs: Tensor) -> Tensor:
        number, ratio, moves, score = inputs[:, 0].unbind(-1)
        at = number.long()
        value = curve(ratio, at, moves, score)
        value = torch.where(ratio == 1, zeros[:1].where(~torch.isin(at, out), NAN), value)
        moves = torch.where(ratio == 1, 0, moves + 1)
        return torch.stack((number, ratio, moves, value), dim=-1)[:, None, None]

    recorded: Any = Recorded(search)
    result = refine(separate, mixture, lambda estimates: estimates[:, 0, 0, 3], recorded, path=path)
    tried = []
    for step in recorded.tried.values():
        rows = iter(step.values())
        lists = [[] if left_out else next(rows) for left_out in torch.isin(item, out)]
        tried.append(pad_sequence([torch.tensor(own) for own in lists], batch_first=True, padding_value=NAN))
    return Climb(result.scores, result.ratios, result.evaluations, tried)


def with_steps(search: Search, steps: int) -> Search:
    """Return the search, or the one inside a limit, with another number of steps."""
    inner = getattr(search, "search", None)
    return replace(search, steps=steps) if inner is None else replace(search, search=with_steps(inner, steps))


def hill(tops: Tensor, power: float = 2, left: float = 1) -> Curve:
    """Return a curve that is 0 at ratio 1 and highest at ``tops``, in every step.

    Below the top it is steeper by the factor ``left``.
    """

    def curve(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        top = tops[item % len(tops)]
        return (1 - top).pow(power) - (ratio - top).abs().pow(power) * torch.where(ratio < top, left, 1)

    return curve


def saturating(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    """Each step can gain half of what is left up to 1, at a ratio that falls from step to step."""
    top = 0.07 * (item % 10) * 0.8**moves
    return score + 0.5 * (1 - score) - (ratio - top).square()


def ragged(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return torch.sin(17 * ratio + item + moves)


def with_holes(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return ragged(ratio, item, moves, score).where(torch.sin(50 * ratio + item) > 0, NAN)


def falling(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return ratio - 1


def flat(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return 0 * ratio


def nowhere(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return ratio + NAN


CURVES: list[Curve] = [
    hill(torch.linspace(0, 1, 12)),
    saturating,
    ragged,
    with_holes,
    falling,
    flat,
    nowhere,
]
EACH = 12
"""Items on each of the curves in a batch of `all_curves`."""
COUNT = EACH * len(CURVES)


def all_curves(ratio: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    """Put items 0 to 11 on the first of `CURVES`, 12 to 23 on the second, and so on."""
    values = torch.stack([curve(ratio, item % EACH, moves, score) for curve in CURVES])
    return values.gather(0, (item // EACH)[None])[0]


def on(curve: Curve) -> slice:
    """Return the items of a batch of `all_curves` that are on a curve."""
    first = EACH * CURVES.index(curve)
    return slice(first, first + EACH)
