"""Constants and bounds of a separator as the map that refinement iterates, on items with references.

All functions are for one source: ``f`` maps ``(n, c, t)`` to its estimates of the same shape. Norms are over
channels and time. Symbols as in docs/methods.md: reference ``s``, mixture ``x_0``, ``n = x_0 - s``, mixing
ratio ``r``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Generator, Tensor

from encore.common.dsp import stft
from encore.data.mixing import blend
from encore.inference.execution import forward_mode
from encore.models.denoisers.bridge_separator import BridgeSeparator

Map = Callable[[Tensor], Tensor]
"""A separator of one source, ``(n, c, t)`` to ``(n, c, t)``."""

DECIBELS = 20 / math.log(10)
"""Decibels of an amplitude ratio of e, 8.69: the constant of the slope of an SNR."""

_DIFFERENCE = 1e-3
"""Step of a difference quotient over the input's norm: small for the network, large for its rounding."""


def norms(x: Tensor) -> Tensor:
    """Return the norms ``(n,)`` of ``(n, c, t)``, in float64."""
    return x.double().flatten(1).norm(dim=1)


def path_errors(f: Map, reference: Tensor, mixture: Tensor, ratios: Sequence[float]) -> Tensor:
    """Return ``||f(s + r n) - s|| / ||s||`` along the path from the source to its mixture.

    At r = 0 this is delta, the change of a source that is clean already.

    Args:
        f: The separator.
        reference: ``(1, c, t)``.
        mixture: ``(1, c, t)``.
        ratios: Mixing ratios in [0, 1].

    Returns:
        ``(len(ratios),)``.
    """
    errors = [norms(f(_between(mixture, reference, ratio)) - reference) for ratio in ratios]
    return torch.cat(errors) / norms(reference)


def bridge_path_errors(
    bridge: BridgeSeparator,
    reference: Tensor,
    mixture: Tensor,
    ratios: Sequence[float],
    *,
    source: int = 0,
    generator: Generator | None = None,
) -> Tensor:
    """Return `path_errors` of a bridge's data predictor, conditioned on the time, in states of its own path.

    Args:
        bridge: The bridge.
        reference: ``(1, c, t)``, the start of the path of all its sources.
        mixture: ``(1, c, t)``.
        ratios: Times in [0, 1].
        source: Index of the source.
        generator: Of the noise in the states; None for states on the mean of the path.

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
    """Return `path_errors` of the best linear filter for this item at each ratio.

    One complex gain per frequency bin, the same at all times: the least-squares solution on the true spectra.

    Args:
        reference: ``(1, c, t)``.
        mixture: ``(1, c, t)``.
        ratios: Mixing ratios in [0, 1].
        window: Samples of the Hann window.

    Returns:
        ``(len(ratios),)``, of spectra instead of waveforms.
    """
    signals = torch.cat((reference, mixture - reference)).double()
    spectra = stft(signals, window, padding="constant")
    source, noise = rearrange(spectra, "n c f t -> n f (c t)")
    energy = source.abs().square().sum()
    errors = []
    for ratio in ratios:
        given = source + ratio * noise
        power = given.abs().square().sum(1, keepdim=True)
        gain = (source * given.conj()).sum(1, keepdim=True) / power.clamp_min(1e-20)
        errors.append(((source - gain * given).abs().square().sum() / energy).sqrt())
    return torch.stack(errors)


def path_rows(
    f: Map,
    reference: Tensor,
    mixture: Tensor,
    ratios: Sequence[float],
    *,
    bridge: BridgeSeparator | None,
    source: int,
    generator: Generator,
) -> list[dict[str, Any]]:
    """Return rows ``what, ratio, error`` of all errors along the path; see `bridge_path_errors`.

    ``what`` is the ``separator``, the ideal ``linear`` filter, the ``input`` itself, and of a bridge
    ``bridge`` in noisy states and ``bridge_mean`` in those without noise.
    """
    errors = {
        "separator": path_errors(f, reference, mixture, ratios),
        "linear": ideal_linear_errors(reference, mixture, ratios),
        "input": path_errors(lambda x: x, reference, mixture, ratios),
    }
    if bridge is not None:
        path = (bridge, reference, mixture, ratios)
        errors["bridge"] = bridge_path_errors(*path, source=source, generator=generator)
        errors["bridge_mean"] = bridge_path_errors(*path, source=source)
    return [
        {"what": what, "ratio": ratio, "error": float(error)}
        for what, found in errors.items()
        for ratio, error in zip(ratios, found, strict=True)
    ]


def secant(f: Map, x: Tensor, y: Tensor) -> Tensor:
    """Return ``||f(x) - f(y)|| / ||x - y||`` item by item, ``(n,)``; NaN where x equals y."""
    between = norms(x - y)
    return torch.where(between > 0, norms(f(x) - f(y)) / between, torch.nan)


def worst_gain(f: Map, x: Tensor, *, iterations: int = 10, generator: Generator) -> Tensor:
    """Find the largest singular value of the Jacobian, the local Lipschitz constant, by power iteration.

    Directions are pushed forward by a difference quotient, many times faster than a forward-mode derivative
    in recurrent layers, and pulled back by a reverse-mode one; the returned gain is the forward-mode
    derivative along the last direction.

    Args:
        f: The separator, differentiable in both modes.
        x: ``(n, c, t)``, each item with its own direction; not silent.
        iterations: From 1 up.
        generator: Draws the first direction, the same for all items.

    Returns:
        ``(n,)`` gains in the direction that is amplified most, never above the true ones.

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
    with forward_mode():
        pushed = torch.func.jvp(f, (x,), (direction,))[1]
    return norms(pushed.detach())


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCheck:
    """One step of a refinement beside its bounds; SNRs in dB, norms over ``||s||``.

    Args:
        step: Its number, from 1.
        ratio: The mixing ratio taken; NaN where the estimate was kept.
        score: SNR of the estimate after the step.
        best: The best SNR on the fine grid, the estimate before included.
        lipschitz: Largest secant of f between neighbours of the fine grid.
        slope: Largest change of the SNR for a change of the estimate of ``||s||``.
        grid_bound: Lower bound of the score: the best on the fine grid less
            ``slope * lipschitz * ||x_0 - y|| / (2 (K - 1))``.
        error: ``||y_t - s||``.
        secant: Of f between the input taken and s; NaN where the estimate was kept.
        signal_bound: Upper bound of the error, ``delta + secant * (r ||n|| + (1 - r) ||e_{t-1}||)``.
        limit: Limit of the signal bound if all steps had these constants; infinite if it grows.
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
    f: Map,
    estimates: Sequence[Tensor],
    ratios: Sequence[float],
    mixture: Tensor,
    reference: Tensor,
    *,
    candidates: int,
    finer: int = 10,
) -> list[StepCheck]:
    """Compare every step of a refinement with its bounds, with constants measured where they are used.

    Args:
        f: The separator.
        estimates: ``(1, c, t)`` each, the one-step estimate and those after every step, of a refinement by an
            even grid of ``candidates`` ratios with both ends (``GridSearch(candidates=K - 1,
            include_estimate=True)``) under the SNR of the item (``usdr``).
        ratios: Chosen in every step; NaN where the estimate was kept.
        mixture: ``(1, c, t)``.
        reference: ``(1, c, t)``, not silent.
        candidates: K, from 2 up.
        finer: How many times finer the grid for the constants is.

    Returns:
        A check for every step.

    Raises:
        ValueError: If there are fewer than two candidates.

    Source: docs/methods.md, what can be proved.
    """
    if candidates < 2:
        raise ValueError(f"candidates={candidates}: give 2 or more")
    level, clean = float(norms(reference)), f(reference)
    noise, delta = (float(norms(x - reference)) / level for x in (mixture, clean))
    checks = []
    for step, (before, after, ratio) in enumerate(zip(estimates, estimates[1:], ratios, strict=False), 1):
        smallest, lipschitz = _curve(f, mixture, before, reference, finer * (candidates - 1) + 1)
        error, past = (float(norms(x - reference)) / level for x in (after, before))
        slope = DECIBELS / smallest
        reach = float(norms(mixture - before)) / level / (2 * (candidates - 1))
        own, bound, limit = math.nan, math.nan, math.nan
        if not math.isnan(ratio):
            taken = _between(mixture, before, ratio)
            own = float(norms(after - clean) / norms(taken - reference))
            bound = delta + own * (ratio * noise + (1 - ratio) * past)
            shrinks = own * (1 - ratio)
            limit = (delta + own * ratio * noise) / (1 - shrinks) if shrinks < 1 else math.inf
        highest = _decibels(smallest)
        checks.append(
            StepCheck(
                step=step,
                ratio=ratio,
                score=_decibels(error),
                best=max(highest, _decibels(past)),
                lipschitz=lipschitz,
                slope=slope,
                grid_bound=highest - slope * lipschitz * reach,
                error=error,
                secant=own,
                signal_bound=bound,
                limit=limit,
            )
        )
    return checks


def _curve(f: Map, mixture: Tensor, estimate: Tensor, reference: Tensor, count: int) -> tuple[float, float]:
    """Return the smallest error of ``f(r x_0 + (1 - r) y)`` on an even grid of r, and the largest secant."""
    level, spacing = norms(reference), norms(mixture - estimate) / (count - 1)
    errors, secants = [], [0.0]
    last: Tensor | None = None
    for index in range(count):
        found = f(_between(mixture, estimate, index / (count - 1)))
        errors.append(float(norms(found - reference) / level))
        if last is not None and float(spacing) > 0:
            secants.append(float(norms(found - last) / spacing))
        last = found
    return min(errors), max(secants)


def guide_error(guide: Tensor, true: Tensor) -> float:
    """Return the error eps of a guide as a proxy of a true score: the largest distance from the best fit.

    Args:
        guide: ``(n,)`` scores that the estimates were chosen by.
        true: ``(n,)`` true scores, in dB.

    Returns:
        ``max |a guide + b - true|`` in dB for the least-squares line, or for a constant if that falls.
    """
    x, y = guide.double() - guide.double().mean(), true.double() - true.double().mean()
    slope = float((x * y).sum() / x.square().sum().clamp_min(1e-30))
    return float((max(slope, 0.0) * x - y).abs().max())


def _between(mixture: Tensor, estimate: Tensor, ratio: float) -> Tensor:
    return blend(mixture, estimate, mixture.new_full((len(mixture),), ratio))


def _decibels(relative_error: float) -> float:
    """Return the SNR in dB of an error over ``||s||``."""
    return -20 * math.log10(max(relative_error, 1e-15))


def _unit(x: Tensor) -> Tensor:
    return x / norms(x).to(x)[:, None, None].clamp_min(1e-30)
