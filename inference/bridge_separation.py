"""Separation by sampling a bridge: with a separator that was trained as one, or any other read as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import rearrange
from torch import Generator, Tensor

from encore.inference.bridges import (
    SAMPLERS,
    bridge_grid,
    find_bridge,
    time_grid,
    white_noise,
)
from encore.inference.refinement import Refined, Step
from encore.inference.wrappers import aligned, separate_each
from encore.models.denoisers.bridge_separator import BridgeSeparator
from encore.models.processes.bridge import Bridge, LinearBridge
from encore.models.types import LoadedSeparator, Separator, permutation_groups
from encore.models.wrappers import match_channels


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeSampler:
    """Separate by sampling a bridge: a `encore.inference.RefinementMethod`.

    A separator that was trained as a bridge brings its own; any other is read as one, see `as_bridge`.

    Args:
        steps: Steps from the mixture to the sources.
        path: A name in `encore.inference.bridges.SAMPLERS`: ``"sde"``, ``"ode"``, ``"ode2"`` (second order,
            two evaluations a step but the last), ``"consistency"``, ``"endpoint"`` or ``"state"``; None for
            the SDE where the bridge has noise, else endpoints.
        start: ``"noise"`` or ``"mean"``, the noise of the first step of SDE and ODE.
        t_min: The time in [0, 1) at which sampling ends.
        bridge: Of separators without one; None for the straight line without noise. Its noise is in units of
            the mixture's root mean square.
        every_step: Give every step to the callback, or only the last one, where scoring is slow.

    Raises:
        ValueError: If an argument is out of range, or there is no such path or start.
    """

    steps: int = 30
    path: str | None = None
    start: Literal["noise", "mean"] = "noise"
    t_min: float = 1e-4
    bridge: Bridge | None = None
    every_step: bool = True

    kind: ClassVar[str] = "fixed"
    guide_name: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.t_min < 1:
            raise ValueError(f"steps={self.steps}, t_min={self.t_min}: give 1 or more, and a time in [0, 1)")
        if self.path is not None and self.path not in SAMPLERS:
            raise ValueError(f"path={self.path!r}: choose {', '.join(SAMPLERS)}")
        if self.start not in ("noise", "mean"):
            raise ValueError(f"start={self.start!r}: choose noise or mean")
        if self.start == "mean" and self.path not in (None, "sde", "ode", "ode2"):
            raise ValueError(
                f"start='mean', path={self.path!r}: a start is for sde, ode and ode2; leave it out"
            )

    @property
    def evaluations(self) -> int:
        """Network calls of an item; per source and step, but the first, where each has its own state."""
        return 2 * self.steps - 1 if self.path == "ode2" else self.steps

    @torch.no_grad()
    def __call__(
        self,
        separator: LoadedSeparator,
        mixture: Tensor,
        *,
        references: Tensor | None = None,
        generator: Generator | None = None,
        callback: Callable[[Step], None] | None = None,
        at_once: int = 1,
    ) -> Refined:
        """Sample all sources of a separator.

        Args:
            separator: On the mixture's device.
            mixture: ``(b, c, t)`` of its sampling rate.
            references: ``(b, s, c, t)``, used to order interchangeable sources.
            generator: Draws the noise.
            callback: Called after every step; the estimate of a step is the one in its state, that of the
                last step the state itself.
            at_once: Of no effect, calls are never cut into parts.

        Returns:
            The last state, the network's first estimate as the one-step estimate, and as ratios those in the
            means of the states. Scores are NaN.
        """
        bridge, chosen, inner = self._read(separator, mixture, references)
        return self._sample(bridge, chosen, inner, len(mixture), generator, callback)

    def _sample(
        self,
        bridge: BridgeSeparator | as_bridge,
        chosen: list[int],
        mixture: Tensor,
        batch: int,
        generator: Generator | None,
        callback: Callable[[Step], None] | None,
    ) -> Refined:
        """Sample a bridge of mixtures, whose channels may be items, and return the chosen sources."""
        process, level = bridge.bridge, bridge.level(mixture)
        sample = SAMPLERS[self._path_of(process)]
        end = bridge.encode(mixture[:, None], level)
        initial = end.expand(-1, len(bridge.sources), *end.shape[2:])
        grid = bridge_grid(process, time_grid(self.steps, start=process.start, end=self.t_min))
        ratios = mixture.new_tensor([point.b for point in grid[1:]])[:, None].expand(-1, batch)
        scores = mixture.new_full((self.steps + 1, batch), torch.nan)
        first, number, calls = end, -1, 0

        def waveforms(states: Tensor) -> Tensor:
            decoded = bridge.decode(states[:, chosen], level, mixture.shape[-1])
            return rearrange(decoded, "(b d) s c t -> b s (c d) t", b=batch)

        def report(states: Tensor) -> None:
            nonlocal first, number
            number += 1
            if number == 0:
                first = states
            elif callback is not None and (self.every_step or number == self.steps):
                callback(Step(number, waveforms(states), scores[number], ratios[number - 1], evaluations()))

        def denoise(state: Tensor, t: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return bridge.denoise(state, t, end)

        def evaluations() -> Tensor:
            made = bridge.evaluations if isinstance(bridge, as_bridge) else calls
            return torch.full((batch,), made, device=mixture.device)

        noise = white_noise(initial, generator, first=self.start == "noise")
        state = sample(denoise, initial, grid, noise, lambda point, state, estimate: report(estimate))
        report(state)
        return Refined(
            estimates=waveforms(state),
            one_step=waveforms(first),
            scores=scores,
            ratios=ratios,
            evaluations=evaluations(),
        )

    def _read(
        self, separator: LoadedSeparator, mixture: Tensor, references: Tensor | None
    ) -> tuple[BridgeSeparator | as_bridge, list[int], Tensor]:
        """Return the separator as a bridge, the indices of its sources there, and the bridge's mixtures."""
        trained = find_bridge(separator)
        if trained is not None:
            return *trained, _fold_channels(mixture, separator.channels)
        separate, groups = match_channels(separator, mixture.shape[1]), permutation_groups(separator.sources)
        if groups:
            separate = aligned(separate, mixture, groups, references)
        bridge = as_bridge(separate, mixture, self.bridge)
        return bridge, list(range(len(bridge.sources))), mixture

    def _path_of(self, process: Bridge) -> str:
        """Return the name of the sampler for a process."""
        path = self.path or ("endpoint" if process.noiseless else "sde")
        if process.noiseless and path not in ("endpoint", "state"):
            raise ValueError(
                f"path={path!r}: {type(process).__name__} has no noise; choose endpoint or state"
            )
        return path


class as_bridge:  # noqa: N801, used like a function
    """Read a separator as the data predictor of a bridge that is not conditioned on the time.

    ``D(x_t, t) = f(x_t)``, for every source in its own state; at the mixture one call serves all of them.

    Args:
        separate: ``(n, c, t)`` to ``(n, s, c, t)``.
        mixture: ``(b, c, t)``, separated once, now.
        bridge: The process, in units of the mixture's root mean square; None for the straight line without
            noise.

    Attributes:
        evaluations: Separator calls so far.
    """

    def __init__(self, separate: Separator, mixture: Tensor, bridge: Bridge | None = None) -> None:
        self.bridge, self._separate, self._mixture = bridge or LinearBridge(), separate, mixture
        self._one_step, self.evaluations = separate(mixture), 1
        self.sources = tuple(str(source) for source in range(self._one_step.shape[1]))

    def level(self, mixture: Tensor) -> Tensor:
        """Return the root mean square of each item, ``(b, 1, 1, 1)``."""
        return (mixture.square().mean(dim=(1, 2))[:, None, None, None] + 1e-16).sqrt()

    def encode(self, waveforms: Tensor, level: Tensor) -> Tensor:
        """Return the waveforms over the level."""
        return waveforms / level

    def decode(self, states: Tensor, level: Tensor, time: int) -> Tensor:
        """Return the waveforms of states."""
        return states * level

    def denoise(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Estimate each source in its own state; for the mixture itself from the separation at hand."""
        level = self.level(self._mixture)
        if torch.equal(state, mixture.expand_as(state)):
            return self._one_step / level
        self.evaluations += len(self.sources)
        return separate_each(self._separate, state * level, t) / level


def _fold_channels(mixture: Tensor, channels: int) -> Tensor:
    """Return the channels of ``(b, c, t)`` as items, ``(b c, 1, t)``, for a mono bridge.

    Raises:
        ValueError: If a bridge of several channels gets another number of them.
    """
    if channels == mixture.shape[1]:
        return mixture
    if channels != 1:
        raise ValueError(f"mixture has {mixture.shape[1]} channels, the bridge {channels}: give {channels}")
    return rearrange(mixture, "b c t -> (b c) 1 t")
