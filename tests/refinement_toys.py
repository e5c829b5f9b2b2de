"""Separators, qualities and comparisons that the tests of refinement share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import torch
from torch import Generator, Tensor

from encore.inference import NoisyPath, Refined, Search, SearchState, batched, endpoint, refine, state
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
