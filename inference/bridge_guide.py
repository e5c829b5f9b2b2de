"""Samplers of bridges where refinement has guides: the same call, the same result, the same tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from encore.inference.bridge_sampling import Path, Start, check_path, sample_bridge, time_grid
from encore.inference.permutation import matching_order, reference_order, reorder
from encore.inference.refinement import Refinement
from encore.inference.refinement_run import Source
from encore.models.processes.bridge import Bridge, LinearBridge
from encore.models.types import Groups, Separator


@runtime_checkable
class HasBridge(Protocol):
    """A separator that was trained as a bridge's data predictor, and says how its states are made."""

    bridge: Bridge
    sources: tuple[str, ...]

    def level(self, mixture: Tensor) -> Tensor:
        """What states are in units of."""
        ...

    def encode(self, waveforms: Tensor, level: Tensor) -> Tensor:
        """Waveforms ``(b, n, c, t)`` to states."""
        ...

    def decode(self, states: Tensor, level: Tensor, time: int) -> Tensor:
        """States to waveforms ``(b, n, c, time)``."""
        ...

    def denoise(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """The sources in a state."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeSampler:
    """One way of sampling a bridge; takes the place of a `inference.Guide`.

    A separator that was trained as a bridge brings its own. Any other is read as the data predictor of
    ``bridge`` that is not told the time: ``D(x_t, t) = f(x_t)``, for each source in a state of its own.

    Args:
        steps: Steps, each one network call, or two but for the last one in second order.
        path: ``"sde"``, ``"ode"``, ``"renoise"``, ``"endpoint"`` or ``"state"``, see
            `encore.inference.sample_bridge`; None for the SDE where the bridge has noise, else endpoints.
        order: Of the ODE, 1 or 2.
        start: ``"noise"`` or ``"mean"``, see there.
        last_time: The time in [0, 1) at which sampling ends.
        bridge: Of separators without one; None for the straight line without noise. Its noise is in units of
            the mixture's root mean square.
        whole_path: Keep the estimates of all calls in the trajectory; else the first and the last state,
            which spares scoring the others.
        items: Sample only this many items, evenly spread; None for all.
        label: Name in tables and log keys.
    """

    steps: int = 30
    path: Path | None = None
    order: Literal[1, 2] = 1
    start: Start = "noise"
    last_time: float = 1e-4
    bridge: Bridge | None = None
    whole_path: bool = True
    items: int | None = None
    label: str | None = None

    kind: ClassVar[str] = "fixed"
    plain: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.last_time < 1:
            raise ValueError(
                f"steps={self.steps}, last_time={self.last_time}: give 1 or more, and a time in [0, 1)"
            )
        check_path(self.path or ("ode" if self.order == 2 else "sde"), self.order, self.start)

    @property
    def name(self) -> str:
        """The label if there is one, else the path, its order and the steps."""
        path = "" if self.path is None else f"_{self.path}"
        second = "2" if self.order == 2 else ""
        return self.label or f"bridge{path}{second}_{self.steps}"

    @property
    def evaluations(self) -> int:
        """Network calls, those of a source where each has a state of its own."""
        return self.steps if self.order == 1 else 2 * self.steps - 1

    def usable(self, reference: Tensor | None) -> bool:
        """Any item can be sampled."""
        return True

    @torch.no_grad()
    def __call__(
        self,
        separate: Separator,
        mixture: Tensor,
        *,
        source: Source = 0,
        interchangeable: bool | Groups = False,
        reference: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Refinement:
        """Sample ``(b, c, t)``.

        Args:
            separate: Maps ``(b, c, t)`` to ``(b, s, c, t)``; a bridge, or any other.
            mixture: ``(b, c, t)``.
            source: Index of the source to return, or ``"all"``.
            interchangeable: As for `encore.inference.refine`.
            reference: ``(b, s, c, t)``; for the order of interchangeable sources only.
            generator: For the noise.

        Returns:
            One step is the network's first estimate, the trajectory all of its estimates and at last the
            final state; ratios are the mixture's shares in the means of the states; scores are NaN.
        """
        process: HasBridge | _ReadAsBridge
        if isinstance(separate, HasBridge):
            process, chosen = separate, slice(None) if source == "all" else slice(source, source + 1)
        else:
            process, chosen = _ReadAsBridge(separate, self.bridge, mixture, source), slice(None)
            if interchangeable:
                process.put_in_order(interchangeable, reference)
        level, count = process.level(mixture), len(process.sources)
        start = process.encode(mixture[:, None], level)
        sample = sample_bridge(
            lambda state, t: process.denoise(state, t, start),
            start.expand(-1, count, *start.shape[2:]),
            process.bridge,
            time_grid(self.steps, start=process.bridge.start, end=self.last_time),
            path=self.path or ("endpoint" if process.bridge.noiseless else "sde"),
            order=self.order,
            start=self.start,
            generator=generator,
        )
        own, shares = [*sample.estimates, sample.state], sample.shares
        if not self.whole_path:
            own, shares = [own[0], own[-1]], [shares[0], shares[-1]]
        states = [state[:, chosen] for state in own]
        found = torch.stack([process.decode(state, level, mixture.shape[-1]) for state in states])
        if source != "all":
            found = found[:, :, 0]
        steps, batch = len(found) - 1, len(mixture)
        ratios = torch.tensor(shares[1:], dtype=mixture.dtype, device=mixture.device)
        calls = process.calls if isinstance(process, _ReadAsBridge) else sample.evaluations
        return Refinement(
            estimate=found[-1],
            one_step=found[0],
            trajectory=found,
            scores=mixture.new_full((steps + 1, batch), torch.nan),
            ratios=ratios[:, None].expand(steps, batch),
            evaluations=torch.full((batch,), calls, device=mixture.device),
        )


class _ReadAsBridge:
    """A one-step separator as the data predictor of a bridge of waveforms, for one mixture.

    Args:
        separate: Maps ``(b, c, t)`` to ``(b, s, c, t)``.
        bridge: The process; None for the straight line without noise.
        mixture: ``(b, c, t)``; separated once, now.
        source: The source to follow, or all, each in a state of its own.
    """

    def __init__(self, separate: Separator, bridge: Bridge | None, mixture: Tensor, source: Source) -> None:
        self.separate, self.bridge = separate, bridge or LinearBridge()
        self._mixture, self._first = mixture, separate(mixture)
        self._last, self.calls = self._first, 1
        count = self._first.shape[1]
        self._followed = list(range(count)) if source == "all" else [range(count)[source]]
        self._interchangeable: bool | Groups = False

    @property
    def sources(self) -> Sequence[int]:
        """Those that are followed."""
        return self._followed

    def put_in_order(self, interchangeable: bool | Groups, reference: Tensor | None) -> None:
        """Keep interchangeable sources apart from now on, in the order of the reference if there is one."""
        self._interchangeable = interchangeable
        if reference is not None:
            order = reference_order(self._first, reference, interchangeable)
            self._first = self._last = reorder(self._first, order)

    def level(self, mixture: Tensor) -> Tensor:
        """The root mean square of each item, ``(b, 1, 1, 1)``."""
        return (mixture.square().mean(dim=(1, 2))[:, None, None, None] + 1e-16).sqrt()

    def encode(self, waveforms: Tensor, level: Tensor) -> Tensor:
        """Waveforms over the level."""
        return waveforms / level

    def decode(self, states: Tensor, level: Tensor, time: int) -> Tensor:
        """At the level again."""
        return states * level

    def denoise(self, state: Tensor, t: Tensor, mixture: Tensor) -> Tensor:
        """Each followed source as it is found in its own state; the mixture itself was separated already."""
        level = self.level(self._mixture)
        if torch.equal(state, mixture.expand_as(state)):
            return self._first[:, self._followed] / level
        found = []
        for place, source in enumerate(self._followed):
            estimates = self.separate(state[:, place] * level[:, 0])
            self.calls += 1
            if self._interchangeable:
                estimates = reorder(estimates, matching_order(estimates, self._last, self._interchangeable))
            found.append(estimates[:, source])
        stacked = torch.stack(found, dim=1)
        if len(self._followed) == self._last.shape[1]:
            self._last = stacked
        return stacked / level
