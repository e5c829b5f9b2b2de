"""Separators, qualities, searches and comparisons that the tests of refinement share.

`climb` refines on closed-form curves of the score over the mixing ratio: by a separator whose estimates hold
no audio but four numbers, the item, the mixing ratio, how often the estimate moved, and its score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from encore.inference import (
    AnnealedGridSearch,
    BrentSearch,
    CoarseToFine,
    EarlyStopping,
    FixedListSearch,
    GoldenSection,
    GradientLineSearch,
    GreedySearch,
    GridSearch,
    LocalSearch,
    MaxEvaluations,
    NoisyPath,
    Refined,
    Search,
    SearchState,
    batched,
    endpoint,
    refine,
    state,
)
from encore.models.types import Separator

NOISE, NOISE_SEED = 0.3, 4
PATHS = {"endpoint": endpoint, "state": state, "noisy": NoisyPath(NOISE, seed=NOISE_SEED)}


def in_parts(separate: Separator, *arguments: Any, **options: Any) -> Refined:
    """Refine with small separator calls, two at a time."""
    return refine(batched(separate, 3, workers=2), *arguments, **options)


def linear(x: Tensor) -> Tensor:
    return 0.8 * x + 0.15 * x.roll(1, -1)


def squash(x: Tensor) -> Tensor:
    return 1.3 * torch.tanh(x)


def shrink(x: Tensor) -> Tensor:
    """Soft threshold with an error that looks random but depends on the sample alone."""
    return x.sign() * (x.abs() - 0.3).clamp_min(0) + 0.1 * torch.sin(1000 * x)


def crosstalk(x: Tensor) -> Tensor:
    return 0.7 * x + 0.2 * x.flip(1).sin()


def of_sources(function: Callable[[Tensor], Tensor], sources: int = 1) -> Separator:
    """Return a separator whose sources differ by a gain and a delay."""
    return lambda x: torch.stack([function(0.8**k * x.roll(k, -1)) for k in range(sources)], dim=1)


class Counting:
    """Count the inputs that a separator is called with, and those of the largest call."""

    def __init__(self, separate: Separator) -> None:
        self.separate, self.rows, self.largest, self.lock = separate, 0, 0, Lock()

    def __call__(self, mixture: Tensor) -> Tensor:
        with self.lock:
            self.rows += len(mixture)
            self.largest = max(self.largest, len(mixture))
        return self.separate(mixture)


def closeness(estimates: Tensor, references: Tensor) -> Tensor:
    """Oracle function: negative mean square distance to the references, ``(n,)``."""
    return -(estimates - references).square().mean((-1, -2))


def liveliness(estimates: Tensor) -> Tensor:
    """Blind quality, with many local maxima."""
    return torch.sin(7 * estimates).mean((1, 2, 3))


def signals(
    seed: int, batch: int = 3, sources: int = 1, channels: int = 2, time: int = 40
) -> tuple[Tensor, Tensor]:
    """Mixtures ``(b, c, t)`` with noise, and references ``(b, s, c, t)``, in float64."""
    generator = Generator().manual_seed(seed)
    references = torch.randn(batch, sources, channels, time, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, channels, time, generator=generator, dtype=torch.float64)
    return references.sum(1) + noise, references


def cut_out(item: Tensor, start: int, stop: int) -> Tensor:
    """Return samples ``start`` up to ``stop`` of ``(..., t)``."""
    return item[..., start:stop]


@dataclass(frozen=True, kw_only=True)
class Proposing(Search):
    """Propose the same ratios in one round of every step."""

    ratios: Sequence[float]
    needs_gradient: bool = False  # type: ignore[misc]

    def propose(self, state: SearchState) -> Sequence[float]:
        return [] if state.round else self.ratios

    def max_candidates(self) -> int:
        return self.steps * len(self.ratios)


@dataclass(frozen=True)
class TwoRounds(Search):
    """Three ratios, then both neighbours of the best."""

    def propose(self, state: SearchState) -> Sequence[float]:
        if state.round == 0:
            return [1.0, 0.5, 0.0]
        best = state.ratios[state.scores.index(max(state.scores))]
        around = (best + 0.25, best - 0.25) if state.round == 1 else ()
        return [ratio for ratio in around if 0 <= ratio <= 1]

    def max_candidates(self) -> int:
        return 4 * self.steps


@dataclass(frozen=True, kw_only=True)
class Probe(Proposing):
    """Take ratio 0.4, try the ratios in the second step, and keep the states of all items after them."""

    steps: int = 2
    keep_best: bool = False

    states: list[SearchState] = field(default_factory=list)

    def propose(self, state: SearchState) -> Sequence[float]:
        if state.round and state.step == 2:
            self.states.append(state)
        return [0.4] if (state.step, state.round) == (1, 0) else super().propose(state)

    def of_all(self, name: str) -> Tensor:
        """Return an attribute ``(b, k)`` of the states."""
        return torch.tensor([getattr(state, name) for state in self.states])


def check_slopes(
    run: Callable[[Search], Refined], ratios: Sequence[float], h: float = 1e-4, **tolerances: float
) -> Refined:
    """Check that slopes of a second step are central differences of the score, and NaN at ratio 1."""
    probe = Probe(ratios=ratios, needs_gradient=True)
    result = run(probe)
    below, above = (Probe(ratios=[ratio + d for ratio in ratios if ratio < 1]) for d in (-h, h))
    run(below)
    run(above)
    slopes, known = probe.of_all("slopes"), torch.tensor(ratios) < 1
    assert slopes[:, ~known].isnan().all()
    differences = (above.of_all("scores") - below.of_all("scores")) / (2 * h)
    torch.testing.assert_close(slopes[:, known], differences, **tolerances)
    assert differences.abs().amax() > 0.01
    return result


def same(found: Refined, expected: Refined, *, rtol: float = 0, atol: float = 0) -> None:
    """Check that two refinements are equal: ratios and evaluations exactly, the rest within tolerances."""
    for name in Refined.__slots__:
        exact = name in ("ratios", "evaluations")
        torch.testing.assert_close(
            getattr(found, name),
            getattr(expected, name),
            rtol=0 if exact else rtol,
            atol=0 if exact else atol,
            equal_nan=True,
            msg=lambda message, name=name: f"{name}: {message}",
        )


def item(refined: Refined, index: int) -> Refined:
    """Return one item of a batch."""
    at = slice(index, index + 1)
    return Refined(
        refined.estimates[at],
        refined.one_step[at],
        refined.scores[:, at],
        refined.ratios[:, at],
        refined.evaluations[at],
    )


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


def with_steps(search: Search, steps: int, **settings: Any) -> Search:
    """Return the search, or the one inside a limit, with another number of steps and other settings."""
    if hasattr(search, "search"):
        return replace(search, search=with_steps(search.search, steps, **settings))  # type: ignore[call-arg]
    return replace(search, steps=steps, **settings)


SEARCHES: list[Search] = [
    GridSearch(4),
    GridSearch(4, include_estimate=True),
    AnnealedGridSearch(4),
    FixedListSearch(ratios=[0.3, 0.3, 0.1, 0.3, 0.0, 0.0, 0.1, 1.0, 0.0]),
    GreedySearch(),
    GreedySearch(first=0.0, width=0.5, patience=7),
    LocalSearch(),
    LocalSearch(first=[0.2, 0.5, 0.8], width=0.3, probes=3),
    LocalSearch(first=[0.2], probes=0),
    CoarseToFine(),
    CoarseToFine(points=4, rounds=3),
    GoldenSection(),
    GoldenSection(rounds=6, low=0.1, high=0.5),
    BrentSearch(),
    BrentSearch(first=0.9, calls=6, tolerance=0.01, enough=math.inf),
    GradientLineSearch(),
    GradientLineSearch(first=0.9, points=4, tolerance=0, enough=math.inf),
    EarlyStopping(BrentSearch(), 0.05, patience=2),
    MaxEvaluations(CoarseToFine(), 15),
]
SEARCHES = [with_steps(search, 8) for search in SEARCHES]
every_search = pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)


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


CURVES: list[Curve] = [hill(torch.linspace(0, 1, 12)), saturating, ragged, with_holes, falling, flat, nowhere]
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
