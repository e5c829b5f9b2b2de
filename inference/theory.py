"""What can be known of a separator as the map that refinement repeats, measured on items with references.

All functions work on one source: ``f`` maps ``(n, c, t)`` to its estimates of the same shape. Norms are over
channels and time, of an item as a whole. Symbols are those of docs/methods.md: ``s`` the reference, ``x_0``
the mixture, ``n = x_0 - s``, ``r`` the mixture's share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Generator, Tensor

from encore.data.mixing import blend
from encore.inference.bridge_guide import HasBridge
from encore.inference.execution import FORWARD_MODE, without_fused_kernels
from encore.inference.refinement import Refinement

Map = Callable[[Tensor], Tensor]
"""A separator of one source, ``(n, c, t)`` to ``(n, c, t)``."""

DECIBELS = 20 / math.log(10)
"""Decibels of a ratio of amplitudes that is e: 8.69, the constant of the slope of an SNR."""

_DIFFERENCE = 1e-3
"""Of the input's norm: a difference quotient's step, small for the network and large for its rounding."""


def norms(x: Tensor) -> Tensor:
    """``(n, c, t)`` to ``(n,)``, in float64."""
    return x.double().flatten(1).norm(dim=1)


def path_errors(f: Map, reference: Tensor, mixture: Tensor, ratios: Sequence[float]) -> Tensor:
    """``||f(s + r n) - s|| / ||s||`` along the path from the source to its mixture.

    At r = 0 this is delta, what the separator does to what is clean already.

    Args:
        f: The separator.
        reference: ``(1, c, t)``.
        mixture: ``(1, c, t)``.
        ratios: Mixture shares in [0, 1].

    Returns:
        ``(len(ratios),)``.
    """
    return torch.cat([norms(f(_between(mixture, reference, ratio)) - reference) for ratio in ratios]) / norms(
        reference
    )


def bridge_path_errors(
    bridge: HasBridge,
    reference: Tensor,
    mixture: Tensor,
    ratios: Sequence[float],
    *,
    source: int = 0,
    generator: Generator | None = None,
) -> Tensor:
    """As `path_errors`, of a bridge's data predictor that is told the time, in states of its own path.

    Args:
        bridge: The bridge.
        reference: ``(1, c, t)``; where the bridge has several sources, each of them starts there.
        mixture: ``(1, c, t)``.
        ratios: Times in [0, 1].
        source: Index of the source.
        generator: Of the states' noise; None for states without it, on the mean of the path.

    Returns:
        ``(len(ratios),)``.
    """
    level, time, count = bridge.level(mixture), mixture.shape[-1], len(bridge.sources)
    end = bridge.encode(mixture[:, None], level)
    start = bridge.encode(reference[:, None].expand(-1, count, -1, -1), level)
    errors = []
    for ratio in ratios:
        t = mixture.new_tensor([min(ratio, bridge.bridge.start)])
        a, b, c = (float(part) for part in bridge.bridge.coefficients(t))
        state = a * start + b * end
        if generator is not None:
            noise = torch.randn(start.shape, generator=generator, device=generator.device, dtype=start.dtype)
            state = state + c * noise.to(state.device)
        found = bridge.decode(bridge.denoise(state, t, end), level, time)
        errors.append(norms(found[:, source] - reference) / norms(reference))
    return torch.cat(errors)


def ideal_linear_errors(
    reference: Tensor, mixture: Tensor, ratios: Sequence[float], *, window: int = 512
) -> Tensor:
    """As `path_errors`, for the one linear filter that is best for this item at each ratio.

    One complex gain a frequency bin, the same at all times: the least-squares solution on the spectra of the
    very item, which no separator knows.

    Args:
        reference: ``(1, c, t)``.
        mixture: ``(1, c, t)``.
        ratios: Mixture shares in [0, 1].
        window: Samples of the Hann window.

    Returns:
        ``(len(ratios),)``, of spectra instead of waveforms.
    """
    source, noise = (_spectra(x, window) for x in (reference, mixture - reference))
    energy = source.abs().square().sum()
    errors = []
    for ratio in ratios:
        seen = source + ratio * noise
        power = seen.abs().square().sum(1, keepdim=True)
        gain = (source * seen.conj()).sum(1, keepdim=True) / power.clamp_min(1e-20)
        errors.append(((source - gain * seen).abs().square().sum() / energy).sqrt())
    return torch.stack(errors)


def secant(f: Map, x: Tensor, y: Tensor) -> Tensor:
    """``||f(x) - f(y)|| / ||x - y||`` item by item, ``(n,)``; NaN where x is y."""
    between = norms(x - y)
    return torch.where(between > 0, norms(f(x) - f(y)) / between, torch.nan)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorstDirection:
    """The small change of an input that a separator makes largest.

    Args:
        gain: ``(n,)``, how much larger its change comes out; the local Lipschitz constant, from below.
        direction: ``(n, c, t)`` of unit norm.
    """

    gain: Tensor
    direction: Tensor


def worst_direction(f: Map, x: Tensor, *, iterations: int = 10, generator: Generator) -> WorstDirection:
    """The largest singular value of the Jacobian by power iteration, and its direction.

    While it iterates, a direction is pushed forward by a difference quotient, which recurrent layers take
    many times faster than a forward-mode derivative, and pulled back by a reverse-mode one; the gain that
    is returned is the forward-mode derivative along the direction that was found.

    Args:
        f: The separator, differentiable in both modes.
        x: ``(n, c, t)``, each item with a direction of its own; not silent.
        iterations: From 1 up.
        generator: For the direction that it begins with, the same for all items.

    Returns:
        Gain and direction; the gain is never above the true one.

    Raises:
        ValueError: If there is no iteration.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: give 1 or more")
    drawn = torch.randn(x.shape[1:], generator=generator, device=generator.device)
    direction = _unit(drawn.to(x).expand_as(x))
    small = _DIFFERENCE * norms(x).to(x)[:, None, None]
    for _ in range(iterations):
        with torch.enable_grad():
            found, pull = torch.func.vjp(f, x)[:2]
            with torch.no_grad():
                pushed = (f(x + small * direction) - found) / small
            pulled = pull(pushed.detach())[0]
        direction = _unit(pulled.detach())
    with FORWARD_MODE, without_fused_kernels():
        pushed = torch.func.jvp(f, (x,), (direction,))[1]
    return WorstDirection(gain=norms(pushed.detach()), direction=direction)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCheck:
    """One step of a refinement beside what can be proved of it; SNRs in dB, norms over ``||s||``.

    Args:
        step: Its number, from 1.
        ratio: The mixture's share that was taken, NaN where the estimate was kept.
        score: SNR of the estimate after the step.
        best: The best SNR on a grid ten times as fine, the estimate before included.
        lipschitz: Largest secant of f between neighbours of the fine grid.
        slope: Largest change of the SNR for a change of the estimate of ``||s||``.
        grid_bound: What the score must reach by them: ``best`` less ``slope * lipschitz * ||x_0 - y|| /
            (2 (K - 1))``.
        error: ``||y_t - s||``.
        secant: Of f between the blend that was taken and s; NaN where the estimate was kept.
        signal_bound: ``delta + secant * (r ||n|| + (1 - r) ||e_{t-1}||)``.
        limit: Where the signal bound would go with these constants for ever, infinite if they let it grow.
    """

    step: int
    ratio: float
    score: float
    best: float
    lipschitz: float
    slope: float
    grid_bound: float
    error: float
    secant: float
    signal_bound: float
    limit: float


def check_refinement(
    f: Map, refinement: Refinement, mixture: Tensor, reference: Tensor, *, candidates: int, finer: int = 10
) -> list[StepCheck]:
    """Set every step of a refinement beside its bounds, with constants measured where they are used.

    Args:
        f: The separator.
        refinement: Of one item, with its trajectory, by an even grid of ``candidates`` shares with both ends
            (``GridSearch(candidates - 1, include_estimate=True)``) under the SNR of the item (``usdr``).
        mixture: ``(1, c, t)``.
        reference: ``(1, c, t)``, not silent.
        candidates: K.
        finer: How many times finer the grid of the constants is.

    Returns:
        A check for every step.

    Source: docs/methods.md, what can be proved.
    """
    if refinement.trajectory is None or candidates < 2:
        raise ValueError(f"candidates={candidates}: give 2 or more, and a refinement with its trajectory")
    level = float(norms(reference))
    noise = float(norms(mixture - reference)) / level
    clean = f(reference)
    delta = float(norms(clean - reference)) / level
    checks = []
    for step in range(1, len(refinement.trajectory)):
        before, after = refinement.trajectory[step - 1], refinement.trajectory[step]
        curve = _Curve(f, mixture, before, reference, finer * (candidates - 1) + 1)
        ratio, error = float(refinement.ratios[step - 1, 0]), float(norms(after - reference)) / level
        past = float(norms(before - reference)) / level
        slope = DECIBELS / curve.smallest_error
        reach = float(norms(mixture - before)) / level / (2 * (candidates - 1))
        own, bound, limit = math.nan, math.nan, math.nan
        if not math.isnan(ratio):
            taken = _between(mixture, before, ratio)
            own = float(norms(after - clean) / norms(taken - reference))
            bound = delta + own * (ratio * noise + (1 - ratio) * past)
            shrinks = own * (1 - ratio)
            limit = (delta + own * ratio * noise) / (1 - shrinks) if shrinks < 1 else math.inf
        best = max(curve.best_score, _decibels(past))
        checks.append(
            StepCheck(
                step=step,
                ratio=ratio,
                score=_decibels(error),
                best=best,
                lipschitz=curve.lipschitz,
                slope=slope,
                grid_bound=curve.best_score - slope * curve.lipschitz * reach,
                error=error,
                secant=own,
                signal_bound=bound,
                limit=limit,
            )
        )
    return checks


class _Curve:
    """``f(r x_0 + (1 - r) y)`` over an even grid of r, one share at a time; all norms over ``||s||``."""

    def __init__(self, f: Map, mixture: Tensor, estimate: Tensor, reference: Tensor, count: int) -> None:
        level, apart = norms(reference), norms(mixture - estimate)
        errors, secants = [], []
        last: Tensor | None = None
        for place in range(count):
            found = f(_between(mixture, estimate, place / (count - 1)))
            errors.append(float(norms(found - reference) / level))
            if last is not None and float(apart) > 0:
                secants.append(float(norms(found - last) / (apart / (count - 1))))
            last = found
        self.smallest_error = min(errors)
        self.best_score = _decibels(self.smallest_error)
        self.lipschitz = max(secants, default=0.0)


def noise_of_measure(measured: Tensor, true: Tensor) -> float:
    """The error eps of a measure as a stand-in for a true one: the largest distance after the best fit.

    Args:
        measured: ``(n,)`` scores that something was chosen by.
        true: ``(n,)`` scores that it is about, in dB.

    Returns:
        ``max |a measured + b - true|`` in dB for the least-squares line, or for a constant if that falls.
    """
    x, y = measured.double() - measured.double().mean(), true.double() - true.double().mean()
    slope = float((x * y).sum() / x.square().sum().clamp_min(1e-30))
    return float((max(slope, 0.0) * x - y).abs().max())


def _between(mixture: Tensor, estimate: Tensor, ratio: float) -> Tensor:
    return blend(
        mixture, estimate, torch.full((len(mixture),), ratio, dtype=mixture.dtype, device=mixture.device)
    )


def _decibels(relative_error: float) -> float:
    """SNR in dB of an error over ``||s||``."""
    return -20 * math.log10(max(relative_error, 1e-15))


def _unit(x: Tensor) -> Tensor:
    return x / norms(x).to(x)[:, None, None].clamp_min(1e-30)


def _spectra(x: Tensor, window: int) -> Tensor:
    """``(1, c, t)`` to ``(f, everything else)``."""
    shape = torch.hann_window(window, dtype=torch.float64, device=x.device)
    flat = rearrange(x.double(), "b c t -> (b c) t")
    spectra = torch.stft(flat, window, window // 4, window=shape, pad_mode="constant", return_complex=True)
    return rearrange(spectra, "b f t -> f (b t)")
