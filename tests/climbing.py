"""A refinement loop over closed-form curves, for searches; and the curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from encore.inference.search import Search, Trace

NAN = math.nan
# scores (n, k) of shares (n, k), given the item, how often it moved and what it scores, each (n, 1); the
# one-step estimate scores 0
Curve = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def trace_of(
    step: int,
    ratios: Tensor,
    scores: Tensor,
    slopes: Tensor,
    chosen: Tensor,
    history: Tensor,
    steps: int,
    calls: Tensor | None = None,
    share_calls: int = 1,
) -> Trace:
    """With silent signals: no search on a curve looks at them."""
    signals = ratios.new_zeros(len(ratios), 1, 1, 2)
    known = {"steps": steps, "mixture": signals, "estimate": signals, "generator": None}
    return Trace(
        step=step,
        ratios=ratios,
        scores=scores,
        slopes=slopes,
        chosen=chosen,
        history=history,
        calls=torch.ones(len(ratios), dtype=torch.long) if calls is None else calls,
        share_calls=share_calls,
        **known,
    )


@dataclass
class Climb:
    scores: Tensor
    chosen: Tensor
    calls: Tensor
    tried: list[Tensor]


def climb(search: Search, curve: Curve, items: int | list[int], steps: int = 1) -> Climb:
    """What ``refine`` does, with a curve in place of separator and measure."""
    item = torch.arange(items) if isinstance(items, int) else torch.tensor(items)
    steps = search.steps or steps
    score, moves, calls = torch.zeros(len(item)), torch.zeros_like(item), torch.ones_like(item)
    scores, chosen, tried = score[None], torch.empty(0, len(item)), []
    active, cost = calls > 0, 1 + search.wants_slopes
    for step in range(1, steps + 1):
        rows, took = active.nonzero()[:, 0], torch.full_like(score, NAN)
        ratios = values = slopes = torch.empty(len(rows), 0)
        while len(rows):
            trace = trace_of(
                step, ratios, values, slopes, chosen[:, rows], scores[:, rows], steps, calls[rows], cost
            )
            shares = search.propose(trace)
            if shares.isnan().all():
                break
            assert ((shares >= 0) & (shares <= 1) | shares.isnan()).all()
            assert shares.dtype == torch.float32
            assert ratios.shape[1] < 20
            x = shares.clone().requires_grad_()
            y = curve(x, item[rows, None], moves[rows, None], score[rows, None]) + 0 * x
            (slope,) = torch.autograd.grad(y.nansum(), x)
            calls[rows] += (shares < 1).sum(1) * cost
            slope = slope.where((shares < 1) & torch.tensor(search.wants_slopes), NAN)
            y = torch.where(shares == 1, 0.0, y.detach())
            ratios, values, slopes = (
                torch.cat(pair, 1) for pair in ((ratios, shares), (values, y), (slopes, slope))
            )
        tried.append(ratios)
        if len(rows) and ratios.shape[1]:
            best, column = values.nan_to_num(-math.inf).max(1)
            won = best > score[rows]
            took[rows] = ratios.gather(1, column[:, None])[:, 0].where(won, NAN)
            score = score.index_copy(0, rows, best.where(won, score[rows]))
            moves[rows] += won
        if len(rows):
            active[rows] = ~search.finished(trace, took[rows].isnan())
        chosen, scores = torch.cat((chosen, took[None])), torch.cat((scores, score[None]))
    return Climb(scores, chosen, calls, tried)


def hill(tops: Tensor, power: float = 2, left: float = 1) -> Curve:
    """0 at share 1, highest at ``tops``, steeper by the factor ``left`` below it; the same in every step."""

    def curve(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
        top = tops[item]
        return (1 - top).pow(power) - (shares - top).abs().pow(power) * torch.where(shares < top, left, 1)

    return curve


def saturating(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    """Each step can gain half of what is left up to 1, at a share that shrinks from step to step."""
    top = 0.07 * (item % 10) * 0.8**moves
    return score + 0.5 * (1 - score) - (shares - top).square()


def ragged(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return torch.sin(17 * shares + item + moves)


def with_holes(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return ragged(shares, item, moves, score).where(torch.sin(50 * shares + item) > 0, NAN)


def falling(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return shares - 1


def flat(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return 0 * shares


def nowhere(shares: Tensor, item: Tensor, moves: Tensor, score: Tensor) -> Tensor:
    return shares + NAN


CURVES: list[Curve] = [
    hill(torch.linspace(0, 1, 12)),
    saturating,
    ragged,
    with_holes,
    falling,
    flat,
    nowhere,
]
